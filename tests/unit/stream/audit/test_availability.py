"""Lists are made again without what was not available; a list that names or ignores such an item is found."""

from __future__ import annotations

from typing import Any

import pytest

from models.items.signals import SignalRules
from models.records import RankedItem, decode_recommendation, snapshot_id
from tests.unit.stream.audit.made_logs import Made, made
from tests.unit.stream.audit.test_run import wrong

KINDS: list[dict[str, Any]] = [
    {},
    {"rules": SignalRules()},
    {"popular": True},
    {"recipes": (("popular", None), ("trending", None))},
]


def unavailable(run: Made, offsets: list[int]) -> set[str]:
    """Return what the last records before the offsets withdraw."""
    held = {r.key.decode(): r.value for p, offset in enumerate(offsets) for r in run.records["items"][p][:offset]}
    return {item_id for item_id, value in held.items() if value is None}


@pytest.mark.parametrize("more", KINDS)
def test_lists_of_what_was_available_then_pass(more: dict[str, Any]) -> None:
    run = made(items="known", **more)
    report = run.compared()
    assert wrong(report) == {}, report.examples
    assert report.not_checked == []
    first = decode_recommendation(run.records["recommendations"][0][0].value)
    assert first.snapshot is not None
    assert sum(first.snapshot.items) == 1
    withdrawn = {r.key.decode() for records in run.records["items"].values() for r in records if r.value is None}
    assert len(withdrawn) == 5


@pytest.mark.parametrize("more", KINDS)
def test_a_worker_that_ignores_the_items_is_found(more: dict[str, Any]) -> None:
    report = made(items="ignored", **more).compared()
    assert set(wrong(report)) == {"wrong_lists"}
    assert report.wrong_lists > 200
    assert any("it does not know that item" in example for example in report.examples)


@pytest.mark.parametrize("more", [{}, {"rules": SignalRules()}, {"popular": True}])
def test_a_list_that_names_what_it_knows_to_be_unavailable_is_found(more: dict[str, Any]) -> None:
    run = made(items="known", **more)
    lists = [decode_recommendation(each.value) for each in run.records["recommendations"][0]]
    index, given = next((n, one) for n, one in reversed([*enumerate(lists)]) if one.snapshot and one.items)
    assert given.snapshot is not None
    gone = sorted(unavailable(run, given.snapshot.items))[0]
    run.change_list(index, items=[RankedItem(gone, given.items[0].score), *given.items[1:]])
    report = run.compared()
    assert report.wrong_lists == 1, report.examples
    assert f"names what is not available: ['{gone}']" in report.examples[0]


def test_a_list_that_names_more_of_the_items_than_it_knew_is_found() -> None:
    """It says that it knew of what came after: others were to be left out."""
    run = made(items="known")
    index = next(n for n, r in enumerate(run.records["recommendations"][0]) if decode_recommendation(r.value).snapshot)
    given = decode_recommendation(run.records["recommendations"][0][index].value)
    assert given.snapshot is not None
    given.snapshot.items[:] = [run.ends.get(("items", partition), 0) for partition in (0, 1)]
    run.change_list(index, snapshot=given.snapshot, signals=snapshot_id(given.model_version, given.snapshot))
    assert run.compared().wrong_lists >= 1
