"""`retrace data` as a person types it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrace.cli.main import main
from retrace.video.encode import VideoWriter


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """One good video, one cut off in the middle, one that is none."""
    root = tmp_path / "footage"
    noise = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    for name in ("good", "cut"):
        with VideoWriter(root / f"{name}.mp4", height=48, width=80, fps=25) as writer:
            for shift in range(20):
                writer.write(np.roll(noise, shift, axis=1))
    data = (root / "cut.mp4").read_bytes()
    (root / "cut.mp4").write_bytes(data[: len(data) * 7 // 10])
    (root / "text.mp4").write_text("hello")
    return root


def test_check(tree: Path, capsys) -> None:
    """Says what is wrong with which file, ends with totals, exit status 1."""
    assert main(["data", "check", str(tree)]) == 1
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 3
    assert out[0].startswith("broken: ")
    assert "text.mp4 is not a video" in out[0]
    assert out[1].startswith("damaged: ")
    assert "cut off" in out[1]
    assert out[2].startswith("2 videos can be read (")
    assert out[2].endswith("1 of them damaged; 1 broken.")


def test_check_of_good_footage(tree: Path, capsys) -> None:
    """Exit status 0."""
    assert main(["data", "check", str(tree / "good.mp4")]) == 0
    assert capsys.readouterr().out == "1 video can be read (20 frames, 0.8 s), 0 of them damaged; 0 broken.\n"


def test_thorough_check_finds_damage_in_the_middle(tree: Path, capsys) -> None:
    """The quick one does not."""
    path = tree / "good.mp4"
    data = bytearray(path.read_bytes())
    middle = (data.index(b"mdat") + len(data)) // 2
    data[middle : middle + 4000] = bytes(4000)
    path.write_bytes(data)
    assert main(["data", "check", str(path)]) == 0
    assert main(["data", "check", "--thorough", str(path)]) == 1
    assert "damaged after" in capsys.readouterr().out


def test_check_json(tree: Path, capsys) -> None:
    """All of it on stdout, and nothing else."""
    assert main(["data", "check", str(tree), "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert [Path(video["path"]).name for video in result["videos"]] == ["cut.mp4", "good.mp4"]
    assert result["videos"][1] == {
        "path": str(tree / "good.mp4"),
        "num_frames": 20,
        "height": 48,
        "width": 80,
        "fps": 25.0,
    }
    assert [Path(entry["path"]).name for entry in result["broken"]] == ["text.mp4"]
    assert [Path(entry["path"]).name for entry in result["damaged"]] == ["cut.mp4"]


def test_index(tree: Path, tmp_path: Path, capsys) -> None:
    """Writes the file; broken videos are recorded and no failure."""
    out = tmp_path / "new" / "index.json"
    assert main(["data", "index", str(tree), "--out", str(out)]) == 0
    assert len(json.loads(out.read_text())["videos"]) == 3
    assert "1 broken" in capsys.readouterr().out
    assert main(["data", "index", str(tree / "text.mp4"), "--out", str(out)]) == 1  # nothing to train on


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["check", "nowhere"], 1, "There is no file or folder nowhere"),
        (["check"], 2, "PATH"),
        (["index", "."], 2, "--out"),
        ([], 2, "check"),
        (["check", ".", "--deep"], 2, "--deep"),
    ],
)
def test_wrong_use(words: list[str], status: int, sentence: str, capsys) -> None:
    """A sentence on stderr and the right status."""
    assert main(["data", *words]) == status
    captured = capsys.readouterr()
    assert sentence.lower() in captured.err.lower()
    assert captured.out == ""
    assert "Traceback" not in captured.err


def test_index_in_an_unwritable_place(tree: Path, tmp_path: Path, capsys) -> None:
    """Status 1 and what to do."""
    (tmp_path / "file").write_text("")
    assert main(["data", "index", str(tree), "--out", str(tmp_path / "file" / "index.json")]) == 1
    assert "Choose a folder" in capsys.readouterr().err


def test_help(capsys) -> None:
    """Worth reading."""
    assert main(["data", "check", "--help"]) == 0
    assert "--thorough" in capsys.readouterr().out


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """DAVIS-2016 with two sequences of three frames; the second lacks a mask."""
    root = tmp_path / "benchmarks" / "davis2016"
    picture = Image.fromarray(np.full((24, 36, 3), 90, np.uint8))
    mask = np.zeros((24, 36), np.uint8)
    mask[5:15, 5:15] = 255
    for name in ("bear", "cow"):
        for t in range(3):
            for kind, image in (("JPEGImages", picture), ("Annotations", Image.fromarray(mask))):
                path = root / kind / "480p" / name / f"{t:05d}.{'jpg' if kind == 'JPEGImages' else 'png'}"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)
    (root / "Annotations/480p/cow/00002.png").unlink()
    lists = root / "ImageSets/2016"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("bear\ncow\n")
    return root


def test_benchmark(davis: Path, capsys) -> None:
    """What is odd, one line each, and the total; exit status 0 because everything can be evaluated."""
    assert main(["data", "check", "davis2016", "--root", str(davis)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "odd: cow: 1 of 3 frames have no mask, the first is frame 2; they cannot be scored.",
        f"davis2016 (val) in {davis}: 2 of 2 sequences can be evaluated (6 frames, 5 annotated); 1 oddity.",
    ]


def test_benchmark_with_excluded_sequence(davis: Path, capsys) -> None:
    """Exit status 1; the same as JSON."""
    (davis / "Annotations/480p/cow/00000.png").write_bytes(b"no image")
    assert main(["data", "check", "davis2016", "--root", str(davis)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("excluded: cow: ") and "00000.png is not an image" in line for line in lines)
    assert "1 of 2 sequences can be evaluated" in lines[-1]
    assert main(["data", "check", "davis2016", "--root", str(davis), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["sequences"] == ["bear"]
    assert found["listed"] == 2
    assert found["problems"][0]["excluded"] is True


def test_benchmark_from_the_environment(davis: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """RETRACE_DATA holds the folders; a folder of that name here is footage."""
    monkeypatch.setenv("RETRACE_DATA", str(davis.parent))
    assert main(["data", "check", "davis2016"]) == 0
    assert str(davis) in capsys.readouterr().out
    monkeypatch.chdir(davis.parent)
    assert main(["data", "check", "davis2016"]) == 0
    assert "videos can be read" in capsys.readouterr().out


def test_benchmark_wrong_use(davis: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """No root, an unknown name, split or folder, several words."""
    monkeypatch.delenv("RETRACE_DATA", raising=False)
    for words, status, sentence in (
        (["davis2017"], 2, "Where is davis2017? Give --root DIR"),
        (["kinetics", "--root", str(davis)], 2, "There is no benchmark 'kinetics'. Choose one of davis2017"),
        (["davis2016", "--root", str(davis), "--split", "vla"], 2, "There is no split of DAVIS-2016 'vla'"),
        (["davis2016", "davis2017", "--root", str(davis)], 2, "belong to one benchmark; 2 words were given"),
        (["davis2016", "--root", str(davis / "nowhere")], 1, "There is no folder"),
        (
            ["vip", "--root", str(davis)],
            1,
            "has no Images and no Annotations/Category_ids; it holds Annotations",
        ),
    ):
        assert main(["data", "check", *words]) == status
        assert sentence in capsys.readouterr().err


def test_benchmark_opens_video_files(tmp_path: Path, capsys) -> None:
    """300VW: a video that ends before its annotation, one that is none."""
    points = "version: 1\nn_points: 68\n{\n" + "".join(f"{k + 2}.0 {k + 3}.0\n" for k in range(68)) + "}"
    for name, frames in (("001", 5), ("002", 3), ("003", 0)):
        (tmp_path / name / "annot").mkdir(parents=True)
        for t in range(5):
            (tmp_path / name / "annot" / f"{t + 1:06d}.pts").write_text(points)
        if frames:
            with VideoWriter(tmp_path / name / "vid.mp4", height=48, width=80, fps=25) as writer:
                for _ in range(frames):
                    writer.write(np.full((48, 80, 3), 90, np.uint8))
            (tmp_path / name / "vid.mp4").rename(tmp_path / name / "vid.avi")
        else:
            (tmp_path / name / "vid.avi").write_text("hello")
    assert main(["data", "check", "300vw", "--root", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "excluded: 002: " in out
    assert "has 3 frames, its annotation needs 5" in out
    assert "excluded: 003: " in out
    assert "1 of 3 sequences can be evaluated (5 frames, 5 annotated)" in out


def test_export(tmp_path: Path, capsys) -> None:
    """Says where the file is and which labels the tool must know; wrong words are one sentence and no file."""
    ids = np.zeros((24, 32), dtype=np.uint8)
    ids[4:12, 5:20] = 1
    (tmp_path / "frames").mkdir()
    for t in range(2):
        Image.new("RGB", (32, 24)).save(tmp_path / "frames" / f"{t}.png")
    Image.fromarray(ids).save(tmp_path / "label.png")
    out = tmp_path / "out"
    words = [
        "propagate",
        str(tmp_path / "frames"),
        "--labels",
        str(tmp_path / "label.png"),
        "--out",
        str(out),
    ]
    assert main([*words, "--model", "copy", "--no-overlay", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["data", "export", str(out), "--to", "labelstudio", "--rename", "1=cat"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        f"{out / 'labelstudio.json'}: 2 labels in 2 frames",
        "labels that the tool must know: cat",
    ]
    assert lines[2].startswith("labelling interface: <View>")
    assert main(["data", "export", str(out), "--to", "coco", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == 2
    for extra, status, sentence in (
        ([], 2, "--to"),
        (["--to", "voc"], 2, "voc"),
        (["--to", "cvat", "--rename", "cat"], 2, "OLD=NEW"),
        (["--to", "cvat", "--rename", "2=cat"], 2, "no '2'"),
        (["--to", "deeplabcut"], 1, "takes keypoints"),
        (["--to", "coco"], 1, "there already"),
    ):
        assert main(["data", "export", str(out), *extra]) == status
        error = capsys.readouterr().err
        assert error.startswith("retrace data: ")
        assert sentence in error
        assert error.count("\n") == 1
    assert not (out / "cvat.xml").exists()


def test_check_against_a_list(tree: Path, tmp_path: Path, capsys) -> None:
    """What is missing, what is not listed, what is broken; status 1, and 0 where all is well."""
    (tmp_path / "list.txt").write_text("good.mp4 0\ntext.mp4 1\ngone.mp4 2\n")
    assert main(["data", "check", str(tree), "--list", str(tmp_path / "list.txt")]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "missing: gone.mp4"
    assert out[1] == f"not listed: {tree / 'cut.mp4'}"
    assert [line.split(":")[0] for line in out[2:4]] == ["broken", "damaged"]
    assert out[4] == (
        "2 of 3 entries of the list (paths) are there; 1 missing, 1 not listed, 1 broken, 1 damaged."
    )
    (tmp_path / "list.txt").write_text("good.mp4\n")
    words = ["data", "check", str(tree / "good.mp4"), "--list", str(tmp_path / "list.txt"), "--json"]
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["listed"], report["missing"], report["extra"], report["broken"]) == (1, [], [], [])
    assert main([*words, "--split", "train"]) == 2
    assert "--list is of a training corpus" in capsys.readouterr().err


def test_check_images_against_synsets(tmp_path: Path, capsys) -> None:
    """A class is a folder; images that cannot be read are broken."""
    for name in ("n01440764", "n01443537"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (20, 30)).save(tmp_path / "train" / name / f"{name}_1.JPEG")
    (tmp_path / "train" / "n01440764" / "n01440764_2.JPEG").write_bytes(b"no image")
    (tmp_path / "synsets.txt").write_text("n01440764 tench\nn01484850 great white shark\n")
    assert main(["data", "check", str(tmp_path / "train"), "--list", str(tmp_path / "synsets.txt")]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "missing: n01484850"
    assert out[1] == f"not listed: {tmp_path / 'train' / 'n01443537'}"
    assert out[2].startswith("broken: ")
    assert "n01440764_2.JPEG" in out[2]
    assert out[3].startswith(
        "1 of 2 entries of the list (classes) are there; 1 missing, 1 not listed, 1 broken"
    )
