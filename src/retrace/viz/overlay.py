"""Labels drawn on their frame: translucent outlined masks, skeletons, boxes, textures, a legend with confidence.

Everything scales with the frame, so that 200 pixels and 4K are both readable.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from retrace.propagation.codecs import FrameLabels

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]

COLOURS: tuple[Colour, ...] = (
    (255, 176, 0),
    (64, 156, 255),
    (255, 72, 118),
    (0, 200, 150),
    (190, 110, 255),
    (240, 240, 90),
    (120, 220, 255),
    (255, 120, 40),
    (160, 230, 80),
    (255, 160, 220),
)
"""Bright on any photograph, and neighbours in the list differ in lightness too, for colour-blind viewers."""
DOUBTFUL = 0.5
"""Below this confidence a keypoint is drawn hollow, a box dashed, and its legend bar turns orange."""


def colour_of(position: int) -> Colour:
    """RGB of the object, keypoint or box at `position`; after ten objects the colours come again, darker."""
    red, green, blue = COLOURS[position % len(COLOURS)]
    shade = 0.72 ** (position // len(COLOURS) % 3)
    return round(red * shade), round(green * shade), round(blue * shade)


class Overlay:
    """Draws the labels of one video's frames.

    Args:
        names: of objects (ids as text, in increasing order), keypoints or boxes; they fix the colours.
        skeleton: pairs of keypoint positions to join.
        opacity: of mask fillings, 0 to 1.
        legend: draw names, confidence and the frame number.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        skeleton: Sequence[tuple[int, int]] = (),
        opacity: float = 0.42,
        legend: bool = True,
    ) -> None:
        """See the class."""
        self.names = list(names)
        self.skeleton = list(skeleton)
        self.opacity = opacity
        self.legend = legend

    def draw(self, image: Pixels, labels: FrameLabels, *, index: int, time: float) -> Pixels:
        """Draw on a copy of the frame.

        Args:
            image: (H, W, 3) RGB; not changed.
            labels: of this frame, same size.
            index: frame number for the corner.
            time: seconds, likewise.

        Returns: (H, W, 3) uint8.
        """
        canvas = image.copy()
        if labels.texture is not None:
            _composite(canvas, labels.texture)
        if labels.masks is not None:
            self._masks(canvas, labels.masks)
        if labels.boxes is not None:
            self._boxes(canvas, labels)
        if labels.keypoints is not None:
            self._keypoints(canvas, labels)
        if self.legend:
            self._legend(canvas, labels, f"{index}   {time:.2f} s")
        return canvas

    def _masks(self, canvas: Pixels, masks: Pixels) -> None:
        width = _line_width(canvas)
        for k, name in enumerate(self.names):
            found = (masks == int(name)).astype(np.uint8)
            x, y, w, h = cv2.boundingRect(found)
            if w == 0:
                continue
            margin = width + 3
            x0, y0 = max(0, x - margin), max(0, y - margin)
            x1, y1 = min(masks.shape[1], x + w + margin), min(masks.shape[0], y + h + margin)
            part, region = canvas[y0:y1, x0:x1], found[y0:y1, x0:x1]
            colour = colour_of(k)
            _blend(part, colour, region.astype(np.float32) * self.opacity)
            outlines = [
                _smooth(c) for c in cv2.findContours(region, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[0]
            ]
            for thickness, shade, opacity in ((width + 2, (0, 0, 0), 0.35), (width, _light(colour), 1.0)):
                cover = np.zeros(region.shape, dtype=np.uint8)
                cv2.polylines(cover, outlines, True, 255, thickness, lineType=cv2.LINE_AA, shift=4)
                _blend(part, shade, cover.astype(np.float32) * (opacity / 255))

    def _boxes(self, canvas: Pixels, labels: FrameLabels) -> None:
        assert labels.boxes is not None
        width = _line_width(canvas)
        for k, (name, box) in enumerate(zip(self.names, labels.boxes.tolist(), strict=True)):
            if box[0] != box[0]:  # lost
                continue
            corners = np.array(
                [
                    [box[0], box[1]],
                    [box[0] + box[2], box[1]],
                    [box[0] + box[2], box[1] + box[3]],
                    [box[0], box[1] + box[3]],
                ]
            )
            doubtful = labels.confidence.get(name, 1.0) < DOUBTFUL
            for ends in (
                _dashes(corners, 5 * (width + 2)) if doubtful else [np.concatenate([corners, corners[:1]])]
            ):
                points = [np.round((ends - 0.5) * 16).astype(np.int32)]
                cv2.polylines(canvas, points, False, (20, 20, 20), width + 2, lineType=cv2.LINE_AA, shift=4)
                cv2.polylines(canvas, points, False, colour_of(k), width, lineType=cv2.LINE_AA, shift=4)
            text = _text(name, _font_size(canvas))
            height, length = text.shape
            left = int(np.clip(box[0], 0, max(0, canvas.shape[1] - length - 6)))
            top = int(box[1]) - height - 4 if box[1] > height + 4 else int(box[1])
            _panel(canvas, left, top, left + length + 6, top + height + 4, colour_of(k), 0.9)
            _write(canvas, text, left + 3, top + 2, (0, 0, 0))

    def _keypoints(self, canvas: Pixels, labels: FrameLabels) -> None:
        assert labels.keypoints is not None
        width = _line_width(canvas)
        points = [None if p[0] != p[0] else _fixed(p[0], p[1]) for p in labels.keypoints.tolist()]
        for a, b in self.skeleton:
            start, end = points[a], points[b]
            if start is not None and end is not None:
                cv2.line(canvas, start, end, (20, 20, 20), width + 2, lineType=cv2.LINE_AA, shift=4)
                cv2.line(canvas, start, end, (235, 235, 235), width, lineType=cv2.LINE_AA, shift=4)
        radius = round((width * 1.6 + 1) * 16)
        for k, (name, point) in enumerate(zip(self.names, points, strict=True)):
            if point is None:
                continue
            cv2.circle(canvas, point, radius + 20, (20, 20, 20), -1, lineType=cv2.LINE_AA, shift=4)
            cv2.circle(canvas, point, radius, colour_of(k), -1, lineType=cv2.LINE_AA, shift=4)
            if labels.confidence.get(name, 1.0) < DOUBTFUL:
                cv2.circle(
                    canvas, point, round(radius * 0.6), (20, 20, 20), -1, lineType=cv2.LINE_AA, shift=4
                )

    def _legend(self, canvas: Pixels, labels: FrameLabels, caption: str) -> None:
        size = _font_size(canvas)
        pad, row = max(3, size // 2), round(size * 1.45)
        height, width = canvas.shape[:2]
        number = _text(caption, size)
        bottom = height - pad
        _panel(
            canvas,
            pad,
            bottom - number.shape[0] - pad,
            pad + number.shape[1] + 2 * pad,
            bottom,
            (12, 12, 14),
            0.6,
        )
        _write(canvas, number, 2 * pad, bottom - number.shape[0] - pad // 2, (240, 240, 240))

        names = [n for n in self.names if n in labels.confidence]
        room = max(1, (height * 6 // 10) // row - 1)
        shown = names if len(names) <= room else names[: room - 1]
        lines = [_text(_short(n), size) for n in shown]
        if len(shown) < len(names):
            lines.append(_text(f"+ {len(names) - len(shown)} more", size))
        if not lines:
            return
        swatch, bar = size, size * 3
        right = pad + pad + swatch + pad + max(t.shape[1] for t in lines) + pad + bar + pad
        if right > width * 0.6:
            return  # a tiny frame is for the labels, not for the legend
        _panel(canvas, pad, pad, right, pad + row * len(lines) + pad, (12, 12, 14), 0.6)
        for k, text in enumerate(lines):
            top = pad + pad // 2 + k * row
            left = 2 * pad + swatch + pad if k < len(shown) else 2 * pad
            _write(canvas, text, left, top + (row - text.shape[0]) // 2, (240, 240, 240))
            if k >= len(shown):
                continue
            name = shown[k]
            middle = top + row // 2
            colour = colour_of(self.names.index(name))
            _panel(
                canvas,
                2 * pad,
                middle - swatch // 2,
                2 * pad + swatch,
                middle + (swatch + 1) // 2,
                colour,
                1.0,
            )
            sure = float(np.clip(labels.confidence[name], 0, 1))
            x0, thick = right - pad - bar, max(2, size // 4)
            _panel(canvas, x0, middle - thick // 2, right - pad, middle + (thick + 1) // 2, (90, 90, 95), 1.0)
            if round(sure * bar) > 0:
                filling = (240, 240, 240) if sure >= DOUBTFUL else (230, 130, 60)
                _panel(
                    canvas,
                    x0,
                    middle - thick // 2,
                    x0 + round(sure * bar),
                    middle + (thick + 1) // 2,
                    filling,
                    1.0,
                )


def _dashes(corners: NDArray[np.float64], length: float) -> list[NDArray[np.float64]]:
    """The sides of a polygon (n, 2) as lines of about `length` pixels with gaps of the same length: (2, 2) each."""
    lines = []
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        pieces = 2 * max(1, round(float(np.linalg.norm(end - start)) / (2 * length))) + 1
        marks = start + np.linspace(0, 1, pieces + 1)[:, None] * (end - start)
        lines += [marks[k : k + 2] for k in range(0, pieces, 2)]
    return lines


def _line_width(canvas: Pixels) -> int:
    return max(1, round(float(min(canvas.shape[:2])) / 270))


def _font_size(canvas: Pixels) -> int:
    return max(10, round(float(min(canvas.shape[:2])) / 36))


def _fixed(x: float, y: float) -> tuple[int, int]:
    """A position as OpenCV wants it: counted from pixel centres, with 4 fractional bits."""
    return round((x - 0.5) * 16), round((y - 0.5) * 16)


def _smooth(contour: NDArray[np.int32]) -> NDArray[np.int32]:
    """Take the stairs out of a closed pixel contour (n, 1, 2) by a mean over 5 points; 4 fractional bits."""
    points = contour[:, 0].astype(np.float32)
    if len(points) > 8:
        around = np.concatenate([points[-2:], points, points[:2]])
        points = sum(around[k : k + len(points)] for k in range(5)) / 5  # type: ignore[assignment]
    return np.round(points * 16).astype(np.int32)[:, None]


def _light(colour: Colour) -> Colour:
    red, green, blue = ((3 * channel + 255) // 4 for channel in colour)
    return red, green, blue


def _blend(part: Pixels, colour: Colour, opacity: NDArray[np.floating[Any]]) -> None:
    """Lay a colour over `part` (h, w, 3), in place, with `opacity` (h, w) in [0, 1]."""
    touched = opacity > 0
    old = part[touched].astype(np.float32)
    share = opacity[touched][:, None]
    part[touched] = (old + (np.array(colour, dtype=np.float32) - old) * share + 0.5).astype(np.uint8)


def _composite(canvas: Pixels, rgba: Pixels) -> None:
    touched = rgba[..., 3] > 0
    share = rgba[touched][:, 3:].astype(np.float32) / 255
    old = canvas[touched].astype(np.float32)
    canvas[touched] = (old + (rgba[touched][:, :3] - old) * share + 0.5).astype(np.uint8)


def _panel(canvas: Pixels, x0: int, y0: int, x1: int, y1: int, colour: Colour, opacity: float) -> None:
    """Lay a rectangle over the canvas in place; parts outside are cut."""
    part = canvas[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)]
    part[:] = (part + (np.array(colour, dtype=np.float32) - part) * opacity + 0.5).astype(np.uint8)


def _write(canvas: Pixels, text: Pixels, x: int, y: int, colour: Colour) -> None:
    """Lay rendered text (h, w) over the canvas in place, left top at (x, y); parts outside are cut."""
    part = canvas[max(0, y) : y + text.shape[0], max(0, x) : x + text.shape[1]]
    _blend(part, colour, text[: part.shape[0], : part.shape[1]].astype(np.float32) / 255)


def _short(name: str, most: int = 18) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


@lru_cache(maxsize=512)
def _text(text: str, size: int) -> Pixels:
    """Render text of a height in pixels -> coverage (h, w) uint8. The result is shared: do not write into it."""
    font = ImageFont.load_default(size)
    left, _, right, _ = font.getbbox(text)
    ascent, descent = font.getmetrics() if isinstance(font, ImageFont.FreeTypeFont) else (size, size // 4)
    image = Image.new("L", (max(1, int(right - left)) + 1, ascent + descent))
    ImageDraw.Draw(image).text((-left, 0), text, fill=255, font=font)
    rendered = np.asarray(image)
    rendered.flags.writeable = False
    return rendered
