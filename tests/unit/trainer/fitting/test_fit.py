import itertools
import math

import numpy as np
import pytest
import torch

from tests.unit.trainer.made import circles, quick, served, session
from trainer.data.histories import from_sessions
from trainer.evaluation.trials import evaluate, trials
from trainer.fitting.course import Course, NothingToLearn
from trainer.fitting.fit import finish, fit, newest_slice


def test_it_learns_what_follows_what_and_foretells_it_step_by_step() -> None:
    histories = circles()
    cutoff = newest_slice(histories, 0.1)
    fitted = fit(histories, cutoff, quick())
    report = evaluate(fitted, histories, trials(histories, cutoff), None)
    assert report.trials > 50
    assert report.measures()["perplexity"] < 1.5  # of 12 items; 1 is certainty
    assert fitted.valid_perplexity == pytest.approx(report.measures()["perplexity"], rel=1e-3)


def test_the_same_seed_gives_the_same_weights_and_another_one_others() -> None:
    histories = circles(users=20)
    cutoff = newest_slice(histories, 0.1)
    one, same, other = (fit(histories, cutoff, quick(epochs=2, seed=seed)) for seed in (1, 1, 2))
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, same.model.state_dict()[name])
    assert not torch.equal(one.model.encoder.item.weight, other.model.encoder.item.weight)


def test_fitting_leaves_the_random_numbers_of_others_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    histories = circles(users=10)
    fit(histories, newest_slice(histories, 0.1), quick(epochs=1))
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_newest_slice_is_learned_from_only_when_finishing() -> None:
    early = [session(f"u{n}", [(f"i{k}", 100.0 * k + n, None, None) for k in range(9)]) for n in range(20)]
    late = [session(f"v{n}", [("i0", 5000.0 + n, None, None), ("new", 5001.0 + n, None, None)]) for n in range(9)]
    histories = from_sessions([*early, *late], {})
    fitted = fit(histories, 4000.0, quick(epochs=2))
    assert fitted.catalogue.row("new") == 0
    finished = finish(fitted, histories, 4000.0, quick(epochs=2))
    row = finished.catalogue.row("new")
    assert row
    assert finished.model.bias[row] > finished.model.bias[1:].median()  # recent and frequent


def test_a_warm_start_knows_at_once_what_a_cold_one_must_learn() -> None:
    histories = circles()
    cutoff = newest_slice(histories, 0.1)
    first = fit(histories, cutoff, quick())
    serving = served(first, cutoff)
    warm = fit(histories, cutoff, quick(epochs=1, learning_rate=1e-5), (serving, cutoff))
    cold = fit(histories, cutoff, quick(epochs=1, learning_rate=1e-5))
    assert (warm.warm, cold.warm) == (True, False)
    assert warm.valid_perplexity <= first.valid_perplexity * 1.001
    assert cold.valid_perplexity > 5


def test_another_shape_begins_anew() -> None:
    histories = circles(users=10)
    cutoff = newest_slice(histories, 0.1)
    serving = served(fit(histories, cutoff, quick(epochs=1)), cutoff)
    assert not fit(histories, cutoff, quick(epochs=1, hidden_dimension=9), (serving, cutoff)).warm


def test_time_that_runs_out_ends_a_fit_with_a_usable_model() -> None:
    histories = circles()
    fitted = fit(histories, newest_slice(histories, 0.1), quick(epochs=1000, train_max_s=0.001))
    assert fitted.epochs < 1000
    assert fitted.seconds < 5
    assert fitted.out_of_time
    assert all(torch.isfinite(tensor).all() for tensor in fitted.model.state_dict().values())


def test_a_fit_stops_when_asked_to() -> None:
    histories = circles()
    fitted = fit(histories, newest_slice(histories, 0.1), quick(epochs=1000), stopping=lambda: True)
    assert fitted.epochs <= 1


