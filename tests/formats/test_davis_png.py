"""Masks in every dress, and the ones that must be refused."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from retrace.errors import RetraceError
from retrace.formats.davis_png import davis_palette, mask_from_array, read_mask, write_mask

H, W = 40, 64


def blocks(*values: int) -> NDArray[np.uint8]:
    """A 40 x 64 plane with one 10 x 10 block per value, on 0."""
    plane = np.zeros((H, W), dtype=np.uint8)
    for k, value in enumerate(values):
        plane[5 + 3 * k : 15 + 3 * k, 2 + 12 * k : 12 + 12 * k] = value
    return plane


def disc(antialiased: bool) -> NDArray[np.uint8]:
    """A white disc on black, with hard or soft edges."""
    plane = np.zeros((H, W), dtype=np.uint8)
    kind = cv2.LINE_AA if antialiased else cv2.LINE_8
    cv2.circle(plane, (30, 20), 12, 255, -1, lineType=kind)
    return plane


def save(path: Path, array: NDArray[np.uint8], palette: NDArray[np.uint8] | None = None) -> Path:
    """Write an array as PNG, with a palette when one is given."""
    image = Image.fromarray(array)
    if palette is not None:
        image.putpalette(palette.tobytes())
    image.save(path)
    return path


def test_palette_is_davis() -> None:
    """The first colours as the official files have them."""
    expected = [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128]]
    assert davis_palette()[:6].tolist() == expected
    assert davis_palette()[255].tolist() == [224, 224, 192]


def test_written_masks_read_back(tmp_path: Path) -> None:
    """Ids with gaps survive, the file is a palette PNG with DAVIS colours."""
    ids = blocks(1, 7, 200)
    before = ids.copy()
    write_mask(tmp_path / "m.png", ids)
    image = Image.open(tmp_path / "m.png")
    assert image.mode == "P"
    assert image.getpalette()[:12] == davis_palette()[:4].ravel().tolist()
    mask = read_mask(tmp_path / "m.png", size=(H, W))
    np.testing.assert_array_equal(mask.ids, before)
    assert mask.objects == [1, 7, 200]
    assert [p.name for p in tmp_path.iterdir()] == ["m.png"]


def test_palette_void_is_background(tmp_path: Path) -> None:
    """255 beside small ids is void; alone it is the object."""
    mask = read_mask(save(tmp_path / "a.png", blocks(1, 255), davis_palette()))
    assert mask.objects == [1]
    assert mask.void_pixels == 100
    assert read_mask(save(tmp_path / "b.png", blocks(255), davis_palette())).objects == [1]


def test_grey_levels_are_ids(tmp_path: Path) -> None:
    """0 / 255 is one object; levels keep their values; painted levels keep 255."""
    assert read_mask(save(tmp_path / "a.png", blocks(255))).objects == [1]
    assert read_mask(save(tmp_path / "b.png", blocks(3, 9))).objects == [3, 9]
    painted = read_mask(save(tmp_path / "c.png", blocks(128, 255)))
    assert painted.objects == [128, 255]
    assert painted.colours[128] == (128, 128, 128)
    Image.fromarray(blocks(1).astype(bool)).save(tmp_path / "d.png")
    assert read_mask(tmp_path / "d.png").objects == [1]
    Image.fromarray(blocks(1).astype(np.uint16) * 65535).save(tmp_path / "e.png")
    assert read_mask(tmp_path / "e.png").objects == [1]


def test_colours_become_ids_in_order(tmp_path: Path) -> None:
    """Order of first appearance, or the place in the DAVIS palette when all colours are of it."""
    colours = np.array([[0, 0, 0], [10, 250, 30], [255, 0, 0]], dtype=np.uint8)
    mask = read_mask(save(tmp_path / "a.png", colours[blocks(2, 1)]))
    np.testing.assert_array_equal(mask.ids, blocks(1, 2))
    assert mask.colours == {1: (255, 0, 0), 2: (10, 250, 30)}
    davis = read_mask(save(tmp_path / "b.png", davis_palette()[blocks(5, 2)]))
    np.testing.assert_array_equal(davis.ids, blocks(5, 2))
    white = read_mask(save(tmp_path / "c.png", np.repeat(disc(False)[..., None], 3, axis=2)))
    assert white.objects == [1]
    rgba = np.dstack([np.full((H, W, 3), 90, np.uint8), blocks(255)])
    assert read_mask(save(tmp_path / "d.png", rgba)).objects == [90]


@pytest.mark.parametrize("kind", ["grey", "colour", "alpha", "blur", "jpeg", "resized ids"])
def test_soft_edges_are_refused(tmp_path: Path, kind: str) -> None:
    """Every usual way to spoil the edges of a mask."""
    path = tmp_path / "soft.png"
    soft = disc(True)
    if kind == "grey":
        save(path, soft)
    elif kind == "colour":
        save(path, (np.array([200, 30, 90]) * (soft[..., None] / 255)).astype(np.uint8))
    elif kind == "alpha":
        save(path, np.dstack([np.full((H, W, 3), 90, np.uint8), soft]))
    elif kind == "blur":
        save(path, cv2.GaussianBlur(disc(False), (0, 0), 3))
    elif kind == "jpeg":
        path = path.with_suffix(".jpg")
        Image.fromarray(disc(False)).save(path, quality=80)
    else:
        two = davis_palette()[np.where(disc(False) > 0, 1, blocks(0, 0, 0, 2))]
        save(path, cv2.resize(two, (2 * W, 2 * H), interpolation=cv2.INTER_LINEAR))
    with pytest.raises(RetraceError, match="soft edges.*hard edges"):
        read_mask(path)


def test_thin_and_tiny_objects_are_not_soft_edges(tmp_path: Path) -> None:
    """One-pixel lines and dots are objects."""
    ids = blocks(1)
    ids[30] = 2
    ids[33, ::4] = 3
    ids[36, 5] = 4
    assert read_mask(save(tmp_path / "p.png", ids, davis_palette())).objects == [1, 2, 3, 4]
    assert read_mask(save(tmp_path / "g.png", ids)).objects == [1, 2, 3, 4]


def test_wrong_files_get_a_sentence(tmp_path: Path) -> None:
    """Size, emptiness, absence, damage; nothing else is raised."""
    path = save(tmp_path / "m.png", blocks(1))
    with pytest.raises(RetraceError, match="64x40 pixels, the video's frames are 80x48"):
        read_mask(path, size=(48, 80))
    with pytest.raises(RetraceError, match="empty"):
        read_mask(save(tmp_path / "empty.png", blocks()))
    assert read_mask(tmp_path / "empty.png", allow_empty=True).objects == []
    with pytest.raises(RetraceError, match="no mask file"):
        read_mask(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(RetraceError, match="not an image"):
        read_mask(tmp_path / "text.png")
    (tmp_path / "cut.png").write_bytes(path.read_bytes()[:60])
    with pytest.raises(RetraceError, match="damaged|not an image"):
        read_mask(tmp_path / "cut.png")
    with pytest.raises(RetraceError, match="a folder"):
        read_mask(tmp_path)
    Image.fromarray(blocks(1).astype(np.uint16) * 1000 + blocks(0, 1)).save(tmp_path / "big.png")
    with pytest.raises(RetraceError, match="object id 1000"):
        read_mask(tmp_path / "big.png")


def test_arrays_follow_the_same_rules() -> None:
    """Ids of any integer type, bools, colours; other shapes are refused; the input is not changed."""
    ids = blocks(2, 5).astype(np.int64)
    before = ids.copy()
    assert mask_from_array(ids, size=(H, W)).objects == [2, 5]
    np.testing.assert_array_equal(ids, before)
    assert mask_from_array(blocks(1).astype(bool)).objects == [1]
    with pytest.raises(RetraceError, match=r"shape \(3, 40, 64\)"):
        mask_from_array(np.zeros((3, H, W)))
    with pytest.raises(RetraceError, match="ids outside"):
        mask_from_array(-ids)
