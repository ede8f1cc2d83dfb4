import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.fitting.lanes import Lanes


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=30), lanes=st.integers(1, 12), steps=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_every_event_is_walked_once_in_order_and_only_first_events_start(
    lengths: list[int], lanes: int, steps: int
) -> None:
    sizes = np.array(lengths)
    first = np.cumsum(sizes) - sizes + 5
    chunks = list(Lanes(first, sizes, lanes).chunks(steps, torch.device("cpu")))
    index = torch.cat([chunk.index for chunk in chunks], 1).numpy()
    starts = torch.cat([chunk.starts for chunk in chunks], 1).numpy()
    real = torch.cat([chunk.real for chunk in chunks], 1).numpy()
    assert sorted(index[real]) == list(range(5, 5 + sizes.sum()))
    assert set(index[real & starts]) == set(first)
    for lane in range(len(index)):
        walked, begun = index[lane][real[lane]], starts[lane][real[lane]]
        follows = np.diff(walked) == 1
        assert (follows | begun[1:]).all()  # no history goes on in another lane
        assert not len(walked) or begun[0]


def test_lanes_differ_by_one_history_at_most() -> None:
    lengths = np.full(100, 7)
    assert Lanes(np.arange(100) * 7, lengths, 8).length <= 100 * 7 / 8 + 7


def test_no_histories_make_no_chunks() -> None:
    none = np.zeros(0, np.int64)
    assert list(Lanes(none, none, 8).chunks(4, torch.device("cpu"))) == []
