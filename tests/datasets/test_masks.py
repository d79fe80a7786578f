"""DAVIS-2017, DAVIS-2016 and YouTube-VOS on disk."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from retrace.datasets import READERS, davis2016, davis2017, root_of, youtubevos
from retrace.datasets.masks import read_ids
from retrace.errors import RetraceError, UsageError
from retrace.video.decode import frames_of


@pytest.fixture
def davis(tmp_path: Path, make: SimpleNamespace) -> Path:
    """DAVIS-2017 with two sequences of `val`, one of `train`, the second with a gap in its ids, void, and a late id."""
    root = tmp_path / "data" / "DAVIS"
    for name, objects in (("bear", (1,)), ("two-cats", (1, 3)), ("cow", (1,))):
        make.frames(root / "JPEGImages/480p" / name, 4)
        for t in range(4):
            late = (9,) if t == 2 and name == "two-cats" else ()
            void = (255,) if t == 0 and name == "two-cats" else ()
            make.palette(root / f"Annotations/480p/{name}/{t:05d}.png", make.ids(*objects, *void, *late))
    lists = root / "ImageSets/2017"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("bear\ntwo-cats")  # no last newline
    (lists / "train.txt").write_text("cow\n")
    return root


def sentences(dataset) -> list[str]:
    """What was found odd."""
    return [problem.sentence for problem in dataset.problems]


def test_davis2017(davis: Path) -> None:
    """Sequences in the order of the list; objects as DAVIS counts them; frames and masks read when asked for."""
    found = davis2017.load(davis)
    assert [s.name for s in found.sequences] == ["bear", "two-cats"]
    assert (found.num_listed, found.problems, found.root) == (2, (), davis)
    cats = found.sequences[1]
    assert dict(cats.objects) == {1: 0, 2: 0, 3: 0}
    assert cats.annotated == (0, 1, 2, 3)
    assert cats.size == (24, 36)
    assert set(np.unique(cats.truth(0))) == {0, 1, 3, 255}
    assert cats.truth(4) is None
    images = list(frames_of(cats))
    assert len(images) == cats.num_frames == 4
    assert [round(image[..., 0].mean() / 10) for image in images] == [0, 1, 2, 3]


def test_davis2017_splits_and_parent_folder(davis: Path) -> None:
    """The folder above DAVIS serves; parts of the list."""
    assert [s.name for s in davis2017.load(davis.parent, split="train").sequences] == ["cow"]
    assert [s.name for s in davis2017.load(davis, split="trainval").sequences] == ["cow", "bear", "two-cats"]
    assert len(davis2017.load(davis, split="all").sequences) == 3
    with pytest.raises(UsageError, match="split of DAVIS-2017 'vla'. Choose one of val, train"):
        davis2017.load(davis, split="vla")


def test_wrong_roots(davis: Path, tmp_path: Path) -> None:
    """A missing folder, another folder, and one too deep, which is told the right one."""
    with pytest.raises(RetraceError, match="There is no folder .*nowhere. Expected JPEGImages"):
        davis2017.load(tmp_path / "nowhere")
    with pytest.raises(
        RetraceError, match="has no JPEGImages/480p and no Annotations/480p; it holds 480p"
    ) as error:
        davis2017.load(davis / "JPEGImages")
    assert f"Did you mean {davis}?" in str(error.value)


def test_half_a_dataset(davis: Path, make: SimpleNamespace) -> None:
    """A missing sequence, a missing mask, a mask without a frame: each is named; the rest goes on."""
    (davis / "ImageSets/2017/val.txt").write_text("bear\ngone\ntwo-cats\n")
    (davis / "Annotations/480p/bear/00002.png").unlink()
    make.palette(davis / "Annotations/480p/bear/00009.png", make.ids(1))
    found = davis2017.load(davis)
    assert [s.name for s in found.sequences] == ["bear", "two-cats"]
    assert found.num_listed == 3
    gone = [p for p in found.problems if p.sequence == "gone"]
    assert gone[0].excluded
    assert "There is no folder" in gone[0].sentence
    text = "\n".join(sentences(found))
    assert "1 masks in" in text
    assert "the first is 00009.png" in text
    assert "1 of 4 frames have no mask, the first is frame 2" in text


def test_no_sequence_at_all(davis: Path) -> None:
    """Nothing usable is an error that gives the first reason."""
    (davis / "ImageSets/2017/val.txt").write_text("gone\nlost\n")
    with pytest.raises(
        RetraceError, match=r"Not one sequence of davis2017 \(val\).*gone.*2 sequences in all"
    ):
        davis2017.load(davis)


def test_sequences_that_cannot_start(davis: Path, make: SimpleNamespace) -> None:
    """No first mask, and the masks of DAVIS-2016 taken for those of 2017."""
    (davis / "Annotations/480p/bear/00000.png").unlink()
    make.palette(davis / "Annotations/480p/cow/00000.png", make.ids(255))
    found = davis2017.load(davis, split="trainval")
    assert [s.name for s in found.sequences] == ["two-cats"]
    text = "\n".join(sentences(found))
    assert "The first frame has no mask" in text
    assert "use davis2016" in text


def test_without_lists(davis: Path) -> None:
    """All folders, and it is said."""
    (davis / "ImageSets/2017/val.txt").unlink()
    found = davis2017.load(davis)
    assert len(found.sequences) == 3
    assert "all 3 sequences in JPEGImages/480p are taken" in sentences(found)[0]


def test_check_opens_everything(davis: Path, make: SimpleNamespace) -> None:
    """Unknown ids, other sizes, damaged files: named; sequences with a broken file are excluded."""
    make.frame(davis / "JPEGImages/480p/bear/00003.jpg", size=(12, 18))
    broken = davis / "Annotations/480p/cow/00001.png"
    broken.write_bytes(broken.read_bytes()[:60])
    found = davis2017.check(davis, split="trainval")
    assert [s.name for s in found.sequences] == ["two-cats"]
    text = "\n".join(sentences(found))
    assert "Frame 2: the mask holds ids [9]" in text
    assert "several sizes: 3 of 36x24, 1 of 18x12" in text
    assert f"{broken} is damaged" in text


def test_check_thorough_finds_what_a_header_hides(davis: Path) -> None:
    """A frame cut off in the middle has a good header."""
    cut = davis / "JPEGImages/480p/bear/00001.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (24, 36, 3), dtype=np.uint8)
    Image.fromarray(noise).save(cut)
    cut.write_bytes(cut.read_bytes()[:-400])
    assert len(davis2017.check(davis).sequences) == 2
    found = davis2017.check(davis, thorough=True)
    assert [s.name for s in found.sequences] == ["two-cats"]
    assert str(cut) in "\n".join(sentences(found))


def test_masks_of_another_size_within_a_sequence(davis: Path, make: SimpleNamespace) -> None:
    """One size per sequence."""
    make.palette(davis / "Annotations/480p/bear/00002.png", make.ids(1, size=(12, 18)))
    bear = davis2017.load(davis).sequences[0]
    with pytest.raises(
        RetraceError, match=r"00002.png is 18x12 pixels, the first mask of the sequence 36x24"
    ):
        bear.truth(2)


def test_davis2016(davis: Path) -> None:
    """All ids are one object; lists by name (with 2017) or by frame (alone)."""
    (davis / "ImageSets/2016").mkdir()
    (davis / "ImageSets/2016/val.txt").write_text("two-cats\n")
    found = davis2016.load(davis)
    assert [s.name for s in found.sequences] == ["two-cats"]
    assert dict(found.sequences[0].objects) == {1: 0}
    assert set(np.unique(found.sequences[0].truth(2))) == {0, 1}
    (davis / "ImageSets/480p").mkdir()
    rows = [
        f"/JPEGImages/480p/{n}/{t:05d}.jpg /Annotations/480p/{n}/{t:05d}.png"
        for n in ("cow", "bear")
        for t in (0, 1)
    ]
    (davis / "ImageSets/480p/val.txt").write_text("\n".join(rows))
    assert [s.name for s in davis2016.load(davis).sequences] == ["cow", "bear"]
    assert davis2016.check(davis).problems == ()


def test_davis2016_empty_first_mask(davis: Path, make: SimpleNamespace) -> None:
    """Nothing to follow."""
    make.palette(davis / "Annotations/480p/bear/00000.png", make.ids())
    found = davis2016.load(davis, split="all")
    assert [p.sequence for p in found.problems if p.excluded] == ["bear"]


@pytest.fixture
def youtube(tmp_path: Path, make: SimpleNamespace) -> Path:
    """A valid split: every fifth frame; object 2 begins in the third one, whose mask holds it alone."""
    root = tmp_path / "YouTube-VOS"
    make.frames(root / "valid/JPEGImages/0a1b", 4, step=5)
    make.palette(root / "valid/Annotations/0a1b/00000.png", make.ids(1))
    make.palette(root / "valid/Annotations/0a1b/00010.png", make.ids(2))
    make.frames(root / "valid_all_frames/JPEGImages/0a1b", 16)
    objects = {"1": {"category": "cat", "frames": ["00000", "00005"]}, "2": {"frames": ["00010", "00015"]}}
    (root / "valid/meta.json").write_text(json.dumps({"videos": {"0a1b": {"objects": objects}}}))
    return root


def test_youtubevos(youtube: Path) -> None:
    """Objects begin where meta.json says; only those frames are annotated."""
    found = youtubevos.load(youtube)
    assert found.problems == ()
    video = found.sequences[0]
    assert dict(video.objects) == {1: 0, 2: 2}
    assert video.annotated == (0, 2)
    assert video.truth(1) is None
    everything = youtubevos.load(youtube, all_frames=True).sequences[0]
    assert dict(everything.objects) == {1: 0, 2: 10}
    assert everything.num_frames == 16
    assert youtubevos.check(youtube).problems == ()


def test_youtubevos_without_meta(youtube: Path) -> None:
    """The masks say it too."""
    (youtube / "valid/meta.json").unlink()
    found = youtubevos.load(youtube)
    assert dict(found.sequences[0].objects) == {1: 0, 2: 2}
    assert "objects begin where a mask first holds them" in sentences(found)[0]


def test_youtubevos_oddities(youtube: Path) -> None:
    """An object that begins without a mask; a meta.json that is none."""
    (youtube / "valid/Annotations/0a1b/00010.png").unlink()
    found = youtubevos.load(youtube)
    assert dict(found.sequences[0].objects) == {1: 0}
    assert "objects [2] begin in frames without a mask, such as 00010" in sentences(found)[0]
    (youtube / "valid/meta.json").write_text('{"videos": 3}')
    with pytest.raises(RetraceError, match=r"meta.json is not the list of videos and objects"):
        youtubevos.load(youtube)


def test_youtubevos_without_any_object(youtube: Path, make: SimpleNamespace) -> None:
    """Empty masks, without and with meta.json."""
    for name in ("00000", "00010"):
        make.palette(youtube / f"valid/Annotations/0a1b/{name}.png", make.ids())
    (youtube / "valid/meta.json").unlink()
    with pytest.raises(RetraceError, match="hold no object"):
        youtubevos.load(youtube)
    objects = {"1": {"frames": ["00005"]}}
    (youtube / "valid/meta.json").write_text(json.dumps({"videos": {"0a1b": {"objects": objects}}}))
    with pytest.raises(RetraceError, match="No object of 0a1b has a mask"):
        youtubevos.load(youtube)


@pytest.mark.parametrize("mode", ["P", "L", "1", "I;16", "RGB"])
def test_how_ids_are_stored(mode: str, tmp_path: Path) -> None:
    """Palette index, level, bit, 16-bit level, grey colour."""
    array = np.array([[0, 1, 2], [0, 1, 1]], np.uint8)
    if mode == "1":
        Image.fromarray(array > 0).save(tmp_path / "m.png")
    elif mode == "I;16":
        Image.fromarray(array.astype(np.uint16)).save(tmp_path / "m.png")
    elif mode == "RGB":
        Image.fromarray(np.repeat(array[..., None], 3, 2)).save(tmp_path / "m.png")
    else:
        image = Image.fromarray(array)
        if mode == "P":
            image.putpalette(bytes(range(255, -1, -1)) * 3)
        image.save(tmp_path / "m.png")
    ids = read_ids(tmp_path / "m.png")
    expected = (array > 0) * 255 if mode == "1" else array
    assert ids.dtype == np.uint8
    np.testing.assert_array_equal(ids, expected)


def test_masks_that_are_none(tmp_path: Path) -> None:
    """Colours and ids above 255."""
    Image.fromarray(np.array([[[255, 0, 0], [0, 9, 0]]], np.uint8)).save(tmp_path / "colour.png")
    Image.fromarray(np.array([[0, 300]], np.uint16)).save(tmp_path / "deep.png")
    for name in ("colour", "deep"):
        with pytest.raises(
            RetraceError, match=f"{name}.png has pixels of type .*; expected a palette or grey"
        ):
            read_ids(tmp_path / f"{name}.png")


def test_root_of(davis: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given, or found below RETRACE_DATA, or RETRACE_DATA itself; unknown benchmarks."""
    monkeypatch.delenv("RETRACE_DATA", raising=False)
    assert root_of("davis2017", davis) == davis
    with pytest.raises(UsageError, match="Where is davis2017.*--root.*RETRACE_DATA.*JPEGImages"):
        root_of("davis2017")
    monkeypatch.setenv("RETRACE_DATA", str(davis.parent))
    assert root_of("davis2017") == davis
    assert root_of("youtubevos") == davis.parent
    with pytest.raises(UsageError, match="no benchmark 'kinetics'"):
        root_of("kinetics", davis)


