"""Retrace learns visual correspondence from raw video and carries any label from one frame to all the others.

    import retrace
    model = retrace.load("default")
    result = retrace.propagate("clip.mp4", labels="frame0.png", model=model)
    for frame in result:
        frame.index, frame.masks, frame.confidence

The names in `__all__` are the public API. Importing the package costs nothing: a name is imported when first used.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from retrace.encoders import Model, load, save
    from retrace.errors import RetraceError, UsageError
    from retrace.propagation.protocols import PROTOCOLS, Protocol
    from retrace.synthetic import Scene, SceneConfig, render
    from retrace.verbs.demo import demo
    from retrace.verbs.evaluate import evaluate
    from retrace.verbs.export import export
    from retrace.verbs.propagate import propagate
    from retrace.verbs.study import study
    from retrace.verbs.track import track
    from retrace.verbs.train import train

__all__ = [
    "PROTOCOLS",
    "Model",
    "Protocol",
    "RetraceError",
    "Scene",
    "SceneConfig",
    "UsageError",
    "__version__",
    "demo",
    "evaluate",
    "export",
    "load",
    "propagate",
    "render",
    "save",
    "study",
    "track",
    "train",
]

_HOME = {
    "Model": "retrace.encoders",
    "load": "retrace.encoders",
    "save": "retrace.encoders",
    "RetraceError": "retrace.errors",
    "UsageError": "retrace.errors",
    "PROTOCOLS": "retrace.propagation.protocols",
    "Protocol": "retrace.propagation.protocols",
    "Scene": "retrace.synthetic",
    "SceneConfig": "retrace.synthetic",
    "render": "retrace.synthetic",
    "demo": "retrace.verbs.demo",
    "evaluate": "retrace.verbs.evaluate",
    "export": "retrace.verbs.export",
    "propagate": "retrace.verbs.propagate",
    "study": "retrace.verbs.study",
    "track": "retrace.verbs.track",
    "train": "retrace.verbs.train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'retrace' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
