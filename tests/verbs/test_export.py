"""The verb: each tool's file holds exactly what the run wrote; folders that hold no finished run are refused."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import retrace
from retrace.errors import RetraceError, UsageError
from retrace.formats.keypoints import read_keypoints
from retrace.formats.labels import LabelSet, read_labels
from retrace.formats.rle import brush, coco_mask, from_runs
from retrace.verbs.export import TOOLS, export
from retrace.verbs.output import OURS, ResultWriter

H, W, FPS = 24, 36, 10.0
NAMES = {"mask": ["1", "3"], "keypoints": ["nose", "tail"], "boxes": ["car & <co>", "dog"]}
NAN = float("nan")


def masks(t: int) -> NDArray[np.uint8]:
    """Object 1 with a hole, moving; object 3 in two pieces, gone in the last frame."""
    ids = np.zeros((H, W), dtype=np.uint8)
    ids[4:14, 2 + t : 14 + t] = 1
    ids[7:9, 5 + t : 8 + t] = 0
    if t < 2:
        ids[18:22, 20:24] = ids[18:20, 30:35] = 3
    return ids


POINTS = np.array(
    [[[10.5, 4.25], [NAN, NAN]], [[11, 5], [20, 20]], [[NAN, NAN], [21, 20.5]]], dtype=np.float32
)
BOXES = np.array(
    [[[1, 2, 10, 8], [NAN] * 4], [[2, 2, 10, 8], [20, 12, 5, 6]], [[NAN] * 4, [21, 12, 5, 6]]],
    dtype=np.float32,
)
SURE = [[1.0, 0.0], [0.75, 0.5], [0.0, 0.25]]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Writes the result of a run of three frames."""

    def write(kind: str, *, video: str = "clip.mp4", first: int = 0, status: str = "complete") -> Path:
        folder = tmp_path / f"{kind}-{Path(video).stem}-{first}"
        folder.mkdir()
        names = NAMES["mask" if kind == "parts" else kind]
        writer = ResultWriter(
            folder, kind=kind, names=names, skeleton=[(0, 1)], size=(H, W), fps=FPS, overlay=False
        )
        for t in range(3):
            index = first + t
            frame = {
                "index": index,
                "name": f"{index:05d}" if video.endswith(".mp4") else f"a{index}",
                "time": index / FPS,
                "labelled": t == 0,
                "confidence": dict(zip(names, SURE[t], strict=True)),
                "masks": masks(t) if kind in ("mask", "parts") else None,
                "keypoints": POINTS[t] if kind == "keypoints" else None,
                "boxes": BOXES[t] if kind == "boxes" else None,
                "texture": None,
            }
            writer.write(SimpleNamespace(**frame))
        path = str(tmp_path / video)
        writer.finish(
            lambda: {
                "status": status,
                "video": {"path": path, "width": W, "height": H, "fps": FPS, "damage": None},
                "labels": {"kind": kind, "names": names},
            }
        )
        return folder

    return write


@pytest.fixture
def frames(tmp_path: Path) -> str:
    """A folder with the images of frames a0 to a2, jpg and png."""
    (tmp_path / "frames").mkdir()
    for t, ending in enumerate(("png", "jpg", "png")):
        Image.new("RGB", (W, H)).save(tmp_path / "frames" / f"a{t}.{ending}")
    return "frames"


def load(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text())


def test_masks_as_coco(make: Callable[..., Path]) -> None:
    """Categories by name, images from 1, run lengths, area and box; an object that is gone has no annotation."""
    done = export(make("mask"), "coco", rename={"3": "dog"})
    assert (done.frames, done.labels, done.names) == (3, 5, ["1", "dog"])
    content = load(Path(done.path))
    assert [(c["id"], c["name"]) for c in content["categories"]] == [(1, "1"), (2, "dog")]
    assert content["images"][2] == {"id": 3, "file_name": "00002.png", "width": W, "height": H}
    assert [a["id"] for a in content["annotations"]] == [1, 2, 3, 4, 5]
    assert [(a["image_id"], a["category_id"]) for a in content["annotations"]] == [
        *[(1, 1), (1, 2), (2, 1), (2, 2), (3, 1)]
    ]
    assert [a["score"] for a in content["annotations"]] == [1.0, 0.0, 0.75, 0.5, 0.0]
    for a in content["annotations"]:
        truth = masks(a["image_id"] - 1) == (1, 3)[a["category_id"] - 1]
        np.testing.assert_array_equal(coco_mask((H, W), a["segmentation"]["counts"]), truth)
        x, y, w, h = a["bbox"]
        assert truth[y : y + h, x : x + w].sum() == a["area"] == truth.sum()
        assert a["iscrowd"] == 0


