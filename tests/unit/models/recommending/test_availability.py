"""What is not available is in no list, of any kind; and lists name the records that say so."""

from __future__ import annotations

import numpy as np
import pytest

from models import weights
from models.items.item_table import ItemTable
from models.items.signal_reading import SignalReading
from models.items.signal_table import SignalTable
from models.items.signals import SignalRecord, SignalRules
from models.recommending.availability import Availability
from models.recommending.mask import ListBatch, mask_of
from models.recommending.popularity import Popularity
from models.recommending.recommender import Recommender
from models.recommending.scoring import Moment
from models.records import Recommendation, Request, SignalSnapshot, Source, snapshot_id
from models.sessions import SessionRules
from models.users.walk import SourcedRequest
from models.weights import ServingModel
from tests.made import made_model
from tests.unit.models.made import serving, sourced

RULES = SignalRules()
GONE = ("item-1", "item-2")


def signals() -> SignalTable:
    table = SignalTable(RULES, ())
    table.put([SignalRecord(f"item-{n}", 0.0, [5.0] * 6, [], RULES.all_half_lives_s) for n in range(8)])
    table.offsets = (8,)
    return table


def popular() -> Popularity:
    counts = Popularity()
    for n in range(8):
        counts.add(f"item-{n}", 9 - n)
    return counts


def given(model: ServingModel | None, moment: Moment | None, availability: Availability | None) -> list[Recommendation]:
    """Make a list of an event, and answers by each recipe."""
    recommender = Recommender(SessionRules(), top_k=100)
    decision = recommender.decide(
        *(model, popular(), {}, [sourced(0, item_id="item-0")], 5.0, moment), availability=availability
    )
    requests = [
        SourcedRequest(Request(f"r{n}", "u", None, 100, recipe, None), 0, 10.0, Source("requests", 0, n))
        for n, recipe in enumerate([None, "popular", "trending"])
    ]
    answers = recommender.answer(
        *(model, popular(), {}, requests, 9.0, moment),
        signals=SignalReading(signals(), 10.0),
        availability=availability,
    )
    return [decision.recommendations[0][1], *answers]


def with_signals() -> tuple[ServingModel, Moment]:
    manifest, blob = made_model(8, version="v1", rules=RULES, hidden=7)
    model = weights.unpack(manifest, blob)
    return model, Moment.of(model, signals().for_catalogue(model.catalogue.item_ids), 10.0)


@pytest.mark.parametrize("kind", ["popularity", "model", "model with signals"])
def test_no_list_names_what_is_not_available_and_all_others_stay(kind: str) -> None:
    model, moment = {"popularity": (None, None), "model": (serving(), None), "model with signals": with_signals()}[kind]
    whole, without = given(model, moment, None), given(model, moment, Availability(GONE, (3, 0)))
    for before, after in zip(whole, without, strict=True):
        assert {item.item_id for item in before.items} >= set(GONE)
        assert after.items == [item for item in before.items if item.item_id not in GONE]
    back = given(model, moment, Availability((), (4, 0)))
    assert [one.items for one in back] == [one.items for one in whole]


def test_lists_name_up_to_where_they_know_the_items() -> None:
    _, moment = with_signals()
    availability = Availability(GONE, (3, 0))
    for signal in (moment, SignalReading(signals(), 10.0)):
        name, snapshot = availability.snapshot("v1", signal)
        _, without = signal.named("v1")
        assert snapshot is not None
        assert without is not None
        assert (snapshot.at, snapshot.offsets, snapshot.items) == (without.at, without.offsets, [3, 0])
        assert name == snapshot_id("v1", snapshot) != snapshot_id("v1", without)
        assert Availability((), (0, 0)).snapshot("v1", signal) == signal.named("v1"), "without records, as ever"
    assert availability.snapshot("v1", None)[1] == SignalSnapshot(0.0, [], [], [3, 0])
    assert Availability().snapshot("v1", None) == (None, None)


def test_rows_are_looked_up_again_when_items_came_or_got_scores() -> None:
    table = signals()
    availability = Availability(("item-3", "later"))

    def left_out(items: ItemTable) -> set[int]:
        lists = ListBatch(1, items, np.zeros(0, np.int64), np.zeros(0, np.int64))
        return set(mask_of(availability.rules, lists).every_list.tolist()) - {0}

    assert left_out(ItemTable(None, table)) == {table.row("item-3")}
    row = table.add("later")
    assert left_out(ItemTable(None, table, n_rows=row)) == {table.row("item-3")}
    assert left_out(ItemTable(None, table)) == {table.row("item-3"), row}
    other = ItemTable(None, signals().for_catalogue(["x", "item-3"]))
    assert left_out(other) == {2}
