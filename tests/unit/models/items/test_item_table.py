"""New items have the rows after the catalogue's, and no score before the trends are read again."""

from __future__ import annotations

import numpy as np

from models.catalogue import Catalogue
from models.items.item_table import ItemTable
from models.items.signal_table import SignalTable
from models.items.signals import SignalRules

CATALOGUE = Catalogue(["a", "b"])


def test_without_signals_the_rows_are_the_catalogue_s() -> None:
    items = ItemTable(CATALOGUE)
    assert items.rows(["b", "new", "a"]).tolist() == [2, 0, 1]
    assert (items.n_rows, items.item_of_row) == (3, ["", "a", "b"])


def test_new_items_come_after_the_catalogue() -> None:
    signals = SignalTable(SignalRules(), CATALOGUE.item_ids)
    signals.add("new")
    for items in (ItemTable(CATALOGUE, signals), ItemTable(None, signals)):
        assert items.rows(["new", "b", "unheard of"]).tolist() == [3, 2, 0]
        assert items.item_of_row[3] == "new"
    by_catalogue = np.array([0, 2])
    assert items.with_new(by_catalogue, ["new", "b"]).tolist() == [3, 2]
    assert by_catalogue.tolist() == [0, 2]


def test_an_item_that_is_newer_than_the_scores_counts_as_none() -> None:
    signals = SignalTable(SignalRules(), CATALOGUE.item_ids)
    items = ItemTable(CATALOGUE, signals, n_rows=3)
    signals.add("newer")
    rows = items.rows(["newer", "a"])
    assert rows.tolist() == [3, 1]
    assert items.scored(rows).tolist() == [0, 1]
