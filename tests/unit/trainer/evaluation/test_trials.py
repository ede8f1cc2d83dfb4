import math

import numpy as np
import pytest
import torch

from models.oracle import list_for
from models.users.state import HistoryEvent
from tests.unit.trainer.made import circles, quick, served, session
from trainer.data.histories import Histories, from_sessions
from trainer.evaluation.trials import UNKNOWN, Report, evaluate, evaluate_popularity, trials
from trainer.fitting.fit import fit


def history(histories: Histories, user: int, until: int) -> list[HistoryEvent]:
    return [
        HistoryEvent(
            histories.item_ids[histories.items[n]],
            float(histories.times[n]),
            histories.event_types[histories.types[n]],
            float(histories.values[n]),
            n,
        )
        for n in range(histories.bounds[user], until + 1)
    ]


@pytest.mark.parametrize("gap_s", [0.0, 86400.0])
def test_ranks_are_the_places_in_the_lists_that_serving_would_make(gap_s: float) -> None:
    histories = circles(users=15, items=20, length=9)
    serving = served(fit(histories, 500.0, quick(epochs=1)), 500.0)
    asked = trials(histories, 500.0)
    report = evaluate(serving, histories, asked, gap_s)
    assert len(asked) > 30
    for event, rank in zip(asked[::7], report.ranks[::7], strict=True):
        listed = list_for(serving, history(histories, histories.users[event], event), 50, gap_s)
        places = [ranked.item_id for ranked in listed]
        came = histories.item_ids[histories.items[event + 1]]
        assert rank == (places.index(came) + 1 if came in places else UNKNOWN)


def test_the_real_gap_is_that_to_the_next_event() -> None:
    sessions = [session("u", [("a", 0.0, None, None), ("b", 10.0, None, None), ("c", 90_000.0, None, None)])]
    histories = from_sessions([*sessions, *(session(f"v{n}", [("d", 1.0, None, None)]) for n in range(9))], {})
    serving = served(fit(histories, math.inf, quick(epochs=1)), 0.0)
    asked = trials(histories, 5.0)
    at_once, next_day = asked[:1], asked[1:]
    expected = [
        evaluate(serving, histories, at_once, 0.0).log_likelihood,
        evaluate(serving, histories, next_day, 86400.0).log_likelihood,
    ]
    assert expected[1] != evaluate(serving, histories, next_day, 0.0).log_likelihood
    assert evaluate(serving, histories, asked, None).log_likelihood == pytest.approx(np.mean(expected), abs=1e-5)


def test_ties_and_seen_items_count_against_us_and_unknown_ones_are_told_apart() -> None:
    sessions = [session("u", [("a", 1.0, None, None), ("b", 2.0, None, None)])]
    newer = session("u", [("c", 10.0, None, None), ("a", 11.0, None, None), ("new", 12.0, None, None)])
    histories = from_sessions([*sessions, newer, *(session(f"v{n}", [("c", 1.0, None, None)]) for n in range(3))], {})
    fitted = fit(histories, 5.0, quick(epochs=1))
    with torch.no_grad():
        for tensor in fitted.model.parameters():
            tensor.zero_()
    report = evaluate(fitted, histories, trials(histories, 5.0), 0.0)
    # c: the only unseen one; a: seen, so last of 3 rows and the unknown one; new: not in the model
    assert report.ranks.tolist() == [1, 4, UNKNOWN]
    assert report.log_likelihood == pytest.approx(-math.log(3))


def test_measures_leave_unknown_items_out_but_count_them_in_the_hit_rate() -> None:
    report = Report(np.array([1, 4, 15, UNKNOWN]), -1.0)
    measures = report.measures()
    assert measures["recall_at_10"] == pytest.approx(2 / 3)
    assert measures["hit_rate_at_10"] == pytest.approx(2 / 4)
    assert measures["ndcg_at_10"] == pytest.approx((1 + 1 / math.log2(5)) / 3)
    assert measures["mrr_at_20"] == pytest.approx((1 + 1 / 4 + 1 / 15) / 3)
    assert measures["perplexity"] == pytest.approx(math.e)
    assert (measures["trials"], measures["unknown"]) == (4, 1)
    assert Report(np.zeros(0, np.int64), math.nan).measures() == {"trials": 0, "unknown": 0}


def test_popularity_knows_only_what_was_before_and_leaves_out_what_was_seen() -> None:
    sessions = [
        session("u", [("a", 1.0, None, None), ("b", 2.0, None, None), ("c", 9.0, None, None)]),
        session("v", [("c", 3.0, None, None), ("d", 4.0, None, None), ("a", 10.0, None, None)]),
        session("w", [("c", 5.0, None, None), ("e", 11.0, None, None)]),
    ]
    histories = from_sessions(sessions, {})
    report = evaluate_popularity(histories, trials(histories, 6.0))
    # c, 2 times: first; a, once as are b and d (seen by v): second of a and b; e: never before
    assert report.ranks.tolist() == [1, 2, UNKNOWN]


def test_without_trials_there_is_nothing_to_report() -> None:
    histories = circles(users=5)
    fitted = fit(histories, math.inf, quick(epochs=1))
    assert evaluate(fitted, histories, trials(histories, 1e9), 0.0).trials == 0
