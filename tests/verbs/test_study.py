"""A study of toy size from end to end: what it writes, what it does not do twice, what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

import retrace
from retrace import studies
from retrace.errors import RetraceError, UsageError
from retrace.verbs.study import FIGURES, NUMBERS, RESULTS, TABLE, read, study, write

TINY = {
    "title": "A tiny study",
    "where": "no table",
    "found": "nothing",
    "setting": "tiny",
    "arms": [
        {"name": "fc3", "label": "FC3", "recipe": "stfc3-laptop", "flags": {"stfc3.variant": "fc3"}},
        {
            "name": "stfc3",
            "label": "STFC3",
            "recipe": "stfc3-laptop",
            "after": "fc3",
            "flags": {"init": "$after"},
        },
        {"name": "wide", "label": "FC3, stride 16", "run": "fc3", "flags": {"export_strides": [1, 2, 2, 1]}},
        {"name": "random", "label": "random", "recipe": "stfc3-laptop", "untrained": True},
    ],
    "measures": ["affinity"],
    "columns": ["stays_near", "stays_unrelated", "loss"],
    "claims": [{"says": "it stays", "measure": "stays_near", "more": "fc3", "less": "stfc3"}],
    "figure": {
        "kind": "shortcut",
        "columns": ["stays_near", "stays_unrelated"],
        "curve": "cycle",
        "pictures": ["fc3", "stfc3"],
    },
    "sizes": {
        "small": {
            "flags": {
                "steps": 2,
                "batch_size": 2,
                "workers": 0,
                "threads": 1,
                "encoder.width": 0.0625,
                "stfc3.crop_size": 32,
                "clips.synthetic_height": 40,
                "clips.synthetic_width": 56,
                "log.every": 1,
            }
        },
        "gpu": {"flags": {"steps": 3}},
    },
}


def definition(folder: Path, **changes: object) -> str:
    """The tiny study as a file."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, **changes}))
    return str(path)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The study with two seeds: (its file, its folder)."""
    folder = tmp_path_factory.mktemp("study")
    name = definition(folder)
    lines: list[str] = []
    report = retrace.study(name, folder / "out", seeds=(0, 1), workers=1, device="cpu", progress=lines.append)
    assert (report.study, report.measured, report.kept) == ("tiny", 8, 0)
    assert "fc3-0 is done" in "\n".join(lines)
    assert "| FC3 | 2 |" in report.table
    assert "it stays" in report.claims
    return name, folder / "out"


@pytest.fixture
def copied(done: tuple[str, Path], tmp_path: Path) -> tuple[str, Path]:
    """A copy to spoil."""
    shutil.copytree(done[1], tmp_path / "out")
    return done[0], tmp_path / "out"


def test_what_it_leaves(done: tuple[str, Path]) -> None:
    """A row per arm and seed; encoders and curves of the runs, and no checkpoint."""
    _, out = done
    results = read(out / RESULTS)
    assert {(row["arm"], row["seed"]) for row in results["rows"]} == {
        (arm, seed) for arm in ("fc3", "stfc3", "wide", "random") for seed in (0, 1)
    }
    rows = {(row["arm"], row["seed"]): row for row in results["rows"]}
    assert rows["fc3", 0]["curve"]["step"] == [1, 2]
    assert "cycle" in rows["fc3", 0]["curve"]
    assert rows["random", 0]["curve"] == {}
    assert "loss" not in rows["random", 0]["scores"]
    assert rows["fc3", 0]["scores"] != rows["fc3", 1]["scores"]
    assert rows["fc3", 0]["scores"] != rows["wide", 0]["scores"]
    assert set(results["pictures"]) == {"fc3", "stfc3", "frames shown"}
    assert sorted(path.name for path in (out / "runs").iterdir()) == ["fc3-0", "fc3-1", "stfc3-0", "stfc3-1"]
    names = {path.name for path in (out / "runs" / "fc3-0").iterdir()}
    assert {"encoder.safetensors", "metrics.csv", "config.yaml"} <= names
    assert not names & {"last.ckpt", "checkpoints", "tensorboard"}
    begun = yaml.safe_load((out / "runs" / "stfc3-1" / "config.yaml").read_text())
    assert begun["init"] == str(out / "runs" / "fc3-1" / "encoder.safetensors")
    numbers = (out / NUMBERS).read_text().splitlines()
    assert len(numbers) == 1 + 6 * 3 + 2 * 2
    assert (out / TABLE).read_text().startswith("# A tiny study\n")


def test_untrained_is_where_training_begins(done: tuple[str, Path], tmp_path: Path) -> None:
    """The weights of step 0, of the seed."""
    import torch

    from retrace.verbs.study_runs import Job, _untrained, config_of

    chosen = studies.load(done[0])
    arm = chosen.arm("random")
    job = Job(chosen, arm, (arm,), 1, tmp_path, "cpu", None, False)
    torch.manual_seed(1)
    expected = config_of(arm, 1).encoder.build().state_dict()
    found = _untrained(job, arm).encoder.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_what_is_there_is_not_done_again(copied: tuple[str, Path]) -> None:
    """The same call measures nothing and writes the same files; a lost row comes back without training."""
    name, out = copied
    before = {file: (out / file).read_bytes() for file in (RESULTS, TABLE, NUMBERS, *FIGURES)}
    again = study(name, out, seeds=(0, 1), workers=1, device="cpu")
    assert (again.measured, again.kept) == (0, 8)
    assert before == {file: (out / file).read_bytes() for file in before}
    content = json.loads(before[RESULTS])
    lost = next(row for row in content["rows"] if row["arm"] == "fc3" and row["seed"] == 1)
    content["rows"].remove(lost)  # as after a kill between training and measuring
    (out / RESULTS).write_text(json.dumps(content))
    encoder = out / "runs" / "fc3-1" / "encoder.safetensors"
    trained = encoder.stat().st_mtime_ns
    report = study(name, out, seeds=(0, 1), arms=["fc3"], workers=1, device="cpu")
    assert (report.measured, report.kept) == (1, 7)
    assert encoder.stat().st_mtime_ns == trained
    found = next(row for row in read(out / RESULTS)["rows"] if row["arm"] == "fc3" and row["seed"] == 1)
    assert found["scores"] == pytest.approx(lost["scores"])


def test_everything_can_be_drawn_from_the_results_alone(done: tuple[str, Path], tmp_path: Path) -> None:
    """The same tables, the same figure, byte for byte."""
    name, out = done
    write(studies.load(name), read(out / RESULTS), tmp_path)
    for file in (TABLE, NUMBERS, *FIGURES):
        assert (tmp_path / file).read_bytes() == (out / file).read_bytes()


def test_results_of_other_settings_or_damaged_ones_are_not_mixed_in(
    copied: tuple[str, Path], tmp_path: Path
) -> None:
    """The key is named; the file stays as it is."""
    name, out = copied
    arms = [dict(arm) for arm in TINY["arms"]]  # type: ignore[call-overload]
    arms[0]["flags"] = {"stfc3.variant": "fc3", "stfc3.temperature": 0.1}
    before = (out / RESULTS).read_bytes()
    with pytest.raises(RetraceError, match=r"fc3 were made .* stfc3.temperature was 0.05, now 0.1"):
        study(definition(tmp_path, arms=arms), out, seeds=(0, 1), device="cpu")
    with pytest.raises(RetraceError, match="its size is small, now it is gpu"):
        study(name, out, size="gpu", device="cpu")
    assert (out / RESULTS).read_bytes() == before
    (out / RESULTS).write_bytes(before[: len(before) // 2])
    with pytest.raises(RetraceError, match=r"results.json is damaged .* --overwrite"):
        study(name, out, seeds=(0, 1), device="cpu")
    assert (out / RESULTS).read_bytes() == before[: len(before) // 2]
    (out / RESULTS).write_text('{"rows": [{"arm": 1}]}')
    with pytest.raises(RetraceError, match="damaged"):
        study(name, out, seeds=(0, 1), device="cpu")


def test_wrong_use(done: tuple[str, Path], tmp_path: Path) -> None:
    """Nothing is made in the folder."""
    name, _ = done
    out = tmp_path / "new"
    for sentence, settings in (
        ("did you mean stfc3", {"arms": ["stfc4"]}),
        ("seeds is", {"seeds": [-1]}),
        ("seeds is", {"seeds": []}),
        ("seeds is", {"seeds": [1, 1]}),
        ("workers is -1", {"workers": -1}),
        ("no size 'huge'", {"size": "huge"}),
        ("no folder", {"videos": tmp_path / "nowhere"}),
    ):
        with pytest.raises(UsageError, match=sentence):
            study(name, out, **settings)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="There is no study"):
        study("nobody", out)
    assert not out.exists()


def test_a_folder_of_somebody_else_is_left_alone(done: tuple[str, Path], tmp_path: Path) -> None:
    """As for the other verbs."""
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RetraceError, match="not a result of retrace study"):
        study(done[0], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_run_that_fails_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    """It is named, with the reason; the other rows are kept and tables written."""
    arms = [
        {"name": "bad", "label": "bad", "recipe": "stfc3-laptop", "flags": {"init": str(tmp_path / "no.pt")}},
        TINY["arms"][3],  # type: ignore[index]
    ]
    name = definition(tmp_path, arms=arms, claims=[], figure={"kind": "dots", "columns": ["stays_near"]})
    with pytest.raises(RetraceError, match=r"1 of 2 runs failed.*bad-0: .*no\.pt"):
        study(name, tmp_path / "out", seeds=(0,), workers=1, device="cpu")
    assert [row["arm"] for row in read(tmp_path / "out" / RESULTS)["rows"]] == ["random"]
    assert "| bad | 0 | - |" in (tmp_path / "out" / TABLE).read_text()


def test_runs_share_their_generated_clips(done: tuple[str, Path], tmp_path: Path) -> None:
    """They train as they would alone, on clips that are made once and gone in the end."""
    import torch
    from safetensors.torch import load_file

    from retrace.verbs.study_runs import CLIPS, ENCODER, config_of
    from retrace.verbs.train import train

    name, out = done
    assert not (out / CLIPS).exists()
    arm = studies.load(name).arm("fc3")
    config = config_of(arm, 1, str(tmp_path / "alone"), "cpu")
    assert config.clips.synthetic_keep is None
    train(config, progress=False)
    alone, shared = (load_file(folder / ENCODER) for folder in (tmp_path / "alone", out / "runs" / "fc3-1"))
    assert alone.keys() == shared.keys()
    assert all(torch.equal(alone[key], shared[key]) for key in alone)
    begun = yaml.safe_load((out / "runs" / "fc3-1" / "config.yaml").read_text())
    assert begun["clips"]["synthetic_keep"] == str(out / CLIPS)
