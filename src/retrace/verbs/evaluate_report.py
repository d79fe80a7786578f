"""The report of an evaluation: one HTML file that needs nothing else, to be read by people who doubt it."""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from retrace.benchmarks.masks import frame_name
from retrace.benchmarks.published import Published, beside
from retrace.benchmarks.reconstruction import GAPS
from retrace.benchmarks.records import Benchmark, Metric, SequenceResult
from retrace.benchmarks.sizes import SizeTable
from retrace.datasets import records
from retrace.datasets.flowfiles import read_flo, read_kitti_png
from retrace.datasets.records import Dataset, Points
from retrace.errors import RetraceError
from retrace.files import open_image
from retrace.formats.davis_png import read_mask
from retrace.metrics.ratios import mean_of_numbers
from retrace.propagation.codecs import FrameLabels
from retrace.propagation.protocols import PROTOCOLS
from retrace.video.decode import frames_of
from retrace.viz.figure import COLOURS
from retrace.viz.flow import error_colours, flow_colours, longest
from retrace.viz.overlay import Overlay

Pixels = NDArray[np.uint8]
WORST, SHOWN, WIDTH = 5, 5, 360
"""Sequences and frames of each in the strips, and pixels across."""
FEW = 10
"""Sequences that are left out, and notes, which are shown before the reader asks for all."""
MANY = 60
"""From so many sequences on, bars have no names."""
ORANGE = (230, 159, 0)
OUTCOME_COLOURS = ("var(--good)", "#E69F00", "#0072B2", "#D55E00")
"""Of the parts of a bar: the good outcome first, the worst last."""
GREY, ACCENT = "var(--faint)", "var(--accent)"


def page(
    folder: Path,
    task: Benchmark,
    data: Dataset[Any],
    results: Sequence[SequenceResult],
    summary: Mapping[str, Any],
) -> str:
    """The whole file.

    Args:
        folder: of the run, with its submission.
        task: the benchmark.
        data: its sequences, for the frames of the strips.
        results: of all sequences.
        summary: as in `result.json`.

    Returns: HTML with everything inside it.
    """
    main = task.metrics[0]
    ranked = sorted(
        results, key=lambda r: _order(r.scores.get(main.key, np.nan), main), reverse=main.higher_is_better
    )
    known = [r for r in ranked if np.isfinite(r.scores.get(main.key, np.nan))]
    sections = [
        _header(task, summary),
        _excluded(summary),
        _headline(task, summary),
        _section(f"All {task.items}", _bars(known, main) + _without(ranked, main)),
        _curves(ranked, task),
        _section(
            f"The {WORST} worst" if len(known) > WORST else f"All {task.items} with that number, worst first",
            _strips(folder, task, data, known[::-1][:WORST], main),
        ),
        _section("What became of labels, by size", _sizes(task.sizes, results)),
        _section("How it was made", _settings(task, summary)),
    ]
    body = "\n".join(part for part in sections if part)
    title = f"{task.title}: {escape(str(summary['model']['name']))}"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n{_STYLE}</head>\n'
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def shown(value: float | None, metric: Metric) -> str:
    """A number as the field prints it: shares times 100."""
    if value is None or not np.isfinite(value):
        return "&ndash;"
    return f"{100 * value:.1f}" if metric.unit == "share" else f"{value:.2f}"


def _order(value: float, metric: Metric) -> float:
    """NaN goes last."""
    worst = -np.inf if metric.higher_is_better else np.inf
    return value if np.isfinite(value) else worst


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{content}</section>" if content else ""


def _header(task: Benchmark, summary: Mapping[str, Any]) -> str:
    counted = summary["sequences"]
    whole = counted["scored"] == counted["in_split"]
    badge = f"{counted['scored']} of {counted['asked']} {task.items}"
    if counted["asked"] != counted["in_split"]:
        badge += f", {counted['in_split']} in the split"
    main = task.metrics[0]
    protocol = summary["protocol"]["name"] if summary["protocol"] else "a baseline, no protocol"
    return (
        f'<header><p class="kind">{escape(task.title)} &middot; {escape(summary["split"])}</p>'
        f"<h1>{escape(str(summary['model']['name']))}</h1>"
        f'<p class="big"><b>{shown(summary["scores"][main.key], main)}</b> '
        f"<span>{escape(main.label)}{_unit(main)}{_partly(main, task, summary)}</span></p>"
        f'<p><span class="badge{"" if whole else " warn"}">{badge}</span> <span class="badge">{escape(protocol)}</span>'
        + "".join(
            f' <span class="badge">{escape(k)}: {escape(v)}</span>' for k, v in summary["options"].items()
        )
        + "</p>"
        + _cards(task, summary)
        + "</header>"
    )


