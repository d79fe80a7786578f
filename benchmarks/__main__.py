"""`make bench`: every case beside its baseline in one run; a table on stdout and benchmarks/latest.json.

Each measurement is a process of its own, so that peak memory is its own too. Seconds are the best of
several calls of ours, and of one of a baseline, which take long.
"""

import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks.cases import BASELINE, OURS

LATEST = Path(__file__).with_name("latest.json")


def measure(side: str, name: str, calls: int) -> None:
    """Run one case in this process and print {seconds, cpu_seconds, peak_mb, detail} as the last line.

    The processor's seconds, of all threads together, are what other work on the machine lengthens least; with
    OMP_WAIT_POLICY=passive they count no waiting of threads for each other.
    """
    work = (OURS if side == "ours" else BASELINE)[name]()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _memory("VmRSS")
    seconds: list[float] = []
    cpu: list[float] = []
    result: object = None
    for _ in range(calls):
        start, busy = time.perf_counter(), time.process_time()
        result = work()
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - busy)
    detail = result if isinstance(result, dict) else {}
    keep = {key: detail[key] for key in ("frames_per_second", "seconds", "frames_done") if key in detail}
    if "clips" in detail:
        keep["clips_per_second"] = detail["clips"] / min(seconds)
    peak = _memory("VmHWM") - before
    print(json.dumps({"seconds": min(seconds), "cpu_seconds": min(cpu), "peak_mb": peak, "detail": keep}))


def _memory(field: str) -> float:
    """A line of /proc/self/status in MB."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(field)).split()[1]) / 1024


def _run(side: str, name: str, calls: int) -> dict[str, object]:
    command = [sys.executable, "-m", "benchmarks", side, name, str(calls)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


def machine() -> str:
    """Processor, cores, GPU, torch: what a reader needs to place the numbers."""
    names = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {gpu}, torch {torch.__version__}"


def main() -> None:
    """Measure everything, print the table, write the file."""
    rows = []
    here = machine()
    print(f"{here}; load {os.getloadavg()[0]:.1f} at the start\n")
    print(f"{'case':42} {'ours':>9} {'baseline':>9} {'ratio':>6} {'peak MB':>8} {'baseline':>9}")
    for name in OURS:
        calls = {"propagate": 1, "step": 2}.get(re.split(r"\W", name)[0], 5)
        ours = _run("ours", name, calls)
        base = (
            _run("baseline", name, min(calls, 3)) if name in BASELINE else {"seconds": None, "peak_mb": None}
        )
        own, other = ours["seconds"], base["seconds"]
        ratio = other / own if isinstance(other, float) and isinstance(own, float) else None
        rows.append(
            {
                "name": name,
                "ours_s": own,
                "baseline_s": other,
                "ratio": ratio,
                "ours_cpu_s": ours["cpu_seconds"],
                "baseline_cpu_s": base.get("cpu_seconds"),
                "ours_peak_mb": ours["peak_mb"],
                "baseline_peak_mb": base["peak_mb"],
                "machine": here,
                "detail": ours["detail"],
            }
        )
        shown = [f"{own:8.2f}s", f"{other:8.2f}s" if other else "-", f"{ratio:5.1f}x" if ratio else "-"]
        peaks = [f"{ours['peak_mb']:.0f}", f"{base['peak_mb']:.0f}" if base["peak_mb"] is not None else "-"]
        print(f"{name:42} {shown[0]:>9} {shown[1]:>9} {shown[2]:>6} {peaks[0]:>8} {peaks[1]:>9}", flush=True)
        if ours["detail"]:
            print(f"    {json.dumps(ours['detail'])}")
    temporary = LATEST.with_suffix(".partial")
    temporary.write_text(json.dumps(rows, indent=2) + "\n")
    temporary.replace(LATEST)
    print(f"\nwritten: {LATEST}")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    elif len(sys.argv) == 4:
        measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    else:
        print(
            __doc__,
            "\nOne case: python -m benchmarks ours|baseline CASE CALLS; the cases are",
            *OURS,
            sep="\n  ",
        )
