"""What is measured: each case does its work once per call of the function it returns.

A case is a function that prepares everything and returns the work. `OURS` and `BASELINE` hold one dict each, so that a
name in both is a comparison. The training steps are those of `benchmarks.steps`.
"""

import itertools
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import retrace
from benchmarks import steps
from retrace.methods.stt import StTConfig, stt_loss
from retrace.metrics import davis
from retrace.synthetic import SceneConfig, render
from retrace.video.encode import VideoWriter
from retrace.walk import neighborhood
from retrace.walk.nodes import normalise
from retrace.walk.readout import Rules, readout

Work = Callable[[], object]
H, W, C, FRAMES, RADIUS, TOP_K = 60, 107, 256, 20, 12, 10  # issue 2, section 7


def _readout_inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    keys = normalise(torch.randn(FRAMES + 1, H, W, C, generator=generator), -1)
    query = normalise(torch.randn(H, W, C, generator=generator), -1)
    return query, keys, torch.rand(FRAMES + 1, H, W, 3, generator=generator)


def readout_ours() -> Work:
    """Tiled, windowed, exact."""
    query, keys, values = _readout_inputs()
    rules = Rules(0.07, TOP_K, "disc", RADIUS)
    free = [True] + [False] * FRAMES
    return lambda: readout(query, keys, values, context=range(FRAMES + 1), free=free, rules=rules).labels


def readout_dense() -> Work:
    """Full affinity, mask, top-k over everything, softmax, weighted sum: as the authors' code goes about it."""
    query, keys, values = _readout_inputs()
    forbidden = torch.zeros(FRAMES + 1, H * W, H * W)
    forbidden[1:].masked_fill_(~neighborhood.disc(H, W, RADIUS), -1e10)

    def work() -> Tensor:
        scores = keys.flatten(1, 2) @ query.flatten(0, 1).T  # (frames, N keys, N queries)
        scores = ((scores + forbidden) / 0.07).flatten(0, 1)
        best, rows = scores.topk(TOP_K, dim=0)  # (k, N)
        weights = best.softmax(0)
        labels = (weights[..., None] * values.flatten(0, 2)[rows]).sum(0)  # (N, L)
        return labels.view(H, W, -1)

    return work


