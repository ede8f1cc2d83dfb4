"""Transitions as hypothesis draws them."""

from __future__ import annotations

from hypothesis import strategies as st

from models.items.signals import DAY_S, HOUR_S, SignalRules, Transition

RULES = SignalRules((HOUR_S, 6 * HOUR_S, DAY_S, 7 * DAY_S), 7 * DAY_S)
YEAR_S = 365 * DAY_S
ITEMS = ["a", "b", "c", "d", "e"]

times = st.floats(0, 20 * YEAR_S, allow_nan=False)


@st.composite
def logs(draw: st.DrawFn) -> list[Transition]:
    """Transitions of one item from three partitions, each partition's offsets rising, times in any order."""
    offsets = {0: 0, 1: 0, 2: 0}
    made = []
    for _ in range(draw(st.integers(0, 40))):
        partition = draw(st.integers(0, 2))
        offsets[partition] += draw(st.integers(1, 3))
        successor = draw(st.sampled_from([None, *ITEMS]))
        weight = draw(st.sampled_from([1.0, 0.5, 0.25, 1.5]))
        made.append(Transition(draw(times), partition, offsets[partition], successor, weight))
    return made
