"""Draw a world at one time: the picture, and which layer each pixel shows.

A pixel shows the front-most layer whose outline field is positive at the pixel's centre; the picture blends layers at
their outlines over one pixel, so it is smooth where the layer map is not.
"""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from retrace.synthetic import motion, shapes
from retrace.synthetic.motion import Pose
from retrace.synthetic.world import World

BACKGROUND = -1
_SHADOW_STEP = 4  # pixels between two samples of a shadow, which is soft anyway
_TOGETHER = 2**17  # pixels painted at once: many small pictures, or one large one


def pixel_centres(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return x (1, W), y (H, 1): pixel centres, the first at 0.5."""
    x = torch.arange(width, device=device, dtype=torch.float32) + 0.5
    y = torch.arange(height, device=device, dtype=torch.float32) + 0.5
    return x[None], y[:, None]


def read_tile(tile: Tensor, place: Tensor) -> Tensor:
    """Read an object's tile bilinearly.

    Args:
        tile: (C, n, n) over [-shapes.EXTENT, shapes.EXTENT]^2.
        place: (2, ...) object-space x and y.

    Returns: (C, ...); outside the tile, its border, which is outside the outline.
    """
    values = _sample(tile, place / shapes.EXTENT, "border")
    return values.reshape(tile.shape[0], *place.shape[1:])


def _sample(tile: Tensor, where: Tensor, beyond: str) -> Tensor:
    """(C, R, W): a tile read bilinearly at x and y (2, ..., W) of [-1, 1], R rows in all."""
    rows, width = math.prod(where.shape[1:-1]), where.shape[-1]
    grid = where.view(2, rows, width).permute(1, 2, 0)
    return F.grid_sample(tile[None], grid[None], mode="bilinear", padding_mode=beyond, align_corners=False)[0]


def _windows(
    corners: Sequence[tuple[int, int]], height: int, width: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Pixel centres x (N, 1, W), y (N, H, 1) of N windows of one size, whose first pixels are the corners (x, y)."""
    steps = torch.arange(max(height, width), dtype=torch.float32, device=device)
    centres = torch.tensor(corners, device=device).add(0.5)[..., None] + steps  # (N, 2, the longer side)
    return centres[:, :1, :width], centres[:, 1, :height, None]


def _window(pose: Pose, height: int, width: int, margin: float = 1.0) -> tuple[int, int, int, int] | None:
    """x0, y0, x1, y1 of the pixels that a layer and `margin` pixels around it touch, or None when out of the frame."""
    # 1.05: shapes lie inside the unit disc; the rest and the margin are for the blended outline.
    x, y, r = pose.disc(1.05)
    r += margin
    x0, x1 = max(0, math.floor(x - r)), min(width, math.ceil(x + r))
    y0, y1 = max(0, math.floor(y - r)), min(height, math.ceil(y + r))
    return None if x0 >= x1 or y0 >= y1 else (x0, y0, x1, y1)


def layers_at(world: World, time: float, x: Tensor, y: Tensor) -> Tensor:
    """Which layer shows at each of these points: (P,) int64 index into `world.layers`, or BACKGROUND.

    Args:
        world: The scene.
        time: In frames.
        x: (P,) pixels.
        y: (P,) pixels.
    """
    shown = torch.full(x.shape, BACKGROUND, dtype=torch.int64, device=x.device)
    for index, layer in enumerate(world.layers):
        pose = world.pose(index, time)
        cx, cy, r = pose.disc(1.05)
        near = torch.nonzero(torch.hypot(x - cx, y - cy) < r)[:, 0]
        field = read_tile(layer.tile[3:], torch.stack(pose.backward(x[near], y[near])))[0]
        shown[near[field > 0]] = index
    return shown


def layer_map(world: World, time: float) -> Tensor:
    """(H, W) int64: the layer each pixel centre shows, BACKGROUND where none."""
    height, width = world.config.height, world.config.width
    device = world.background.tile.device
    shown = torch.full((height, width), BACKGROUND, dtype=torch.int64, device=device)
    for index, layer in enumerate(world.layers):
        pose = world.pose(index, time)
        window = _window(pose, height, width)
        if window is None:
            continue
        x0, y0, x1, y1 = window
        place = motion.backward([pose], *_windows([(x0, y0)], y1 - y0, x1 - x0, device))
        field = read_tile(layer.tile[3:], place)[0, 0]
        view = shown[y0:y1, x0:x1]
        view.copy_(torch.where(field > 0, index, view))
    return shown


def albedo(world: World, times: Sequence[float]) -> Tensor:
    """(3, N, H, W) of [0, 1]: the picture at N times with cast shadows, before light, lens and sensor."""
    height, width = world.config.height, world.config.width
    background = world.background
    x, y = _windows([(0, 0)] * len(times), height, width, background.tile.device)
    place = motion.backward([world.pose(BACKGROUND, time) for time in times], x, y)
    place[0] /= background.half_x
    place[1] /= background.half_y
    pictures = _sample(background.tile, place, "reflection").view(3, len(times), height, width)
    for index in range(len(world.layers)):
        poses = [world.pose(index, time) for time in times]
        if world.light.shadow > 0:
            _cast_shadows(world, index, poses, pictures)
        _paint_layer(world.layers[index].tile, poses, pictures)
    return pictures


def _paint_layer(tile: Tensor, poses: Sequence[Pose], pictures: Tensor) -> None:
    """Paint a layer (4, n, n) on the pictures (3, N, H, W), in place."""
    height, width = pictures.shape[2:]
    seen = [(i, pose, _window(pose, height, width)) for i, pose in enumerate(poses)]
    windows = [(i, pose, window) for i, pose, window in seen if window is not None]
    if not windows:
        return
    rows = max(y1 - y0 for _, _, (_, y0, _, y1) in windows)
    columns = max(x1 - x0 for _, _, (x0, _, x1, _) in windows)
    x, y = _windows([window[:2] for _, _, window in windows], rows, columns, tile.device)
    sampled = read_tile(tile, motion.backward([pose for _, pose, _ in windows], x, y))
    scales = torch.tensor([pose.scale for _, pose, _ in windows], device=tile.device)[:, None, None]
    cover = (sampled[3] * scales).add_(0.5).clamp_(0, 1)
    for own, (i, _, (x0, y0, x1, y1)) in enumerate(windows):
        inside = (own, slice(y1 - y0), slice(x1 - x0))
        pictures[:, i, y0:y1, x0:x1].lerp_(sampled[:3][:, *inside], cover[inside])


def _cast_shadows(world: World, index: int, poses: Sequence[Pose], pictures: Tensor) -> None:
    """Darken the pictures (3, N, H, W), in place, where a layer takes the light from what is behind it."""
    height, width = pictures.shape[2:]
    short, step = world.config.short, _SHADOW_STEP
    dx, dy = (offset * short for offset in world.light.shadow_offset)
    soft = 0.03 * short + step
    seen = [
        (i, pose, _window(pose.moved(dx, dy), height, width, margin=soft)) for i, pose in enumerate(poses)
    ]
    # On a grid of `step` pixels that does not depend on the window: shadows do not swim.
    windows = [(i, pose, [edge // step for edge in window]) for i, pose, window in seen if window is not None]
    if not windows:
        return
    rows = max(r1 - r0 + 1 for _, _, (_, r0, _, r1) in windows)
    columns = max(c1 - c0 + 1 for _, _, (c0, _, c1, _) in windows)
    x, y = _windows([(c0, r0) for _, _, (c0, r0, _, _) in windows], rows, columns, pictures.device)
    place = motion.backward([pose for _, pose, _ in windows], x * step - dx, y * step - dy)
    field = read_tile(world.layers[index].tile[3:], place)[0]
    # Beyond the tile its border is repeated: take off the way from there.
    field -= (torch.hypot(place[0], place[1]) - 1.1).clamp_(min=0)
    for own, (i, pose, (c0, r0, c1, r1)) in enumerate(windows):
        edge = field[own, : r1 - r0 + 1, : c1 - c0 + 1] * (pose.scale * 4 / soft)
        cover = torch.sigmoid(edge)[None, None]
        cover = F.interpolate(cover, scale_factor=step, mode="bilinear", align_corners=False)[0]
        view = pictures[:, i, r0 * step : (r1 + 1) * step, c0 * step : (c1 + 1) * step]
        view.mul_(1 - world.light.shadow * cover[:, : view.shape[1], : view.shape[2]])


def expose(world: World, picture: Tensor, time: float) -> Tensor:
    """Light and lens: moving shade, gains, gamma, defocus. (3, H, W) -> (3, H, W), a new tensor in [0, 1]."""
    light = world.light
    short = world.config.short
    gains = torch.tensor([math.exp(gain(time)) for gain in light.gains], device=picture.device)[:, None, None]
    if light.shade > 0:
        x, y = pixel_centres(picture.shape[1], picture.shape[2], picture.device)
        angle, rate = light.shade_angle(time), 2 * math.pi * light.shade_rate / short
        phase = x * (rate * math.cos(angle)) + (y * (rate * math.sin(angle)) + light.shade_phase(time))
        gains = gains * (1 + light.shade * (0.5 * torch.sin(phase) - 0.2))
    picture = (picture * gains).clamp(0, 1)
    gamma = math.exp(light.gamma(time))
    if gamma != 1:
        picture = picture.clamp(min=1e-4).pow(gamma)
    # Under a third of a pixel the kernel is the identity.
    return gaussian_blur(picture, light.defocus) if light.defocus > 0.3 else picture


def gaussian_blur(picture: Tensor, sigma: float) -> Tensor:
    """Blur (C, H, W) with a Gaussian of this standard deviation in pixels; the border is repeated."""
    reach = max(1, math.ceil(2.5 * sigma))
    weights = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(-reach, reach + 1)]
    total = sum(weights)
    padded = F.pad(picture[None], (reach, reach, reach, reach), mode="replicate")[0]
    height, width = picture.shape[1:]
    # Shifted sums rather than a convolution: as fast for few taps, and the same bits on every number of threads.
    rows = torch.zeros_like(padded[:, :height])
    for i, weight in enumerate(weights):
        rows.add_(padded[:, i : i + height], alpha=weight / total)
    blurred = torch.zeros_like(picture)
    for i, weight in enumerate(weights):
        blurred.add_(rows[:, :, i : i + width], alpha=weight / total)
    return blurred


def photographs(
    world: World, times: Sequence[float], generator: torch.Generator, exposures: int
) -> Iterator[Tensor]:
    """The frames at some times, one after the other.

    Args:
        world: The scene.
        times: In frames; the middles of the exposures.
        generator: Of the sensor noise, on the CPU; the same number of draws for every frame.
        exposures: Instants that a motion-blurred frame averages.

    Yields: (3, H, W) uint8.
    """
    light = world.light
    instants = [0.0]
    if light.shutter > 0 and exposures > 1:
        instants = [light.shutter * (i / (exposures - 1) - 0.5) for i in range(exposures)]
    pictures = _albedos(world, [time + instant for time in times for instant in instants])
    for time in times:
        picture = next(pictures)
        for _ in instants[1:]:
            picture = picture + next(pictures)
        if len(instants) > 1:
            picture = picture / len(instants)
        picture = expose(world, picture, time)
        if light.noise > 0:
            picture = picture + light.noise * _grain(world, generator).to(picture.device)
        yield (picture * 255 + 0.5).clamp_(0, 255).to(torch.uint8)


def _albedos(world: World, times: Sequence[float]) -> Iterator[Tensor]:
    """(3, H, W) each: `albedo` at these times, as many together as are worth it."""
    together = max(1, _TOGETHER // (world.config.height * world.config.width))
    for begin in range(0, len(times), together):
        yield from albedo(world, times[begin : begin + together]).unbind(1)


def _grain(world: World, generator: torch.Generator) -> Tensor:
    """(3, H, W) of unit variance, fine or in soft grains of two pixels, partly the same in all channels."""
    height, width = world.config.height, world.config.width
    size = (math.ceil(height / 2), math.ceil(width / 2)) if world.light.coarse_noise else (height, width)
    values = torch.randn((1, 3, *size), generator=generator)
    if world.light.coarse_noise:
        values = F.interpolate(values, size=(height, width), mode="bilinear", align_corners=False) * 1.6
    return values[0]
