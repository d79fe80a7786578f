"""`render`: a scene with exact truth from a seed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from retrace.synthetic import paint, shapes
from retrace.synthetic.draws import Draw
from retrace.synthetic.world import SceneConfig, World, build

DEFAULT = SceneConfig()

_EXPOSURES = 6
"""Instants averaged in a motion-blurred frame."""


@dataclass(frozen=True)
class Scene:
    """Frames and their truth, all on one device. Pixels: (x, y), centre of the first pixel at (0.5, 0.5).

    T frames of H x W, N objects, K keypoints.

    Attributes:
        frames: (T, 3, H, W) uint8 RGB.
        masks: (T, H, W) uint8: the object (1 .. N) at the centre of each pixel, 0 background.
        keypoints: (T, K, 2) float32 x, y, pixels; given also when hidden or out of the frame.
        keypoints_visible: (T, K) bool: inside the frame, not covered, and on a pixel of its object's mask.
        keypoint_object: (K,) int64: the object (1 .. N) each keypoint is on.
        boxes: (T, N, 4) float32 x0, y0, x1, y1, pixels: the edges of the visible mask; nan where it is empty.
        flow: (T - 1, 2, H, W) float32 (dx, dy), pixels: where the point at the centre of a pixel of frame t is in
            frame t + 1; defined for every pixel, also for those that become hidden.
        occluded: (T - 1, H, W) bool: that point is hidden in frame t + 1, or out of it.
    """

    frames: Tensor
    masks: Tensor
    keypoints: Tensor
    keypoints_visible: Tensor
    keypoint_object: Tensor
    boxes: Tensor
    flow: Tensor
    occluded: Tensor


def render(
    seed: int,
    config: SceneConfig = DEFAULT,
    device: str | torch.device = "cpu",
) -> Scene:
    """Render a scene with its truth.

    The same seed and config give the same scene, bit for bit on one machine; a shorter scene is the beginning of a
    longer one. Another device gives the same world up to rounding.

    Args:
        seed: Any integer of 64 bits.
        config: What the scene is drawn from.
        device: Where it is rendered and kept.

    Raises:
        RetraceError: `config` cannot be drawn (raised when it is made).
    """
    place = torch.device(device)
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        world = build(config, generator, place)
        marks = _marks(world, Draw(generator))
        # The noise comes last: it is the only thing drawn frame by frame.
        frames = list(paint.photographs(world, range(config.num_frames), generator, _EXPOSURES))
        shown = [paint.layer_map(world, t) for t in range(config.num_frames)]
        numbers = torch.tensor([0, *(layer.object_id for layer in world.layers)], device=place)
        masks = torch.stack([numbers[layer + 1] for layer in shown]).to(torch.uint8)
        keypoints, visible = _keypoints(world, marks, masks)
        flow, occluded = _flow(world, shown)
        owners = torch.tensor([world.layers[layer].object_id for layer, _, _ in marks], dtype=torch.int64)
    scene = Scene(
        torch.stack(frames),
        masks,
        keypoints,
        visible,
        owners.to(place),
        mask_boxes(masks, world.num_objects),
        flow,
        occluded,
    )
    # Inference tensors refuse to take part in a graph; what leaves here is ordinary.
    return Scene(*(value.clone() for value in vars(scene).values()))


def _marks(world: World, draw: Draw) -> list[tuple[int, float, float]]:
    """(layer, u, v) of every keypoint, object by object: spread over the parts, well inside the outlines."""
    wanted = world.config.keypoints_per_object
    marks: list[tuple[int, float, float]] = []
    for number in range(1, world.num_objects + 1):
        layers = [i for i, layer in enumerate(world.layers) if layer.object_id == number]
        points: list[tuple[int, float, float, float, float]] = []
        for index in layers:
            points += _candidates(world, index, draw)
        chosen: list[tuple[int, float, float, float, float]] = []
        for _ in range(wanted):
            # The candidate furthest from all chosen ones, in the resting body.
            best = max(
                points,
                key=lambda p: min(((p[3] - c[3]) ** 2 + (p[4] - c[4]) ** 2 for c in chosen), default=p[3]),
            )
            chosen.append(best)
        marks += [(index, u, v) for index, u, v, _, _ in sorted(chosen)]
    return marks


def _candidates(world: World, index: int, draw: Draw) -> list[tuple[int, float, float, float, float]]:
    """(layer, u, v, x, y): points inside a layer and where they are in the resting body."""
    layer = world.layers[index]
    field = layer.tile[3].cpu()
    n = field.shape[0]
    line = [(i + 0.5) * (2 * shapes.EXTENT / n) - shapes.EXTENT for i in range(n)]
    count = max(40, 4 * world.config.keypoints_per_object)
    found: list[tuple[int, float, float, float, float]] = []
    for margin in (0.1, 0.03, 0.0):
        rows, columns = torch.nonzero(field > margin, as_tuple=True)
        if layer.limb is not None:  # the half at the joint is mostly behind the body
            far = torch.tensor(line)[columns] > 0
            rows, columns = rows[far], columns[far]
        if len(rows):
            break
    for pick in torch.randint(0, len(rows), (count,), generator=draw.generator).tolist():
        u, v = line[int(columns[pick])], line[int(rows[pick])]
        x, y = u, v
        if layer.limb is not None:
            inner = layer.limb.inner(0)
            x, y = inner.a * u + inner.b * v + inner.e, inner.c * u + inner.d * v + inner.f
        found.append((index, u, v, x, y))
    return found


def _keypoints(world: World, marks: list[tuple[int, float, float]], masks: Tensor) -> tuple[Tensor, Tensor]:
    """(T, K, 2) places and (T, K) visibility."""
    height, width = world.config.height, world.config.width
    device = masks.device
    places, visible = [], []
    owners = torch.tensor([layer for layer, _, _ in marks], dtype=torch.int64, device=device)
    numbers = torch.tensor([world.layers[layer].object_id for layer, _, _ in marks], device=device)
    for t in range(len(masks)):
        points = torch.zeros(len(marks), 2, device=device)
        for index in range(len(world.layers)):
            own = [k for k, mark in enumerate(marks) if mark[0] == index]
            if own:
                u, v = (torch.tensor([marks[k][axis] for k in own], device=device) for axis in (1, 2))
                points[own] = torch.stack(world.pose(index, t).forward(u, v), -1)
        x, y = points.unbind(-1)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        column, row = x.floor().long().clamp(0, width - 1), y.floor().long().clamp(0, height - 1)
        on_mask = masks[t][row, column] == numbers
        visible.append(inside & on_mask & (paint.layers_at(world, t, x, y) == owners))
        places.append(points)
    return torch.stack(places), torch.stack(visible)


def _flow(world: World, shown: list[Tensor]) -> tuple[Tensor, Tensor]:
    """(T - 1, 2, H, W) flow and (T - 1, H, W) occlusion."""
    height, width = world.config.height, world.config.width
    device = world.background.tile.device
    x, y = (axis.expand(height, width) for axis in paint.pixel_centres(height, width, device))
    flow = torch.zeros(len(shown) - 1, 2, height, width, device=device)
    occluded = torch.zeros(len(shown) - 1, height, width, dtype=torch.bool, device=device)
    for t in range(len(shown) - 1):
        for index in range(paint.BACKGROUND, len(world.layers)):
            here = shown[t] == index
            px, py = x[here], y[here]
            if len(px):
                qx, qy = world.pose(index, t + 1).forward(*world.pose(index, t).backward(px, py))
                flow[t, 0, here], flow[t, 1, here] = qx - px, qy - py
        qx, qy = x + flow[t, 0], y + flow[t, 1]
        outside = (qx < 0) | (qx >= width) | (qy < 0) | (qy >= height)
        front = paint.layers_at(world, t + 1, qx.reshape(-1), qy.reshape(-1)).reshape(height, width)
        occluded[t] = outside | (front > shown[t])
    return flow, occluded


def mask_boxes(masks: Tensor, num_objects: int) -> Tensor:
    """Edges of masks (T, H, W) of the objects 1 .. N: (T, N, 4) x0, y0, x1, y1, nan where an object does not show."""
    boxes = torch.full((len(masks), num_objects, 4), float("nan"), device=masks.device)
    for number in range(1, num_objects + 1):
        present = masks == number
        for t in range(len(masks)):
            rows, columns = torch.nonzero(present[t], as_tuple=True)
            if len(rows):
                boxes[t, number - 1] = torch.stack(
                    [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                ).float()
    return boxes
