"""`retrace train` from the command line: real method, tiny sizes, frames made here."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from retrace import encoders
from retrace.cli.main import main
from retrace.encoders.weights import EMBEDDED
from retrace.recipes import find, packaged
from retrace.training.config import check
from retrace.verbs.train import load_config

RECIPE = """# a recipe for a test
stfc3: {clip_length: 2, crop_size: 32, projector_hidden: 16, projector_outputs: 8}
encoder: {width: 0.125, cut: layer2}
clips: {fps: null, stride: 1, short_side: 0}
steps: 3
batch_size: 2
workers: 0
threads: 1
device: cpu
log: {every: 1, tensorboard: true, probe: 0}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A YAML file of one's own."""
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    """Two frame folders, 48 x 60, and a file that is no video."""
    texture = np.random.default_rng(0).integers(0, 255, (64, 90, 3), dtype=np.uint8)
    for name in ("a", "b"):
        folder = tmp_path / "footage" / name
        folder.mkdir(parents=True)
        for t in range(5):
            cv2.imwrite(str(folder / f"{t:03}.png"), texture[t : t + 48, 2 * t : 2 * t + 60])
    (tmp_path / "footage" / "broken.mp4").write_bytes(b"not a video")
    return tmp_path / "footage"


def run(recipe: Path, footage: Path, out: Path, *flags: str) -> int:
    """`retrace train recipe --data footage --out out flags`, with an own cache."""
    words = [
        str(recipe),
        "--data",
        str(footage),
        "--out",
        str(out),
        "--clips.cache",
        str(out / "cache"),
        "--quiet",
    ]
    return main(["train", *words, *flags])


def test_trains_reports_and_exports(recipe, footage, tmp_path, capsys, monkeypatch):
    """Everything a first run leaves behind; running again is harmless; more steps continue."""
    out = tmp_path / "run"
    assert run(recipe, footage, out, "--json", "--optimizer.lr", "2e-4", "--seed=7") == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert (report["step"], report["steps"], report["resumed_from"], report["videos"]) == (3, 3, 0, 2)
    assert "broken.mp4" in report["broken"][0][0]
    assert report["step_clips_per_s"] > 0
    assert "Lightning" not in captured.err
    assert "GPU" not in captured.err
    for file in report["files"].values():
        assert Path(file).is_file()
    saved = yaml.safe_load((out / "config.yaml").read_text())
    assert (saved["optimizer"]["lr"], saved["seed"], saved["stfc3"]["crop_size"]) == (2e-4, 7, 32)
    assert len((out / "metrics.csv").read_text().splitlines()) == 4
    assert any((out / "tensorboard").iterdir())

    model = encoders.load(out / "encoder.safetensors")
    assert model.features(torch.zeros(1, 3, 24, 40)).shape == (1, 16, 3, 5)
    assert (model.card["seed"], model.card["steps"], model.card["recipe"]) == (7, 3, "tiny")
    assert str(tmp_path) not in json.dumps(model.card)
    assert main(["weights", "export", str(out), str(tmp_path / "again.safetensors")]) == 0
    again = encoders.load(tmp_path / "again.safetensors")
    assert (again.sha256, again.card["steps"], set(again.head)) == (model.sha256, 3, set(model.head))
    assert main(["weights", "export", str(footage), str(tmp_path / "none.safetensors")]) == 1
    assert "retrace train" in capsys.readouterr().err

    assert run(recipe, footage, out, "--optimizer.lr", "2e-4", "--seed=7") == 0
    assert "3 of 3 (from 3)" in capsys.readouterr().out
    assert run(recipe, footage, out, "--optimizer.lr", "2e-4", "--seed=7", "--steps", "4") == 0
    assert "4 of 4 (from 3)" in capsys.readouterr().out
    assert run(recipe, footage, out, "--optimizer.lr", "3e-4", "--seed=7") == 2
    assert "optimizer.lr was 0.0002, now 0.0003" in capsys.readouterr().err
    # The saved configuration is a recipe of its own.
    assert main(["train", str(out / "config.yaml"), "--quiet"]) == 0
    (footage / "b" / "005.png").write_bytes((footage / "b" / "004.png").read_bytes())
    assert run(recipe, footage, out, "--optimizer.lr", "2e-4", "--seed=7", "--steps", "4") == 2
    assert "other data" in capsys.readouterr().err


def test_epochs_become_steps(recipe, footage, tmp_path, capsys, monkeypatch):
    """Two videos, two clips of each per pass, two passes, batches of two; --epochs takes the place of steps."""
    monkeypatch.setattr("retrace.verbs.train.LOADER_SECONDS", 0.1)
    flags = ["--epochs", "2", "--clips.per_video", "2", "--schedule.warmup_epochs", "0.5"]
    flags += ["--schedule.name", "step", "--schedule.milestone_epochs", "[1, 1.5]"]
    assert run(recipe, footage, tmp_path / "run", "--json", "--measure-loader", *flags) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["steps"] == 4
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["schedule"]
    assert (saved["warmup"], saved["milestones"]) == (1, [2, 3])
    assert report["loader_clips_per_s"] > 0


