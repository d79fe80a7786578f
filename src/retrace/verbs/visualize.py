"""`retrace visualize`: pictures of what an encoder sees and of how a training run went."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from retrace import encoders
from retrace.devices import choose_device
from retrace.encoders import Model
from retrace.errors import RetraceError, UsageError
from retrace.video.decode import fitted_size, open_video, resized
from retrace.viz.affinity import Point, affinity_figure, interesting_points
from retrace.viz.curves import Panel, curves_figure
from retrace.viz.figure import check_suffix, save_figure
from retrace.viz.pca import pca_figure, principal_components
from retrace.walk.nodes import normalise

Pixels = NDArray[np.uint8]
Table = dict[str, tuple[list[float], list[float]]]  # column -> (steps, values)

# Columns of metrics.csv that say where a row stands, not how the run went.
_POSITIONS = {"step", "epoch", "time"}


@dataclass(frozen=True)
class _Pictures:
    images: list[Pixels]  # (H, W, 3) each, resized
    titles: list[str]
    scale: tuple[float, float]  # resized pixels per original pixel, (x, y)


def affinity(
    source: str | Path,
    *,
    frames: tuple[int, int] = (0, 10),
    out: str | Path,
    model: str | Path | Model = "default",
    points: Sequence[Point] | None = None,
    temperature: float = 0.05,
    short_side: int = 256,
    device: str = "auto",
) -> Path:
    """Draw where the nodes of one frame go in another (STFC3 paper, Figure 3).

    Args:
        source: video or frame folder.
        frames: two frame numbers, from 0.
        out: .png, .pdf or .svg.
        model: what `retrace.load` takes, or a loaded model.
        points: (x, y) pixels of the video in the first of the frames, each followed by a heat map; chosen when None.
        temperature: of the softmax.
        short_side: pixels to which the frames are resized; the matrix has (cells)^2 entries.
        device: "auto", "cpu", "cuda", ...

    Returns: `out`.

    Errors: UsageError for a frame number or a point outside, or another suffix; RetraceError for a video, model or
        output that cannot be read or written.
    """
    out, chosen_device = check_suffix(out), choose_device(device)
    if not temperature > 0:
        raise UsageError(f"The temperature is {temperature:g}; give a number above 0, for instance 0.05.")
    pictures = _pictures(source, frames, short_side)
    first = pictures.images[0]
    height, width = first.shape[:2]
    if points is None:
        chosen = interesting_points(first, 4)
    else:
        (sx, sy) = pictures.scale
        chosen = [(x * sx, y * sy) for x, y in points]
        for (x, y), (cx, cy) in zip(points, chosen, strict=True):
            if not (0 <= cx <= width and 0 <= cy <= height):
                raise UsageError(
                    f"The point {x:g},{y:g} lies outside the frame, which is {round(width / sx)} x "
                    f"{round(height / sy)} pixels; give x,y inside it."
                )
    loaded = _model(model, chosen_device)
    features = _features(loaded, pictures.images, chosen_device)
    figure = affinity_figure(
        pictures.images,
        features,
        pictures.titles,
        chosen,
        stride=loaded.stride,
        temperature=temperature,
        model_name=loaded.name,
    )
    return save_figure(figure, out)


def pca(
    source: str | Path,
    *,
    frames: Sequence[int] = (0, 10, 20),
    out: str | Path,
    model: str | Path | Model = "default",
    short_side: int = 480,
    device: str = "auto",
) -> Path:
    """Draw the three strongest components of the features of some frames as colours (STFC3 paper, Figure 7).

    Args:
        source: video or frame folder.
        frames: frame numbers, from 0.
        out: .png, .pdf or .svg.
        model: what `retrace.load` takes, or a loaded model.
        short_side: pixels to which the frames are resized.
        device: "auto", "cpu", "cuda", ...

    Returns: `out`.

    Errors: as `affinity`.
    """
    out, chosen_device = check_suffix(out), choose_device(device)
    if not frames:
        raise UsageError("No frame is given; name at least one, for instance 0,10,20.")
    pictures = _pictures(source, frames, short_side)
    loaded = _model(model, chosen_device)
    features = normalise(_features(loaded, pictures.images, chosen_device), dim=1)
    figure = pca_figure(pictures.images, principal_components(features), pictures.titles, loaded.name)
    return save_figure(figure, out)


def curves(runs: Sequence[str | Path], *, out: str | Path, smooth: int = 15) -> Path:
    """Draw the curves of training runs, one panel per logged number, all runs in each.

    Args:
        runs: folders of training runs (anything below them named metrics.csv is found), or such files.
        out: .png, .pdf or .svg.
        smooth: window of the running mean, in rows of the log; 1 draws the raw numbers only.

    Returns: `out`.

    Errors: UsageError for no run or another suffix; RetraceError for a run without curves.
    """
    out = check_suffix(out)
    if not runs:
        raise UsageError("No run is given; name the folder of at least one training run.")
    tables: dict[str, Table] = {}
    for run in map(Path, runs):
        file = _metrics_file(run)
        tables[_run_name(run, tables)] = _read_table(file)
    columns = list(
        dict.fromkeys(name for table in tables.values() for name in table if name not in _POSITIONS)
    )
    panels = [
        Panel(
            title=column,
            x_label="step",
            y_label=_unit(column),
            lines={name: table[column] for name, table in tables.items() if column in table},
        )
        for column in columns
    ]
    figure = curves_figure(panels, smooth=smooth, heading=next(iter(tables)) if len(tables) == 1 else "")
    return save_figure(figure, out)


def _pictures(source: str | Path, frames: Sequence[int], short_side: int) -> _Pictures:
    """Decode up to the last of the frames, keep those asked for, resize them."""
    if short_side < 16:
        raise UsageError(f"The short side is {short_side} pixels; give at least 16.")
    if min(frames) < 0:
        raise UsageError(f"Frame {min(frames)} does not exist; frames are counted from 0.")
    kept: dict[int, Pixels] = {}
    seen = 0
    with open_video(source) as reader:
        for frame in reader:
            seen = frame.index + 1
            if frame.index in frames:
                kept[frame.index] = frame.image
            if frame.index >= max(frames):
                break
        if max(frames) >= seen:
            if reader.damage:
                raise RetraceError(reader.damage)
            raise UsageError(
                f"{source} has {seen} frames, 0 to {seen - 1}; frame {max(frames)} does not exist."
            )
    height, width = kept[frames[0]].shape[:2]
    new_height, new_width = fitted_size(height, width, short_side)
    return _Pictures(
        images=[resized(kept[index], new_height, new_width) for index in frames],
        titles=[f"frame {index}" for index in frames],
        scale=(new_width / width, new_height / height),
    )


def _model(model: str | Path | Model, device: torch.device) -> Model:
    loaded = model if isinstance(model, Model) else encoders.load(model)
    return loaded.to(device)


def _features(model: Model, images: Sequence[Pixels], device: torch.device) -> torch.Tensor:
    """(T, C, h, w) on the CPU; one frame at a time, so that memory does not grow with their number."""
    maps = [
        model.features(torch.from_numpy(image).permute(2, 0, 1)[None].to(device)).float().cpu()
        for image in images
    ]
    return torch.cat(maps)


def _metrics_file(run: Path) -> Path:
    if run.is_file():
        return run
    if not run.exists():
        raise RetraceError(f"There is no training run {run}; give the folder that retrace train wrote.")
    found = sorted(run.rglob("metrics.csv"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise RetraceError(
            f"{run} holds no metrics.csv; give a folder that retrace train wrote its run into."
        )
    return found[-1]


def _run_name(run: Path, taken: Mapping[str, object]) -> str:
    """The folder's name, or the whole path where two runs share it."""
    folder = run.parent if run.is_file() else run.resolve()
    return folder.name if folder.name not in taken else str(run)


def _read_table(file: Path) -> Table:
    """Column -> (steps, values), empty cells left out."""
    from retrace.training.curves import read_curves  # pulls in the training engine

    table: Table = {}
    try:
        rows = read_curves(file)
    except (ValueError, KeyError) as error:
        raise RetraceError(
            f"{file} is not a table of training curves: {error}. Give a run of retrace train."
        ) from error
    for number, row in enumerate(rows):
        for name, value in row.items():
            steps, values = table.setdefault(name, ([], []))
            steps.append(row.get("step", float(number)))
            values.append(value)
    if not set(table) - _POSITIONS:
        raise RetraceError(f"{file} holds no curve yet; let the training run log something first.")
    return table


def _unit(column: str) -> str:
    """What the numbers of a column are counted in, as far as its name says."""
    endings = {
        "clips_per_s": "clips / s",
        "memory_mb": "MB",
        "loader_wait": "share of the time",
        "accuracy": "share of nodes",
        "loss": "nats",
        "cycle": "nats",
        "direct": "nats",
    }
    return next((unit for ending, unit in endings.items() if column.endswith(ending)), "")