def test_two_objects_of_one_name_are_two_annotations_of_one_category(make: Callable[..., Path]) -> None:
    """As parts of people, or two dogs."""
    content = load(Path(export(make("parts"), "coco", rename={"1": "dog", "3": "dog"}).path))
    assert [c["name"] for c in content["categories"]] == ["dog"]
    assert [a["category_id"] for a in content["annotations"]] == [1] * 5


def test_masks_as_cvat(make: Callable[..., Path], frames: str) -> None:
    """One image per frame under its own name; runs along the rows of the bounding box."""
    root = ElementTree.parse(export(make("mask", video=frames), "cvat", prefix="train/").path).getroot()
    assert root.findtext("version") == "1.1"
    assert root.findtext("meta/task/mode") == "annotation"
    assert [e.text for e in root.iterfind("meta/task/labels/label/name")] == ["1", "3"]
    images = root.findall("image")
    assert [i.get("name") for i in images] == ["train/a0.png", "train/a1.jpg", "train/a2.png"]
    assert [(i.get("id"), i.get("width"), i.get("height")) for i in images] == [
        (str(t), str(W), str(H)) for t in range(3)
    ]
    assert [len(i.findall("mask")) for i in images] == [2, 2, 1]
    for t, image in enumerate(images):
        for element in image.iterfind("mask"):
            x, y, w, h = (int(element.get(name, "")) for name in ("left", "top", "width", "height"))
            counts = [int(count) for count in element.get("rle", "").split(",")]
            truth = masks(t) == int(element.get("label", ""))
            found = np.zeros((H, W), dtype=bool)
            found[y : y + h, x : x + w] = from_runs(counts, w * h).reshape(h, w)
            np.testing.assert_array_equal(found, truth)


def test_masks_as_label_studio(make: Callable[..., Path]) -> None:
    """A task per frame, a brush region per object, an interface that names the labels."""
    done = export(make("mask"), "labelstudio", prefix="/data/local-files/?d=clip/")
    assert done.labels == 5
    assert done.interface is not None
    assert [e.get("value") for e in ElementTree.fromstring(done.interface).iter("Label")] == ["1", "3"]
    tasks = load(Path(done.path))
    assert [t["data"]["image"] for t in tasks] == [f"/data/local-files/?d=clip/0000{t}.png" for t in range(3)]
    for t, task in enumerate(tasks):
        for region in task["predictions"][0]["result"]:
            assert (region["type"], region["from_name"], region["to_name"]) == (
                "brushlabels",
                "label",
                "image",
            )
            assert (region["original_width"], region["original_height"]) == (W, H)
            assert region["value"]["format"] == "rle"
            (name,) = region["value"]["brushlabels"]
            assert region["value"]["rle"] == brush(masks(t) == int(name))
    assert tasks[1]["predictions"][0]["score"] == 0.625


def test_boxes_as_cvat(make: Callable[..., Path]) -> None:
    """A track begins where a box is first there; where it is lost it is outside, at its last place."""
    root = ElementTree.parse(export(make("boxes", first=4), "cvat").path).getroot()
    assert root.findtext("meta/task/mode") == "interpolation"
    assert root.findtext("meta/task/size") == "7"
    car, dog = root.findall("track")
    assert (car.get("label"), dog.get("label")) == ("car & <co>", "dog")

    def shapes(track: ElementTree.Element) -> list[tuple[str | None, ...]]:
        keys = ("frame", "keyframe", "outside", "xtl", "ytl", "xbr", "ybr")
        return [tuple(box.get(key) for key in keys) for box in track]

    assert shapes(car) == [
        ("4", "1", "0", "1.00", "2.00", "11.00", "10.00"),
        ("5", "1", "0", "2.00", "2.00", "12.00", "10.00"),
        ("6", "1", "1", "2.00", "2.00", "12.00", "10.00"),
    ]
    assert [row[:4] for row in shapes(dog)] == [("5", "1", "0", "20.00"), ("6", "1", "0", "21.00")]