def test_shards_train_like_the_footage_they_hold(recipe, footage, tmp_path, capsys):
    """Packed, checked, trained on."""
    shards = tmp_path / "shards"
    assert (
        main(["data", "shard", str(footage), "--out", str(shards), "--short-side", "0", "--quality", "100"])
        == 0
    )
    said = capsys.readouterr().out
    assert "broken.mp4" in said
    assert "2 videos in 1 shard of" in said
    assert main(["data", "check", str(shards), "--thorough"]) == 0
    assert main(["data", "shard", str(footage)]) == 2
    capsys.readouterr()
    assert run(recipe, shards, tmp_path / "run", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["videos"], report["broken"], report["step"]) == (2, [], 3)
    assert not (tmp_path / "run" / "cache").exists()


def test_the_curves_say_whether_labels_are_carried(recipe, footage, tmp_path):
    """A score before the first step and after the last one, unless it is off."""
    assert run(recipe, footage, tmp_path / "run", "--log.probe", "500", "--steps", "2") == 0
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("probe_j")
    assert all(0 < float(row.split(",")[column]) < 1 for row in rows[1:])


def test_data_from_the_environment(recipe, footage, tmp_path, capsys, monkeypatch):
    """$RETRACE_DATA stands in for --data."""
    monkeypatch.setenv("RETRACE_DATA", str(footage))
    assert main(["train", str(recipe), "--out", str(tmp_path / "run"), "--quiet"]) == 0
    assert "2 videos" in capsys.readouterr().out


def test_a_folder_of_somebody_else_is_left_alone(recipe, footage, tmp_path, capsys):
    """Even with a config.yaml in it, and with --overwrite; nothing is read, nothing made."""
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "config.yaml").write_text("lr: 1\n")
    for flags in ([], ["--overwrite"]):
        assert run(recipe, footage, out, *flags) == 1
        assert "not a result of retrace train (config.yaml" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["config.yaml"]
    assert (out / "config.yaml").read_text() == "lr: 1\n"


def test_a_run_that_ended_before_its_first_checkpoint_begins_anew(
    recipe, footage, tmp_path, capsys, monkeypatch
):
    """Whatever its configuration was: there is nothing of it to continue, or to mix with."""
    out = tmp_path / "run"

    def dies(*args, **kwargs):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("retrace.methods.stfc3.STFC3.forward", dies)
        assert run(recipe, footage, out, "--optimizer.lr", "1e-3") == 1
    assert (out / "config.yaml").is_file()
    assert not (out / "last.ckpt").exists()
    (out / "metrics.csv").write_text("step,loss\n1,9\n")
    (out / "tensorboard").mkdir(exist_ok=True)
    (out / "tensorboard" / "events.of.the.dead.run").touch()
    assert run(recipe, footage, out, "--optimizer.lr", "2e-4") == 0
    assert "3 of 3\n" in capsys.readouterr().out
    assert yaml.safe_load((out / "config.yaml").read_text())["optimizer"]["lr"] == 2e-4
    assert "9" not in [line.split(",")[1] for line in (out / "metrics.csv").read_text().splitlines()]
    assert not (out / "tensorboard" / "events.of.the.dead.run").exists()


def test_a_kill_between_the_step_file_and_the_last_checkpoint(recipe, footage, tmp_path, capsys):
    """The step file is the last checkpoint then."""
    out = tmp_path / "run"
    assert run(recipe, footage, out) == 0
    (out / "last.ckpt").unlink()
    assert run(recipe, footage, out) == 0
    assert "3 of 3 (from 3)" in capsys.readouterr().out
    assert (out / "last.ckpt").is_file()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["nonsense"], "There is no recipe 'nonsense'"),
        (["stfc3-kinetcs"], "There is no recipe 'stfc3-kinetcs' (did you mean stfc3-kinetics?)"),
        (["{recipe}", "--stfc3.colur", "none"], "There is no key stfc3.colur (did you mean stfc3.colour?). "),
        (["{recipe}", "--batchsize=3"], "There is no key batchsize (did you mean batch_size?). "),
        (["{recipe}", "--frobnicate", "3"], "There is no key frobnicate. "),
        ([], "Which recipe?"),
        (["{recipe}", "--optimiser.lr", "1"], "There is no key optimiser.lr (did you mean optimizer.lr?). "),
        (["{recipe}", "--optimizer.lr", "fast"], "optimizer.lr"),
        (["{recipe}", "--stfc3.variant", "stfc4"], "variant is 'stfc4'"),
        (["{recipe}", "--encoder.cut", "layer9", "--data", "x", "--out", "o"], "layer9"),
        (["{recipe}"], "nothing to train on"),
        (["{recipe}", "--batch_size", "0"], "batch_size is 0"),
        (["{recipe}", "--clips.fps", "8", "--clips.stride", "2"], "clips.fps / clips.stride"),
        (["{recipe}", "--epochs", "1", "--data", "x", "--out", "o"], "clips.per_video"),
        (["{recipe}", "--method", "nonsense", "--data", "x", "--out", "o"], "expected one of"),
        (["{recipe}", "--clips.images", "true", "--data", "x", "--out", "o"], "wants clips of 2 frames"),
        (["{recipe}", "--schedule.warmup_epochs", "1", "--data", "x", "--out", "o"], "clips.per_video"),
        (["{broken}"], "There is no key stfc3.templature (did you mean stfc3.temperature?). "),
        (["{recipe}", "--device", "abacus", "--data", "{footage}", "--out", "{out}"], "Device 'abacus'"),
    ],
)
def test_wrong_use_is_a_sentence_and_status_2(recipe, footage, tmp_path, capsys, flags, sentence):
    """Names the key; nothing is trained; no traceback."""
    broken = tmp_path / "broken.yaml"
    broken.write_text("stfc3: {templature: 1}\nsteps: 2\n")
    places = {"recipe": recipe, "broken": broken, "footage": footage, "out": tmp_path / "out"}
    assert main(["train", *(flag.format(**places) for flag in flags), "--quiet"]) == 2
    message = capsys.readouterr().err
    assert sentence in message
    assert "Traceback" not in message
    assert not (tmp_path / "out" / "last.ckpt").exists()