def _cards(task: Benchmark, summary: Mapping[str, Any]) -> str:
    cards = "".join(
        f"<div><b>{shown(summary['scores'].get(m.key), m)}</b><span>{escape(m.label)}{_unit(m)}"
        f"{'' if m.higher_is_better else ' &darr;'}{_partly(m, task, summary)}</span></div>"
        for m in task.metrics
    )
    return f'<div class="cards">{cards}</div>'


def _unit(metric: Metric) -> str:
    return "" if metric.unit == "share" else f" ({metric.unit})"


def _partly(metric: Metric, task: Benchmark, summary: Mapping[str, Any]) -> str:
    """Of how many sequences the number is, where that is not all of them."""
    scored, counted = summary["sequences"]["scored"], summary["sequences_with_a_number"][metric.key]
    return "" if counted == scored else f"; {counted} of {scored} {task.items}"


def _excluded(summary: Mapping[str, Any]) -> str:
    excluded, notes = summary["sequences"]["excluded"], summary["notes"]
    if not excluded and not notes:
        return ""
    items = [f"<li><b>{escape(name)}</b> is left out: {escape(why)}</li>" for name, why in excluded.items()]
    items += [f"<li>{escape(note)}</li>" for note in notes]
    more = (
        f"<details><summary>{len(items) - FEW} more</summary><ul>{''.join(items[FEW:])}</ul></details>"
        if len(items) > FEW
        else ""
    )
    return f'<section class="warning"><ul>{"".join(items[:FEW])}</ul>{more}</section>'


def _headline(task: Benchmark, summary: Mapping[str, Any]) -> str:
    rows = beside(task.name)
    if not rows:
        return ""
    keys = [m for m in task.metrics if any(m.key in row.scores[task.name] for row in rows)]
    ours = {
        m.key: (100 if m.unit == "share" else 1) * summary["scores"][m.key]
        for m in keys
        if m.key in summary["scores"]
    }
    worst = -np.inf if keys[0].higher_is_better else np.inf
    entries: list[tuple[float, str]] = []
    for row in rows:
        cells = "".join(_cell(row.scores[task.name].get(m.key)) for m in keys)
        note = _differences(row, task, summary)
        entries.append(
            (
                row.scores[task.name].get(keys[0].key, worst),
                f"<tr><td>{escape(row.method)}</td><td>{escape(row.backbone)}</td>{cells}<td>{note}</td></tr>",
            )
        )
    name = escape(str(summary["model"]["name"]))
    protocol = escape(summary["protocol"]["name"]) if summary["protocol"] else "no protocol"
    entries.append(
        (
            ours.get(keys[0].key, worst),
            f'<tr class="ours"><td>this run</td><td>{name}</td>'
            + "".join(_cell(ours.get(m.key)) for m in keys)
            + f"<td>{protocol}</td></tr>",
        )
    )
    entries.sort(key=lambda entry: entry[0], reverse=keys[0].higher_is_better)
    head = "".join(f"<th class='n'>{escape(m.label)}</th>" for m in keys)
    counted = summary["sequences"]
    part = (
        f"<p class='hint'>This run scored {counted['scored']} of the {counted['in_split']} {task.items} of the split; "
        "the published numbers are means over all of them.</p>"
        if counted["scored"] != counted["in_split"]
        else ""
    )
    if task.official not in (None, counted["in_split"]):
        part += (
            f"<p class='hint'>The published numbers are of {task.official} {task.items}; this folder has "
            f"{counted['in_split']}, so they do not compare.</p>"
        )
    return _section(
        "Beside published numbers",
        part
        + f"<div class='wide'><table><thead><tr><th>method</th><th>backbone</th>{head}<th>protocol, and where it "
        "differs from this run's</th></tr></thead><tbody>"
        + "".join(text for _, text in entries)
        + "</tbody></table></div><p class='hint'>Not known: the settings behind that number are not among the "
        "protocols here. docs/protocols.md explains the settings; weights and training data differ in every row.</p>",
    )


