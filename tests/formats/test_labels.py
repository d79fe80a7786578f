"""Labels of any kind find their frames."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from retrace.errors import RetraceError, UsageError
from retrace.formats.davis_png import write_mask
from retrace.formats.labels import read_labels
from retrace.formats.textures import write_texture

SIZE = (40, 64)


def block(value: int = 1) -> NDArray[np.uint8]:
    """A mask with one block."""
    ids = np.zeros(SIZE, dtype=np.uint8)
    ids[10:20, 8:30] = value
    return ids


def test_kinds_are_told_apart(tmp_path: Path) -> None:
    """By ending, content, and for RGBA by the number of colours."""
    write_mask(tmp_path / "m.png", block())
    (tmp_path / "k.json").write_text('{"keypoints": [[3, 4]]}')
    (tmp_path / "b.json").write_text('{"boxes": [[3, 4, 5, 6]]}')
    (tmp_path / "k.csv").write_text("name,x,y\na,3,4\n")
    (tmp_path / "b.csv").write_text("x,y,w,h\n3,4,5,6\n")
    gradient = np.dstack(
        [
            np.tile(np.arange(64, dtype=np.uint8), (40, 3, 1)).reshape(40, 3, 64).transpose(0, 2, 1),
            block() * 255,
        ]
    )
    write_texture(tmp_path / "t.png", gradient)
    flat = np.dstack([block(90), block(20), block(10), block(255)])
    write_texture(tmp_path / "flat.png", flat)
    found = {p.name: read_labels(p, size=SIZE).kind for p in tmp_path.iterdir()}
    assert found == {
        "m.png": "mask",
        "k.json": "keypoints",
        "b.json": "boxes",
        "k.csv": "keypoints",
        "b.csv": "boxes",
        "t.png": "texture",
        "flat.png": "mask",
    }
    assert read_labels(tmp_path / "flat.png", size=SIZE, kind="texture").kind == "texture"
    assert read_labels(tmp_path / "m.png", size=SIZE, kind="parts").kind == "parts"


def test_folder_of_a_frame_folder(tmp_path: Path) -> None:
    """Masks are matched by name, in the order of the frames."""
    for name in ("b", "d"):
        write_mask(tmp_path / f"{name}.png", block())
    labels = read_labels(tmp_path, size=SIZE, names=["a", "b", "c", "d"], num_frames=4)
    assert list(labels.frames) == [1, 3]
    assert labels.first == 1
    with pytest.raises(RetraceError, match=r"d\.png belongs to no frame.*a to c"):
        read_labels(tmp_path, size=SIZE, names=["a", "b", "c"], num_frames=3)
    with pytest.raises(RetraceError, match="holds 2 masks, the video has 1 frames"):
        read_labels(tmp_path, size=SIZE, names=["b"], num_frames=1)


def test_folder_of_a_video(tmp_path: Path) -> None:
    """Masks are matched by number; later ones may be empty."""
    write_mask(tmp_path / "00002.png", block())
    write_mask(tmp_path / "7.png", block(0))
    assert list(read_labels(tmp_path, size=SIZE).frames) == [2, 7]
    with pytest.raises(RetraceError, match="labels frame 7, but the video's frames are 0 to 4"):
        read_labels(tmp_path, size=SIZE, num_frames=5)
    write_mask(tmp_path / "first.png", block())
    with pytest.raises(RetraceError, match="belongs to no frame: expected its frame number"):
        read_labels(tmp_path, size=SIZE)


def test_arrays_and_dicts() -> None:
    """The same labels in memory; the hash tells them apart."""
    one = read_labels(block(), size=SIZE)
    assert one.sha256 != read_labels(block(2), size=SIZE).sha256
    assert list(read_labels({4: block(), 0: block(3)}, size=SIZE).frames) == [0, 4]
    assert read_labels({"boxes": [[1, 2, 3, 4]]}, size=SIZE).kind == "boxes"
    assert read_labels({"keypoints": [[1, 2]]}, size=SIZE).kind == "keypoints"
    assert read_labels(np.full((*SIZE, 4), 9, np.uint8), size=SIZE).kind == "texture"
    with pytest.raises(RetraceError, match="mix mask and texture"):
        read_labels({0: block(), 1: np.full((*SIZE, 4), 9, np.uint8)}, size=SIZE)
    with pytest.raises(RetraceError, match="labels 2 frames, the video has 1"):
        read_labels({0: block(), 1: block()}, size=SIZE, num_frames=1)


def test_wrong_use(tmp_path: Path) -> None:
    """A kind that does not fit the file is the caller's mistake; a bad file is the file's."""
    write_mask(tmp_path / "m.png", block())
    (tmp_path / "k.json").write_text(json.dumps({"keypoints": [[3, 4]]}))
    for path, kind in ((tmp_path / "m.png", "boxes"), (tmp_path / "k.json", "mask"), (tmp_path, "texture")):
        with pytest.raises(UsageError, match="kind"):
            read_labels(path, size=SIZE, kind=kind)
    with pytest.raises(UsageError, match="unknown"):
        read_labels(tmp_path / "m.png", size=SIZE, kind="polygon")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="int"):
        read_labels(3, size=SIZE)  # type: ignore[arg-type]
    with pytest.raises(RetraceError, match="no labels at"):
        read_labels(tmp_path / "none.png", size=SIZE)
    (tmp_path / "l.txt").write_text("")
    with pytest.raises(RetraceError, match="no label format"):
        read_labels(tmp_path / "l.txt", size=SIZE)
    (tmp_path / "void").mkdir()
    with pytest.raises(RetraceError, match="holds no images"):
        read_labels(tmp_path / "void", size=SIZE)
