"""Items' facts by row: taken over, replaced, withdrawn, and never changed in place."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.facts.records import Item
from models.items.facts import FactTable

FACTS = Item("a", created_at=5.0, title="A", attributes={"GENRES": "War|Drama"})


def test_facts_stand_in_columns_by_row() -> None:
    table = FactTable().updated({"a": FACTS, "b": Item("b", available=False)}, (2,))
    assert table.item_ids == ["", "a", "b"]
    assert table.available.tolist() == [True, True, False]
    assert table.titles == [None, "A", None]
    assert table.created_at[1] == 5.0
    assert np.isnan(table.created_at[[0, 2]]).all()
    assert table.attributes[table.row("a")] == {"GENRES": "War|Drama"}
    assert (table.offsets, table.unavailable) == ((2,), {"b"})


def test_an_item_without_a_row_is_available_and_else_unknown() -> None:
    table = FactTable()
    assert table.row("nobody") == 0
    assert (table.available[0], table.titles[0], table.attributes[0]) == (True, None, {})


def test_the_newest_record_replaces_all_that_was_known() -> None:
    table = FactTable().updated({"a": FACTS}, (1,)).updated({"a": Item("a", title="B")}, (2,))
    assert (table.titles[1], table.attributes[1]) == ("B", {})
    assert np.isnan(table.created_at[1])


def test_a_withdrawn_item_loses_its_facts_and_comes_back_with_new_ones() -> None:
    withdrawn = FactTable().updated({"a": FACTS}, (1,)).updated({"a": None}, (2,))
    assert (withdrawn.unavailable, withdrawn.titles[1], withdrawn.attributes[1]) == ({"a"}, None, {})
    back = withdrawn.updated({"a": FACTS}, (3,))
    assert (back.unavailable, back.titles[1]) == (frozenset(), "A")


changes = st.dictionaries(
    st.sampled_from("abcdef"),
    st.none() | st.builds(Item, item_id=st.just(""), available=st.booleans(), title=st.none() | st.text(max_size=2)),
)


@given(st.lists(changes, max_size=6))
def test_tables_given_before_stay_as_they_were(steps: list[dict[str, Item | None]]) -> None:
    tables = [FactTable()]
    known: dict[str, Item | None] = {}
    seen: list[dict[str, tuple[bool, str | None]]] = [{}]
    for number, step in enumerate(steps):
        tables.append(tables[-1].updated(step, (number,)))
        known |= step
        seen.append(
            {key: (item is not None and item.available, item.title if item else None) for key, item in known.items()}
        )
    for table, expected in zip(tables, seen, strict=True):
        rows = {item_id: row for row, item_id in enumerate(table.item_ids) if row}
        assert rows == table.row_of_item
        assert {key: (bool(table.available[row]), table.titles[row]) for key, row in rows.items()} == expected
        assert table.unavailable == {key for key, (available, _) in expected.items() if not available}
