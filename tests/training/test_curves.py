"""metrics.csv: stable, complete rows, continued after a resume."""

from retrace.training.curves import CurveLogger, RunningMeans, read_curves


def test_rows_columns_and_resume(tmp_path):
    """A new column fills the old rows with nothing; rows after the resumed step go."""
    path = tmp_path / "metrics.csv"
    logger = CurveLogger(path)
    logger.log_metrics({"loss": 2.0}, 1)
    logger.log_metrics({"loss": 1.5, "direct": 0.25}, 2)
    logger.log_metrics({"loss": 1.25}, 3)
    assert path.read_text().splitlines() == ["step,loss,direct", "1,2,", "2,1.5,0.25", "3,1.25,"]
    resumed = CurveLogger(path, resume_step=2)
    resumed.log_metrics({"loss": 1.0, "direct": 0.5}, 3)
    assert read_curves(path) == [
        {"step": 1, "loss": 2},
        {"step": 2, "loss": 1.5, "direct": 0.25},
        {"step": 3, "loss": 1, "direct": 0.5},
    ]


def test_a_row_cut_off_by_a_crash_is_forgotten(tmp_path):
    """A killed process may leave half a line."""
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n1,2\n1")  # of "10,0.5"
    CurveLogger(path, resume_step=1)
    assert read_curves(path) == [{"step": 1, "loss": 2}]


def test_a_fresh_run_empties_the_file(tmp_path):
    """Step 0 keeps nothing."""
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n1,2\n")
    CurveLogger(path)
    assert read_curves(path) == []


def test_means_since_the_last_take():
    """Terms that are not always there are averaged over when they were."""
    means = RunningMeans()
    means.add({"loss": 1.0, "direct": 4.0})
    means.add({"loss": 3.0})
    assert means.take() == {"loss": 2.0, "direct": 4.0}
    assert means.take() == {}
