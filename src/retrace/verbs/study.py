"""Make a paper's experiment again at laptop size: the library function behind `retrace study`."""

import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from retrace import __version__, studies
from retrace.devices import choose_device, processes_on
from retrace.errors import RetraceError, UsageError
from retrace.files import atomic_path
from retrace.studies import Arm, Study, summary
from retrace.verbs import study_figure
from retrace.verbs.output import RunFolder, plain
from retrace.verbs.study_runs import CLIPS, ENCODER, Done, Job, Row, begin, carry_out, settings, wanted

RESULTS, TABLE, NUMBERS, RUNS = "results.json", "table.md", "results.csv", "runs"
FIGURES = ("figure.svg", "figure.png")


@dataclass(frozen=True)
class StudyReport:
    """What a call of `study` left.

    Attributes:
        out: the folder.
        study: its name.
        size: of its settings.
        seeds: seeds that were asked for.
        measured: rows of the results that this call made.
        kept: rows that were there before.
        table: Markdown, as in `table.md`.
        claims: Markdown, whether the results agree with the paper; "" where the study makes no claim.
        files: what was written, by purpose.
    """

    out: str
    study: str
    size: str
    seeds: tuple[int, ...]
    measured: int
    kept: int
    table: str
    claims: str
    files: dict[str, str]