def test_boxes_as_label_studio(make: Callable[..., Path], frames: str) -> None:
    """Of a video one region per box, disabled where it ends; of images one region per box and image."""
    done = export(make("boxes", first=4), "labelstudio")
    (task,) = load(Path(done.path))
    assert done.labels == 4
    assert task["data"] == {"video": "clip.mp4"}
    car, dog = task["predictions"][0]["result"]
    assert (car["type"], car["from_name"], car["to_name"]) == ("videorectangle", "box", "video")
    assert car["value"]["labels"] == ["car & <co>"]
    assert (car["value"]["framesCount"], car["value"]["duration"]) == (7, 0.7)
    assert [(s["frame"], s["enabled"], s["time"]) for s in car["value"]["sequence"]] == [
        (5, True, 0.4),
        (6, False, 0.5),
    ]
    assert [(s["frame"], s["enabled"]) for s in dog["value"]["sequence"]] == [(6, True), (7, False)]
    first = car["value"]["sequence"][0]
    expected = (100 * 1 / W, 100 * 2 / H, 100 * 10 / W, 100 * 8 / H)
    np.testing.assert_allclose([first[k] for k in ("x", "y", "width", "height")], expected, atol=1e-4)
    tasks = load(Path(export(make("boxes", video=frames), "labelstudio").path))
    assert [t["data"]["image"] for t in tasks] == ["a0.png", "a1.jpg", "a2.png"]
    assert [len(t["predictions"][0]["result"]) for t in tasks] == [1, 2, 1]
    region = tasks[2]["predictions"][0]["result"][0]
    assert (region["type"], region["value"]["rectanglelabels"]) == ("rectanglelabels", ["dog"])


def test_boxes_as_coco(make: Callable[..., Path]) -> None:
    """x, y, w, h of those that are there."""
    content = load(Path(export(make("boxes"), "coco").path))
    assert [(a["image_id"], a["category_id"], a["bbox"]) for a in content["annotations"]] == [
        (1, 1, [1, 2, 10, 8]),
        (2, 1, [2, 2, 10, 8]),
        (2, 2, [20, 12, 5, 6]),
        (3, 2, [21, 12, 5, 6]),
    ]


def test_keypoints_as_coco_come_back(make: Callable[..., Path], tmp_path: Path) -> None:
    """One annotation per frame, which our own reader takes as the label of a frame."""
    content = load(Path(export(make("keypoints"), "coco").path))
    assert [a["num_keypoints"] for a in content["annotations"]] == [1, 2, 1]
    assert content["annotations"][0]["keypoints"] == [10.0, 3.75, 2, 0.0, 0.0, 0]
    assert content["annotations"][1]["bbox"] == [11, 5, 9, 15]
    one = tmp_path / "one.json"
    one.write_text(json.dumps({**content, "annotations": content["annotations"][1:2]}))
    back = read_keypoints(one, size=(H, W))[0]
    np.testing.assert_allclose(back.xy, POINTS[1])
    assert (back.names, back.skeleton) == (("nose", "tail"), ((0, 1),))


def test_keypoints_as_cvat_and_label_studio(make: Callable[..., Path]) -> None:
    """Points in pixels and in percent, from the frame's left top corner."""
    folder = make("keypoints")
    root = ElementTree.parse(export(folder, "cvat").path).getroot()
    nose, tail = root.findall("track")
    assert [(p.get("frame"), p.get("outside"), p.get("points")) for p in nose] == [
        ("0", "0", "10.50,4.25"),
        ("1", "0", "11.00,5.00"),
        ("2", "1", "11.00,5.00"),
    ]
    assert [p.get("points") for p in tail] == ["20.00,20.00", "21.00,20.50"]
    tasks = load(Path(export(folder, "labelstudio").path))
    (region,) = tasks[2]["predictions"][0]["result"]
    assert (region["type"], region["value"]["keypointlabels"]) == ("keypointlabels", ["tail"])
    np.testing.assert_allclose([region["value"]["x"], region["value"]["y"]], [2100 / W, 2050 / H], atol=1e-4)


def test_keypoints_as_deeplabcut(make: Callable[..., Path]) -> None:
    """Three rows of header; a row per frame of the video, those before the first label empty; pixel centres from 0."""
    with open(export(make("keypoints", first=1), "deeplabcut").path, newline="") as file:
        rows = list(csv.reader(file))
    assert rows[:3] == [
        ["scorer", *["retrace"] * 6],
        ["bodyparts", *["nose"] * 3, *["tail"] * 3],
        ["coords", *["x", "y", "likelihood"] * 2],
    ]
    assert rows[3:] == [
        ["0", "", "", "0.0", "", "", "0.0"],
        ["1", "10.0", "3.75", "1.0", "", "", "0.0"],
        ["2", "10.5", "4.5", "0.75", "19.5", "19.5", "0.5"],
        ["3", "", "", "0.0", "20.5", "20.0", "0.25"],
    ]