def test_every_reader_says_what_it_is() -> None:
    """The shape that `check` and `evaluate` rely on."""
    for reader in READERS.values():
        assert reader.SPLITS
        assert reader.FOLDERS
        assert len(reader.LAYOUT) > 20


def test_real_davis2016(videos: Path) -> None:
    """The real piece on this machine: every frame annotated, no list, every object in sight."""
    found = davis2016.load(videos / "davis2016")
    assert {s.name for s in found.sequences} >= {"blackswan", "dog"}
    assert ["There is no" in sentence for sentence in sentences(found)] == [True]
    for sequence in found.sequences:
        assert len(sequence.annotated) == sequence.num_frames
        last = sequence.truth(sequence.num_frames - 1)
        assert last.shape == sequence.size
        assert last.any()


def test_davis_frames_alone(tmp_path: Path, make: SimpleNamespace) -> None:
    """No masks are needed; a listed sequence without frames is told."""
    make.frames(tmp_path / "DAVIS/JPEGImages/480p/one", 3)
    (tmp_path / "DAVIS/ImageSets/2017").mkdir(parents=True)
    (tmp_path / "DAVIS/ImageSets/2017/val.txt").write_text("one\ntwo\n")
    found = davis2017.load_frames(tmp_path)
    assert [(s.name, s.num_frames, s.size, s.annotated) for s in found.sequences] == [
        ("one", 3, make.size, ())
    ]
    assert found.num_listed == 2
    assert "There is no folder" in found.problems[0].sentence
