"""Published inference settings, each a named constant with its source. A result always names its protocol."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from retrace.encoders.model import Model
from retrace.propagation.codecs import KEYPOINT_DIALECTS, OUTPUTS, Geometry, KeypointCodec, MaskCodec
from retrace.propagation.context import RECENT
from retrace.walk.readout import Rules

DETAILS = ("plain", "closer", "both_sizes", "by_size")
SMALL_SHORT_SIDE = 288
"""Up to this short side, pixels, "by_size" is "closer": what moves is small for the encoder's stride."""


@dataclass(frozen=True)
class Protocol:
    """How labels are propagated.

    Attributes:
        name: as users say it.
        source: where the numbers come from.
        num_context: m, recent frames read from.
        recent: which ones before m frames exist, a key of `context.RECENT`.
        add_first: read from the seed frame always, in addition.
        window_first: the window also holds for that added first frame.
        reread_first: the seed frame first reads from itself, and what it read are its labels as a recent frame; the
            added first frame keeps those that were given. TimeCycle puts copies of the seed frame before the video.
        rules: window, top-k, softmax and temperature of the readout.
        normalise_features: L2-normalise the nodes.
        whiten: None compares nodes as the encoder gives them. A number from 0 to 1 first subtracts the mean node of the
            seed frame and divides by that power of the spread of its nodes in every direction (`walk.nodes.whitening`):
            0 only centres, 1 makes all directions count alike. Not in any of the papers.
        feed_back: "soft" stores the labels as read; "minmax" stretches every class to [0, 1] over the frame first.
        output: "argmax" of the enlarged labels; "minmax" stretches every class to [0, 1] over the frame first; "raised"
            (ours) does so at most fourfold, see `codecs.MaskCodec`.
        seed: how a mask reaches the grid and comes back: "bilinear" (one-hot planes, half-pixel centres) and "nearest"
            are the published ways; "area" averages over cells placed on the nodes, which sit on pixels 0, stride, ...
        seed_at: "frame", or "network": masks are brought to the encoder's input size first, see `codecs.MaskCodec`.
        read_at: "frame", or "network": masks are read at the encoder's input size.
        min_pixels: objects that cover fewer pixels get no labels.
        keypoints: how keypoints are drawn and read, see `codecs.KeypointCodec`.
        size: None keeps the video's size; one number is the short side; two are (height, width). Pixels.
        detail: "plain" reads the encoder as it is, as all papers do. "closer" has nodes twice as close, searched coarse
            to fine (`Rules.finer`). "both_sizes" stands the features of the frame at half its size beside them
            (`encoders.pyramid`). "by_size" is the one or the other, see `seen_at`. Not in any of the papers.
    """

    name: str
    source: str
    num_context: int
    recent: str = "repeated"
    add_first: bool = True
    window_first: bool = False
    reread_first: bool = False
    rules: Rules = field(default_factory=Rules)
    normalise_features: bool = True
    whiten: float | None = None
    feed_back: str = "soft"
    output: str = "argmax"
    seed: str = "bilinear"
    seed_at: str = "frame"
    read_at: str = "frame"
    min_pixels: int = 0
    keypoints: str = "crw"
    size: int | tuple[int, int] | None = None
    detail: str = "plain"

    def __post_init__(self) -> None:
        """Errors: ValueError naming the field, what it was and what it may be."""
        if self.num_context < 0 or (self.num_context == 0 and not self.add_first):
            raise ValueError(f"num_context is {self.num_context}; expected at least 1, or 0 with add_first")
        if self.whiten is not None and not 0 <= self.whiten <= 1:
            raise ValueError(f"whiten is {self.whiten}; expected a number from 0 to 1, or None")
        choices = {
            "recent": tuple(RECENT),
            "feed_back": ("soft", "minmax"),
            "output": OUTPUTS,
            "seed": ("area", "bilinear", "nearest"),
            "seed_at": ("frame", "network"),
            "read_at": ("frame", "network"),
            "keypoints": KEYPOINT_DIALECTS,
            "detail": DETAILS,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(allowed)}")
        if self.rules.finer > 1:
            raise ValueError(f"finer is {self.rules.finer}; leave it at 1, detail 'closer' sets it")
        if self.detail == "closer" and not self.rules.can_be_finer:
            raise ValueError(
                "detail 'closer' looks round k kept nodes; it needs top_k, joint=True, softmax='kept' and "
                "keep_ties=False"
            )

    def seen_at(self, height: int, width: int, model: Model, *, outlines: bool = True) -> "Protocol":
        """The protocol for frames that the encoder sees at H x W: with a `detail` that is not "by_size".

        "by_size" is "closer" up to a short side of `SMALL_SHORT_SIDE` and "both_sizes" above where `outlines` are
        carried, masks or parts; points and coordinates lose by the frame at half its size (docs/protocols.md). It is
        "plain" for all else, for an encoder that has no stride to leave out, and for rules that keep no k nodes.
        """
        if self.detail != "by_size":
            return self
        small = min(height, width) <= SMALL_SHORT_SIDE
        if not small and not outlines:
            return replace(self, detail="plain")
        possible = model.can_be_closer and (self.rules.can_be_finer or not small)
        return replace(self, detail=("closer" if small else "both_sizes") if possible else "plain")

    def mask_codec(self, ids: Sequence[int], geometry: Geometry) -> MaskCodec:
        """Masks or part maps under these rules."""
        return MaskCodec(
            ids,
            geometry,
            seed=self.seed,
            output=self.output,
            seed_at=self.seed_at,
            read_at=self.read_at,
            min_pixels=self.min_pixels,
        )

    def keypoint_codec(self, names: Sequence[str], geometry: Geometry) -> KeypointCodec:
        """Keypoints under these rules."""
        return KeypointCodec(names, geometry, dialect=self.keypoints)


