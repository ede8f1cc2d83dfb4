"""What a model is told of events: any value that a log of an older release may hold."""

import itertools
import math

import numpy as np
import pytest

from models.catalogue import VALUE_LIMIT
from models.encoders.encoder import EncoderSpec
from models.records import MAX_EVENT_VALUE
from tests.unit.trainer.made import Row, circles, quick, served, session
from trainer.data.histories import Histories, from_sessions
from trainer.evaluation.trials import evaluate, trials
from trainer.fitting.encoding import MAX_EVENT_TYPES, build_catalogue, encode
from trainer.fitting.fit import fit
from trainer.service.gate import gate

ODD = (1e200, -1e200, 1.7e308, -1.7e308, 1e12, 5e-324, math.inf, -math.inf)


def valued(*values: float | None) -> Histories:
    events: list[Row] = [(f"i{n % 3}", 10.0 * n, "click", value) for n, value in enumerate(values)]
    return from_sessions([session("u", events), session("v", events[:2])], {})


@pytest.mark.parametrize("odd", [*((value,) for value in ODD), *itertools.combinations(ODD, 2), ODD])
def test_any_value_leaves_a_finite_mean_and_deviation_and_inputs(odd: tuple[float, ...]) -> None:
    histories = valued(1.0, 2.0, None, *odd)
    catalogue = build_catalogue(histories, np.arange(histories.n_events))
    assert math.isfinite(catalogue.value_mean)
    assert 0 < catalogue.value_std < math.inf
    inputs = encode(histories, catalogue, EncoderSpec(1)).inputs.value
    assert bool(inputs.isfinite().all())
    assert float(inputs.abs().max()) <= VALUE_LIMIT
    served_values = [catalogue.standardized(None if math.isnan(v) else v) for v in histories.values.tolist()]
    np.testing.assert_array_equal(inputs.numpy(), np.array(served_values, np.float32))


def test_values_within_the_limit_are_not_changed() -> None:
    histories = valued(-MAX_EVENT_VALUE, 3.0, MAX_EVENT_VALUE)
    catalogue = build_catalogue(histories, np.arange(3))
    assert catalogue.value_mean == pytest.approx(1.0)
    assert catalogue.value_std == pytest.approx(MAX_EVENT_VALUE * math.sqrt(2 / 3))


def test_values_that_differ_by_next_to_nothing_are_standardized_without_a_warning() -> None:
    histories = valued(0.0, 5e-324, 1e12)
    catalogue = build_catalogue(histories, np.arange(2))
    assert bool(encode(histories, catalogue, EncoderSpec(1)).inputs.value.isfinite().all())


def test_one_absurd_value_leaves_a_model_that_the_gate_lets_pass() -> None:
    walks = [session(f"u{u:02d}", [(f"i{(u + n) % 7}", 100.0 * n + u, None, 1.0) for n in range(9)]) for u in range(20)]
    walks.append(session("odd", [("i0", 850.0, None, 1e200), ("i1", 860.0, None, -1.7e308)]))
    histories = from_sessions(walks, {})
    fitted = fit(histories, 700.0, quick(epochs=1))
    report = evaluate(served(fitted, 700.0), histories, trials(histories, 700.0), 0.0)
    assert gate(report, None, 0.02, np.arange(report.trials)).passed
    assert math.isfinite(report.log_likelihood)


def test_only_the_most_frequent_event_types_get_rows() -> None:
    rare: list[Row] = [("a", float(n), f"made-up-{n:05d}", None) for n in range(MAX_EVENT_TYPES + 50)]
    usual: list[Row] = [("a", float(n), "zz-click", None) for n in range(2)]
    histories = from_sessions([session("u", rare), session("v", usual)], {})
    catalogue = build_catalogue(histories, np.arange(histories.n_events))
    assert len(catalogue.event_types) == MAX_EVENT_TYPES
    assert "zz-click" in catalogue.event_types
    assert catalogue.event_types == sorted(catalogue.event_types)
    assert circles().event_types == ["click"]