def study(
    name: str,
    out: str | Path | None = None,
    *,
    size: str = "small",
    seeds: Sequence[int] = (0, 1, 2),
    arms: Sequence[str] | None = None,
    videos: str | Path | None = None,
    workers: int = 1,
    device: str = "auto",
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> StudyReport:
    """Train every arm of a study from every seed, measure, and write tables and a figure; or go on where it was left.

    Args:
        name: of a packaged study (`retrace.studies.names`), or a YAML file like those.
        out: folder; None is `studies/NAME`.
        size: of the settings, "small" (two cores, about half an hour) or "gpu".
        seeds: of the runs; seed by seed, so that what is there early holds every arm.
        arms: names of some arms; None takes all.
        videos: folder with davis2016/ and badja/, for the studies that also measure on real clips.
        workers: runs at a time, one thread each; 0 is one per core, and a single one on a GPU. A script that asks for
            several calls this under `if __name__ == "__main__":`, because each of them reads it.
        device: "auto", "cpu", "cuda", ...
        overwrite: delete the study in `out` first.
        progress: called with a line when a run begins or ends.

    Writes `results.json` after every run (what is in it is not done again; an unfinished training continues),
    `results.csv`, `table.md`, `figure.svg` and `figure.png`, and keeps `runs/ARM-SEED/` with the encoder, its
    configuration and its curves. Checkpoints of finished runs are deleted; so are, at the end, the generated clips that
    runs of a seed shared in `clips/` (up to 2 GB for each kind and seed).

    Returns: StudyReport.

    Errors: UsageError for a study, size, arm or seed that does not exist; RetraceError when the folder holds something
        else or was made with other settings, and when a run fails (the others are finished first).
    """
    chosen = studies.load(name, size)
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UsageError(f"seeds is {list(seeds)}; expected one or more different whole numbers from 0.")
    if workers < 0:
        raise UsageError(f"workers is {workers}; expected a number of runs at a time, 0 to choose.")
    picked = chosen.arms if arms is None else tuple(chosen.arm(arm) for arm in arms)
    place = choose_device(device)
    clips = None if videos is None else Path(videos)
    if clips is not None and not clips.is_dir():
        raise UsageError(
            f"There is no folder {clips}; --videos takes the one that holds davis2016/ and badja/."
        )
    folder = Path(out) if out is not None else Path("studies") / chosen.name
    fixed = {arm.name: settings(chosen, arm) for arm in picked}  # also refuses flags that no recipe takes
    owned = RunFolder(folder, {"study": chosen.name, "size": size}, verb="study", overwrite=overwrite)
    tell = progress or (lambda line: None)
    try:
        if overwrite:
            for made in (RUNS, CLIPS):
                shutil.rmtree(folder / made, ignore_errors=True)
            for file in (RESULTS, TABLE, NUMBERS, *FIGURES):
                (folder / file).unlink(missing_ok=True)
        owned.begin()
        results = _read(folder / RESULTS) or _new(chosen)
        _check_same(results, fixed)
        results["settings"] |= fixed
        kept = len(results["rows"])
        jobs = _jobs(chosen, picked, seeds, results, folder, device, clips)
        failures: dict[str, str] = {}
        for count, (job, done) in enumerate(_done(jobs, processes_on(place, workers), tell), 1):
            if isinstance(done, str):
                failures[job.name] = done
                tell(f"{job.name} failed: {done}")
                continue
            _add(results, done)
            _write_json(folder / RESULTS, results)
            tell(f"{job.name} is done ({count} of {len(jobs)})")
        files = write(chosen, results, folder) if results["rows"] else {}
        shutil.rmtree(folder / CLIPS, ignore_errors=True)
    finally:
        owned.release()
    if failures:
        first, why = next(iter(failures.items()))
        raise RetraceError(
            f"{len(failures)} of {len(jobs)} runs failed; the others are kept in {folder}. {first}: {why}"
        )
    rows = results["rows"]
    return StudyReport(
        out=str(folder),
        study=chosen.name,
        size=size,
        seeds=tuple(seeds),
        measured=len(rows) - kept,
        kept=kept,
        table=summary.table(chosen, rows),
        claims=summary.claims_table(chosen, rows),
        files=files,
    )


def write(chosen: Study, results: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Tables and figure from the content of `results.json` alone. Returns: what was written, by purpose.

    Errors: RetraceError when a file cannot be written.
    """
    rows = in_order(chosen, results["rows"])
    parts = [f"# {chosen.title}", f"{chosen.found} ({chosen.where})", summary.table(chosen, rows)]
    claims = summary.claims_table(chosen, rows)
    text = "\n\n".join([*parts, claims] if claims else parts) + "\n"
    for name, content in ((TABLE, text), (NUMBERS, summary.as_csv(rows))):
        with atomic_path(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    study_figure.draw(chosen, rows, results["pictures"], [folder / name for name in FIGURES])
    files = {
        "results": RESULTS,
        "numbers": NUMBERS,
        "table": TABLE,
        "figure": FIGURES[0],
        "preview": FIGURES[1],
    }
    return {purpose: str(folder / name) for purpose, name in files.items()}


def in_order(chosen: Study, rows: Sequence[Row]) -> list[Row]:
    """Rows arm by arm as the study lists them, seeds in order, whatever order they were made in."""
    places = {arm.name: k for k, arm in enumerate(chosen.arms)}
    known = [row for row in rows if row["arm"] in places]
    return sorted(known, key=lambda row: (places[row["arm"]], -1 if row["seed"] is None else row["seed"]))


def read(path: str | Path) -> dict[str, Any]:
    """The content of a study's `results.json`. Errors: RetraceError when it is missing, damaged or something else."""
    found = _read(Path(path))
    if found is None:
        raise RetraceError(f"There is no {path}. Name the results.json of a folder that retrace study wrote.")
    return found


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for row in content["rows"]:
            row["arm"], row["seed"], row["scores"], row["measures"], content["settings"][row["arm"]]
        content["study"], content["size"], content["pictures"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RetraceError(
            f"{path} is damaged or no result of retrace study ({type(error).__name__}: {error}). Put an older copy in "
            "its place, delete it (finished trainings in runs/ are used again), or add --overwrite."
        ) from error
    return dict(content)


def _new(chosen: Study) -> dict[str, Any]:
    return {
        "study": chosen.name,
        "size": chosen.size,
        "retrace": __version__,
        "torch": str(torch.__version__),
        "settings": {},
        "rows": [],
        "pictures": {},
    }


def _check_same(results: Mapping[str, Any], fixed: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse to put numbers of other settings beside those that are there. Errors: RetraceError naming the key."""
    there = {row["arm"] for row in results["rows"]}
    for arm in (arm for arm in fixed if arm in there):
        before, now = results["settings"][arm], json.loads(json.dumps(fixed[arm]))
        for key in {**before, **now}:
            if before.get(key) != now.get(key):
                raise RetraceError(
                    f"The results of {arm} were made with other settings: {key} was {before.get(key)}, now "
                    f"{now.get(key)}. Give another --out, or start anew with --overwrite."
                )


def _jobs(
    chosen: Study,
    picked: Sequence[Arm],
    seeds: Sequence[int],
    results: Mapping[str, Any],
    folder: Path,
    device: str,
    videos: Path | None,
) -> list[Job]:
    """What is left to do: arms without seeds first, then seed by seed."""
    done: dict[tuple[str, int | None], Row] = {(row["arm"], row["seed"]): row for row in results["rows"]}
    asked = set(wanted(chosen, videos))

    def missing(arm: Arm, seed: int | None) -> bool:
        return (arm.name, seed) not in done or not asked <= set(done[arm.name, seed]["measures"])

    jobs = []
    for seed in (None, *seeds):
        for run in chosen.arms:
            if run.run or (seed is None) != bool(run.model):
                continue
            reads = tuple(arm for arm in picked if (arm.run or arm.name) == run.name and missing(arm, seed))
            later = [arm for arm in picked if arm.after == run.name and missing(arm, seed)]
            if reads or (later and not (folder / RUNS / f"{run.name}-{seed}" / ENCODER).exists()):
                first = not any(arm.name in results["pictures"] for arm in reads) and seed in (None, seeds[0])
                before = {arm.name: done[arm.name, seed] for arm in reads if (arm.name, seed) in done}
                jobs.append(Job(chosen, run, reads, seed, folder, device, videos, first, before))
    return jobs


def _done(jobs: Sequence[Job], workers: int, tell: Callable[[str], None]) -> Iterator[tuple[Job, Done | str]]:
    """Every job with what it came to, or why it failed, as they end; one process each, `workers` at a time."""
    if not jobs:
        return
    tell(f"{len(jobs)} runs, {min(workers, len(jobs))} at a time")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), context, initializer=begin) as pool:
        try:
            left = list(jobs)
            waiting: dict[Future[Done], Job] = {}
            while left or waiting:
                unfinished = {(job.run.name, job.seed) for job in (*left, *waiting.values())}
                ready = [job for job in left if (job.run.after, job.seed) not in unfinished]
                left = [job for job in left if job not in ready]
                waiting |= {pool.submit(carry_out, job): job for job in ready}
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    job = waiting.pop(future)
                    try:
                        yield job, future.result()
                    except RetraceError as error:
                        yield job, str(error)
        except BrokenProcessPool as error:
            raise RetraceError(
                "A process died, most likely for want of memory. What was finished is kept: run again, with fewer "
                '--workers. (A script of one\'s own has to call this under `if __name__ == "__main__":`.)'
            ) from error
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)  # a training that is stopped saves where it is
            raise


def _add(results: dict[str, Any], done: Done) -> None:
    """Put rows in the place of those of the same arm and seed."""
    new = {(row["arm"], row["seed"]) for row in done.rows}
    results["rows"] = [row for row in results["rows"] if (row["arm"], row["seed"]) not in new] + done.rows
    results["pictures"] |= done.pictures


def _write_json(path: Path, results: Mapping[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(_lines(results), encoding="utf-8")


def _lines(results: Mapping[str, Any]) -> str:
    """JSON with a line per arm and per row, so that changes can be read."""
    parts = []
    for key, value in plain(results).items():
        inner = ",\n".join(
            [f"  {json.dumps(name)}: {json.dumps(item)}" for name, item in value.items()]
            if isinstance(value, dict)
            else [f"  {json.dumps(item)}" for item in value]
            if isinstance(value, list)
            else []
        )
        ends = "{}" if isinstance(value, dict) else "[]"
        text = f"{ends[0]}\n{inner}\n {ends[1]}" if inner else json.dumps(value)
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"
