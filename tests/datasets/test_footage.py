"""Finding footage and remembering what is known about it."""

import json
import os
from pathlib import Path

import pytest

from retrace.datasets import footage
from retrace.datasets.records import Video
from retrace.errors import RetraceError, UsageError


class Probe:
    """Looks at files that say what they are: "frames 12", "damaged 7" or anything else for broken."""

    def __init__(self) -> None:
        """Nothing looked at yet."""
        self.seen: list[str] = []

    def __call__(self, path: Path) -> tuple[Video, str | None]:
        """The record."""
        self.seen.append(path.name)
        if path.is_dir():
            return Video(path, len(list(path.iterdir())), 30, 40, 24.0), None
        if not path.exists():
            raise RetraceError(f"There is no {path}. Give one.")
        kind, _, count = path.read_text().partition(" ")
        if kind == "frames":
            return Video(path, int(count), 30, 40, 25.0), None
        if kind == "damaged":
            return Video(path, int(count), 30, 40, 25.0), f"{path} is damaged after {count} frames."
        raise RetraceError(f"{path} is broken. Replace it.")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with videos, a frame folder, a broken video, and what is none of these."""
    root = tmp_path / "footage"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "frames").mkdir()
    (root / ".hidden").mkdir()
    (root / "clip10.mp4").write_text("frames 10")
    (root / "clip9.MOV").write_text("frames 9")
    (root / "deep" / "er" / "a.webm").write_text("damaged 3")
    (root / "deep" / "b.avi").write_text("broken")
    (root / "frames" / "0.jpg").write_text("")
    (root / "frames" / "1.jpg").write_text("")
    (root / ".hidden" / "c.mp4").write_text("frames 5")
    (root / "._d.mp4").write_text("frames 5")
    (root / "notes.txt").write_text("no list")
    return root


def test_folder(tree: Path) -> None:
    """Recursive, natural order, frame folders too, nothing hidden."""
    names = [path.relative_to(tree).as_posix() for path in footage.find_videos(tree)]
    assert names == ["clip9.MOV", "clip10.mp4", "deep/b.avi", "deep/er/a.webm", "frames"]


def test_frame_folder_itself(tree: Path) -> None:
    """A folder of images given directly is one video."""
    assert footage.find_videos(tree / "frames") == [tree / "frames"]


def test_list_file(tree: Path) -> None:
    """Relative to the list; comments and empty lines skipped; folders in it are searched; each video once."""
    lists = tree / "list.txt"
    lists.write_text(f"# mine\n\nclip10.mp4\n  {tree / 'clip9.MOV'}\ndeep\nframes\nclip10.mp4\ngone.mp4\n")
    names = [path.name for path in footage.find_videos(lists)]
    assert names == ["clip10.mp4", "clip9.MOV", "b.avi", "a.webm", "frames", "gone.mp4"]


def test_list_of_anything(tree: Path) -> None:
    """Paths of videos and folders, each video once."""
    found = footage.find_videos([tree / "clip9.MOV", str(tree / "deep"), tree])
    assert [path.name for path in found] == ["clip9.MOV", "b.avi", "a.webm", "clip10.mp4", "frames"]


def test_nothing_to_find(tmp_path: Path) -> None:
    """A sentence for each way of naming nothing."""
    with pytest.raises(UsageError, match="No videos were given"):
        footage.find_videos([])
    with pytest.raises(RetraceError, match="There is no file or folder"):
        footage.find_videos(tmp_path / "none")
    with pytest.raises(RetraceError, match="No videos under"):
        footage.find_videos(tmp_path)
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(RetraceError, match="names nothing"):
        footage.find_videos(tmp_path / "empty.txt")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(RetraceError, match="cannot be read as a list"):
        footage.find_videos(tmp_path / "bytes.txt")


def test_index(tree: Path) -> None:
    """Broken ones are recorded with their reason and stop nothing; damaged ones count as videos."""
    found = footage.index(tree, Probe())
    assert [video.path.name for video in found.videos] == ["clip9.MOV", "clip10.mp4", "a.webm", "frames"]
    assert [(path.name, reason.split()[-2:]) for path, reason in found.broken] == [
        ("b.avi", ["Replace", "it."])
    ]
    assert [path.name for path, _ in found.damaged] == ["a.webm"]
    assert found.num_frames == 9 + 10 + 3 + 2
    assert found.seconds == pytest.approx(22 / 25 + 2 / 24)


def test_incremental(tree: Path, tmp_path: Path) -> None:
    """Only what is new or has changed is looked at; what is gone is forgotten."""
    file = tmp_path / "index.json"
    probe = Probe()
    first = footage.index(tree, probe, file=file)
    assert len(probe.seen) == 5
    probe.seen.clear()
    before = file.stat().st_mtime_ns
    assert footage.index(tree, probe, file=file) == first
    assert probe.seen == []
    assert file.stat().st_mtime_ns == before  # nothing new, nothing written
    (tree / "clip10.mp4").write_text("frames 100")
    (tree / "deep" / "b.avi").write_text("frames 4")
    (tree / "frames" / "2.jpg").write_text("")
    (tree / "new.gif").write_text("frames 2")
    (tree / "clip9.MOV").unlink()
    second = footage.index(tree, probe, file=file)
    assert probe.seen == ["clip10.mp4", "new.gif", "b.avi", "frames"]
    assert {v.path.name: v.num_frames for v in second.videos} == {
        "clip10.mp4": 100,
        "b.avi": 4,
        "a.webm": 3,
        "frames": 3,
        "new.gif": 2,
    }
    assert footage.load(file).num_frames == second.num_frames
    assert footage.load(file).damaged[0][1] == second.damaged[0][1]


def test_touched_file_is_looked_at_again(tree: Path, tmp_path: Path) -> None:
    """Same size, another time."""
    probe = Probe()
    footage.index(tree, probe, file=tmp_path / "index.json")
    probe.seen.clear()
    os.utime(tree / "clip10.mp4", ns=(0, 5))
    footage.index(tree, probe, file=tmp_path / "index.json")
    assert probe.seen == ["clip10.mp4"]


def test_thorough_look_replaces_a_quick_one(tree: Path, tmp_path: Path) -> None:
    """And not the other way round."""
    probe = Probe()
    for thorough, looked_at in ((False, 5), (True, 5), (False, 0), (True, 0)):
        probe.seen.clear()
        footage.index(tree, probe, file=tmp_path / "index.json", thorough=thorough)
        assert len(probe.seen) == looked_at


def test_missing_file_in_a_list_is_tried_each_time(tree: Path, tmp_path: Path) -> None:
    """It may have come back."""
    (tree / "list.txt").write_text("gone.mp4\nclip10.mp4\n")
    file = tmp_path / "index.json"
    assert [p.name for p, _ in footage.index(tree / "list.txt", Probe(), file=file).broken] == ["gone.mp4"]
    (tree / "gone.mp4").write_text("frames 6")
    assert footage.index(tree / "list.txt", Probe(), file=file).broken == []


def test_interrupted_index_continues(tree: Path, tmp_path: Path) -> None:
    """What was looked at before Ctrl-C is known the next time."""
    file = tmp_path / "index.json"
    probe = Probe()

    def interrupted(path: Path) -> tuple[Video, str | None]:
        if len(probe.seen) == 3:
            raise KeyboardInterrupt
        return probe(path)

    with pytest.raises(KeyboardInterrupt):
        footage.index(tree, interrupted, file=file)
    probe.seen.clear()
    footage.index(tree, probe, file=file)
    assert len(probe.seen) == 2


def test_progress_wraps_the_paths(tree: Path) -> None:
    """All of them, once."""
    seen = []

    def bar(paths):
        for path in paths:
            seen.append(path.name)
            yield path

    footage.index(tree, Probe(), progress=bar)
    assert len(seen) == 5


@pytest.mark.parametrize(
    "content",
    [
        "",
        "no json",
        "[]",
        '{"retrace_index": 99, "videos": {}}',
        '{"retrace_index": 1, "videos": {"a": {"video": {}}}}',
    ],
)
def test_another_file_is_not_overwritten(tree: Path, tmp_path: Path, content: str) -> None:
    """A file that is no index stays as it is."""
    file = tmp_path / "index.json"
    file.write_text(content)
    with pytest.raises(RetraceError, match="is not an index"):
        footage.index(tree, Probe(), file=file)
    assert file.read_text() == content


def test_load_missing(tmp_path: Path) -> None:
    """Says how to make one."""
    with pytest.raises(RetraceError, match="retrace data index"):
        footage.load(tmp_path / "none.json")


def test_index_is_readable_json(tree: Path, tmp_path: Path) -> None:
    """For other tools: path -> record."""
    footage.index(tree / "clip10.mp4", Probe(), file=tmp_path / "index.json")
    content = json.loads((tmp_path / "index.json").read_text())
    entry = content["videos"][str((tree / "clip10.mp4").resolve())]
    assert entry["video"] == {"num_frames": 10, "height": 30, "width": 40, "fps": 25.0}
    assert entry["reason"] is None


def test_annotations_beside_frames_are_no_video(tmp_path: Path) -> None:
    """YouTube-VOS: train/JPEGImages/<id>/*.jpg, and masks of the same names in train/Annotations."""
    for name in (
        "train/JPEGImages/0a/00000.jpg",
        "train/Annotations/0a/00000.png",
        "valid/JPEGImages/1b/00005.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = footage.find_videos(tmp_path)
    assert found == [tmp_path / "train/JPEGImages/0a", tmp_path / "valid/JPEGImages/1b"]


def test_images_wherever_they_lie(tmp_path: Path) -> None:
    """Folders of classes in natural order, a list, single files; each once."""
    for name in (
        "train/n2/b.JPEG",
        "train/n10/a.jpg",
        "train/n2/a10.png",
        "train/n2/a9.png",
        "train/.hidden/x.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "train" / "n2" / "notes.txt").touch()
    train = tmp_path / "train"
    expected = [
        train / "n2" / "a9.png",
        train / "n2" / "a10.png",
        train / "n2" / "b.JPEG",
        train / "n10" / "a.jpg",
    ]
    assert footage.find_images(train) == expected
    assert footage.find_images([train / "n10", expected[0], train / "n10" / "a.jpg"]) == [
        expected[3],
        expected[0],
    ]
    (tmp_path / "list.txt").write_text("train/n10\ntrain/n2/b.JPEG\n")
    assert footage.find_images(tmp_path / "list.txt") == [expected[3], expected[2]]
    (tmp_path / "empty").mkdir()
    for source, error in (
        (tmp_path / "empty", RetraceError),
        (tmp_path / "gone", RetraceError),
        ([], UsageError),
    ):
        with pytest.raises(error):
            footage.find_images(source)