def test_training_stops_when_the_newest_slice_gets_no_better() -> None:
    rng = np.random.default_rng(0)
    noise = [
        session(f"u{n}", [(f"i{rng.integers(30)}", float(k * 100 + n), None, None) for k in range(8)])
        for n in range(40)
    ]
    histories = from_sessions(noise, {})
    fitted = fit(histories, newest_slice(histories, 0.2), quick(epochs=50))
    assert fitted.epochs < 40
    assert not fitted.out_of_time


def test_the_curve_tells_every_epoch_and_the_best_one_is_kept() -> None:
    histories = circles()
    cutoff = newest_slice(histories, 0.1)
    fitted = fit(histories, cutoff, quick(epochs=4))
    assert [epoch.number for epoch in fitted.curve] == [0, 1, 2, 3, 4]
    assert fitted.curve[-1].loss == fitted.loss < fitted.curve[1].loss
    assert math.exp(min(epoch.newest_loss for epoch in fitted.curve)) == fitted.valid_perplexity
    assert all(one.seconds < other.seconds for one, other in itertools.pairwise(fitted.curve))
    warm = fit(histories, cutoff, quick(epochs=1), (served(fitted, cutoff), cutoff))
    assert [epoch.number for epoch in warm.curve] == [0, 1]
    assert warm.curve[0].newest_loss == pytest.approx(math.log(fitted.valid_perplexity), rel=1e-4)


def test_what_nothing_can_be_learned_from_leaves_the_model_as_it_begins() -> None:
    rng = np.random.default_rng(0)
    few = [session(f"u{n}", [(f"i{rng.integers(40)}", float(k), None, None) for k in range(6)]) for n in range(10)]
    histories = from_sessions(few, {})
    settings = quick(learning_rate=1.0)
    fitted = fit(histories, newest_slice(histories, 0.2), settings)
    assert fitted.epochs == 0
    assert fitted.valid_perplexity == math.exp(fitted.curve[0].newest_loss)
    finished = finish(fitted, histories, newest_slice(histories, 0.2), settings)
    assert len(finished.catalogue.item_ids) >= len(fitted.catalogue.item_ids)
    assert torch.equal(finished.model.out.weight, fitted.model.out.weight)


def test_histories_too_long_or_too_short_are_left_out() -> None:
    sessions = [
        session(f"u{n:02d}", [(f"i{k}", float(k), None, None) for k in range(length)])
        for n, length in enumerate([2] * 10 + [5] * 80 + [50] * 10)
    ]
    histories = from_sessions(sessions, {})
    settings = quick(max_user_history_length_percentile=0.85, min_user_history_length_percentile=0.15)
    part = Course(histories, math.inf, settings, None).training_part(math.inf)
    assert set(part.lengths) == {5}


def test_recent_events_weigh_more_unless_the_mask_is_off() -> None:
    histories = circles(users=4)
    weighed = Course(histories, math.inf, quick(recency_half_life=0.1), None).training_part(math.inf).weights
    plain = Course(histories, math.inf, quick(recency_mask=False), None).training_part(math.inf).weights
    first_user = slice(0, histories.bounds[1] - 1)
    assert (weighed[first_user].diff() > 0).all()
    assert set(plain.tolist()) == {0.0, 1.0}
    assert plain.sum() == histories.n_events - histories.n_users  # all but each user's last


@pytest.mark.parametrize("events", [[], [("a", 1.0, None, None)]])
def test_nothing_to_learn_is_said(events: list[tuple[str, float, None, None]]) -> None:
    histories = from_sessions([session("u", events)] if events else [], {})
    with pytest.raises(NothingToLearn):
        fit(histories, 2.0, quick())


def test_the_newest_slice_begins_after_what_the_serving_model_has_seen() -> None:
    histories = circles()
    newest = float(histories.times.max())
    assert newest_slice(histories, 0.1) == pytest.approx(np.quantile(histories.times, 0.9), rel=0.05)
    assert newest_slice(histories, 0.1, not_before=newest - 10) == newest - 10
    assert newest_slice(histories, 0.1, not_before=0.0) == newest_slice(histories, 0.1)
