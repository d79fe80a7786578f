"""Principal components as colours."""

import numpy as np
import torch

from retrace.viz.pca import pca_figure, principal_components


def test_known_directions_come_back_in_order() -> None:
    """Three independent signals of falling strength, turned into 5 channels, are separated again."""
    generator = torch.Generator().manual_seed(0)
    h, w = 6, 11
    signals = torch.randn(2, 3, h, w, generator=generator, dtype=torch.float64)
    strength = torch.tensor([9.0, 3.0, 1.0], dtype=torch.float64).view(1, 3, 1, 1)
    basis, _ = torch.linalg.qr(torch.randn(5, 3, generator=generator, dtype=torch.float64))
    features = torch.einsum("ck,tkhw->tchw", basis, signals * strength) + 7.0
    found = principal_components(features)
    assert found.rgb.shape == (2, h, w, 3)
    assert found.rgb.dtype == np.float32
    assert found.rgb.min() == 0
    assert found.rgb.max() == 1
    for k in range(3):
        correlation = np.corrcoef(found.rgb[..., k].ravel(), signals[:, k].numpy().ravel())[0, 1]
        assert abs(correlation) > 0.9
    assert found.share[0] > found.share[1] > found.share[2] > 0
    np.testing.assert_allclose(found.share.sum(), 1, atol=1e-9)


def test_one_scale_for_all_frames() -> None:
    """The same feature has the same colour in every frame."""
    features = torch.rand(3, 4, 5, 8, generator=torch.Generator().manual_seed(1))
    features[2] = features[0]
    rgb = principal_components(features).rgb
    np.testing.assert_array_equal(rgb[0], rgb[2])
    assert not np.array_equal(rgb[0], rgb[1])


def test_degenerate_features_are_grey() -> None:
    """Constant features have no component; two channels have no third one."""
    constant = principal_components(torch.full((1, 4, 3, 5), 2.0))
    np.testing.assert_array_equal(constant.rgb, 0.5)
    np.testing.assert_array_equal(constant.share, 0)
    two = principal_components(torch.rand(1, 2, 3, 5, generator=torch.Generator().manual_seed(2)))
    np.testing.assert_array_equal(two.rgb[..., 2], 0.5)


def test_the_figure_has_a_column_per_frame() -> None:
    """Frames above, components below."""
    images = [np.zeros((24, 40, 3), np.uint8)] * 3
    components = principal_components(torch.rand(3, 4, 3, 5, generator=torch.Generator().manual_seed(3)))
    figure = pca_figure(images, components, ["frame 0", "frame 4", "frame 8"], "a model")
    assert [axes.get_title() for axes in figure.axes[:3]] == ["frame 0", "frame 4", "frame 8"]
    assert len(figure.axes) == 6