def for_coordinates(protocol: Protocol) -> Protocol:
    """The protocol for labels that are coordinates (boxes, textures, flow): no classes, so nothing is stretched."""
    return replace(protocol, feed_back="soft")


def between_two(protocol: Protocol) -> Protocol:
    """The protocol for coordinates between two frames: the other frame, once and inside the window, is the context.

    Published contexts repeat the first frame until there are others; the k best of two frames would then be k times
    the very best node. Window, top-k, temperature, softmax, nodes and size stay.
    """
    return for_coordinates(
        replace(protocol, num_context=0, add_first=True, window_first=True, reread_first=False)
    )


Size = int | tuple[int, int] | None

CRW, STFC3, VFS, STT = "CRW released command", "STFC3 Table 6", "VFS released", "StT released"


def _crw(name: str, source: str, num_context: int, rules: Rules, size: Size = None) -> Protocol:
    """The dialect of CRW, which STFC3 took over."""
    return Protocol(name, source, num_context, rules=rules, size=size)


def _vfs(
    name: str, source: str, num_context: int, rules: Rules, size: Size, *, window_first: bool = True
) -> Protocol:
    """The dialect of VFS, which StT took over."""
    return Protocol(
        name,
        source,
        num_context,
        recent="available",
        window_first=window_first,
        rules=rules,
        output="minmax",
        seed="nearest",
        seed_at="network",
        keypoints="vfs",
        size=size,
    )