def _cell(value: float | None) -> str:
    return (
        f"<td class='n'>{value:.1f}</td>"
        if value is not None and np.isfinite(value)
        else "<td class='n'></td>"
    )


def _differences(row: Published, task: Benchmark, summary: Mapping[str, Any]) -> str:
    """The protocol of a published row and the settings in which it differs from ours."""
    name = row.protocol.get(task.name)
    known: Mapping[str, Any] = PROTOCOLS if task.settings is None else task.settings
    if name is None or name not in known:
        return "<span class='hint'>not known</span>"
    if summary["protocol"] is None:
        return escape(name)
    ours, theirs = _flat(summary["protocol"]), _flat(asdict(known[name]))
    idle = _IDLE.get(task.label, ())
    differing = [
        f"{key} {_word(theirs[key])}"
        for key in theirs
        if key not in idle and _word(theirs[key]) != _word(ours.get(key))
    ]
    options = row.options.get(task.name, {})
    differing += [f"{key} {value}" for key, value in options.items() if summary["options"].get(key) != value]
    if not differing:
        return f"{escape(name)} <span class='same'>same</span>"
    return f"{escape(name)} <span class='differs'>&ne;</span> <span class='hint'>{escape(', '.join(differing))}</span>"


_OF_MASKS = ("seed", "seed_at", "read_at", "output", "min_pixels")
_IDLE: Mapping[str, tuple[str, ...]] = {
    "mask": ("keypoints",),
    "parts": ("keypoints",),
    "keypoints": _OF_MASKS,
    "points": _OF_MASKS,
}
"""Kind of label -> settings of a protocol that do nothing to it."""


def _flat(protocol: Mapping[str, Any]) -> dict[str, Any]:
    rules = dict(protocol.get("rules", {}))
    return {
        key: value for key, value in {**protocol, **rules}.items() if key not in ("name", "source", "rules")
    }


