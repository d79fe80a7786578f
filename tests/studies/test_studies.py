"""Every packaged study says what it means: it loads, and every arm is a run that `retrace train` takes."""

from pathlib import Path

import pytest
import yaml

from retrace import studies
from retrace.errors import UsageError
from retrace.training.config import check
from retrace.verbs.study_runs import config_of, reading, settings

NAMES = sorted(studies.names())
SIZES = [(name, size) for name in NAMES for size in studies.SIZES]

PLAIN = {
    "title": "A study",
    "where": "a table",
    "found": "something",
    "setting": "small",
    "arms": [
        {"name": "one", "label": "One", "recipe": "stfc3-laptop", "flags": {"steps": 3, "seed": 4}},
        {"name": "copy", "label": "Copy", "model": "copy"},
    ],
    "measures": ["scenes"],
    "columns": ["J"],
    "claims": [{"says": "it is better", "measure": "J", "more": "one", "less": "copy"}],
    "figure": {"kind": "dots", "columns": ["J"]},
    "sizes": {"small": {"flags": {"steps": 2, "batch_size": 2}, "arms": {"one": {"seed": 5}}}},
}


def written(folder: Path, **changes: object) -> str:
    """A file of `PLAIN` with other values under some keys."""
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**PLAIN, **changes}))
    return str(path)


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_every_arm_is_a_run_that_can_be_made(name: str, size: str) -> None:
    """Recipe and flags resolve to a configuration that training accepts, with a network that can be built."""
    study = studies.load(name, size)
    for arm in study.arms:
        assert settings(study, arm)["model"] == arm.model
        if arm.recipe:
            config = config_of(arm, 0, "somewhere")
            check(config)
            config.encoder.check()
        if not arm.model:
            config = reading(study, arm)
            config.encoder.ending(config.export_cut, config.export_strides).check()


@pytest.mark.parametrize("name", NAMES)
def test_arms_of_a_study_differ(name: str) -> None:
    """Two arms with the same settings would be one arm measured twice."""
    study = studies.load(name)
    seen = [settings(study, arm) for arm in study.arms]
    assert all(seen[i] != seen[k] for i in range(len(seen)) for k in range(i))
    labels = [arm.label for arm in study.arms]
    assert len(set(labels)) == len(labels)


def test_flags_come_from_the_arm_over_the_common_ones_and_from_its_size_over_both(tmp_path: Path) -> None:
    """Least specific first; a baseline has none."""
    study = studies.load(written(tmp_path))
    assert study.name == "mine"
    assert study.arm("one").flags == {"steps": 3, "batch_size": 2, "seed": 5}
    assert study.arm("one").words == (
        "--batch_size=2",
        "--steps=3",
        "--seed=5",
    )  # a file made by YAML is sorted
    assert study.arm("copy").flags == {}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"colour": 1}, "no key colour"),
        ({"measures": ["scene"]}, "did you mean scenes"),
        ({"columns": ["K"]}, "columns names 'K'"),
        ({"protocol": "mine"}, "protocol names 'mine'"),
        ({"arms": []}, "arms must be there"),
        ({"arms": [PLAIN["arms"][0], PLAIN["arms"][0]]}, "a name of its own"),  # type: ignore[index]
        ({"arms": [{"name": "one", "label": "One"}]}, "claims.less"),
        ({"claims": [], "arms": [{"name": "one", "label": "One"}]}, "needs either a recipe or a model"),
        ({"arms": [{"name": "one"}], "claims": []}, "label"),
        ({"figure": {"kind": "pie", "columns": ["J"]}}, "figure.kind names 'pie'"),
        ({"figure": 3}, "expected keys"),
        (
            {"claims": [{"says": "x", "measure": "J", "more": "one", "less": "two"}]},
            "claims.less names 'two'",
        ),
        ({"sizes": {"small": {"arms": {"two": {}}}}}, "sizes.small.arms.two is no arm"),
        ({"sizes": {"large": {}}}, "there is no size 'small'; it has large"),
    ],
)
def test_a_wrong_file_is_refused_with_the_key(
    tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    """A sentence that names what is wrong."""
    with pytest.raises(UsageError, match=sentence):
        studies.load(written(tmp_path, **{"sizes": {"small": {}}, **changes}))


def test_an_unknown_study_and_a_file_that_is_none(tmp_path: Path) -> None:
    """The nearest name is offered; broken YAML is named."""
    with pytest.raises(UsageError, match="did you mean shortcut"):
        studies.load("shortcuts")
    path = tmp_path / "broken.yaml"
    path.write_text("a: [")
    with pytest.raises(UsageError, match="not valid YAML"):
        studies.load(str(path))
    path.write_text("3")
    with pytest.raises(UsageError, match="no keys"):
        studies.load(str(path))


def test_words_are_those_of_a_command_line(tmp_path: Path) -> None:
    """Lists, truth values and null as jsonargparse reads them."""
    arm = studies.Arm("a", "A", flags={"x": [0.2, 1.0], "y": True, "z": None, "w": "none", "v": [["a"], 1]})
    assert arm.words == ("--x=[0.2, 1.0]", "--y=true", "--z=null", "--w=none", "--v=[[a], 1]")