def _stt(channels: tuple[int, int]) -> tuple[StTConfig, list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    maps = []
    for c, size in zip(channels, (64, 32), strict=True):
        pair = torch.randn(2, size, size, c, generator=generator).requires_grad_()
        maps.append(pair.permute(0, 3, 1, 2).unsqueeze(0))  # channels last, as encoders give them in training
    return StTConfig(beta=0.0), maps, torch.randn(1, 2, 3, 256, 256, generator=generator)


def stt_ours(channels: tuple[int, int]) -> Work:
    """Reconstruction at strides 4 and 8 and local distillation of one pair, from maps on, with gradients."""
    config, maps, lab = _stt(channels)

    def work() -> Tensor:
        total = stt_loss(maps, (4, 8), lab, torch.tensor([1]), config).total
        torch.autograd.backward(total)
        return total

    return work


def stt_dense(channels: tuple[int, int]) -> Work:
    """The same from whole matrices with minus infinity outside the windows, as the authors' code goes about it."""
    config, maps, lab = _stt(channels)

    def work() -> Tensor:
        total = steps.plain_stt_loss(maps, (4, 8), lab, torch.tensor([1]), config).total
        torch.autograd.backward(total)
        return total

    return work


def _video(folder: str, frames: int, height: int, width: int) -> tuple[Path, np.ndarray]:
    """A generated video of any length (a short scene, repeated back and forth) and the mask of its first frame."""
    scene = render(30, SceneConfig(height=height, width=width, num_frames=24))
    images = scene.frames.permute(0, 2, 3, 1).numpy()
    path = Path(folder) / f"{frames}.mp4"
    with VideoWriter(path, height=height, width=width, fps=25) as writer:
        for index in range(frames):
            there = index % 46
            writer.write(images[there if there < 24 else 46 - there])
    return path, scene.masks[0].numpy()


def _propagation(frames: int, height: int, width: int, out: bool) -> Work:
    folder = tempfile.mkdtemp(prefix="retrace-bench-")
    path, mask = _video(folder, frames, height, width)

    def work() -> dict[str, object]:
        target = Path(folder) / "out" if out else None
        return retrace.propagate(path, mask, device="auto", out=target, overwrite=True).run()

    return work


def _label_maps() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Prediction and truth, (70, 480, 854) ids 0 to 3: three ragged ellipses that move, and the same a little off."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:480, :854].astype(np.float32)
    noise = cv2.GaussianBlur(generator.standard_normal((480, 854)), (0, 0), 6)
    ragged = noise / (4 * np.abs(noise).max())
    maps = np.zeros((2, 70, 480, 854), np.uint8)
    for side, frame in itertools.product(range(2), range(70)):
        for k, (x, y, a, b) in enumerate(
            [(150, 150, 90, 120), (420, 300, 60, 60), (600, 200, 110, 60)], start=1
        ):
            dx, dy = columns - (x + 2.5 * frame + 6 * side), rows - (y + 30 * np.sin(frame / 9 + side / 4))
            maps[side, frame][(dx / a) ** 2 + (dy / b) ** 2 + ragged < 1] = k
    return maps[0], maps[1]


def davis_ours() -> Work:
    """J and F of one sequence of DAVIS's size, 3 objects, in memory."""
    prediction, truth = _label_maps()
    return lambda: davis.global_scores([davis.davis2017(prediction, truth)])


def davis_plain() -> Work:
    """The same as official evaluators go about it: masks of all objects at once, whole frames, one after the other."""
    prediction, truth = _label_maps()

    def edges(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        east, south, corner = np.zeros_like(mask), np.zeros_like(mask), np.zeros_like(mask)
        east[:, :-1], south[:-1], corner[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
        found: NDArray[np.bool_] = (mask ^ east) | (mask ^ south) | (mask ^ corner)
        found[-1] = mask[-1] ^ east[-1]
        found[:, -1] = mask[:, -1] ^ south[:, -1]
        found[-1, -1] = False
        return found

    def near(mask: NDArray[np.bool_], disc: NDArray[np.uint8]) -> NDArray[np.bool_]:
        return np.asarray(cv2.dilate(mask.astype(np.uint8), disc)) > 0

    def work() -> list[float]:
        ids = np.arange(1, 4)[:, None, None, None]
        own, other = (np.asarray((maps[None] == ids).astype(np.float64)) for maps in (prediction, truth))
        both, either = own * other, np.maximum(own, other)
        j = both.sum((2, 3)) / either.sum((2, 3))
        rows, columns = np.mgrid[-8:9, -8:9]
        disc = (rows**2 + columns**2 <= 64).astype(np.uint8)
        f = np.zeros_like(j)
        for k, t in itertools.product(range(len(own)), range(len(prediction))):
            a, b = edges(own[k, t] > 0), edges(other[k, t] > 0)
            precision, recall = (a & near(b, disc)).sum() / a.sum(), (b & near(a, disc)).sum() / b.sum()
            f[k, t] = 2 * precision * recall / (precision + recall)
        return [float(j[:, 1:-1].mean()), float(f[:, 1:-1].mean())]

    return work


def end_to_end() -> Work:
    """40 frames of 854 x 480, decoded, encoded, read out, masks and overlay written."""
    return _propagation(40, 480, 854, out=True)


def short_video() -> Work:
    """200 small frames; its peak memory is what 2,000 frames are compared with."""
    return _propagation(200, 96, 160, out=True)


def long_video() -> Work:
    """2,000 small frames."""
    return _propagation(2000, 96, 160, out=True)


OURS: dict[str, Callable[[], Work]] = {
    "readout 60x107, 256 ch, 20 + 1 frames": readout_ours,
    "StT correlations, ResNet-18, 256 px": partial(stt_ours, (128, 256)),
    "StT correlations, ResNet-50, 256 px": partial(stt_ours, (512, 1024)),
    "DAVIS J and F, 70 frames, 3 objects": davis_ours,
    "propagate 40 frames of 854x480": end_to_end,
    "propagate 2,000 frames (baseline: 200)": long_video,
    **{f"step, {name}": partial(steps.ours, recipe, flags) for name, recipe, flags in steps.STEPS},
    **{f"clips, {name}": partial(steps.loader, recipe) for name, recipe, flags in steps.STEPS if not flags},
}
BASELINE: dict[str, Callable[[], Work]] = {
    "StT correlations, ResNet-18, 256 px": partial(stt_dense, (128, 256)),
    "StT correlations, ResNet-50, 256 px": partial(stt_dense, (512, 1024)),
    "DAVIS J and F, 70 frames, 3 objects": davis_plain,
    "readout 60x107, 256 ch, 20 + 1 frames": readout_dense,
    "propagate 2,000 frames (baseline: 200)": short_video,
    **{f"step, {name}": partial(steps.plain, recipe, flags) for name, recipe, flags in steps.STEPS},
}
