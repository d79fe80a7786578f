"""Faces: errors by hand, the area under a known curve."""

import numpy as np
import pytest

from retrace.metrics.landmarks import (
    INNER_49,
    error_curve,
    frame_errors,
    landmark_scores,
    pooled_error,
    rmse_readings,
)


def faces(frames: int = 3) -> np.ndarray:
    """Random faces whose outer eye corners are 50 pixels apart."""
    truth = np.random.default_rng(1).uniform(0, 100, (frames, 68, 2))
    truth[:, 36], truth[:, 45] = (10, 20), (40, 60)
    return truth


def test_errors_by_hand():
    """Every point 5 pixels off: a tenth. Invisible points do not count; a frame without any is NaN."""
    truth = faces()
    prediction = truth + [3, 4]
    np.testing.assert_allclose(frame_errors(prediction, truth), 0.1)
    assert pooled_error(prediction, truth) == pytest.approx(0.1, abs=1e-6)
    visible = np.zeros((3, 68), bool)
    visible[:2, 7] = True
    prediction[:, 8:] += 50
    np.testing.assert_allclose(frame_errors(prediction, truth, visible), [0.1, 0.1, np.nan])
    assert len(INNER_49) == 49
    readings = rmse_readings(truth + [3, 4], truth)
    assert readings["pixels_mean"] == pytest.approx(5)
    assert readings["percent_outer_eyes_rms"] == pytest.approx(10)


def test_area_of_a_step():
    """All errors at a quarter of the limit: the curve is 0, then 1; the area is three quarters."""
    errors = np.full(9, 0.02)
    scores = landmark_scores(errors)
    assert scores.auc == pytest.approx(0.75, abs=1e-3)
    assert scores.accuracy == 1
    assert landmark_scores(np.array([0.08, np.nan])).accuracy == 0  # strictly below; NaN left out
    assert np.isnan(landmark_scores(np.array([np.nan]))).all()
    curve = error_curve(np.array([0.05, 0.25]), 0.4, 5)
    np.testing.assert_allclose(curve[:, 1], [0, 0.5, 0.5, 1, 1])


def test_shapes():
    """68 points or none."""
    with pytest.raises(ValueError, match="68"):
        frame_errors(faces()[:, :5], faces()[:, :5])
