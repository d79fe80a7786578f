"""The stream of batches, whatever the number of workers and wherever it begins."""

import itertools

import pytest
import torch
from torch.utils.data import Dataset

from retrace.errors import RetraceError
from retrace.training.stream import ClipStream, failures_by_reason


class Numbers(Dataset):
    """Item i is i; item 11 cannot be made."""

    sources = ()

    def __getitem__(self, index):
        """A dict, as views are."""
        if index == 11:
            raise RetraceError("Number 11 is broken.")
        return {"number": torch.tensor(index)}


@pytest.mark.parametrize("workers", [0, 2])
def test_order_and_start(workers):
    """Batches of two from sample 3 on."""
    stream = ClipStream(Numbers(), batch_size=2, start=3, workers=workers)
    batches = [views["number"].tolist() for views in itertools.islice(stream, 3)]
    assert batches == [[3, 4], [5, 6], [7, 8]]
    assert stream.waited > 0


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_is_a_sentence_wherever_it_happened(workers):
    """Not a worker's traceback wrapped in another."""
    stream = ClipStream(Numbers(), batch_size=2, start=10, workers=workers)
    with pytest.raises(RetraceError, match=r"^Number 11 is broken\.$"):
        next(iter(stream))


def test_reasons_are_counted():
    """The most frequent first."""
    assert failures_by_reason({"a": "cut", "b": "empty", "c": "cut"}) == [("cut", 2), ("empty", 1)]