def _source(protocol: Mapping[str, Any]) -> list[str]:
    return [f"({protocol['source']})"] if "source" in protocol else []


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, tuple | list):
        return " x ".join(str(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _bars(ranked: Sequence[SequenceResult], metric: Metric) -> str:
    if not ranked:
        return "<p class='hint'>No sequence has this number: its truth is not on this machine.</p>"
    values = [r.scores[metric.key] for r in ranked]
    top = 1.0 if metric.unit == "share" else max(max(values), 1e-9)
    if len(ranked) <= MANY:
        rows = "".join(
            f'<div class="bar"><span class="name" title="{escape(r.name)}">{escape(r.name)}</span>'
            f'<span class="track"><i style="width:{100 * max(v, 0) / top:.2f}%"></i></span>'
            f'<span class="value">{shown(v, metric)}</span></div>'
            for r, v in zip(ranked, values, strict=True)
        )
        return f'<div class="bars">{rows}</div>'
    step = 1000 / len(ranked)
    bars = "".join(
        f'<rect x="{k * step:.2f}" y="{150 - 140 * max(v, 0) / top:.1f}" width="{max(step - 0.4, 0.6):.2f}" '
        f'height="{140 * max(v, 0) / top:.1f}" fill="{ACCENT}">'
        f"<title>{escape(r.name)} {shown(v, metric)}</title></rect>"
        for k, (r, v) in enumerate(zip(ranked, values, strict=True))
    )
    return (
        f'<div class="wide"><svg viewBox="0 0 1000 155" role="img" aria-label="sorted bars">{bars}</svg></div>'
        + _ends(ranked, metric)
    )


def _without(ranked: Sequence[SequenceResult], metric: Metric) -> str:
    """Sequences that were carried and have no number."""
    names = [escape(r.name) for r in ranked if not np.isfinite(r.scores.get(metric.key, np.nan))]
    return f"<p class='hint'>Without this number: {', '.join(names)}.</p>" if names else ""


def _ends(ranked: Sequence[SequenceResult], metric: Metric) -> str:
    def line(part: Iterable[SequenceResult]) -> str:
        return ", ".join(f"{escape(r.name)} {shown(r.scores[metric.key], metric)}" for r in part)

    return f"<p class='hint'>best: {line(ranked[:5])}<br>worst: {line(ranked[::-1][:5])}</p>"


def _curves(ranked: Sequence[SequenceResult], task: Benchmark) -> str:
    """Per-frame values of all sequences over their relative time, the mean and the worst in them on top."""
    metric = next(
        (m for m in (*task.metrics[1:], task.metrics[0]) if any(m.key in r.frames for r in ranked)), None
    )
    if metric is None:
        return ""
    drawn = sorted(
        (r for r in ranked if len(r.frames.get(metric.key, [])) > 1),
        key=lambda r: _order(mean_of_numbers(r.frames[metric.key]), metric),
        reverse=metric.higher_is_better,
    )
    if not drawn:
        return ""
    grid = np.linspace(0, 1, 101)
    lines = []
    for result in drawn:
        x = np.array(result.frames["frame"]) / max(result.num_frames - 1, 1)
        y = np.array(result.frames[metric.key])
        inside = (grid >= x[0] - 1e-9) & (grid <= x[-1] + 1e-9)
        lines.append(np.where(inside, np.interp(grid, x, y), np.nan))
    table = np.array(lines)
    top = 1.0 if metric.unit == "share" else float(np.nanmax(table))
    worst = list(range(len(drawn)))[-WORST:][::-1]
    with np.errstate(invalid="ignore"):
        count = np.isfinite(table).sum(0)
    # only where nearly all have a value: the mean would jump where a sequence begins or ends
    mean = np.where(count >= 0.9 * len(drawn), np.nansum(table, axis=0) / np.maximum(count, 1), np.nan)
    parts = [_line(row, top, GREY, 1.0) for k, row in enumerate(table) if k not in worst]
    parts += [_line(table[k], top, COLOURS[n % len(COLOURS)], 1.6) for n, k in enumerate(worst)]
    parts.append(_line(mean, top, "var(--text)", 3.0))
    ticks = "".join(
        f'<line x1="40" x2="980" y1="{260 - 240 * t:.0f}" y2="{260 - 240 * t:.0f}" class="grid"/>'
        f'<text x="34" y="{264 - 240 * t:.0f}" text-anchor="end">{_tick(t * top, metric)}</text>'
        for t in (0, 0.25, 0.5, 0.75, 1)
    )
    ticks += "".join(
        f'<text x="{40 + 940 * t:.0f}" y="280" text-anchor="middle">{100 * t:.0f} %</text>'
        for t in (0, 0.25, 0.5, 0.75, 1)
    )
    legend = "<span><i style='background:var(--text)'></i>mean of all</span>" + "".join(
        f"<span><i style='background:{COLOURS[n % len(COLOURS)]}'></i>{escape(drawn[k].name)}</span>"
        for n, k in enumerate(worst)
    )
    others = f" Grey: the other {task.items}." if len(drawn) > WORST else ""
    return (
        f"<section><h2>{escape(metric.label)}{_unit(metric)} over time</h2>"
        f'<div class="wide"><svg viewBox="0 0 1000 290" role="img" aria-label="{escape(metric.label)} over time">'
        f"{ticks}{''.join(parts)}</svg></div>"
        f'<p class="legend">{legend}</p>'
        f"<p class='hint'>Across: share of the video.{others}</p></section>"
    )


def _tick(value: float, metric: Metric) -> str:
    """A number at an axis."""
    return f"{100 * value:g}" if metric.unit == "share" else f"{value:.3g}"


def _line(values: NDArray[np.float64], top: float, colour: str, width: float) -> str:
    runs: list[list[str]] = [[]]
    for k, value in enumerate(values):
        if np.isfinite(value):
            runs[-1].append(f"{40 + 9.4 * k:.1f},{260 - 240 * max(value, 0) / top:.1f}")
        elif runs[-1]:
            runs.append([])
    return "".join(
        f'<polyline points="{" ".join(run)}" fill="none" stroke="{colour}" stroke-width="{width}" '
        'stroke-linejoin="round"/>'
        for run in runs
        if run
    )


def _strips(
    folder: Path,
    task: Benchmark,
    data: Dataset[Any],
    worst: Sequence[SequenceResult],
    metric: Metric,
) -> str:
    sequences = {sequence.name: sequence for sequence in data.sequences}
    blocks = []
    for result in worst:
        pictures = _PICTURES.get(task.label, _over_time)(folder, task, sequences[result.name], result)
        if not pictures:
            continue
        images = "".join(
            f'<figure><img src="{_embedded(image)}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
            for caption, image in pictures
        )
        blocks.append(
            f"<h3>{escape(result.name)} <span class='hint'>{shown(result.scores[metric.key], metric)} "
            f"{escape(metric.label)}</span></h3><div class='strip'>{images}</div>"
        )
    return f"<p class='hint'>{_SHOWN[task.label]}</p>" + "".join(blocks) if blocks else ""


_OUTLINES = "Filled: carried. White outline: the truth. Numbers are frames, the first is 0."
_DISCS = "Discs: carried. Rings: the truth; a line joins the two. Numbers are frames, the first is 0."
_SHOWN = {
    "mask": _OUTLINES,
    "parts": _OUTLINES,
    "keypoints": _DISCS,
    "points": _DISCS,
    "boxes": "Orange: carried. White: the truth. Numbers are frames, the first is 0.",
    "texture": "Painted: carried stripes. White outline: the object. Numbers are frames, the first is 0.",
    "frame": f"From above: the frame {max(GAPS)} before, what was made of its colours, the frame. "
    "Numbers are frames, the first is 0.",
    "flow": "Hue is direction, saturation length; white stands still, black is not known.",
}
"""What the pictures of each kind of label show."""


def _over_time(
    folder: Path, task: Benchmark, sequence: records.Sequence[Any], result: SequenceResult
) -> list[tuple[str, Pixels]]:
    """Frames with what was carried and what is true, evenly over the scored ones."""
    times = [int(t) for t in result.frames.get("frame", [])]
    if not times:
        return []
    chosen = sorted({times[round(k)] for k in np.linspace(0, len(times) - 1, SHOWN)})
    pictures = []
    try:
        for index, image in enumerate(frames_of(sequence)):
            if index > chosen[-1]:
                break
            if index in chosen:
                height, width = sequence.size or image.shape[:2]
                scaled = np.asarray(
                    cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8
                )
                pictures.append((str(index), _drawn(folder, task, sequence, index, scaled)))
    except RetraceError:
        return []  # the frames were readable when they were scored and are not any more; the numbers stand
    return pictures


def _of_flow(
    folder: Path, task: Benchmark, sequence: records.Sequence[Any], result: SequenceResult
) -> list[tuple[str, Pixels]]:
    """Both frames, the flow as carried and as true, and how far apart the two are."""
    path = folder / "submission" / task.prediction.format(sequence=sequence.name)
    try:
        frames = list(frames_of(sequence))
        truth = sequence.truth(0)
        uv = (read_flo if path.suffix == ".flo" else read_kitti_png)(path).uv
    except RetraceError:
        return []  # as in _over_time
    pictures = [("first frame", frames[0]), ("second frame", frames[1])]
    if truth is None:
        full = longest(uv)
        pictures.append((f"carried, full colour at {full:.1f} px", flow_colours(uv, full)))
    else:
        full = longest(truth.uv, truth.valid)
        epe = np.linalg.norm(uv - truth.uv, axis=-1)
        pictures += [
            (f"carried, full colour at {full:.1f} px", flow_colours(uv, full)),
            ("true", flow_colours(truth.uv, full, truth.valid)),
            (f"error, lightest at {full:.1f} px", error_colours(epe, full, truth.valid)),
        ]
    return [(caption, _small(image)) for caption, image in pictures]


def _of_frames(
    folder: Path, task: Benchmark, sequence: records.Sequence[Any], result: SequenceResult
) -> list[tuple[str, Pixels]]:
    """The earlier frame, the reconstructed and the true one, on top of each other."""
    shown, far = result.raw["shown"], max(GAPS)
    images: dict[int, Pixels] = {}
    pictures = []
    try:
        for index, image in enumerate(frames_of(sequence)):
            if index in shown or index + far in shown:
                images[index] = _small(image)
            if index in shown:
                name = task.prediction.format(sequence=sequence.name, frame=frame_name(sequence, index))
                made = np.asarray(open_image(folder / "submission" / name, "frame").convert("RGB"))
                pictures.append((str(index), np.vstack([images[index - far], _small(made), images[index]])))
    except RetraceError:
        return []  # as in _over_time
    return pictures


_PICTURES = {"flow": _of_flow, "frame": _of_frames}
"""Kind of label -> the pictures of a sequence with their captions, where they are not frames over time."""


def _small(image: Pixels) -> Pixels:
    """WIDTH pixels across."""
    size = (WIDTH, max(1, round(image.shape[0] * WIDTH / image.shape[1])))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _drawn(
    folder: Path, task: Benchmark, sequence: records.Sequence[Any], frame: int, image: Pixels
) -> Pixels:
    """One picture, WIDTH pixels across."""
    path = (
        folder
        / "submission"
        / task.prediction.format(sequence=sequence.name, frame=frame_name(sequence, frame))
    )
    truth = sequence.truth(frame)
    scale = WIDTH / image.shape[1]
    small = _small(image)
    size = (WIDTH, small.shape[0])
    if task.label in ("mask", "parts"):
        ids = read_mask(path, allow_empty=True).ids
        names = [str(i) for i in sorted(set(sequence.objects) | (set(np.unique(ids).tolist()) - {0}))]
        carried = np.asarray(cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
        canvas = Overlay(names, legend=False).draw(small, FrameLabels(masks=carried), index=frame, time=0.0)
        return _outlined(canvas, truth.classes if isinstance(truth, records.Parts) else truth)
    if task.label == "texture":
        paint = FrameLabels(texture=np.asarray(open_image(path, "texture").convert("RGBA")))
        return _outlined(_small(Overlay([], legend=False).draw(image, paint, index=frame, time=0.0)), truth)
    if task.label == "boxes":
        box = np.array(path.read_text().splitlines()[frame].split(","), dtype=np.float64) - (1, 1, 0, 0)
        return _boxes(small, box * scale, sequence.read(frame).xywh[0] * scale)
    places = np.array(json.loads(path.read_text())["points"][frame], dtype=np.float64)
    return _points(small, places * scale, truth, scale)


def _outlined(canvas: Pixels, truth: NDArray[np.uint8] | None) -> Pixels:
    """White lines round every true object, in place; 255 is void."""
    if truth is None:
        return canvas
    size = (canvas.shape[1], canvas.shape[0])
    true = cv2.resize(np.where(truth == 255, 0, truth), size, interpolation=cv2.INTER_NEAREST)
    for i in np.unique(true):
        if i:
            outline, _ = cv2.findContours(
                (true == i).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
            )
            cv2.drawContours(canvas, outline, -1, (255, 255, 255), 1, cv2.LINE_AA)
    return canvas


def _boxes(image: Pixels, carried: NDArray[np.float64], truth: NDArray[np.float64]) -> Pixels:
    canvas = image.copy()
    for box, colour, width in ((truth, (0, 0, 0), 4), (truth, (255, 255, 255), 2), (carried, ORANGE, 2)):
        if np.isfinite(box).all():
            ends = np.concatenate([box[:2], box[:2] + box[2:]]).clip(-1e4, 1e4).round().astype(int).tolist()
            cv2.rectangle(canvas, (ends[0], ends[1]), (ends[2], ends[3]), colour, width, cv2.LINE_AA)
    return canvas


def _points(image: Pixels, carried: NDArray[np.float64], truth: Points | None, scale: float) -> Pixels:
    canvas = image.copy()
    colours = [tuple(int(colour[k : k + 2], 16) for k in (1, 3, 5)) for colour in COLOURS[:-1]]
    for k, place in enumerate(carried):
        colour = colours[k % len(colours)]
        there = np.isfinite(place).all()
        spot = (round(float(place[0])), round(float(place[1]))) if there else None
        if truth is not None and truth.visible[k] and np.isfinite(truth.xy[k]).all():
            true = tuple(round(float(v)) for v in truth.xy[k] * scale)
            if spot is not None:
                cv2.line(canvas, spot, true, (255, 255, 255), 1, cv2.LINE_AA)
            cv2.circle(canvas, true, 4, (255, 255, 255), 1, cv2.LINE_AA)
        if spot is not None:
            cv2.circle(canvas, spot, 3, (0, 0, 0), -1, cv2.LINE_AA)
            cv2.circle(canvas, spot, 2, colour, -1, cv2.LINE_AA)
    return canvas


def _embedded(image: Pixels) -> str:
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert done
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def _sizes(table: SizeTable | None, results: Sequence[SequenceResult]) -> str:
    counts = [np.array(r.raw["confusion_by_size"]) for r in results if "confusion_by_size" in r.raw]
    if table is None or not counts:
        return ""
    colours = OUTCOME_COLOURS[: table.whole - 1] + OUTCOME_COLOURS[-1:]
    rows, low = "", 0.0
    for high, line in zip(table.ends, np.sum(counts, axis=0), strict=True):
        true = line[: table.whole].sum()
        name = f"{100 * low:g} to {100 * high:g} %" if high < 1 else f"above {100 * low:g} %"
        low = high
        if not true:
            span = len(table.outcomes) + 1
            rows += f"<tr><td>{name}</td><td colspan='{span}' class='hint'>none of that size</td></tr>"
            continue
        shares = line / true
        bar = "".join(
            f'<i style="width:{100 * share:.2f}%;background:{colour}"></i>'
            for share, colour in zip(shares[: table.whole], colours, strict=True)
        )
        numbers = "".join(f"<td class='n'>{100 * share:.1f}</td>" for share in shares)
        rows += f"<tr><td>{name}</td><td class='stack'><span>{bar}</span></td>{numbers}</tr>"
    dots = [f"<i class='dot' style='background:{colour}'></i>" for colour in colours]
    dots += [""] * (len(table.outcomes) - table.whole)  # what comes on top has no part of the bar
    heads = "".join(f"<th class='n'>{dot}{name}</th>" for dot, name in zip(dots, table.outcomes, strict=True))
    return (
        f"<div class='wide'><table><thead><tr><th>{escape(table.of)}</th><th></th>"
        f"{heads}</tr></thead><tbody>{rows}</tbody></table></div><p class='hint'>{escape(table.unit)}</p>"
    )


def _settings(task: Benchmark, summary: Mapping[str, Any]) -> str:
    model = summary["model"]
    kept = summary["sequences_kept_from_an_earlier_run"]
    earlier = f", of {kept} of them in an earlier run" if kept else ""
    rows: list[tuple[str, Any]] = [
        ("encoder", model["name"]),
        ("its hash", model["sha256"] or "none: a baseline"),
    ]
    if "stride" in model:
        padded = model["padded_to_multiples_of"]
        note = f"; frames are padded to multiples of {padded} pixels" if padded > 1 else ""
        rows.append(("map", f"stride {model['stride']}, {model['channels']} channels{note}"))
    if summary["protocol"]:
        rows += [
            ("protocol", " ".join([summary["protocol"]["name"], *_source(summary["protocol"])])),
            ("its settings", ", ".join(f"{k} {_word(v)}" for k, v in _flat(summary["protocol"]).items())),
        ]
    rows += [("options", ", ".join(f"{k} {v}" for k, v in summary["options"].items()) or "none")]
    rows += [
        ("data", f"{summary['root']}, {summary['split']}"),
        ("computed on", f"{summary['device']}, {summary['dtype']}"),
        ("finished", summary["finished"]),
        ("processes", str(summary["workers"])),
        (
            "time",
            f"{summary['seconds']:.0f} s ({summary['sequence_seconds']:.0f} s summed over {task.items}{earlier})",
        ),
        ("memory", f"at most {summary['peak_megabytes_of_a_worker']} MB in one process"),
        ("machine", summary["machine"]),
        (
            "versions",
            f"retrace {summary['retrace']}, "
            + ", ".join(f"{name} {number}" for name, number in summary["versions"].items()),
        ),
    ]
    body = "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in rows)
    return f"<table class='settings'><tbody>{body}</tbody></table>"


_STYLE = """<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { --text: #1b1f24; --muted: #636c76; --faint: #c5ccd3; --line: #e4e8ec; --back: #fff; --panel: #f6f8fa;
  --accent: #0072b2; --good: #009e73; --warn: #9a5b00; --warnback: #fff4e0; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --muted: #9aa4ae; --faint: #444c56; --line: #2d333b;
  --back: #0f1318; --panel: #171c22; --accent: #56b4e9; --good: #2fc796; --warn: #ffb84d; --warnback: #2b2111; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 15px/1.5 system-ui, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { margin: 0; font-size: 30px; line-height: 1.2; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { margin: 0 0 14px; font-size: 19px; }
h3 { margin: 22px 0 8px; font-size: 15px; }
section { margin-top: 44px; }
.kind { margin: 0 0 4px; color: var(--muted); }
.big { margin: 14px 0 10px; } .big b { font-size: 52px; line-height: 1; letter-spacing: -0.02em; }
.big span { font-size: 18px; color: var(--muted); margin-left: 6px; }
.badge { display: inline-block; padding: 2px 10px; border-radius: 99px; background: var(--panel);
  border: 1px solid var(--line); font-size: 13px; margin: 0 4px 4px 0; }
.badge.warn { background: var(--warnback); color: var(--warn); border-color: var(--warn); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(110px, 1fr)); gap: 10px; margin-top: 20px; }
.cards div { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 10px 14px; }
.cards b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; }
.cards span, .hint { color: var(--muted); font-size: 13px; font-weight: normal; }
.warning { background: var(--warnback); border-left: 4px solid var(--warn); border-radius: 6px; padding: 10px 18px;
  margin-top: 26px; } .warning ul { margin: 0; padding-left: 18px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; font-weight: 600; color: var(--muted); font-size: 13px; }
th, td { padding: 6px 10px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.n { text-align: right; font-variant-numeric: tabular-nums; padding-right: 22px; white-space: nowrap; }
tr.ours td { font-weight: 700; background: var(--panel); }
tr.ours td:first-child { border-left: 4px solid var(--accent); padding-left: 10px; }
.same { color: var(--good); } .differs { color: var(--warn); font-weight: 700; }
.bars { display: grid; gap: 3px; }
.bar { display: grid; grid-template-columns: 190px 1fr 52px; gap: 12px; align-items: center; font-size: 13px; }
.bar .name { text-align: right; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.track { background: var(--panel); border-radius: 4px; height: 15px; overflow: hidden; }
.track i { display: block; height: 100%; background: var(--accent); border-radius: 4px; }
.value { font-variant-numeric: tabular-nums; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--muted); font-size: 12px; }
.grid { stroke: var(--line); }
.legend span { margin-right: 18px; font-size: 13px; white-space: nowrap; }
.legend i { display: inline-block; width: 18px; height: 3px; margin-right: 6px; vertical-align: middle; }
.strip { display: grid; grid-template-columns: repeat(5, 1fr); gap: 6px; }
figure { margin: 0; } figure img { width: 100%; display: block; border-radius: 6px; }
figcaption { color: var(--muted); font-size: 12px; }
.wide { overflow-x: auto; }
.dot { display: inline-block; width: 9px; height: 9px; border-radius: 99px; margin-right: 6px; }
.stack { width: 45%; }
.stack span { display: flex; height: 15px; border-radius: 4px; overflow: hidden; margin-top: 3px; }
.settings th { width: 140px; } .settings td { overflow-wrap: anywhere; }
@media (max-width: 640px) { main { padding: 24px 16px 60px; } .wide > * { min-width: 680px; }
  .strip { grid-template-columns: repeat(2, 1fr); }
  .bar { grid-template-columns: 110px 1fr 48px; } }
</style>"""
