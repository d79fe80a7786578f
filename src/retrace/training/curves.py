"""Curves on disk: one CSV with a stable name and stable columns, and the running means that go into it."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger

from retrace.files import atomic_path


def read_curves(path: Path) -> list[dict[str, float]]:
    """Rows of a metrics.csv, oldest first; empty cells are left out. A missing file has no rows.

    A last line without its end is left out: the process that wrote it was killed in the middle.
    """
    if not path.exists():
        return []
    lines = path.read_text().rpartition("\n")[0].splitlines()
    return [
        {key: float(value) for key, value in row.items() if value and value.strip()}
        for row in csv.DictReader(lines)
    ]


class CurveLogger(Logger):
    """Writes `path` row by row, so that a killed run keeps what it logged.

    A resumed run goes on in the same file: rows after the step it resumes from are dropped first, because they will
    be written again.
    """

    def __init__(self, path: Path, *, resume_step: int = 0) -> None:
        """Rows of `path` up to and including `resume_step` are kept."""
        super().__init__()
        self._path = path
        self._rows = [row for row in read_curves(path) if row["step"] <= resume_step]
        self._columns: list[str] = []
        for row in self._rows:
            self._columns += [key for key in row if key not in self._columns]
        self._rewrite()

    @property
    def name(self) -> str:
        """Of the logger."""
        return "metrics"

    @property
    def version(self) -> str:
        """There is one."""
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the resolved configuration lies beside the file."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append one row."""
        row = {"step": float(step or 0), **metrics}
        self._rows.append(row)
        new = [key for key in row if key not in self._columns]
        if new:
            self._columns += new
            self._rewrite()
            return
        with self._path.open("a", newline="") as stream:
            self._writer(stream).writerow(self._cells(row))

    def _writer(self, stream: Any) -> Any:
        return csv.DictWriter(stream, self._columns, lineterminator="\n")

    def _cells(self, row: Mapping[str, float]) -> dict[str, str]:
        return {key: f"{value:.0f}" if key == "step" else f"{value:.6g}" for key, value in row.items()}

    def _rewrite(self) -> None:
        with atomic_path(self._path) as temporary, temporary.open("w", newline="") as stream:
            writer = self._writer(stream)
            if self._columns:
                writer.writeheader()
            writer.writerows(self._cells(row) for row in self._rows)


class RunningMeans:
    """Means of named numbers since the last `take`."""

    def __init__(self) -> None:
        """Empty."""
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, float]) -> None:
        """Count `values` in."""
        for key, value in values.items():
            self._sums[key] = self._sums.get(key, 0.0) + value
            self._counts[key] = self._counts.get(key, 0) + 1

    def take(self) -> dict[str, float]:
        """The means, and start anew."""
        means = {key: total / self._counts[key] for key, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means
