"""Published lists of training corpora: what they name, and what a folder lacks of it."""

from pathlib import Path

import pytest

from retrace.datasets.listing import compare, read_listing
from retrace.errors import RetraceError


def listed(tmp_path: Path, name: str, text: str):
    """A list file, read."""
    (tmp_path / name).write_text(text)
    return read_listing(tmp_path / name)


KINETICS = """label,youtube_id,time_start,time_end,split
abseiling,-3B32lodo2M,59,69,train
zumba,a_b-c,0,10,train
zumba,gone,100,110,train
"""


def test_kinetics(tmp_path):
    """By identity and seconds, whatever the folder of the label; some keep the bare identity."""
    listing = listed(tmp_path, "train.csv", KINETICS)
    assert (listing.kind, listing.images) == ("Kinetics", False)
    assert listing.names == ("-3B32lodo2M_000059_000069", "a_b-c_000000_000010", "gone_000100_000110")
    root = Path("k400")
    paths = [
        root / "abseiling" / "-3B32lodo2M_000059_000069.mp4",
        root / "a_b-c.mp4",
        root / "other_000000_000010.mp4",
    ]
    assert compare(listing, paths, [root]) == (["gone_000100_000110"], [paths[2]])


def test_kinetics_in_shards(tmp_path):
    """A key is the name of the file and a digest."""
    listing = listed(tmp_path, "train.csv", KINETICS)
    shard = Path("shards") / "shard-000000.tar"
    paths = [shard / "-3B32lodo2M_000059_000069-0123456789", shard / "x_000000_000010-0123456789"]
    missing, extra = compare(listing, paths, [Path("shards")])
    assert missing == ["a_b-c_000000_000010", "gone_000100_000110"]
    assert extra == [paths[1]]


def test_youtubevos(tmp_path):
    """Folders of frames below JPEGImages."""
    listing = listed(tmp_path, "meta.json", '{"videos": {"003234408d": {"objects": {}}, "0043f083b5": {}}}')
    paths = [Path("train/JPEGImages/003234408d"), Path("train/JPEGImages/ffff")]
    assert compare(listing, paths, [Path("train")]) == (["0043f083b5"], [paths[1]])


@pytest.mark.parametrize(
    ("text", "kind", "images", "names"),
    [
        ("n01440764 tench, Tinca tinca\nn01443537 goldfish\n", "classes", True, ("n01440764", "n01443537")),
        ("n01440764\nn01443537\n", "classes", True, ("n01440764", "n01443537")),
        ("n01440764/n01440764_18 1\n", "paths", True, ("n01440764/n01440764_18",)),
        ("n01440764/n01440764_18.JPEG 0\n", "paths", True, ("n01440764/n01440764_18.JPEG",)),
        ("# clips\nriding a bike/x y.mp4 12 3\n", "paths", False, ("riding a bike/x y.mp4",)),
        ("/home/me/vlog/v_1/clip 300\n", "paths", False, ("/home/me/vlog/v_1/clip",)),
    ],
)
def test_lists_of_lines(tmp_path, text, kind, images, names):
    """Labels and counts behind a path are left out; blanks in it are not."""
    listing = listed(tmp_path, "list.txt", text)
    assert (listing.kind, listing.images, listing.names) == (kind, images, names)


def test_a_list_may_begin_further_up_than_the_folder(tmp_path):
    """And further down; but what both have must agree."""
    listing = listed(tmp_path, "list.txt", "/disk/vlog/a/clip 30\n/disk/vlog/b/clip 30\nc.mp4\n")
    root = Path("mine")
    paths = [root / "a" / "clip.mp4", root / "x" / "c.mkv", root / "d" / "clip.mp4"]
    assert compare(listing, paths, [root]) == (["/disk/vlog/b/clip"], [paths[2]])


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("meta.json", "[1]", r"is no list of videos .* expected \{\"videos\""),
        ("empty.txt", "# nothing\n", "names nothing"),
        ("bad.csv", "label,youtube_id,time_start,time_end\nx,y,soon,later\n", "Line 2 of the list has times"),
    ],
)
def test_what_is_no_list(tmp_path, name, text, sentence):
    """One sentence."""
    with pytest.raises(RetraceError, match=sentence):
        listed(tmp_path, name, text)
    with pytest.raises(RetraceError, match="cannot be read as a list"):
        read_listing(tmp_path / "nowhere.txt")
