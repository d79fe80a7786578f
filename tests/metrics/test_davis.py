"""J and F by brute force, the rules of DAVIS on small made videos, and streaming."""

import itertools
import weakref

import numpy as np
import pytest

from retrace.metrics import davis
from retrace.metrics.contours import boundary_map, f_measure, tolerance_pixels
from retrace.metrics.regions import statistics


def random_masks(seed: int, shape: tuple[int, int] = (17, 23)) -> tuple[np.ndarray, np.ndarray]:
    """Two blobs that overlap, touching the border for some seeds."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    masks = []
    for _ in range(2):
        y, x, radius = generator.uniform(0, shape[0]), generator.uniform(0, shape[1]), generator.uniform(2, 9)
        masks.append(((rows - y) ** 2 + (columns - x) ** 2 < radius**2) & (generator.random(shape) < 0.9))
    return masks[0], masks[1]


def plain_boundary(mask: np.ndarray) -> np.ndarray:
    """Pixel by pixel: differs from the neighbour right, below or right below, where there is one."""
    height, width = mask.shape
    found = np.zeros_like(mask)
    for y, x in itertools.product(range(height), range(width)):
        if y < height - 1 and x < width - 1:
            around = (mask[y, x + 1], mask[y + 1, x], mask[y + 1, x + 1])
        elif y < height - 1:
            around = (mask[y + 1, x],)
        elif x < width - 1:
            around = (mask[y, x + 1],)
        else:
            around = ()
        found[y, x] = any(value != mask[y, x] for value in around)
    return found


def plain_f(prediction: np.ndarray, truth: np.ndarray, radius: int) -> float:
    """Every pair of boundary pixels, distances in integers."""
    own, other = np.argwhere(plain_boundary(prediction)), np.argwhere(plain_boundary(truth))
    if not len(own) or not len(other):
        return float(len(own) == len(other))
    near = ((own[:, None] - other[None]) ** 2).sum(-1) <= radius**2
    precision, recall = near.any(1).mean(), near.any(0).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("seed", range(12))
def test_contours_by_brute_force(seed):
    """Boundary maps and F with several tolerances."""
    prediction, truth = random_masks(seed)
    np.testing.assert_array_equal(boundary_map(prediction), plain_boundary(prediction))
    for radius in (1, 2, 5):
        expected = plain_f(prediction, truth, radius)
        assert f_measure(prediction, truth, tolerance=radius) == pytest.approx(expected, abs=1e-14)


def test_f_of_degenerate_masks():
    """Both without boundary 1, one without 0; a mask that fills the frame has none; void is taken out first."""
    empty = np.zeros((6, 9), bool)
    dot = empty.copy()
    dot[2, 3] = True
    assert f_measure(empty, empty) == 1
    assert f_measure(dot, empty) == f_measure(empty, dot) == 0
    assert f_measure(~empty, empty) == 1
    assert f_measure(~empty, ~empty) == 1
    assert f_measure(dot, empty, void=dot) == 1
    with pytest.raises(ValueError, match="equal shapes"):
        f_measure(empty, empty.T)


def test_arguments_are_left_alone():
    """Scoring writes into nothing."""
    prediction, truth = random_masks(3)
    before = prediction.copy(), truth.copy()
    prediction.setflags(write=False)
    truth.setflags(write=False)
    f_measure(prediction, truth, void=truth)
    davis.frame_scores(prediction.astype(np.uint8), truth.astype(np.uint8), (1, 2))
    np.testing.assert_array_equal(before, (prediction, truth))


def test_tolerance():
    """8 pixels at 480 x 854, rounded up from a share, whole pixels as they are."""
    assert tolerance_pixels((480, 854)) == 8
    assert tolerance_pixels((75, 100)) == 1
    assert tolerance_pixels((76, 100)) == 2
    assert tolerance_pixels((480, 854), 3) == 3


def test_statistics_by_hand():
    """Eight values: quarters of three that share their ends; recall is strict."""
    values = np.array([1, 0.9, 0.8, 0.5, 0.5, 0.4, 0.2, 0.0])
    found = statistics(values)
    assert found.mean == pytest.approx(values.mean())
    assert found.recall == 3 / 8
    edges = [round(v + 1e-10) - 1 for v in np.linspace(1, 8, 5)]
    expected = values[edges[0] : edges[1] + 1].mean() - values[edges[3] : edges[4] + 1].mean()
    assert found.decay == pytest.approx(expected)
    assert statistics(np.array([0.25])) == (0.25, 0, 0)
    assert np.isnan(statistics(np.array([]))).all()


def video(frames: int = 5, objects: int = 2) -> np.ndarray:
    """Ids on a 12 x 18 frame, one column apart."""
    truth = np.zeros((frames, 12, 18), np.uint8)
    for t, k in itertools.product(range(frames), range(1, objects + 1)):
        truth[t, 3:8, 4 * k + t : 4 * k + t + 3] = k
    return truth


def test_the_object_rule():
    """The largest id of frame 0 counts, gaps included; 255 and late ids do not."""
    truth = video()
    truth[0, 0, 0], truth[0, 0, 1] = 255, 4
    truth[2, 11, 11] = 9
    prediction = truth.copy()
    prediction[2:, 11, 11] = 0
    scores = davis.davis2017(prediction, truth)
    assert scores.objects == (1, 2, 3, 4)
    assert scores.j.shape == scores.f.shape == (4, 3)
    assert (scores.j == 1).all()  # id 3 and, from frame 1 on, id 4 are empty in both
    prediction[0] = 77  # never looked at
    prediction[-1] = 77
    np.testing.assert_array_equal(davis.davis2017(prediction, truth).j, scores.j)


def test_errors_name_the_frame():
    """Unknown ids, other sizes, missing frames."""
    truth = video()
    wrong = truth.copy()
    wrong[3, 0, 0] = 6
    with pytest.raises(ValueError, match="frame 3: the prediction holds id 6"):
        davis.davis2017(wrong, truth)
    sizes = [*truth[:2], truth[2].T, *truth[3:]]
    with pytest.raises(ValueError, match=r"frame 2: prediction \(18, 12\)"):
        davis.davis2017(sizes, truth)
    with pytest.raises(ValueError, match="predictions end after 4 frames"):
        davis.davis2017(truth[:4], truth)
    with pytest.raises(ValueError, match="truths end after 4 frames"):
        davis.davis2016(truth, truth[:4])
    for count in range(3):
        with pytest.raises(ValueError, match="at least 3"):
            davis.davis2017(truth[:count], truth[:count])


def test_davis2016_merges_objects():
    """Two labels are one object; a frame 0 without object is scored all the same."""
    truth = video()
    swapped = np.where(truth == 0, 0, 3 - truth)
    assert (davis.davis2016(swapped, truth).j == 1).all()
    truth[0] = 0
    assert davis.davis2016(truth, truth).j.shape == (1, 3)


def test_objects_that_start_late():
    """vos-benchmark's mean begins with the object; one that only frame 0 or the last frame holds does not count."""
    truth = video(6, 1)
    truth[3:, 10, 2:6] = 5
    truth[-1, 0, 0] = 7
    prediction = truth.copy()
    prediction[4, 10, 2:4] = 0
    scores = davis.vos_benchmark(prediction, truth)
    assert list(scores) == [1, 5]
    assert scores[1] == (1, 1)
    assert scores[5][0] == pytest.approx((1 + 0.5) / 2)


