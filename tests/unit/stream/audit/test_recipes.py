"""Answers by recipe are made again from the signals that they name; each fault in one is found."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from models.items.signals import DAY_S, HOUR_S, SignalRules
from models.recommending import recipes
from models.recommending.mask import ItemMask, ListBatch
from models.recommending.recipes import RECIPES, Recipe, RecipeInputs, Scores
from models.records import RankedItem, Recommendation, SignalSnapshot, decode_event, decode_recommendation, snapshot_id
from tests.unit.stream.audit.made_logs import NAMED, PARTITIONS, Made, made
from tests.unit.stream.audit.test_run import wrong

ASKED = (("popular", None), ("trending", "30m"), ("trending", None))
ANSWERS = 30 * len(ASKED)


def played(**more: Any) -> Made:
    return made(recipes=ASKED, **more)


def index_of(run: Made, recipe: str) -> int:
    """Find a late answer to a known user of partition 0."""
    answers = enumerate(run.records["recommendations"][0])
    given = [(index, decode_recommendation(each.value)) for index, each in answers]
    return next(index for index, one in reversed(given) if one.recipe == recipe and one.user_id in NAMED and one.items)


def given(run: Made, index: int) -> Recommendation:
    return decode_recommendation(run.records["recommendations"][0][index].value)


@pytest.mark.parametrize("more", [{}, {"rules": SignalRules()}, {"popular": True}])
def test_right_answers_pass_with_a_model_and_without(more: dict[str, Any]) -> None:
    report = played(**more).compared()
    assert wrong(report) == {}, report.examples
    assert report.not_checked == []
    assert report.requests == 30 + ANSWERS
    assert report.lists_with_signals_checked == ANSWERS + (240 + 30) * ("rules" in more)


@pytest.mark.parametrize(
    "fault",
    [
        lambda one: {"items": [*one.items[1:], one.items[0]]},
        lambda one: {"items": one.items[1:]},
        lambda one: {"items": [RankedItem(item.item_id, item.score + 0.01) for item in one.items]},
        lambda one: {"items": [RankedItem("item-never", one.items[0].score), *one.items[1:]]},
        lambda one: {"recipe": "popular"},
        lambda one: {"recipe": None},
        lambda one: {"recipe": "unheard of"},
        lambda one: {"half_life_s": 24 * HOUR_S},
        lambda one: {"half_life_s": None},
        lambda one: {"event_time": one.event_time + 1.0},
    ],
)
def test_a_wrong_answer_is_found(fault: Any) -> None:
    run = played()
    index = index_of(run, "trending")
    run.change_list(index, **fault(given(run, index)))
    assert wrong(run.compared()) == {"wrong_lists": 1}


def test_an_answer_with_what_its_user_has_had_is_found() -> None:
    run = played()
    index = index_of(run, "popular")
    one = given(run, index)
    events = [decode_event(each.value) for each in run.records["interactions"][0]]
    had = next(event.item_id for event in events if event.user_id == one.user_id)
    run.change_list(index, items=[RankedItem(had, one.items[0].score), *one.items[1:]])
    report = run.compared()
    assert wrong(report) == {"wrong_lists": 1}
    assert f"names what the user has had: {{{had!r}}}" in report.examples[-1]


def test_an_event_has_no_recipe() -> None:
    run = played()
    index = next(n for n, each in enumerate(run.records["recommendations"][0]) if b'"request_id"' not in each.value)
    run.change_list(index, recipe="popular")
    assert wrong(run.compared()) == {"wrong_lists": 1}


def test_an_answer_of_signals_that_are_gone_is_said_to_be_unchecked() -> None:
    run = played()
    beyond = SignalSnapshot(1.0, [10**6] * PARTITIONS)
    run.change_list(index_of(run, "popular"), snapshot=beyond, signals=snapshot_id("popularity", beyond))
    report = run.compared()
    assert wrong(report) == {}
    assert report.not_checked == [("lists with signals", "it names records that the topic does not have")]


def rare(inputs: RecipeInputs) -> Scores:
    """What has occurred least, of what has occurred."""
    trend = inputs.signals.trend(DAY_S)
    return np.tile(np.where(trend > 0, -trend, np.float32(-math.inf)), (inputs.lists.n_lists, 1))


def not_five(lists: ListBatch) -> ItemMask:
    """Leave out one item."""
    return ItemMask(every_list=lists.items.rows(["item-5"]))


def test_a_recipe_and_a_rule_of_one_s_own_are_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    for recipe in (*RECIPES.values(), Recipe("rare", rare)):
        ruled = Recipe(recipe.name, recipe.scores, (*recipe.rules, not_five), recipe.half_life_s, recipe.takes_window)
        monkeypatch.setitem(recipes.RECIPES, recipe.name, ruled)
    run = made(recipes=(("rare", None), ("trending", "1d")))
    report = run.compared()
    assert wrong(report) == {}, report.examples
    assert report.lists_with_signals_checked == 60
    monkeypatch.setitem(recipes.RECIPES, "next", Recipe("next"))
    assert wrong(run.compared())["wrong_lists"] > 0, "without the rule, lists miss item-5"