def still(folder: Path, count: int) -> None:
    """A frame folder of grey frames, 48 x 60."""
    folder.mkdir(parents=True)
    for t in range(count):
        cv2.imwrite(str(folder / f"{t:03}.png"), np.full((48, 60, 3), 40 * t, np.uint8))


def test_videos_shorter_than_a_clip(recipe, tmp_path, capsys, caplog):
    """Refused where all are; where some are, their number is said and they repeat frames."""
    still(tmp_path / "stills" / "a", 1)
    still(tmp_path / "stills" / "b", 1)
    assert run(recipe, tmp_path / "stills", tmp_path / "run") == 1
    said = capsys.readouterr().err
    assert "A clip of stfc3 has 2 frames, and the longest of 2 videos has 1. Give longer videos" in said
    assert not (tmp_path / "run" / "last.ckpt").exists()
    still(tmp_path / "stills" / "c", 3)
    assert run(recipe, tmp_path / "stills", tmp_path / "run") == 0
    (record,) = (record for record in caplog.records if "repeat frames" in record.getMessage())
    assert record.getMessage().startswith("2 of 3 videos have fewer than the 2 frames of a clip, such as ")


def test_the_folder_of_another_method_is_said_by_its_name(recipe, footage, tmp_path, capsys):
    """And of many keys the first few are."""
    out = tmp_path / "run"
    assert run(recipe, footage, out) == 0
    capsys.readouterr()
    assert main(["train", "crw-laptop", "--data", str(footage), "--out", str(out), "--quiet"]) == 2
    assert capsys.readouterr().err == (
        f"retrace train: {out} holds a run of stfc3, and this is crw. Give another --out, or start anew with "
        "--overwrite.\n"
    )
    assert main(["train", "stfc3-laptop", "--data", str(footage), "--out", str(out), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert "holds another run (batch_size was 2, now" in said
    assert re.search(r"; and \d+ more\)\. Continue it with its own settings", said)


def test_footage_that_is_not_there_fails(recipe, tmp_path, capsys):
    """Status 1: the request is fine, the world is not."""
    assert run(recipe, tmp_path / "gone", tmp_path / "out") == 1
    assert "gone" in capsys.readouterr().err


def test_list(capsys):
    """One line each."""
    assert main(["train", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(packaged())


@pytest.mark.parametrize("name", list(packaged()))
def test_packaged_recipes_are_complete_and_know_no_machine(name):
    """Typed, runnable once data and a folder are given, without a path."""
    config = load_config(name, "--data", "somewhere", "--out", "here")
    check(config)
    content = yaml.safe_load(find(name).read_text())
    assert not {"data", "out"} & content.keys()
    assert content.get("init", "default") in EMBEDDED  # a name that every copy knows, never a path


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("steps: [1, 2\n  a: b: c", "not valid YAML (line 2"),
        ("- a\n- b\n", "is a list; expected keys"),
        ("", "is empty; expected keys"),
        ("clips: 5\n", "clips is 5; expected keys below it"),
        ("stepz: 3\n", "There is no key stepz (did you mean steps?). "),
        ("steps: many\n", "steps: expected one of int, null; got many"),
    ],
)
def test_files_that_are_no_recipes(tmp_path, capsys, content, sentence):
    """One sentence that says what is there instead, and no folder."""
    path = tmp_path / "r.yaml"
    path.write_text(content)
    assert main(["train", str(path), "--out", str(tmp_path / "run")]) == 2
    printed = capsys.readouterr().err
    assert sentence in printed
    assert len(printed.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "flags",
    [
        ["--seed", "-1"],
        ["--stfc3.crop_size", "-4"],
        ["--encoder.width", "0"],
        ["--export_cut", "foo"],
        ["--clips.short_side", "-3"],
    ],
)
def test_values_that_cannot_be_trained_with(tmp_path, capsys, flags):
    """Refused by name before anything is made."""
    words = ["train", "stfc3-laptop", "--out", str(tmp_path / "run"), *flags]
    assert main(words) == 2
    assert flags[0].removeprefix("--").split(".")[-1] in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
