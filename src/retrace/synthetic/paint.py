"""Draw a world at one time: the picture, and which layer each pixel shows.

A pixel shows the front-most layer whose outline field is positive at the pixel's centre; the picture blends layers at
their outlines over one pixel, so it is smooth where the layer map is not.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from retrace.synthetic import shapes
from retrace.synthetic.motion import Pose
from retrace.synthetic.world import World

BACKGROUND = -1
_SHADOW_STEP = 4  # pixels between two samples of a shadow, which is soft anyway


def pixel_centres(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return x (1, W), y (H, 1): pixel centres, the first at 0.5."""
    x = torch.arange(width, device=device, dtype=torch.float32) + 0.5
    y = torch.arange(height, device=device, dtype=torch.float32) + 0.5
    return x[None], y[:, None]


def read_tile(tile: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Read an object's tile bilinearly.

    Args:
        tile: (C, n, n) over [-shapes.EXTENT, shapes.EXTENT]^2.
        u: (...) object-space x.
        v: (...) object-space y.

    Returns: (C, ...); outside the tile, its border, which is outside the outline.
    """
    where = torch.stack([u, v], -1) / shapes.EXTENT
    flat = where.reshape(1, 1, -1, 2) if where.dim() != 3 else where[None]
    values = F.grid_sample(tile[None], flat, mode="bilinear", padding_mode="border", align_corners=False)[0]
    return values.reshape(tile.shape[0], *u.shape)


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
        field = read_tile(layer.tile[3:], *pose.backward(x[near], y[near]))[0]
        shown[near[field > 0]] = index
    return shown


def layer_map(world: World, time: float) -> Tensor:
    """(H, W) int64: the layer each pixel centre shows, BACKGROUND where none."""
    height, width = world.config.height, world.config.width
    device = world.background.tile.device
    x, y = pixel_centres(height, width, device)
    shown = torch.full((height, width), BACKGROUND, dtype=torch.int64, device=device)
    for index, layer in enumerate(world.layers):
        pose = world.pose(index, time)
        window = _window(pose, height, width)
        if window is None:
            continue
        x0, y0, x1, y1 = window
        field = read_tile(layer.tile[3:], *pose.backward(x[:, x0:x1], y[y0:y1]))[0]
        view = shown[y0:y1, x0:x1]
        view.copy_(torch.where(field > 0, index, view))
    return shown


def albedo(world: World, time: float) -> Tensor:
    """(3, H, W) of [0, 1]: the picture with cast shadows, before light, lens and sensor."""
    height, width = world.config.height, world.config.width
    background = world.background
    x, y = pixel_centres(height, width, background.tile.device)
    u, v = world.pose(BACKGROUND, time).backward(x, y)  # (H, W) each
    where = torch.stack([u / background.half_x, v / background.half_y], -1)[None]
    picture = F.grid_sample(
        background.tile[None], where, mode="bilinear", padding_mode="reflection", align_corners=False
    )[0]
    for index, layer in enumerate(world.layers):
        pose = world.pose(index, time)
        if world.light.shadow > 0:
            _cast_shadow(world, index, pose, picture)
        window = _window(pose, height, width)
        if window is None:
            continue
        x0, y0, x1, y1 = window
        sampled = read_tile(layer.tile, *pose.backward(x[:, x0:x1], y[y0:y1]))
        cover = (sampled[3:] * pose.scale + 0.5).clamp(0, 1)
        view = picture[:, y0:y1, x0:x1]
        view.copy_(torch.lerp(view, sampled[:3], cover))
    return picture


def _cast_shadow(world: World, index: int, pose: Pose, picture: Tensor) -> None:
    """Darken `picture` (3, H, W), in place, where a layer takes the light from what is behind it."""
    height, width = picture.shape[1:]
    short, step = world.config.short, _SHADOW_STEP
    dx, dy = (offset * short for offset in world.light.shadow_offset)
    soft = 0.03 * short + step
    window = _window(pose.moved(dx, dy), height, width, margin=soft)
    if window is None:
        return
    # On a grid of `step` pixels that does not depend on the window: shadows do not swim.
    c0, r0, c1, r1 = (edge // step for edge in window)
    x, y = pixel_centres(r1 - r0 + 1, c1 - c0 + 1, picture.device)
    u, v = pose.backward((x + c0) * step - dx, (y + r0) * step - dy)
    field = read_tile(world.layers[index].tile[3:], u, v)
    # Beyond the tile its border is repeated: take off the way from there.
    field = field - (torch.hypot(u, v) - 1.1).clamp(min=0)[None]
    cover = torch.sigmoid(field * (pose.scale * 4 / soft))
    cover = F.interpolate(cover[None], scale_factor=step, mode="bilinear", align_corners=False)[0]
    view = picture[:, r0 * step : (r1 + 1) * step, c0 * step : (c1 + 1) * step]
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


def photograph(world: World, time: float, generator: torch.Generator, exposures: int) -> Tensor:
    """The frame at a time.

    Args:
        world: The scene.
        time: In frames; the middle of the exposure.
        generator: Of the sensor noise, on the CPU; the same number of draws for every frame.
        exposures: Instants that a motion-blurred frame averages.

    Returns: (3, H, W) uint8.
    """
    light = world.light
    if light.shutter > 0 and exposures > 1:
        picture = albedo(world, time - light.shutter / 2)
        for i in range(1, exposures):
            picture = picture + albedo(world, time + light.shutter * (i / (exposures - 1) - 0.5))
        picture = picture / exposures
    else:
        picture = albedo(world, time)
    picture = expose(world, picture, time)
    if light.noise > 0:
        picture = picture + light.noise * _grain(world, generator).to(picture.device)
    return (picture * 255 + 0.5).clamp(0, 255).to(torch.uint8)


def _grain(world: World, generator: torch.Generator) -> Tensor:
    """(3, H, W) of unit variance, fine or in soft grains of two pixels, partly the same in all channels."""
    height, width = world.config.height, world.config.width
    size = (math.ceil(height / 2), math.ceil(width / 2)) if world.light.coarse_noise else (height, width)
    values = torch.randn((1, 3, *size), generator=generator)
    if world.light.coarse_noise:
        values = F.interpolate(values, size=(height, width), mode="bilinear", align_corners=False) * 1.6
    return values[0]
