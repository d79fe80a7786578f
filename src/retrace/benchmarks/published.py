"""Published numbers to put beside ours, with the protocol they were made with.

From the papers and, where it says so, re-runs of their released weights (docs/protocols.md). Shares times 100.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Published:
    """One row."""

    method: str
    backbone: str
    scores: dict[str, dict[str, float]]
    """Benchmark -> metric key -> number; shares in percent."""
    protocol: dict[str, str] = field(default_factory=dict)
    """Benchmark -> name of the protocol it was made with; absent where it is not known."""
    options: dict[str, dict[str, str]] = field(default_factory=dict)
    """Benchmark -> its options that the number was made with, such as PCK's dialect."""


def _reconstruction(method: str, backbone: str, gap5: float, gap10: float) -> Published:
    """A row of TimeCycle's Table 5."""
    return Published(method, backbone, {"reconstruction": {"L1_5": gap5, "L1_10": gap10}})


def _row(
    method: str,
    backbone: str,
    davis: float | None = None,
    vip: float | None = None,
    jhmdb: tuple[float, float] | None = None,
    protocol: dict[str, str] | None = None,
    dialect: str | None = None,
) -> Published:
    scores: dict[str, dict[str, float]] = {}
    if davis is not None:
        scores["davis2017"] = {"J&F": davis}
    if vip is not None:
        scores["vip"] = {"mIoU": vip}
    if jhmdb is not None:
        scores["jhmdb"] = {"PCK@0.1": jhmdb[0], "PCK@0.2": jhmdb[1]}
    return Published(
        method, backbone, scores, protocol or {}, {} if dialect is None else {"jhmdb": {"dialect": dialect}}
    )


def _imagenet(method: str, top1: float) -> Published:
    """VFS's Table 5, ResNet-18, 2 frames of Kinetics."""
    scores, settings = {"imagenet": {"top1": top1}}, {"imagenet": {"features": "res5"}}
    return Published(method, "ResNet-18", scores, {"imagenet": "vfs"}, settings)


def _otb(method: str, backbone: str, precision: float, success: float, *, head: bool = True) -> Published:
    """VFS's Tables 2 to 6 (frozen) and 8 (with two 1x1 convolutions trained for tracking)."""
    return Published(
        f"{method}, {'1x1 head' if head else 'frozen'}",
        backbone,
        {"otb": {"precision": precision, "success": success}},
        {"otb": "vfs-r18" if backbone == "ResNet-18" else "vfs-r50"},
        {"otb": {"features": "res5-paper"}},
    )


_TIMECYCLE = {"davis2017": "timecycle-davis", "vip": "timecycle-vip", "jhmdb": "timecycle-jhmdb"}
_CRW = {"davis2017": "crw-davis", "vip": "crw-paper-vip", "jhmdb": "crw-paper-jhmdb"}
_STFC3 = {"davis2017": "stfc3-davis", "jhmdb": "stfc3-jhmdb"}
_VFS = {"vip": "vfs-vip", "jhmdb": "vfs-jhmdb"}
_STT = {"davis2017": "stt-davis", "vip": "stt-vip", "jhmdb": "stt-jhmdb"}
_STT4 = {"davis2017": "stt-stride4-davis", "vip": "stt-stride4-vip", "jhmdb": "stt-stride4-jhmdb"}
_DINO = {"davis2017": "dino-davis"}

PUBLISHED: tuple[Published, ...] = (
    _row("Identity", "-", 22.9, 13.6, (43.1, 64.5)),
    _row("TimeCycle", "ResNet-18", 39.2, None, (57.3, 78.1), protocol=_TIMECYCLE),
    _row("TimeCycle", "ResNet-50", 40.7, 28.9, (57.7, 78.5), protocol=_TIMECYCLE),
    _row("MAST", "ResNet-18, stride 4", 65.5),
    _row("CRW", "ResNet-18", 67.6, 38.6, (59.3, 80.3), protocol=_CRW, dialect="crw"),
    _row("STFC3", "ResNet-18", 60.5, None, (62.0, 80.5), protocol=_STFC3, dialect="crw"),
    _row(
        "VFS",
        "ResNet-18",
        66.7,
        39.9,
        (60.5, 79.5),
        protocol={"davis2017": "vfs-r18-davis", **_VFS},
        dialect="vfs",
    ),
    _row(
        "VFS",
        "ResNet-50",
        68.9,
        43.2,
        (60.9, 80.7),
        protocol={"davis2017": "vfs-r50-davis", **_VFS},
        dialect="vfs",
    ),
    _row("StT, stride 8", "ResNet-18", 70.5, 41.0, (63.1, 82.9), protocol=_STT, dialect="vfs"),
    _row("StT, stride 8", "ResNet-50", 71.3, protocol=_STT),
    _row("StT, stride 4", "ResNet-18", 73.1, 42.0, (65.6, 83.8), protocol=_STT4, dialect="vfs"),
    _row("StT, stride 4", "ResNet-50", 74.1, 42.8, (66.4, 84.4), protocol=_STT4, dialect="vfs"),
    _row("ImageNet, supervised", "ResNet-18", 62.9, 31.9, (53.8, 74.6)),
    _row("ImageNet, supervised", "ResNet-50", 66.0, 39.5, (59.2, 78.3)),
    _row("DINO", "ViT-S/16", 61.8, protocol=_DINO),
    _row("DINO", "ViT-S/8", 69.9, protocol=_DINO),
    _row("DINO", "ViT-B/8", 71.4, protocol=_DINO),
    _row("DINOv3", "ViT-S", 72.7),
    _row("DINOv3", "ViT-B", 77.2),
    _row("DINOv3", "ViT-L", 79.9),
    _row("DINOv3", "ViT-7B", 79.7),
    _reconstruction("Identity", "-", 82.0, 97.7),
    _reconstruction("FlowNet2", "FlowNet2", 62.4, 90.3),
    _reconstruction("ImageNet, supervised", "ResNet-50", 64.0, 79.2),
    _reconstruction("TimeCycle", "ResNet-50", 60.4, 76.4),
    _otb("VFS, 2 frames", "ResNet-18", 48.1, 37.9, head=False),
    _otb("VFS, 2 frames, negatives", "ResNet-18", 39.0, 31.7, head=False),
    _otb("VFS, 2 frames, colour", "ResNet-18", 57.3, 43.0, head=False),
    _otb("VFS, 8 frames, colour", "ResNet-18", 59.0, 43.8, head=False),
    _otb("VFS, 2 frames", "ResNet-50", 47.4, 34.6, head=False),
    _otb("VFS, 2 frames, colour", "ResNet-50", 59.5, 43.4, head=False),
    _otb("ImageNet, supervised", "ResNet-18", 61.4, 43.0),
    _otb("MoCo", "ResNet-18", 62.0, 47.0),
    _otb("CRW", "ResNet-18", 52.6, 40.1),
    _otb("VFS", "ResNet-18", 68.9, 52.2),
    _otb("VFS, released weights", "ResNet-18", 70.0, 52.3),
    _otb("ImageNet, supervised", "ResNet-50", 65.8, 45.5),
    _otb("SeCo", "ResNet-50", 71.9, 51.8),
    _otb("VFS", "ResNet-50", 73.9, 52.5),
    _imagenet("VFS", 22.0),
    _imagenet("VFS, negatives", 24.2),
    _imagenet("VFS, colour", 31.8),
    _imagenet("VFS, negatives, colour", 33.8),
)


def beside(benchmark: str) -> list[Published]:
    """The rows that have a number on a benchmark."""
    return [row for row in PUBLISHED if benchmark in row.scores]
