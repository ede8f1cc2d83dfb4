from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.users.earlier import fold
from tests.unit.trainer.logs import drawn
from trainer.data.earlier_log import EarlierLog
from trainer.data.histories import from_events


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 90), st.sampled_from([1, 4, 100]), st.sampled_from([1, 3, 500]), st.data())
def test_each_event_finds_what_the_stream_had_kept(
    seed: int, n: int, history_events: int, earlier_items: int, data: st.DataObject
) -> None:
    histories = from_events(drawn(seed, n, users=2))
    log = EarlierLog(histories, history_events, earlier_items)
    asked = data.draw(st.lists(st.integers(0, n - 1), max_size=12))
    places, counts = log.before(np.array(asked, np.int64))
    assert places.shape == counts.shape == (len(asked), counts.shape[1])
    for event, places_then, counts_then in zip(asked, places, counts, strict=True):
        first = int(histories.bounds[histories.users[event]])
        fallen = [str(item) for item in histories.items[first : max(first, event - history_events)]]
        real = counts_then > 0
        assert not real[1:][~real[:-1]].any()  # nothing comes after what is not there
        found = zip(histories.items[places_then[real]].astype(str), counts_then[real].tolist(), strict=True)
        assert list(found) == list(fold({}, fallen, earlier_items).items())


def test_nothing_is_asked_of_nothing() -> None:
    places, counts = EarlierLog(from_events(drawn(1, 5)), 2, 3).before(np.zeros(0, np.int64))
    assert places.shape == counts.shape == (0, 0)
