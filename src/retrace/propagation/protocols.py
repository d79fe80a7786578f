"""Published inference settings, each a named constant with its source. A result always names its protocol."""

from dataclasses import dataclass, field

from retrace.propagation.context import RECENT
from retrace.walk.readout import Rules


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
        rules: window, top-k, softmax and temperature of the readout.
        normalise_features: L2-normalise the nodes.
        feed_back: "soft" stores the labels as read; "minmax" stretches every class to [0, 1] over the frame first.
        output: "argmax" of the enlarged labels, or "minmax": every class stretched to [0, 1] over the frame first.
        seed: how a mask reaches the grid and comes back: "bilinear" (one-hot planes, half-pixel centres) and "nearest"
            are the published ways; "area" averages over cells placed on the nodes, which sit on pixels 0, stride, ...
        size: None keeps the video's size; one number is the short side; two are (height, width). Pixels.
    """

    name: str
    source: str
    num_context: int
    recent: str = "repeated"
    add_first: bool = True
    window_first: bool = False
    rules: Rules = field(default_factory=Rules)
    normalise_features: bool = True
    feed_back: str = "soft"
    output: str = "argmax"
    seed: str = "bilinear"
    size: int | tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Errors: ValueError naming the field, what it was and what it may be."""
        if self.num_context < 0 or (self.num_context == 0 and not self.add_first):
            raise ValueError(f"num_context is {self.num_context}; expected at least 1, or 0 with add_first")
        choices = {
            "recent": tuple(RECENT),
            "feed_back": ("soft", "minmax"),
            "output": ("argmax", "minmax"),
            "seed": ("area", "bilinear", "nearest"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(allowed)}")


def _vfs(
    name: str, source: str, num_context: int, rules: Rules, size: int | tuple[int, int] | None
) -> Protocol:
    """The dialect that VFS wrote and StT took over."""
    return Protocol(
        name,
        source,
        num_context,
        recent="available",
        window_first=True,
        rules=rules,
        output="minmax",
        seed="nearest",
        size=size,
    )


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "default",
            "CRW paper's numbers, labels on the nodes",
            20,
            rules=Rules(0.07, 10, "disc", 12),
            seed="area",
        ),
        Protocol("crw-davis", "CRW released command; STFC3 at 480p", 20, rules=Rules(0.05, 10, "disc", 12)),
        Protocol("crw-paper-davis", "CRW paper, section 4.1", 20, rules=Rules(0.07, 10, "disc", 12)),
        Protocol(
            "stfc3-davis", "STFC3 Table 6 (r = 18 at 720p)", 20, rules=Rules(0.05, 10, "disc", 18), size=720
        ),
        Protocol("crw-jhmdb", "CRW released command", 7, rules=Rules(0.05, 10, "disc", 12), size=(320, 320)),
        Protocol(
            "stfc3-jhmdb", "STFC3 section 4.1, Table 6", 7, rules=Rules(0.05, 10, "disc", 10), size=(640, 640)
        ),
        Protocol("crw-vip", "CRW, re-run", 4, rules=Rules(0.05, 10, "disc", 12), size=(560, 560)),
        Protocol("stfc3-300vw", "STFC3 Table 6", 4, rules=Rules(0.05, 10, "disc", 5), size=(320, 320)),
        _vfs("vfs-r18-davis", "VFS released", 20, Rules(0.07, 10, "disc", 12), 480),
        _vfs("vfs-r50-davis", "VFS released", 20, Rules(0.07, 10, "disc", 18), 480),
        _vfs("vfs-jhmdb", "VFS released [open: size]", 4, Rules(0.2, 20, "disc", None), 320),
        Protocol(
            "vfs-vip",
            "VFS released [open]",
            1,
            rules=Rules(0.2, 10, "disc", 12),
            size=(560, 560),
            recent="available",
            output="minmax",
            seed="nearest",
        ),
        _vfs("stt-davis", "StT released, stride 8", 20, Rules(0.07, 10, "square", 12), 480),
        _vfs("stt-stride4-davis", "StT released, stride 4", 20, Rules(0.07, 10, "square", 35), 480),
        _vfs("stt-jhmdb", "StT released, stride 8", 20, Rules(0.07, 10, "square", 5), (320, 320)),
        _vfs("stt-vip", "StT released, stride 8", 20, Rules(0.07, 10, "square", 16), (560, 560)),
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
        Protocol(
            "timecycle-davis",
            "TimeCycle released, videoLen 8",
            7,
            rules=Rules(512**-0.5, 5, "disc", None, joint=False, softmax="frame"),
            feed_back="minmax",
            size=(320, 320),
        ),
    )
}
