"""Recipes against plain loops; and that a recipe, or a rule of a mask, is one function and one line."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.items.signal_reading import SignalReading
from models.items.signal_table import SignalTable
from models.items.signals import DAY_S, HOUR_S, SignalRecord, SignalRules
from models.oracle import trend_list_for
from models.recommending import recipes
from models.recommending.mask import ItemMask, ListBatch
from models.recommending.popularity import Popularity
from models.recommending.recipes import NEXT, RECIPES, Recipe, RecipeInputs, Scores, recipe_of
from models.recommending.recommender import Recommender, UserKey
from models.records import POPULARITY, BadRecord, Recommendation, Request, SignalSnapshot, Source, encode, snapshot_id
from models.sessions import SessionRules
from models.users.state import UserState
from models.users.walk import SourcedRequest
from models.weights import ServingModel
from tests.unit.models.made import serving, sourced

RULES = SignalRules()
AT = 1_000_000.0
TOLERANCE = 2e-5
MODEL = serving()


def signals_of(records: Mapping[str, SignalRecord], at: float = AT) -> SignalReading:
    table = SignalTable(RULES, ())
    table.put(list(records.values()))
    table.offsets = (len(records),)
    return SignalReading(table, at)


def record(item_id: str, at: float, *counts: float) -> SignalRecord:
    return SignalRecord(item_id, at, list(counts), [(f"after {item_id}", 1.0)], RULES.all_half_lives_s)


def of_recipe(
    number: int, recipe: str | None, window: str | None = None, user_id: str = "u", k: int = 5
) -> SourcedRequest:
    request = Request(f"r{number}", user_id, None, k, recipe, window)
    return SourcedRequest(request, 0, AT, Source("requests", 0, number))


def answers(
    *requests: SourcedRequest,
    signals: SignalReading | None = None,
    states: dict[UserKey, UserState] | None = None,
    model: ServingModel | None = None,
    exclude_seen: bool = True,
) -> list[Recommendation]:
    recommender = Recommender(SessionRules(), exclude_seen=exclude_seen)
    return recommender.answer(model, Popularity(), states or {}, requests, 9.0, signals=signals)


def listed(answer: Recommendation) -> list[str]:
    return [item.item_id for item in answer.items]


counts = st.floats(0.0, 1000.0)
signal_records = st.dictionaries(
    st.sampled_from([f"item-{n}" for n in range(12)]),
    st.tuples(st.floats(AT - 30 * DAY_S, AT + HOUR_S), st.lists(counts, min_size=6, max_size=6)),
).map(lambda made: {item_id: record(item_id, at, *each) for item_id, (at, each) in made.items()})
windows = st.sampled_from([None, "30m", "1h", "2h", "3h", "1d", "2w", "5000d"])


@settings(max_examples=80, deadline=None)
@given(signal_records, st.lists(st.tuples(st.sampled_from(["popular", "trending"]), windows), max_size=40))
def test_popular_and_trending_are_those_of_plain_loops(
    records: dict[str, SignalRecord], asked: list[tuple[str, str | None]]
) -> None:
    states = Recommender(SessionRules()).decide(
        None, Popularity(), {}, [sourced(n, item_id=f"item-{n}", timestamp=AT + n) for n in range(3)], 5.0
    )
    requests = [
        of_recipe(number, recipe, window if recipe == "trending" else None, user_id="u" if number % 2 else "new")
        for number, (recipe, window) in enumerate(asked)
    ]
    given = answers(*requests, signals=signals_of(records), states=states.states)
    for sourced_request, answer in zip(requests, given, strict=True):
        half_life_s = answer.half_life_s
        assert half_life_s is not None
        had = {"item-0", "item-1", "item-2"} if answer.user_id == "u" else set()
        everything = trend_list_for(records, half_life_s, AT, 100, had)
        assert (answer.recipe, answer.model_version) == (sourced_request.request.recipe, POPULARITY)
        assert [item.score for item in answer.items] == pytest.approx(
            [item.score for item in everything[:5]], abs=TOLERANCE
        )
        scores = {item.item_id: item.score for item in everything}
        assert all(item.score == pytest.approx(scores[item.item_id], abs=TOLERANCE) for item in answer.items)


@pytest.mark.parametrize(
    ("recipe", "window", "half_life_s"),
    [
        ("trending", "30m", 0.5 * HOUR_S),
        ("trending", "1h", 0.5 * HOUR_S),
        ("trending", "2h", 3 * HOUR_S),
        ("trending", None, 3 * HOUR_S),
        ("trending", "1d", DAY_S),
        ("trending", "1d12h", DAY_S),
        ("trending", "9w", 60 * DAY_S),
        ("popular", None, 3 * 365 * DAY_S),
    ],
)
def test_an_answer_says_which_half_life_its_window_stands_for(
    recipe: str, window: str | None, half_life_s: float
) -> None:
    assert answers(of_recipe(0, recipe, window))[0].half_life_s == half_life_s


def test_a_short_window_shows_what_is_new_and_a_long_one_what_lasts() -> None:
    records = {
        "lasting": record("lasting", AT - DAY_S, 1.0, 1.0, 20.0, 50.0, 60.0, 60.0),
        "new": record("new", AT, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0),
    }
    short, long, popular = answers(
        of_recipe(0, "trending", "30m"),
        of_recipe(1, "trending", "1w"),
        of_recipe(2, "popular"),
        signals=signals_of(records),
    )
    assert listed(short) == ["new"]  # of the other nothing is left after 48 half-lives
    assert listed(long) == listed(popular) == ["lasting", "new"]


def test_what_a_user_has_had_is_left_out_unless_the_deployment_lists_it() -> None:
    signals = signals_of({f"item-{n}": record(f"item-{n}", AT, *[n + 1.0] * 6) for n in range(3)})
    states = Recommender(SessionRules()).decide(None, Popularity(), {}, [sourced(0, item_id="item-2")], 5.0).states
    asks = of_recipe(0, "popular"), of_recipe(1, "popular", user_id="new")
    assert [listed(answer) for answer in answers(*asks, signals=signals, states=states)] == [
        ["item-1", "item-0"],
        ["item-2", "item-1", "item-0"],
    ]
    [everything, _] = answers(*asks, signals=signals, states=states, exclude_seen=False)
    assert listed(everything) == ["item-2", "item-1", "item-0"]


def test_without_any_signals_the_list_is_empty() -> None:
    given = answers(of_recipe(0, "popular"), of_recipe(1, "trending"), signals=signals_of({}))
    assert [answer.items for answer in given] == [[], []]


def test_recipes_stand_side_by_side_and_next_is_answered_as_without_a_recipe() -> None:
    signals = signals_of({"item-5": record("item-5", AT, *[1.0] * 6)})
    first, plain, trending, named = answers(
        of_recipe(0, "popular"), of_recipe(1, None), of_recipe(2, "trending"), of_recipe(3, "next"),
        signals=signals, model=MODEL,
    )  # fmt: skip
    [alone] = answers(of_recipe(1, None), model=MODEL)
    assert encode(plain) == encode(alone)
    assert b"recipe" not in encode(plain)
    assert (named.recipe, named.half_life_s, named.items) == (None, None, plain.items)
    assert [first.model_version, plain.model_version, trending.model_version] == [POPULARITY, "v1", POPULARITY]
    assert first.snapshot == SignalSnapshot(AT, [1])
    assert first.signals == trending.signals == snapshot_id(POPULARITY, first.snapshot)
    assert trending.snapshot is None, "the first one stands for both"
    assert plain.signals is None


@pytest.mark.parametrize(
    ("recipe", "window", "said"),
    [
        ("similar", None, "recipe 'similar' is unknown: ask for one of next, popular, trending, or leave it out"),
        ("", None, "recipe '' is unknown"),
        ("x" * 60_000, None, "is unknown"),
        ("trending", "soon", "window: 'soon' is no duration such as 30m, 6h or 1d"),
        ("trending", "0h", "window: '0h' is less than a second"),
        ("trending", "9" * 400 + "d", "endless"),
        ("popular", "3h", "window: the recipe popular has none; leave it out, or ask for trending"),
        (None, "3h", "window: the recipe next has none"),
    ],
)
def test_what_is_unknown_is_refused_with_the_remedy(recipe: str | None, window: str | None, said: str) -> None:
    with pytest.raises(BadRecord, match="bad_value") as refused:
        recipe_of(Request("r", "u", None, None, recipe, window))
    assert said in refused.value.detail
    assert len(refused.value.detail) < 200


# -- a recipe and a rule of a test's own: nothing of the product is changed -----------------------------------------


def rare(inputs: RecipeInputs) -> Scores:
    """What has occurred least, of what has occurred."""
    trend = inputs.signals.trend(DAY_S)
    scores = np.where(trend > 0, -trend, -math.inf).astype(np.float32)
    return np.tile(scores, (inputs.lists.n_lists, 1))


def not_even(lists: ListBatch) -> ItemMask:
    """Leave out items with an even number at the end."""
    ids = lists.items.item_of_row[: lists.items.n_rows]
    return ItemMask(every_list=np.array([row for row, item_id in enumerate(ids) if item_id[-1:] in {*"02468"}]))


def test_a_recipe_of_one_s_own_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(recipes.RECIPES, "rare", Recipe("rare", rare))
    signals = signals_of({f"item-{n}": record(f"item-{n}", AT, *[n + 1.0] * 6) for n in range(4)})
    states = Recommender(SessionRules()).decide(None, Popularity(), {}, [sourced(0, item_id="item-1")], 5.0).states
    [answer] = answers(of_recipe(0, "rare"), signals=signals, states=states)
    assert listed(answer) == ["item-0", "item-2", "item-3"]
    assert (answer.recipe, answer.half_life_s) == ("rare", None)


def test_a_rule_of_one_s_own_is_kept_by_lists_and_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, recipe in RECIPES.items():
        monkeypatch.setitem(recipes.RECIPES, name, dataclasses.replace(recipe, rules=(*recipe.rules, not_even)))
    recommender = Recommender(SessionRules(), top_k=30)
    decision = recommender.decide(MODEL, Popularity(), {}, [sourced(0, item_id="item-1")], 5.0)
    odd = {f"item-{n}" for n in range(3, 30, 2)}
    assert {*listed(decision.recommendations[0][1])} == odd
    signals = signals_of({f"item-{n}": record(f"item-{n}", AT, *[n + 1.0] * 6) for n in range(5)})
    plain, trending = answers(
        of_recipe(0, NEXT, k=30), of_recipe(1, "trending"), signals=signals, states=decision.states, model=MODEL
    )
    assert {*listed(plain)} == odd
    assert listed(trending) == ["item-3"]
