"""The import law of docs/house.md, read off the source; and importing the package does nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import retrace

SOURCE = Path(__file__).resolve().parents[1] / "src" / "retrace"
SHARED = {"errors", "files", "devices", "threads"}  # whoever fails, writes a file, computes, or reads ahead
RECORDS = "datasets.records"  # Video, Sequence: plain descriptions of what is on disk

# package -> what it may import of ours, itself and SHARED aside; "a.b" is one module of a package
BELOW_STUDIES = {
    "walk",
    "encoders",
    "methods",
    "video",
    "synthetic",
    "datasets",
    "propagation",
    "tracking",
    "metrics",
    "formats",
}
LAW: dict[str, set[str]] = {
    "errors": set(),
    "files": set(),
    "devices": set(),
    "threads": set(),
    "walk": set(),
    "metrics": {RECORDS},
    "datasets": set(),
    "formats": {RECORDS},
    "encoders": {"walk"},
    "video": {RECORDS, "walk.warp"},
    "synthetic": {"walk.warp", RECORDS},
    "methods": {"walk", "encoders", "video.transforms", "video.sampling"},
    "propagation": {"walk", "encoders"},
    "tracking": {"walk", "encoders"},
    "training": {"methods", "encoders", "video", "datasets", "synthetic"},
    "viz": {"walk", "propagation"},
    "benchmarks": BELOW_STUDIES,
    "studies": BELOW_STUDIES | {"benchmarks"},
    "recipes": set(),
    "verbs": BELOW_STUDIES | {"training", "viz", "benchmarks", "studies", "recipes"},
    "cli": BELOW_STUDIES | {"training", "viz", "benchmarks", "studies", "recipes", "verbs"},
    "__main__": {"cli"},
    "web": BELOW_STUDIES | {"training", "viz", "benchmarks", "studies", "recipes", "verbs"},
}


def imports(path: Path) -> list[tuple[int, str]]:
    """(line, dotted name inside retrace) of everything of ours that a file imports, at whatever depth of the code."""
    package = ("retrace", *path.relative_to(SOURCE).parts[:-1])
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            origin = ".".join(part for part in (base, node.module) if part)
            # `from retrace.video import decode` may name a module: look at the longer name.
            names = [f"{origin}.{alias.name}" for alias in node.names]
        else:
            continue
        found += [
            (node.lineno, name.removeprefix("retrace.")) for name in names if name.startswith("retrace.")
        ]
        found += [(node.lineno, "") for name in names if name == "retrace"]
    return found


def allowed(owner: str, name: str) -> bool:
    """Whether a file of package `owner` may import `name` (dotted, without the leading `retrace.`)."""
    if name == "__version__":
        return True
    parts = name.split(".")
    granted = LAW[owner] | SHARED | {owner}
    return any(".".join(parts[:depth]) in granted for depth in range(1, len(parts) + 1))


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_imports_only_what_it_may(path: Path) -> None:
    """Walk one file's imports against the law."""
    relative = path.relative_to(SOURCE)
    if relative == Path("__init__.py"):
        return  # the public API names everything, lazily
    owner = relative.parts[0].removesuffix(".py")
    assert owner in LAW, f"{owner} is not in the law: say what it may import, here and in docs/house.md"
    broken = [f"line {line}: {name or 'retrace'}" for line, name in imports(path) if not allowed(owner, name)]
    assert not broken, f"src/retrace/{relative} may not import {'; '.join(broken)}"


def test_one_method_never_imports_another() -> None:
    """A formula that two papers need moves to walk/."""
    papers = {path.stem for path in (SOURCE / "methods").glob("*.py")} - {
        "__init__",
        "checks",
        "losses",
        "rebuilding",
    }
    for path in (SOURCE / "methods").glob("*.py"):
        if path.stem in papers:
            used = {name.split(".")[1] for _, name in imports(path) if name.startswith("methods.")}
            assert not used & (papers - {path.stem}), f"{path.name} imports {used & papers}"


@pytest.mark.parametrize(
    ("owner", "name", "fine"),
    [
        ("walk", "encoders", False),
        ("walk", "walk.nodes", True),
        ("walk", "errors.RetraceError", True),
        ("synthetic", "walk.warp.compose", True),
        ("synthetic", "walk.affinity", False),
        ("synthetic", "walk", False),
        ("encoders", "__version__", True),
        ("verbs", "cli.main", False),
        ("verbs", "", False),
    ],
)
def test_the_law_itself(owner: str, name: str, fine: bool) -> None:
    """The reader of the law reads it as meant."""
    assert allowed(owner, name) is fine


def test_importing_retrace_costs_nothing() -> None:
    """`import retrace` loads no heavy library; the public names come when asked for."""
    heavy = "'torch', 'numpy', 'cv2', 'av', 'lightning', 'jsonargparse'"
    code = f"import sys, retrace; print([name for name in ({heavy}) if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
    assert run.stderr == ""


def test_every_public_name_is_there() -> None:
    """`__all__` lists what exists, and nothing else is promised."""
    for name in retrace.__all__:
        assert getattr(retrace, name) is not None
    assert set(retrace.__all__) <= set(dir(retrace))
    with pytest.raises(AttributeError, match="teleport"):
        _ = retrace.teleport  # type: ignore[attr-defined]