def test_keypoints_as_labelled_images_of_deeplabcut(make: Callable[..., Path], frames: str) -> None:
    """The image in three cells, named as DeepLabCut names the frames that it takes out of a video."""
    done = export(make("keypoints", first=9), "deeplabcut-labels")
    assert Path(done.path).name == "CollectedData_retrace.csv"
    with open(done.path, newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["scorer", "", "", *["retrace"] * 4]
    assert rows[1:3] == [
        ["bodyparts", "", "", "nose", "nose", "tail", "tail"],
        ["coords", "", "", *["x", "y"] * 2],
    ]
    assert rows[3] == ["labeled-data", "clip", "img09.png", "10.0", "3.75", "", ""]
    assert [row[2] for row in rows[3:]] == ["img09.png", "img10.png", "img11.png"]
    with open(export(make("keypoints", video=frames), "deeplabcut-labels").path, newline="") as file:
        assert [row[:3] for row in csv.reader(file)][3] == ["labeled-data", "frames", "a0.png"]


@pytest.mark.parametrize("to", ["coco", "cvat", "labelstudio"])
@pytest.mark.parametrize("video", ["clip.mp4", "frames"])
def test_what_was_exported_is_read_as_labels(
    make: Callable[..., Path], frames: str, to: str, video: str
) -> None:
    """Masks to the pixel and the id; boxes and keypoints to the digits of the file; later frames as corrections."""
    first, names = (0, ["a0", "a1", "a2"]) if video == "frames" else (4, None)

    def back(kind: str, **settings: str) -> LabelSet:
        path = export(make(kind, video=video, first=first), to, **settings).path
        return read_labels(path, size=(H, W), names=names, num_frames=first + 3)

    drawn = back("mask", prefix="some/where/" if to != "cvat" else "")
    assert (drawn.kind, list(drawn.frames)) == ("mask", [first, first + 1, first + 2])
    for t in range(3):
        np.testing.assert_array_equal(drawn.frames[first + t].ids, masks(t))
    boxes = back("boxes")
    assert boxes.kind == "boxes"
    for t in range(3):
        assert boxes.frames[first + t].names == ("car & <co>", "dog")
        np.testing.assert_allclose(boxes.frames[first + t].xywh, BOXES[t], atol=2e-3)
    points = back("keypoints")
    assert points.kind == "keypoints"
    for t in range(3):
        assert points.frames[first + t].names == ("nose", "tail")
        np.testing.assert_allclose(points.frames[first + t].xy, POINTS[t], atol=2e-3)


def test_after_a_real_run(tmp_path: Path, frames: str) -> None:
    """What `propagate` writes is what is exported; doing it over removes an export that is out of date."""
    settings: dict[str, Any] = {"model": "copy", "out": tmp_path / "out", "overlay": False}
    retrace.propagate(tmp_path / frames, masks(0), **settings).run()
    done = retrace.export(tmp_path / "out", "coco")
    assert (done.frames, done.labels) == (3, 6)
    retrace.propagate(tmp_path / frames, masks(0), overwrite=True, **settings).run()
    assert not Path(done.path).exists()
    assert set(TOOLS) == {"coco", "cvat", "labelstudio", "deeplabcut", "deeplabcut-labels"}
    assert "coco.json" in OURS


def damage(folder: Path, how: str) -> None:
    """Break a result of boxes or masks in one way."""
    result = folder / "result.json"
    content = load(result)
    if how == "empty result":
        result.write_text("")
    elif how == "cut result":
        result.write_text(result.read_text()[:200])
    elif how == "list":
        result.write_text("[]")
    elif how == "other json":
        result.write_text("{}")
    elif how == "no frames":
        result.write_text(json.dumps({**content, "frames": []}))
    elif how == "frames of other types":
        result.write_text(json.dumps({**content, "frames": [1, 2]}))
    elif how == "no boxes":
        (folder / "boxes.json").unlink()
    elif how == "cut boxes":
        (folder / "boxes.json").write_text((folder / "boxes.json").read_text()[:-40])
    elif how == "other boxes":
        (folder / "boxes.json").write_text('{"frames": [{"index": 0, "boxes": [3]}]}')
    elif how == "renamed boxes":
        (folder / "boxes.json").write_text((folder / "boxes.json").read_text().replace("dog", "cat"))
    elif how == "no mask":
        (folder / "masks" / "00001.png").unlink()
    elif how == "cut mask":
        mask = folder / "masks" / "00001.png"
        mask.write_bytes(mask.read_bytes()[:60])
    elif how == "other mask":
        Image.new("L", (W + 1, H)).save(folder / "masks" / "00001.png")


@pytest.mark.parametrize(
    ("kind", "how", "message"),
    [
        ("boxes", "empty result", "not valid JSON"),
        ("boxes", "cut result", "not valid JSON"),
        ("boxes", "list", "holds a JSON list"),
        ("boxes", "other json", "not what a run"),
        ("boxes", "no frames", "not what a run"),
        ("boxes", "frames of other types", "not what a run"),
        ("boxes", "no boxes", "boxes.json"),
        ("boxes", "cut boxes", "not valid JSON"),
        ("boxes", "other boxes", "not what a run"),
        ("boxes", "renamed boxes", "not what a run"),
        ("mask", "no mask", "00001.png"),
        ("mask", "cut mask", "00001.png"),
        ("mask", "other mask", "not what a run"),
    ],
)
@pytest.mark.parametrize("to", ["cvat", "coco", "labelstudio"])
def test_damaged_results(make: Callable[..., Path], kind: str, how: str, message: str, to: str) -> None:
    """One sentence that names the file, and no file of the tool, whole or in part."""
    folder = make(kind)
    damage(folder, how)
    before = sorted(folder.iterdir())
    with pytest.raises(RetraceError, match=message):
        export(folder, to)
    assert sorted(folder.iterdir()) == before


def test_what_is_no_finished_run(make: Callable[..., Path], tmp_path: Path) -> None:
    """Nothing there, an empty folder, a file, an unfinished run, frames that are gone, a texture."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(RetraceError, match="no folder"):
        export(tmp_path / "nothing", "coco")
    with pytest.raises(RetraceError, match="no folder"):
        export(tmp_path / "file", "coco")
    with pytest.raises(RetraceError, match="holds no result.json"):
        export(tmp_path / "empty", "coco")
    with pytest.raises(RetraceError, match="is not finished"):
        export(make("mask", status="partial", first=1), "coco")
    with pytest.raises(RetraceError, match="which is gone"):
        export(make("mask", video="moved"), "coco")
    (tmp_path / "lost").mkdir()
    with pytest.raises(RetraceError, match="no frame a0"):
        export(make("mask", video="lost"), "coco")
    folder = make("mask")
    with pytest.raises(
        RetraceError, match=r"deeplabcut takes keypoints\. Choose from coco, cvat, labelstudio\."
    ):
        export(folder, "deeplabcut")
    content = load(folder / "result.json")
    content["labels"] = {"kind": "texture", "names": ["1", "3"]}
    (folder / "result.json").write_text(json.dumps(content))
    with pytest.raises(RetraceError, match="Take the files"):
        export(folder, "coco")


def test_wrong_wishes(make: Callable[..., Path], tmp_path: Path) -> None:
    """Unknown tools and names, endings, prefixes without use, files that are there."""
    folder = make("keypoints")
    with pytest.raises(UsageError, match="no export to 'voc'"):
        export(folder, "voc")
    with pytest.raises(UsageError, match="There is no 'ear'"):
        export(folder, "coco", rename={"ear": "left ear"})
    with pytest.raises(UsageError, match="Two keypoints would be called 'tail'"):
        export(folder, "coco", rename={"nose": "tail"})
    with pytest.raises(UsageError, match=r"does not end in \.xml"):
        export(folder, "cvat", out=tmp_path / "clip.mp4")
    with pytest.raises(UsageError, match="Leave out the prefix"):
        export(folder, "deeplabcut", prefix="a/")
    with pytest.raises(RetraceError, match="XML cannot hold"):
        export(folder, "cvat", rename={"nose": "no\x00se"})
    (tmp_path / "folder.xml").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        export(folder, "cvat", out=tmp_path / "folder.xml")
    mine = tmp_path / "mine.json"
    mine.write_text("{}")
    with pytest.raises(RetraceError, match="there already"):
        export(folder, "coco", out=mine)
    assert mine.read_text() == "{}"
    assert export(folder, "coco", out=mine, overwrite=True).path == str(mine)
    assert load(mine)["annotations"]


def test_a_place_that_cannot_be_written(make: Callable[..., Path], tmp_path: Path) -> None:
    """One sentence."""
    (tmp_path / "file").touch()
    with pytest.raises(RetraceError, match="Cannot write"):
        export(make("mask"), "coco", out=tmp_path / "file" / "a.json")