def test_global_scores_weigh_objects_alike():
    """Two videos with one and two objects: three objects."""
    one = davis.davis2017(video(4, 1), video(4, 1))
    two = davis.davis2017(np.zeros_like(video(7, 2)), video(7, 2))
    table = davis.global_scores([one, two])
    assert table["J-Mean"] == pytest.approx(1 / 3)
    assert table["J&F-Mean"] == pytest.approx(1 / 3)
    assert np.isnan(davis.global_scores([])["J-Mean"])


def test_memory_does_not_grow_with_the_video():
    """Frames are let go while later ones are read."""
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    def stream():
        nonlocal most
        for t in range(40):
            frame = np.zeros((6, 8), np.uint8)
            frame[2:4, 1 + t % 3 : 5] = 1
            alive.append(weakref.ref(frame))
            most = max(most, sum(ref() is not None for ref in alive))
            yield frame

    scores = davis.davis2017(stream(), (np.ones((6, 8), np.uint8) for _ in range(40)), threads=2)
    assert scores.j.shape == (1, 38)
    assert most <= 10


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_change_the_result(threads):
    """Same numbers in the same order."""
    generator = np.random.default_rng(5)
    truth, prediction = generator.integers(0, 3, (2, 30, 14, 19)).astype(np.uint8)
    expected = davis.davis2017(prediction, truth, threads=1)
    found = davis.davis2017(prediction, truth, threads=threads)
    np.testing.assert_array_equal(found.f, expected.f)
    np.testing.assert_array_equal(found.j, expected.j)
