from __future__ import annotations

from typing import Any

from models.catalogue import Catalogue
from models.encoders.hrnn import HRNNConfig
from models.items.signal_table import SignalTable
from models.items.signals import SignalRules
from models.model import Model
from models.recommending.popularity import Popularity
from models.recommending.recommender import Decision, Recommender
from models.recommending.scoring import Moment
from models.records import Recommendation, SignalSnapshot, decode_recommendation, encode, snapshot_id
from models.sessions import SessionRules
from models.terms.registry import TERMS
from models.weights import ServingModel, describe, pack, unpack
from tests.unit.models.made import serving, sourced


def following_the_crowd() -> ServingModel:
    """A model whose scores are its signals alone."""
    shape: dict[str, Any] = {"half_lives_s": (3600.0,), "successor_half_life_s": 3600.0}
    config = HRNNConfig(5, 0, hidden_dimension=4, terms=tuple(name for name in TERMS if name != "taste"), **shape)
    model, catalogue = Model(config), Catalogue([f"item-{n}" for n in range(5)])
    blob = pack(model, catalogue)
    manifest = describe(
        blob,
        version="v1",
        config=config,
        catalogue=catalogue,
        metrics={},
        trained_at=0.0,
        data_watermark=0.0,
        data_offsets={},
    )
    return unpack(manifest, blob)


def decided(table: SignalTable | None, *items: str, exclude_seen: bool = True) -> Decision:
    model = following_the_crowd()
    moment = None if table is None else Moment.of(model, table, 1000.0)
    recommender = Recommender(SessionRules(), 3, exclude_seen)
    events = [sourced(offset, item_id=item) for offset, item in enumerate(items)]
    return recommender.decide(model, Popularity(), {}, events, 0.0, moment)


def table() -> SignalTable:
    model = following_the_crowd()
    assert model.model.config.signal_rules is not None
    return SignalTable(model.model.config.signal_rules, model.catalogue.item_ids)


def listed(decision: Decision) -> list[str]:
    return [item.item_id for item in decision.recommendations[-1][1].items]


def test_lists_follow_what_occurs_and_what_follows() -> None:
    live = table()
    for _ in range(3):
        live.occur(live.row("item-3"), 1000.0)
    live.follow([live.row("item-1")], live.row("item-4"), 1000.0)
    assert listed(decided(live, "item-1"))[:2] == ["item-3", "item-4"]
    assert listed(decided(live, "item-2"))[:2] == ["item-3", "item-0"]


def test_an_item_that_no_training_has_seen_is_listed_and_not_named_again() -> None:
    live = table()
    for _ in range(10):
        live.occur(live.add("brand new"), 1000.0)
    assert listed(decided(live, "item-1"))[0] == "brand new"
    assert "brand new" not in listed(decided(live, "brand new"))
    assert "brand new" in listed(decided(live, "brand new", exclude_seen=False))


def test_items_newer_than_the_moment_wait_for_the_next() -> None:
    live = table()
    model = following_the_crowd()
    moment = Moment.of(model, live, 1000.0)
    live.follow([live.row("item-1")], live.add("too new"), 1000.0)
    recommender = Recommender(SessionRules(), 10)
    events = [sourced(0, item_id="too new"), sourced(1, item_id="item-1")]
    for decision in [recommender.decide(model, Popularity(), {}, events, 0.0, moment)]:
        assert sorted(listed(decision)) == ["item-0", "item-2", "item-3", "item-4"]


def test_without_a_moment_signals_count_for_nothing() -> None:
    assert listed(decided(None, "item-1")) == ["item-0", "item-2", "item-3"]


def test_the_first_list_of_a_batch_says_what_all_of_it_was_made_with() -> None:
    model, table = serving(signals=True), SignalTable(SignalRules((3600.0,), 3600.0), [])
    table = table.for_catalogue(model.catalogue.item_ids)
    recommender, popularity = Recommender(SessionRules()), Popularity()
    events = [sourced(n, f"u{n}") for n in range(3)]

    def named() -> list[Recommendation]:
        given = recommender.decide(model, popularity, {}, events, 0.0, Moment.of(model, table, 1000.0))
        return [recommendation for _, recommendation in given.recommendations]

    assert {(given.signals, given.snapshot) for given in named()} == {(None, None)}, "it is not followed"
    table.offsets = (5, 7)
    assert table.for_catalogue(["other"]).offsets == (5, 7)
    first, *others = named()
    assert first.snapshot == SignalSnapshot(1000.0, [5, 7])
    assert first.signals == snapshot_id(model.version, first.snapshot)
    assert {(given.signals, given.snapshot) for given in others} == {(first.signals, None)}
    assert decode_recommendation(encode(first)) == first
    moment = Moment.of(model, table, 1000.0)
    table.offsets = (6, 7)
    assert moment.named("v1")[1] == SignalSnapshot(1000.0, [5, 7], [6, 7])
    assert moment.named("v1")[0] not in (first.signals, moment.named("v2")[0])
