"""Object masks as PNG: palette, grey or colour in, DAVIS palette out.

How pixels become ids:

* **palette** PNG: the stored index is the id (DAVIS, YouTube-VOS, VIP part maps).
* **grey** PNG, 8 or 16 bits, 1 bit, or RGB that holds only greys: the level is the id, gaps are kept.
* a mask whose only value above 0 is its type's largest (0 / 255, 0 / 65535) is one object with id 1.
* **RGB**: black is background. When every colour is a colour of the DAVIS palette the id is its place there;
  otherwise ids are 1, 2, ... in order of first appearance, row by row. RGBA: fully transparent pixels are background.
* **void**: 255 beside other ids that are all below 64 is DAVIS' "do not score" value, read as background and
  counted in `Mask.void_pixels`. Beside ids of 64 and more the levels were painted, and 255 is an object like
  the others.

Soft edges (anti-aliasing, blur, JPEG) would become dozens of false objects. They are recognised by colours
that nowhere fill a 3 x 3 block and lie between their neighbours, and refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrace.errors import RetraceError
from retrace.files import atomic_path, open_image

VOID = 255
"""Value that DAVIS uses for pixels that are not scored."""
MAX_ID = 254
"""Largest object id that an 8-bit palette PNG can hold beside the void value."""
PAINTED_LEVEL = 64
"""From this id on, grey levels are taken for painted tones, so that 255 is an object and not void."""
MANY_COLOURS = 16
"""So many colours without one solid 3 x 3 block are soft edges (or a photograph), whatever they lie between."""


@dataclass(frozen=True)
class Mask:
    """One labelled frame: `ids` (H, W) uint8, 0 = background, and the RGB colour each id had in the file."""

    ids: NDArray[np.uint8]
    colours: dict[int, tuple[int, int, int]]
    void_pixels: int = 0

    @property
    def objects(self) -> list[int]:
        """Object ids in increasing order, background left out; gaps as in the file."""
        return [int(i) for i in np.unique(self.ids) if i != 0]


def davis_palette() -> NDArray[np.uint8]:
    """Colours of DAVIS (and PASCAL VOC), uint8 (256, 3): bit i of an id sets a high bit of r, g or b."""
    ids = np.arange(256)
    palette = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            value = (ids >> (3 * bit + channel)) & 1 if 3 * bit + channel < 8 else np.zeros_like(ids)
            palette[:, channel] |= (value << (7 - bit)).astype(np.uint8)
    return palette


def read_mask(path: str | Path, *, size: tuple[int, int] | None = None, allow_empty: bool = False) -> Mask:
    """Read a mask image.

    Args:
        path: PNG (also TIFF or BMP) file.
        size: (H, W) of the frame that the mask belongs to; None takes any size.
        allow_empty: accept a mask without objects (a later frame where everything is gone).

    Errors: RetraceError when the file is missing, no image, of another size, empty, has soft edges, or more
        than 254 objects.
    """
    path = Path(path)
    image = open_image(path, "mask")
    _check_size(f"Mask {path}", (image.height, image.width), size)
    return _from_image(image, f"Mask {path}", allow_empty=allow_empty)


def mask_from_array(
    array: NDArray[np.generic],
    *,
    size: tuple[int, int] | None = None,
    allow_empty: bool = False,
    name: str = "The mask array",
) -> Mask:
    """Take ids (H, W) of any integer or bool type, or colours (H, W, 3) uint8, under the same rules as a file.

    Args:
        array: ids or colours; not changed.
        size: (H, W) of the frame; None takes any size.
        allow_empty: accept a mask without objects.
        name: how error messages call it.

    Errors: RetraceError as `read_mask`; also for a shape or type that is not a mask.
    """
    if array.ndim == 2 and (array.dtype == np.bool_ or np.issubdtype(array.dtype, np.integer)):
        _check_size(name, (array.shape[0], array.shape[1]), size)
        levels = array.astype(np.int64)
        if levels.size and (levels.min() < 0 or levels.max() > 65535):
            raise RetraceError(
                f"{name} holds ids outside 0..65535. Give object ids from 1 to {MAX_ID}, 0 for background."
            )
        return _from_levels(levels, name, allow_empty=allow_empty)
    if array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8:
        _check_size(name, (array.shape[0], array.shape[1]), size)
        return _from_colours(np.asarray(array, dtype=np.uint8), name, allow_empty=allow_empty)
    raise RetraceError(
        f"{name} has shape {tuple(array.shape)} and type {array.dtype}; a mask is (H, W) integer ids or (H, "
        "W, 3) uint8 colours."
    )


def write_mask(path: str | Path, ids: NDArray[np.integer]) -> None:
    """Write ids (H, W) in 0..255 as an 8-bit PNG with the DAVIS palette, whole or not at all.

    Errors: RetraceError when the file cannot be written; ValueError for ids outside 0..255.
    """
    if ids.ndim != 2 or (ids.size and (ids.min() < 0 or ids.max() > 255)):
        raise ValueError(f"ids of shape {ids.shape}; expected (H, W) with values 0..255")
    image = Image.fromarray(np.ascontiguousarray(ids, dtype=np.uint8))
    image.putpalette(davis_palette().tobytes())
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG", compress_level=4)


def _check_size(name: str, given: tuple[int, int], size: tuple[int, int] | None) -> None:
    if size is not None and given != tuple(size):
        raise RetraceError(
            f"{name} is {given[1]}x{given[0]} pixels, the video's frames are {size[1]}x{size[0]}. "
            "Draw or export it at the size of the frame (resize with nearest neighbour if you must)."
        )


def _from_image(image: Image.Image, name: str, *, allow_empty: bool) -> Mask:
    if image.mode in ("P", "PA"):
        return _from_palette(
            image.convert("P") if image.mode == "PA" else image, name, allow_empty=allow_empty
        )
    if image.mode in ("1", "L"):
        return _from_levels(np.asarray(image.convert("L"), dtype=np.int64), name, allow_empty=allow_empty)
    if image.mode.startswith("I"):
        return _from_levels(np.asarray(image, dtype=np.int64), name, allow_empty=allow_empty)
    if image.mode not in ("LA", "RGB", "RGBA", "CMYK"):
        raise RetraceError(
            f"{name} has pixel type {image.mode}, which is no mask. Save it as palette, grey or RGB PNG."
        )
    if image.mode in ("LA", "RGBA"):
        rgba = np.asarray(image.convert("RGBA"))
        alpha = rgba[..., 3]
        soft = (alpha > 0) & (alpha < 255)
        if soft.any():
            raise _soft_edges(name, "half-transparent", soft, len(np.unique(alpha[soft])))
        colours = np.where(alpha[..., None] > 0, rgba[..., :3], 0).astype(np.uint8)
    else:
        colours = np.asarray(image.convert("RGB"))
    return _from_colours(colours, name, allow_empty=allow_empty)


def _from_palette(image: Image.Image, name: str, *, allow_empty: bool) -> Mask:
    indices = np.asarray(image, dtype=np.int64)
    flat = image.getpalette("RGB") or []
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(flat) // 3] = np.array(flat, dtype=np.uint8).reshape(-1, 3)
    _refuse_soft_edges(indices, palette, name)
    ids, void = _ids_from_levels(indices, name)
    return _refuse_empty(Mask(ids, _colours(ids, indices, palette), void), name, allow_empty)


def _from_levels(levels: NDArray[np.int64], name: str, *, allow_empty: bool) -> Mask:
    top = int(levels.max(initial=0))
    greys = np.repeat(np.arange(top + 1, dtype=np.int64)[:, None], 3, axis=1)
    _refuse_soft_edges(levels, greys, name)
    ids, void = _ids_from_levels(levels, name)
    return _refuse_empty(Mask(ids, _colours(ids, levels, np.minimum(greys, 255)), void), name, allow_empty)


def _colours(
    ids: NDArray[np.uint8], index: NDArray[np.int64], table: NDArray[np.integer]
) -> dict[int, tuple[int, int, int]]:
    """Give each object id the colour `table[index]` that its first pixel had."""
    objects, first = np.unique(ids, return_index=True)
    colours = table[index.ravel()[first]]
    return {int(i): _rgb(colour) for i, colour in zip(objects, colours, strict=True) if i != 0}


def _from_colours(colours: NDArray[np.uint8], name: str, *, allow_empty: bool) -> Mask:
    if (colours[..., 0] == colours[..., 1]).all() and (colours[..., 0] == colours[..., 2]).all():
        return _from_levels(colours[..., 0].astype(np.int64), name, allow_empty=allow_empty)
    packed = (colours.astype(np.int64) << np.array([16, 8, 0])).sum(axis=-1)  # (H, W)
    values, first, inverse = np.unique(packed, return_index=True, return_inverse=True)
    table = np.stack([values >> 16, (values >> 8) & 255, values & 255], axis=1)  # (K, 3)
    index = inverse.reshape(packed.shape)
    _refuse_soft_edges(index, table, name)
    palette = (davis_palette().astype(np.int64) << np.array([16, 8, 0])).sum(axis=-1)  # (256,)
    davis = {int(value): i for i, value in enumerate(palette)}
    objects = [k for k in np.argsort(first) if values[k] != 0]
    if len(objects) > MAX_ID:
        raise _too_many(name, len(objects))
    void = 0
    ids_of = np.zeros(len(values), dtype=np.uint8)
    if all(int(values[k]) in davis for k in objects):
        for k in objects:
            ids_of[k] = davis[int(values[k])]
        if VOID in ids_of and len(objects) > 1:
            void = int((ids_of[index] == VOID).sum())
            ids_of[ids_of == VOID] = 0
    else:
        for i, k in enumerate(objects):
            ids_of[k] = i + 1
    found = {int(ids_of[k]): _rgb(table[k]) for k in objects if ids_of[k] != 0}
    return _refuse_empty(Mask(ids_of[index], dict(sorted(found.items())), void), name, allow_empty)


def _ids_from_levels(levels: NDArray[np.int64], name: str) -> tuple[NDArray[np.uint8], int]:
    """Apply the one-object and void rules to stored values; returns ids and the number of void pixels."""
    values = [int(v) for v in np.unique(levels) if v != 0]
    if len(values) == 1:
        return (levels if values[0] <= MAX_ID else levels != 0).astype(np.uint8), 0
    if len(values) > MAX_ID:
        raise _too_many(name, len(values))
    if values and values[-1] > 255:
        raise RetraceError(
            f"{name} has object id {values[-1]}; results are 8-bit DAVIS PNGs, so ids go from 1 to "
            f"{MAX_ID}. Renumber the objects."
        )
    if VOID in values and values[-2] < PAINTED_LEVEL:
        void = levels == VOID
        return np.where(void, 0, levels).astype(np.uint8), int(void.sum())
    return levels.astype(np.uint8), 0


def _rgb(colour: Sequence[int] | NDArray[np.integer]) -> tuple[int, int, int]:
    return int(colour[0]), int(colour[1]), int(colour[2])


def _refuse_empty(mask: Mask, name: str, allow_empty: bool) -> Mask:
    if not allow_empty and not mask.ids.any():
        what = "only background (0) and void (255)" if mask.void_pixels else "only background (0)"
        raise RetraceError(
            f"{name} is empty: it holds {what}. Paint at least one object that shall be followed."
        )
    return mask


def _refuse_soft_edges(index: NDArray[np.int64], table: NDArray[np.integer], name: str) -> None:
    """Look for colours that exist only as borders between others.

    Args:
        index: (H, W) row of `table` for each pixel.
        table: (K, 3) colours.
        name: for the message.

    Errors: RetraceError naming how many such colours and pixels there are and where the first one is.
    """
    if min(index.shape) < 3:
        return
    solid = np.zeros(len(table), dtype=bool)  # colours that fill a 3 x 3 block somewhere
    centre = index[1:-1, 1:-1]
    same = np.ones(centre.shape, dtype=bool)
    height, width = index.shape
    for dy in range(3):
        for dx in range(3):
            same &= index[dy : height - 2 + dy, dx : width - 2 + dx] == centre
    solid[np.unique(centre[same])] = True
    thin = ~solid[index]  # (H, W)
    suspects = np.unique(index[thin])
    suspects = suspects[(table[suspects] != 0).any(axis=1)]
    if len(suspects) < 2:
        return
    thin &= np.isin(index, suspects)
    blended = thin & _between_solid_neighbours(index, table, solid, thin)
    count = np.bincount(index[thin], minlength=len(table))
    count_blended = np.bincount(index[blended], minlength=len(table))
    blends = int((2 * count_blended[suspects] > count[suspects]).sum())
    if blends >= 2 or len(suspects) >= MANY_COLOURS:
        raise _soft_edges(name, "in-between", thin, len(suspects))


def _between_solid_neighbours(
    index: NDArray[np.int64], table: NDArray[np.integer], solid: NDArray[np.bool_], thin: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Tell for each thin pixel whether every channel lies between the solid colours of its 5 x 5 neighbourhood.

    "Between" asks for 16 levels of distance to both ends in the widest channel, so that small consecutive ids
    stay ids.
    """
    ys, xs = np.nonzero(thin)
    height, width = index.shape
    colour = table[index[ys, xs]].astype(np.int64)  # (n, 3)
    low = np.full_like(colour, 1 << 30)
    high = np.full_like(colour, -1)
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            near = index[np.clip(ys + dy, 0, height - 1), np.clip(xs + dx, 0, width - 1)]
            use = solid[near][:, None]
            low = np.where(use, np.minimum(low, table[near]), low)
            high = np.where(use, np.maximum(high, table[near]), high)
    inside = ((colour >= low) & (colour <= high)).all(axis=1)
    widest = (high - low).argmax(axis=1)[:, None]
    margin = np.minimum(colour - low, high - colour)
    clear = np.take_along_axis(margin, widest, axis=1)[:, 0] >= 16
    result = np.zeros(index.shape, dtype=bool)
    result[ys, xs] = inside & clear
    return result


def _soft_edges(name: str, kind: str, where: NDArray[np.bool_], colours: int) -> RetraceError:
    y, x = np.argwhere(where)[0]
    return RetraceError(
        f"{name} has soft edges: {colours} {kind} colours on {int(where.sum())} pixels, the first at x {x}, y {y}, "
        "which belong to no object. Export it as PNG with hard edges: no anti-aliasing, no blur, no JPEG, "
        "nearest-neighbour resize."
    )


def _too_many(name: str, count: int) -> RetraceError:
    return RetraceError(
        f"{name} has {count} objects; a mask holds at most {MAX_ID}. Merge objects or split the job."
    )
