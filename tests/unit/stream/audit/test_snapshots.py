"""Which snapshots can be made again, of a topic that compaction has worked on."""

from __future__ import annotations

import pytest

from models.items.signals import SignalRules
from models.records import SignalSnapshot
from stream.audit.reading import Log
from stream.audit.snapshots import SignalHistory
from tests.unit.stream.audit.made_logs import record


def history_of(keys: str, end: int | None = None) -> SignalHistory:
    """One partition, a letter a record; a dot is a record that compaction has taken."""
    records = [record("signals", 0, n, key.encode(), b"{}", 0.0) for n, key in enumerate(keys) if key != "."]
    return SignalHistory(Log({0: records}, {0: 0}, {0: len(keys) if end is None else end}), SignalRules())


@pytest.mark.parametrize(
    ("keys", "possible_from"),
    [
        ("abcab", 0),  # untouched
        (".bca.b", 5),  # `b` was written over at 5: compaction has come at most so far
        ("..cab", 5),  # nothing says how far it has come: only the table of the end is sure
    ],
)
def test_a_table_can_be_made_again_from_where_compaction_ended(keys: str, possible_from: int) -> None:
    history = history_of(keys)
    for offset in range(len(keys) + 1):
        assert (history.why_gone(SignalSnapshot(0.0, [offset])) == "") == (offset >= possible_from)


def test_offsets_that_are_not_there_are_said_so() -> None:
    assert "does not have" in history_of("ab").why_gone(SignalSnapshot(0.0, [3]))
    assert "partitions" in history_of("ab").why_gone(SignalSnapshot(0.0, [1, 1]))
    assert "does not have" in history_of("ab").why_gone(SignalSnapshot(0.0, [1], [3]))
