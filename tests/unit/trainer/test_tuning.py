from __future__ import annotations

import dataclasses
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.records import Event
from trainer import tuning
from trainer.data.histories import Histories, from_events
from trainer.evaluation.protocol import Unanswerable
from trainer.settings import FittingSettings
from trainer.tuning import SPACE, BadStudy, Tried, best_of, environment, search

from tests.unit.trainer.logs import drawn  # isort: skip

SETTINGS = FittingSettings(epochs=2, train_threads=1, lanes=8)
FEW = frozenset({"bptt", "recency_mask", "half_lives_s", "successor_half_life_s", "hidden_dimension", "layers"})


def log(seed: int = 0, n: int = 200) -> Histories:
    return from_events(drawn(seed, n, items=25))


def quick(n_trials: int, path: Path | None = None, histories: Histories | None = None, **given: Any) -> list[Tried]:
    settings = SETTINGS.model_copy(update={"hidden_dimension": 4, **given})
    return search(histories or log(), settings, n_trials, keep=FEW, study_path=path)


def drew(tried: list[Tried]) -> list[Any]:
    return [(trial.number, trial.state, trial.settings, trial.perplexity) for trial in tried]


def test_the_defaults_lie_in_what_is_searched_and_are_tried_first() -> None:
    (first,) = search(log(), SETTINGS, 1)
    assert set(first.settings) == {*SPACE, "half_lives_s"}
    assert first.settings == {name: getattr(SETTINGS, name) for name in first.settings}
    assert first.number == 0
    assert first.perplexity > 1
    for name, of in SPACE.items():
        assert of._contains(of.to_internal_repr(getattr(SETTINGS, name))), name


def test_a_trial_is_judged_as_early_stopping_judges() -> None:
    """The perplexity of the best epoch is what the protocol finds on the newest slice."""
    split = tuning.split_at(log(), 0.9)
    predictor = tuning._Trial(SETTINGS, lambda epoch: None)
    figures = tuning.evaluate("trial", predictor, split).figures
    assert predictor.fitted is not None
    assert predictor.fitted.valid_perplexity == pytest.approx(figures["perplexity"], rel=1e-3)


def test_a_search_that_is_gone_on_with_draws_what_an_unbroken_one_draws(tmp_path: Path) -> None:
    whole = quick(5)
    path = tmp_path / "study"
    quick(2, path)
    assert drew(quick(5, path)) == drew(whole)
    assert len({str(trial.settings) for trial in whole}) == 5
    assert drew(quick(3, path)) == drew(whole)  # it has them already


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", [0, 1])
def test_an_interrupted_trial_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    whole, path = quick(3), tmp_path / "study"
    with monkeypatch.context() as killing:
        real, begun = tuning.evaluate, []

        def evaluate(*arguments: Any) -> Any:
            begun.append(1)
            if len(begun) == at + 1:
                raise Killed
            return real(*arguments)

        killing.setattr(tuning, "evaluate", evaluate)
        with pytest.raises(Killed):
            quick(3, path)
    with sqlite3.connect(path) as database:  # as a process leaves it that was killed at once
        database.execute("UPDATE trials SET state = 'RUNNING' WHERE state = 'FAIL'")
    database.close()
    assert drew(quick(3, path)) == drew(whole)


def test_trials_that_fall_behind_are_given_up_and_never_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "STARTUP", 1)
    tried = quick(8, epochs=3)
    states = [trial.state for trial in tried]
    assert states[0] == "complete"
    assert "pruned" in states
    assert best_of(tried).state == "complete"
    assert best_of(tried).perplexity == min(trial.perplexity for trial in tried if trial.state == "complete")
    assert all(("ndcg_at_10" in trial.figures) == (trial.state == "complete") for trial in tried)


def test_a_study_of_another_log_or_of_other_settings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study"
    quick(1, path)
    with pytest.raises(BadStudy, match="another log"):
        quick(2, path, log(1))
    with pytest.raises(BadStudy, match="HRNN_EPOCHS was 2"):
        quick(2, path, epochs=3)
    with pytest.raises(BadStudy, match="HRNN_DROPOUT was"):
        search(log(), SETTINGS.model_copy(update={"hidden_dimension": 4}), 2, keep=FEW | {"dropout"}, study_path=path)


def test_files_that_hold_no_study_are_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "notes"
    other.write_text("not a study at all")
    with pytest.raises(BadStudy, match="some other file"):
        quick(1, other)
    assert other.read_text() == "not a study at all"
    with pytest.raises(BadStudy, match="Is a directory"):
        quick(1, tmp_path)


def test_two_searches_do_not_share_a_study(tmp_path: Path) -> None:
    path = tmp_path / "study"
    with tuning._storage(path), pytest.raises(BadStudy, match="another search"):
        quick(1, path)
    assert len(quick(1, path)) == 1


def test_the_best_is_read_back_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Any] = {"half_lives_s": (60.0, 3600.0), "recency_mask": True, "dropout": 0.25, "bptt": 17}
    for name, value in environment(found).items():
        monkeypatch.setitem(os.environ, name, value)
    read = FittingSettings()
    assert {name: getattr(read, name) for name in found} == found


def test_a_slice_of_new_items_alone_is_refused() -> None:
    events = [Event(f"u{n % 3}", f"i{n}", 1e9 + 60.0 * n) for n in range(60)]
    with pytest.raises(Unanswerable, match="newest slice"):
        quick(1, histories=from_events(events))


def test_a_log_is_told_by_its_events(tmp_path: Path) -> None:
    path, histories = tmp_path / "study", log()
    quick(1, path, histories)
    times = histories.times.copy()
    times[np.argmax(times)] += 1.0
    with pytest.raises(BadStudy):
        quick(2, path, dataclasses.replace(histories, times=times))
    assert json.loads(environment({"bptt": 3})["HRNN_BPTT"]) == 3
