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
    """Benchmark -> metric key -> number, in percent."""
    protocol: dict[str, str] = field(default_factory=dict)
    """Benchmark -> name of the protocol it was made with; absent where it is not known."""


def _row(
    method: str,
    backbone: str,
    davis: float | None = None,
    vip: float | None = None,
    jhmdb: tuple[float, float] | None = None,
    protocol: dict[str, str] | None = None,
) -> Published:
    scores: dict[str, dict[str, float]] = {}
    if davis is not None:
        scores["davis2017"] = {"J&F": davis}
    if vip is not None:
        scores["vip"] = {"mIoU": vip}
    if jhmdb is not None:
        scores["jhmdb"] = {"PCK@0.1": jhmdb[0], "PCK@0.2": jhmdb[1]}
    return Published(method, backbone, scores, protocol or {})


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
    _row("CRW", "ResNet-18", 67.6, 38.6, (59.3, 80.3), protocol=_CRW),
    _row("STFC3", "ResNet-18", 60.5, None, (62.0, 80.5), protocol=_STFC3),
    _row("VFS", "ResNet-18", 66.7, 39.9, (60.5, 79.5), protocol={"davis2017": "vfs-r18-davis", **_VFS}),
    _row("VFS", "ResNet-50", 68.9, 43.2, (60.9, 80.7), protocol={"davis2017": "vfs-r50-davis", **_VFS}),
    _row("StT, stride 8", "ResNet-18", 70.5, 41.0, (63.1, 82.9), protocol=_STT),
    _row("StT, stride 8", "ResNet-50", 71.3, protocol=_STT),
    _row("StT, stride 4", "ResNet-18", 73.1, 42.0, (65.6, 83.8), protocol=_STT4),
    _row("StT, stride 4", "ResNet-50", 74.1, 42.8, (66.4, 84.4), protocol=_STT4),
    _row("ImageNet, supervised", "ResNet-18", 62.9, 31.9, (53.8, 74.6)),
    _row("ImageNet, supervised", "ResNet-50", 66.0, 39.5, (59.2, 78.3)),
    _row("DINO", "ViT-S/16", 61.8, protocol=_DINO),
    _row("DINO", "ViT-S/8", 69.9, protocol=_DINO),
    _row("DINO", "ViT-B/8", 71.4, protocol=_DINO),
    _row("DINOv3", "ViT-S", 72.7),
    _row("DINOv3", "ViT-B", 77.2),
    _row("DINOv3", "ViT-L", 79.9),
    _row("DINOv3", "ViT-7B", 79.7),
)


def beside(benchmark: str) -> list[Published]:
    """The rows that have a number on a benchmark."""
    return [row for row in PUBLISHED if benchmark in row.scores]