def _timecycle(name: str, source: str, num_context: int, top_k: int, size: Size) -> Protocol:
    """The dialect of TimeCycle. Its counter drops labels of up to 11 pixels."""
    return Protocol(
        name,
        source,
        num_context,
        reread_first=True,
        rules=Rules(512**-0.5, top_k, "disc", None, joint=False, softmax="frame"),
        feed_back="minmax",
        seed_at="network",
        read_at="network",
        min_pixels=12,
        size=size,
    )


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "default",
            "CRW paper's numbers; labels on the nodes, read between them; nodes whitened by 0.5; classes raised",
            20,
            rules=Rules(0.2, 10, "disc", 12, subcell=True),
            whiten=0.5,
            output="raised",
            seed="area",
            keypoints="exact",
            detail="by_size",
        ),
        Protocol(
            "flow",
            "ours: least end-point error on generated scenes",
            0,
            window_first=True,
            rules=Rules(0.02, 4, "disc", 12, subcell=True),
            whiten=0.5,
            seed="area",
            keypoints="exact",
        ),
        _crw("crw-davis", CRW, 20, Rules(0.05, 10, "disc", 12)),
        _crw("crw-paper-davis", "CRW paper, section 4.1", 20, Rules(0.07, 10, "disc", 12)),
        _crw("stfc3-davis", f"{STFC3} (r = 18 at 720p)", 20, Rules(0.05, 10, "disc", 18), 720),
        _crw("stfc3-480p-davis", "STFC3 at 480p", 20, Rules(0.05, 10, "disc", 12), 480),
        _crw("crw-jhmdb", "CRW, re-run", 7, Rules(0.05, 10, "disc", 12), (320, 320)),
        _crw("crw-paper-jhmdb", "CRW paper [open: radius]", 7, Rules(0.07, 10, "disc", 10), (320, 320)),
        _crw("stfc3-jhmdb", "STFC3 section 4.1, Table 6", 7, Rules(0.05, 10, "disc", 10), (640, 640)),
        _crw("crw-vip", "CRW, re-run", 4, Rules(0.05, 10, "disc", 12), (560, 560)),
        _crw("crw-paper-vip", "CRW paper, as DAVIS", 20, Rules(0.07, 10, "disc", 12), (560, 560)),
        _crw("stfc3-vip", "as stfc3-480p-davis", 20, Rules(0.05, 10, "disc", 12), (560, 560)),
        _crw("stfc3-300vw", STFC3, 4, Rules(0.05, 10, "disc", 5), (320, 320)),
        _vfs("vfs-r18-davis", VFS, 20, Rules(0.07, 10, "disc", 12), 480),
        _vfs("vfs-r50-davis", VFS, 20, Rules(0.07, 10, "disc", 18), 480),
        _vfs("vfs-jhmdb", f"{VFS} [open: size]", 4, Rules(0.2, 20, "disc", None), 320),
        _vfs("vfs-vip", f"{VFS} [open]", 1, Rules(0.2, 10, "disc", 12), (560, 560), window_first=False),
        _vfs("stt-davis", f"{STT}, stride 8", 20, Rules(0.07, 10, "square", 12), 480),
        _vfs("stt-jhmdb", f"{STT}, stride 8", 20, Rules(0.07, 10, "square", 5), (320, 320)),
        _vfs("stt-vip", f"{STT}, stride 8", 20, Rules(0.07, 10, "square", 16), (560, 560)),
        _vfs("stt-stride4-davis", f"{STT}, stride 4", 20, Rules(0.07, 10, "square", 35), 480),
        _vfs("stt-stride4-jhmdb", f"{STT}, stride 4", 20, Rules(0.07, 10, "square", 12), (320, 320)),
        _vfs("stt-stride4-vip", f"{STT}, stride 4", 20, Rules(0.07, 10, "square", 35), (560, 560)),
        Protocol(
            "dino-davis",
            "DINO evaluation script",
            7,
            recent="without_first",
            window_first=True,
            rules=Rules(0.1, 5, "square", 12, keep_ties=True),
            output="minmax",
            seed="nearest",
            size=480,
        ),
        _timecycle("timecycle-davis", "TimeCycle released, videoLen 8", 7, 5, (320, 320)),
        _timecycle("timecycle-jhmdb", "TimeCycle, code of a successor [open]", 7, 20, (320, 320)),
        _timecycle("timecycle-vip", "TimeCycle released, videoLen 2", 1, 5, (560, 560)),
    )
}
