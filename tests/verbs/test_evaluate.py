"""Evaluating on small made-up data: equal to the metrics, resumable, honest about what is missing."""

import csv
import json
import shutil
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from retrace.datasets.flowfiles import read_flo
from retrace.errors import RetraceError, UsageError
from retrace.formats.davis_png import write_mask
from retrace.formats.flow import write_flo
from retrace.metrics.davis import davis2016, davis2017, global_scores
from retrace.verbs.evaluate import compare, evaluate

H, W, FRAMES = 48, 72, 6


def picture(seed: int, shift: int) -> NDArray[np.uint8]:
    """A random texture, moved."""
    blocks = np.random.default_rng(seed).integers(0, 256, (H // 4, W // 4, 3)).astype(np.uint8)
    return np.roll(blocks.repeat(4, 0).repeat(4, 1), shift, axis=1)


def truth(sequence: int, frame: int, objects: int) -> NDArray[np.uint8]:
    """Objects that move 2 pixels per frame."""
    ids = np.zeros((H, W), np.uint8)
    for k in range(1, objects + 1):
        ids[8 + 4 * sequence : 30, 20 * k - 12 + 2 * frame : 20 * k + 2 * frame] = k
    return ids


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """Three sequences in DAVIS-2017's layout."""
    root = tmp_path / "DAVIS"
    for number, name in enumerate(("one", "two", "three")):
        for folder in ("JPEGImages", "Annotations"):
            (root / folder / "480p" / name).mkdir(parents=True)
        for frame in range(FRAMES):
            path = root / "JPEGImages" / "480p" / name / f"{frame:05d}.jpg"
            Image.fromarray(picture(number, 2 * frame)).save(path, quality=95)
            write_mask(
                root / "Annotations" / "480p" / name / f"{frame:05d}.png", truth(number, frame, number + 1)
            )
    for year in ("2016", "2017"):
        (root / "ImageSets" / year).mkdir(parents=True)
        (root / "ImageSets" / year / "val.txt").write_text("one\ntwo\nthree\n")
    return root


def read(folder: Path) -> list[NDArray[np.uint8]]:
    """Masks of a folder, by name."""
    return [np.asarray(Image.open(file)) for file in sorted(folder.glob("*.png"))]


@pytest.mark.parametrize("benchmark", ["davis2017", "davis2016"])
def test_scores_are_those_of_the_written_masks(davis: Path, tmp_path: Path, benchmark: str) -> None:
    """The submission, scored by the metric that equals the official tool, gives the very numbers."""
    out = tmp_path / "out"
    done = evaluate(benchmark, root=davis, model="copy", out=out, workers=1)
    rule = davis2017 if benchmark == "davis2017" else davis2016
    expected = global_scores(
        rule(read(out / "submission" / name), read(davis / "Annotations" / "480p" / name))
        for name in ("one", "two", "three")
    )
    np.testing.assert_array_equal(list(done.scores.values()), list(expected.values()))
    assert 0.1 < done.scores["J&F"] < 0.9
    table = list(csv.DictReader((out / "per_sequence.csv").open()))
    assert [row["sequence"] for row in table] == ["one", "two", "three"]
    assert (out / "global_results.csv").read_text().splitlines()[1].split(",")[
        1
    ] == f"{expected['J-Mean']:.3f}"
    head = json.loads((out / "result.json").read_text())
    assert head["status"] == "complete"
    assert head["sequences"] == {"scored": 3, "asked": 3, "in_split": 3, "excluded": {}}


def test_report_stands_alone(davis: Path, tmp_path: Path) -> None:
    """Names, numbers, pictures, settings; nothing is fetched from anywhere."""
    done = evaluate("davis2017", root=davis, model="lab-patches", out=tmp_path / "out", workers=1)
    page = (tmp_path / "out" / "report.html").read_text()
    for text in (
        "lab-patches",
        "crw-davis",
        "3 of 3 sequences",
        "CRW",
        "STFC3",
        done.summary["model"]["sha256"],
    ):
        assert text in page
    assert page.count("data:image/jpeg;base64,") == 3 * 4
    assert page.count("<tr><td>above 10 %</td>") == 1
    assert "http" not in page
    assert "same</span>" in page  # CRW's row has our protocol
    assert "radius 18" in page  # STFC3's has not
    assert "keypoints vfs" not in page  # no difference where masks are carried
    assert "published numbers are of 30 sequences; this folder has 3" in page
    assert "All sequences with that number, worst first" in page
    assert page.count("class='dot'") == 3  # right, another object, missed; false has no part of the bar


def test_two_processes_give_the_same_bits(davis: Path, tmp_path: Path) -> None:
    """Numbers and masks do not depend on how many processes there were."""
    one, two = (
        evaluate("davis2017", root=davis, model="lab-patches", out=tmp_path / str(n), workers=n)
        for n in (1, 2)
    )
    assert [(r.name, r.objects, r.frames) for r in one.results] == [
        (r.name, r.objects, r.frames) for r in two.results
    ]
    for file in (tmp_path / "1" / "submission").rglob("*.png"):
        other = tmp_path / "2" / "submission" / file.relative_to(tmp_path / "1" / "submission")
        assert file.read_bytes() == other.read_bytes()


def test_an_interrupted_run_continues(davis: Path, tmp_path: Path) -> None:
    """What is whole is kept; a result that is cut off or whose masks are damaged is done again."""
    out = tmp_path / "out"
    first = evaluate("davis2017", root=davis, model="copy", out=out, workers=1)
    assert evaluate("davis2017", root=davis, model="copy", out=out, workers=1).repeated
    (out / "result.json").unlink()
    cut = out / "sequences" / "one.json"
    cut.write_text(cut.read_text()[:100])
    damaged = out / "submission" / "two" / "00003.png"
    damaged.write_bytes(b"no mask")
    left = damaged.with_name(".00004.7.partial.png")
    left.write_bytes(b"of a process that was killed")
    told: list[str] = []
    again = evaluate(
        "davis2017", root=davis, model="copy", out=out, workers=1, progress=lambda name, _: told.append(name)
    )
    assert again.summary["sequences_kept_from_an_earlier_run"] == 1
    assert told == ["three", "one", "two"]
    assert again.scores == first.scores
    assert np.asarray(Image.open(damaged)).shape == (H, W)
    assert not left.exists()


def lengthen(davis: Path, name: str, frames: int) -> None:
    """Let a sequence begin again and again, until it has so many frames."""
    for folder, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
        place = davis / folder / "480p" / name
        for frame in range(len(list(place.iterdir())), frames):
            shutil.copy(place / f"{frame % FRAMES:05d}.{suffix}", place / f"{frame:05d}.{suffix}")


def test_kill_9_leaves_no_process_and_the_run_goes_on(davis: Path, tmp_path: Path) -> None:
    """Killed in its long sequence; the pipe closes with the last process that holds it."""
    lengthen(davis, "three", 600)
    whole = evaluate("davis2017", root=davis, model="copy", out=tmp_path / "whole", workers=1)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "retrace", "evaluate", "davis2017", "--root", str(davis)]
    run = subprocess.Popen(
        [*command, "--model", "copy", "--workers", "2", "--out", str(out), "--quiet"], stdout=subprocess.PIPE
    )
    done = [out / "sequences" / f"{name}.json" for name in ("one", "two")]
    while not all(file.exists() for file in done):
        assert run.poll() is None
        time.sleep(0.02)
    run.kill()
    assert run.communicate(timeout=60)[0] == b""
    assert not (out / "sequences" / "three.json").exists()
    text = done[1].read_text()
    assert "J_decay" in text
    done[1].write_text(text.replace("J_decay", "J_dekay"))  # still JSON, but not what was written
    told: list[str] = []
    again = evaluate(
        "davis2017", root=davis, model="copy", out=out, workers=1, progress=lambda name, _: told.append(name)
    )
    assert told == ["one", "two", "three"]
    may = {
        "finished",
        "seconds",
        "sequence_seconds",
        "peak_megabytes_of_a_worker",
        "sequences_kept_from_an_earlier_run",
    }
    assert {key for key, value in again.summary.items() if value != whole.summary[key]} <= may
    for file in (tmp_path / "whole" / "submission").rglob("*.png"):
        assert (out / file.relative_to(tmp_path / "whole")).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("benchmark", ["davis2017", "reconstruction", "texture"])
def test_memory_does_not_grow_with_the_video(davis: Path, benchmark: str) -> None:
    """What is alive at once, arrays counted: a frame more costs numbers and names, 2 to 3 KB, and no mask beside."""

    def peak(frames: int) -> int:
        lengthen(davis, "one", frames)
        tracemalloc.start()
        try:
            evaluate(benchmark, root=davis, model="copy", sequences=["one"], workers=1)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # Far apart: a reading thread that runs ahead makes either peak differ by some tens of frames from run to run.
    few, many = 24, 480
    peak(few)  # what is imported and kept on first use is no frame's
    short, long = peak(few), peak(many)
    assert long - short < (many - few) * H * W


def test_other_settings_do_not_mix(davis: Path, tmp_path: Path) -> None:
    """A folder belongs to one run, until it is said otherwise."""
    out = tmp_path / "out"
    evaluate("davis2017", root=davis, model="copy", out=out, sequences=["one"])
    with pytest.raises(RetraceError, match="its model is copy"):
        evaluate("davis2017", root=davis, model="flow:dis", out=out, sequences=["one"])
    done = evaluate("davis2017", root=davis, model="flow:dis", out=out, sequences=["one"], overwrite=True)
    assert done.summary["sequences"] == {"scored": 1, "asked": 1, "in_split": 3, "excluded": {}}
    assert "1 of 1 sequences, 3 in the split" in (out / "report.html").read_text()


def test_a_bad_sequence_is_told_and_left_out(davis: Path, tmp_path: Path) -> None:
    """One has a broken frame, one no annotations: the mean is that of the rest, and says so."""
    (davis / "JPEGImages" / "480p" / "two" / "00003.jpg").write_bytes(b"nothing")
    shutil.rmtree(davis / "Annotations" / "480p" / "three")
    out = tmp_path / "out"
    done = evaluate("davis2017", root=davis, model="copy", out=out, workers=1)
    counted = done.summary["sequences"]
    assert (counted["scored"], counted["asked"]) == (1, 3)
    assert "00003.jpg" in counted["excluded"]["two"]
    assert [path.name for path in (out / "submission").iterdir()] == ["one"]
    assert "Annotations" in counted["excluded"]["three"]
    assert done.summary["status"] == "partial"
    page = (out / "report.html").read_text()
    assert "1 of 3 sequences" in page
    assert "is left out" in page
    Image.fromarray(picture(1, 6)).save(davis / "JPEGImages" / "480p" / "two" / "00003.jpg")
    again = evaluate("davis2017", root=davis, model="copy", out=out, workers=1)
    assert again.summary["sequences"]["scored"] == 2
    assert again.summary["sequences_kept_from_an_earlier_run"] == 1


def test_nothing_can_be_evaluated(davis: Path, tmp_path: Path) -> None:
    """Then it is an error, and leaves nothing."""
    for name in ("one", "two", "three"):
        (davis / "JPEGImages" / "480p" / name / "00003.jpg").write_bytes(b"nothing")
    with pytest.raises(RetraceError, match="Not one sequence"):
        evaluate("davis2017", root=davis, model="copy", workers=1)
    with pytest.raises(RetraceError, match="Not one sequence"):
        evaluate("davis2017", root=davis, model="copy", out=tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


def test_comparing_two_runs(davis: Path, tmp_path: Path) -> None:
    """Paired over sequences; flow is better than copying on things that move."""
    for model in ("copy", "flow:dis"):
        evaluate("davis2017", root=davis, model=model, out=tmp_path / model, workers=1)
    metric, found = compare(tmp_path / "copy", tmp_path / "flow:dis")
    assert metric == "J&F"
    assert found.low <= found.mean <= found.high
    assert found.mean > 0
    assert len(found.items) == 3
    assert compare(tmp_path / "copy", tmp_path / "flow:dis", metric="J")[0] == "J"
    with pytest.raises(UsageError, match="no metric 'IoU'"):
        compare(tmp_path / "copy", tmp_path / "flow:dis", metric="IoU")
    with pytest.raises(RetraceError, match="not a finished run"):
        compare(tmp_path / "copy", davis)


def test_youtubevos_objects_may_start_late(tmp_path: Path) -> None:
    """Each is scored after its own first frame; the masks are written in the layout of the server."""
    root = tmp_path / "YouTube-VOS"
    meta: dict[str, dict[str, dict[str, dict[str, list[str]]]]] = {"videos": {"clip": {"objects": {}}}}
    for frame in range(FRAMES):
        name = f"{5 * frame:05d}"
        for folder in ("JPEGImages", "Annotations"):
            (root / "train" / folder / "clip").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(7, 2 * frame)).save(root / "train" / "JPEGImages" / "clip" / f"{name}.jpg")
        ids = truth(0, frame, 2)
        if frame < 2:
            ids[ids == 2] = 0
        write_mask(root / "train" / "Annotations" / "clip" / f"{name}.png", ids)
    meta["videos"]["clip"]["objects"] = {"1": {"frames": ["00000"]}, "2": {"frames": ["00010"]}}
    (root / "train" / "meta.json").write_text(json.dumps(meta))
    done = evaluate("youtubevos", root=root, split="train", model="copy", out=tmp_path / "out", workers=1)
    (result,) = done.results
    assert [row["object"] for row in result.objects] == [1, 2]
    masks = read(tmp_path / "out" / "submission" / "Annotations" / "clip")
    assert set(np.unique(masks[1])) == {0, 1}
    expected = [
        np.mean(
            [
                ((masks[t] == k) & (truth(0, t, 2) == k)).sum()
                / ((masks[t] == k) | (truth(0, t, 2) == k)).sum()
                for t in range(begin + 1, FRAMES)
            ]
        )
        for k, begin in ((1, 0), (2, 2))
    ]
    assert done.scores["J"] == pytest.approx(np.mean(expected))


def test_wrong_use(davis: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every refusal is a sentence that says what may be given."""
    monkeypatch.delenv("RETRACE_DATA", raising=False)
    with pytest.raises(UsageError, match="no benchmark 'coco'"):
        evaluate("coco", root=davis)
    with pytest.raises(UsageError, match="RETRACE_DATA"):
        evaluate("davis2017")
    with pytest.raises(UsageError, match="Sequence 'four'"):
        evaluate("davis2017", root=davis, model="copy", sequences=["four"])
    with pytest.raises(UsageError, match="no option 'dialect'"):
        evaluate("davis2017", root=davis, model="copy", options={"dialect": "crw"})
    with pytest.raises(UsageError, match="workers is -1"):
        evaluate("davis2017", root=davis, model="copy", workers=-1)
    with pytest.raises(UsageError, match="dtype"):
        evaluate("davis2017", root=davis, model="copy", dtype="int8")


def test_a_number_that_some_sequences_lack_says_so(tmp_path: Path) -> None:
    """BADJA without masks: the number by the mask's area is of no sequence, the other of all."""
    root = tmp_path / "BADJA"
    (root / "joint_annotations").mkdir(parents=True)
    for name in ("cat", "cow"):
        entries = []
        for frame in range(0, FRAMES, 2):
            path = root / "DAVIS" / "JPEGImages" / "Full-Resolution" / name / f"{frame:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(1, 2 * frame)).save(path)
            entries.append(
                {
                    "image_path": str(path.relative_to(root)),
                    "segmentation_path": f"DAVIS/Annotations/Full-Resolution/{name}/{frame:05d}.png",
                    "joints": [[10, 20 + frame], [30, 40 + frame]],
                    "visibility": [True, True],
                }
            )
        (root / "joint_annotations" / f"{name}.json").write_text(json.dumps(entries))
    done = evaluate("badja", root=root, model="copy", out=tmp_path / "out", workers=1)
    assert done.summary["sequences_with_a_number"] == {"PCK": 0, "PCK_box@0.1": 2}
    assert np.isnan(done.scores["PCK"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert "0 of 2 sequences" in page
    assert "Without this number: cat, cow." in page
    head, curves = page[: page.index('class="cards"')], page[page.index("over time") :]
    assert "PCK, 0.2 of the root of the mask&#x27;s area; 0 of 2 sequences</span>" in head
    assert curves[: curves.index("</section>")].count("<polyline") == 3  # both and their mean
    assert "What became of labels, by size" in page
    assert "longer side of the joints&#x27; box" in page
    assert json.loads((tmp_path / "out" / "result.json").read_text())["scores"]["PCK"] is None


def test_flow_of_pairs(tmp_path: Path) -> None:
    """Sintel's layout: pictures of the pair, its flows and errors; pairs without a truth are written for the server."""
    uv = np.zeros((H, W, 2), np.float32)
    uv[..., 0] = 2
    for frame in (1, 2):
        for part in ("training", "test"):
            path = tmp_path / "Sintel" / part / "clean" / "alley" / f"frame_{frame:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(3, 2 * frame)).save(path)
    write_flo(tmp_path / "Sintel" / "training" / "flow" / "alley" / "frame_0001.flo", uv)
    done = evaluate("sintel", root=tmp_path, model="copy", out=tmp_path / "copy", workers=1)
    assert done.scores["EPE"] == done.scores["s0-10"] == 2
    assert "There is no" in done.summary["notes"][0]
    followed = evaluate("sintel", root=tmp_path, model="flow:dis", workers=1)
    assert followed.scores["EPE"] < 0.7
    page = (tmp_path / "copy" / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 5
    assert "error, lightest at 2.0 px" in page
    test = evaluate(
        "sintel", root=tmp_path, split="clean-test", model="lab-patches", out=tmp_path / "test", workers=1
    )
    assert test.summary["sequences_with_a_number"]["EPE"] == 0
    assert test.summary["protocol"]["name"] == "flow"
    assert read_flo(tmp_path / "test" / "submission" / "alley" / "frame_0001.flo").uv.shape == (H, W, 2)
    assert (
        evaluate("sintel", root=tmp_path, model="lab-patches", protocol="crw-davis", workers=1).summary[
            "protocol"
        ]["num_context"]
        == 0
    )
    with pytest.raises(UsageError, match="num_context is 5; sintel compares two frames"):
        evaluate("sintel", root=tmp_path, model="lab-patches", num_context=5)


def test_frames_are_reconstructed_beside_table_5(tmp_path: Path) -> None:
    """Frames alone; the report holds the paper's table in its own unit, the least error first."""
    folder = tmp_path / "DAVIS" / "JPEGImages" / "480p" / "one"
    folder.mkdir(parents=True)
    for frame in range(12):
        Image.fromarray(picture(0, frame)).save(folder / f"{frame:05d}.jpg", quality=95)
    done = evaluate("reconstruction", root=tmp_path, model="copy", out=tmp_path / "out", workers=1)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2  # frames 10 and 11
    order = [page.index(text) for text in ("60.4", "62.4", "64.0", "82.0")]
    assert order == sorted(order)
    assert f"<td class='n'>{done.scores['L1_5']:.1f}</td>" in page
    assert done.scores["L1_5"] > 82
    assert page.index("this run</td>") > order[-1]


def test_textures_in_pictures(davis: Path, tmp_path: Path) -> None:
    """Five sequences' worth of strips, painted on frames; J of the paint."""
    done = evaluate("texture", root=davis, model="flow:dis", out=tmp_path / "out", workers=1)
    assert done.scores["J"] > 0.8
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 3 * 5
    assert "carried stripes" in page
    assert (tmp_path / "out" / "submission" / "two" / "00005.png").exists()


def test_an_encoder_that_cannot_be_read_closer(davis: Path, tmp_path: Path) -> None:
    """Wrong use, told before any sequence; nothing is written."""
    with pytest.raises(UsageError, match="only those of a ResNet can. Take detail plain"):
        evaluate("davis2017", root=davis, model="lab-patches", detail="closer", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_script_without_a_main_guard(davis: Path, tmp_path: Path) -> None:
    """One process by default, so that a plain script works; several without the guard end with what to write."""
    script = tmp_path / "own.py"
    script.write_text(
        "import sys, retrace\n"
        f"done = retrace.evaluate('davis2017', root={str(davis)!r}, model='copy', **eval(sys.argv[1]))\n"
        "print(len(done.results), 'sequences')\n"
    )
    plain = subprocess.run([sys.executable, str(script), "{}"], capture_output=True, text=True, check=True)
    assert plain.stdout.endswith("3 sequences\n")
    several = subprocess.run(
        [sys.executable, str(script), "{'workers': 2}"], capture_output=True, text=True, check=False
    )
    assert several.returncode == 1
    assert 'has to call this under `if __name__ == "__main__":`' in several.stderr.strip().splitlines()[-1]
