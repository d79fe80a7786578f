"""Affinity figures: which node a point is, where it goes."""

import numpy as np
import pytest
import torch

from retrace.viz.affinity import affinity_figure, interesting_points, node_at, transition_between


def test_node_of_a_point() -> None:
    """Row-major, on a grid with h != w; borders and outside take the nearest cell."""
    assert node_at((0.5, 0.5), 8, (3, 5)) == 0
    assert node_at((7.9, 8.1), 8, (3, 5)) == 5
    assert node_at((39.0, 23.0), 8, (3, 5)) == 14
    assert node_at((999.0, -4.0), 8, (3, 5)) == 4


def test_a_shifted_frame_is_found_again() -> None:
    """The second map is the first one shifted by (1 down, 2 right): the walker goes there."""
    features = torch.zeros(2, 16, 4, 6)
    features[0] = torch.randn(16, 4, 6, generator=torch.Generator().manual_seed(0))
    features[1] = features[0].roll((1, 2), dims=(1, 2))
    matrix = transition_between(features, 0.05)
    assert matrix.shape == (24, 24)
    torch.testing.assert_close(matrix.sum(dim=1), torch.ones(24))
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(6), indexing="ij")
    expected = ((rows + 1) % 4 * 6 + (columns + 2) % 6).flatten()
    torch.testing.assert_close(matrix.argmax(dim=1), expected)


def test_interesting_points_are_corners() -> None:
    """A bright square on black: its corners; a flat image: its centre."""
    image = np.zeros((60, 100, 3), np.uint8)
    image[20:40, 30:70] = 255
    points = interesting_points(image, 4)
    assert points
    for x, y in points:
        assert min(abs(x - 30), abs(x - 70)) < 4
        assert min(abs(y - 20), abs(y - 40)) < 4
    assert interesting_points(np.zeros((60, 100, 3), np.uint8), 4) == [(50.0, 30.0)]


@pytest.mark.parametrize("count", [1, 4])
def test_figure_marks_where_a_point_goes(count: int) -> None:
    """The mark in the second frame stands in the centre of the cell that the point's node goes to."""
    features = torch.zeros(2, 16, 4, 6)
    features[0] = torch.randn(16, 4, 6, generator=torch.Generator().manual_seed(0))
    features[1] = features[0].roll((1, 2), dims=(1, 2))
    images = [np.zeros((31, 47, 3), np.uint8)] * 2
    figure = affinity_figure(
        images,
        features,
        ["frame 0", "frame 3"],
        [(1.0, 1.0)] * count,
        stride=8,
        temperature=0.05,
        model_name="m",
    )
    right = next(axes for axes in figure.axes if axes.get_title().startswith("frame 3"))
    assert len(right.lines) == count
    assert [float(value) for value in right.lines[0].get_xydata()[0]] == [20.0, 12.0]
