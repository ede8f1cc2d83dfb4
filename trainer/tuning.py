"""The search for settings: many fits on what came before a split, judged by the newest slice of just that.

What lies after the split is not looked at, so that figures on it (`hrnn evaluate`) say what was found is worth. A
trial is fitted on all but the newest `valid_fraction` and judged as early stopping judges epochs: by the perplexity
of the best epoch on that slice. Trials that fall behind the median of the others at the same epoch are given up.

The first trial is the defaults. Each is drawn by a sampler seeded with the number of those before it, so a search that
was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.trial import TrialState

from models.items.signals import DAY_S, HOUR_S
from trainer.data.histories import Histories
from trainer.evaluation.hrnn import Hrnn
from trainer.evaluation.protocol import Split, Unanswerable, evaluate, split_at
from trainer.fitting.fit import Epoch, fit
from trainer.settings import FittingSettings
from trainer.terminal import progress

STARTUP = 5  # whole trials before any is given up: a median of fewer says little
MINUTE_S = 60.0
HALF_LIVES_S: tuple[tuple[float, ...], ...] = (
    (HOUR_S, DAY_S, 7 * DAY_S),
    (10 * MINUTE_S, HOUR_S, 6 * HOUR_S, DAY_S),
    (6 * HOUR_S, 2 * DAY_S, 14 * DAY_S, 90 * DAY_S),
    (7 * DAY_S, 60 * DAY_S, 365 * DAY_S),
    (15 * MINUTE_S, HOUR_S, 4 * HOUR_S, DAY_S, 7 * DAY_S, 30 * DAY_S, 365 * DAY_S),
)
"""Sets to choose from beside the default one: of few and of many, of hours and of years."""

SPACE: Mapping[str, BaseDistribution] = {
    "hidden_dimension": IntDistribution(32, 256, log=True),  # Personalize's range
    "layers": IntDistribution(1, 3),
    "bptt": IntDistribution(8, 128, log=True),
    "recency_mask": CategoricalDistribution((False, True)),
    "learning_rate": FloatDistribution(5e-4, 2e-2, log=True),
    "dropout": FloatDistribution(0.0, 0.5),
    "successor_half_life_s": FloatDistribution(DAY_S, 3650 * DAY_S, log=True),
}
"""What is searched, and `half_lives_s` as one of a few sets."""

SQLITE = b"SQLite format 3\0"
NOT_COMPARED = ("train_threads",)  # of settings: how fast, not what comes out


class BadStudy(ValueError):
    """A file that no search can go on from."""


@dataclass(frozen=True)
class Tried:
    """A trial that has ended."""

    number: int  # from 0, which is the defaults; trials that were interrupted are not counted
    state: Literal["complete", "pruned"]
    settings: dict[str, Any]  # those searched, by FittingSettings' names
    perplexity: float  # of the newest slice: the best epoch's, or the last one's of a trial that was given up
    figures: dict[str, float]  # the protocol's, on the newest slice; none of a trial that was given up

    @property
    def said(self) -> dict[str, str]:
        """Write the settings for a person: half-lives as 30m 3h 1d."""
        return {name: _said(name, value) for name, value in self.settings.items()}


def search(
    before: Histories,
    settings: FittingSettings,
    n_trials: int,
    *,
    keep: frozenset[str] = frozenset(),
    study_path: Path | None = None,
    told: Callable[[list[Tried]], None] = lambda tried: None,
) -> list[Tried]:
    """Try settings until the study has `n_trials`, those of earlier searches in its file included -> all of them.

    `before` is what came before the split. `keep` names settings that are left as they are. `told` hears of all
    trials at first and after each. Raises BadStudy, Unanswerable and NothingToLearn.
    """
    split = split_at(before, 1 - settings.valid_fraction)
    if not split.known.any():
        raise Unanswerable("no event of the newest slice is of an item that came before, so none can be predicted")
    space = {name: of for name, of in _space(settings).items() if name not in keep}
    defaults = {name: _plain(getattr(settings, name)) for name in space}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with _storage(study_path) as storage, progress("searching", n_trials) as advance:
        study = _study(storage, study_path, split, settings, space)
        tried = _tried(study)
        advance(len(tried), "")
        told(tried)
        while len(tried) < n_trials:
            if not tried:
                study.enqueue_trial(defaults)
            study.sampler = TPESampler(seed=settings.seed + len(tried))
            _try(study, space, split, settings, prune=bool(tried))
            tried = _tried(study)
            best = best_of(tried)
            advance(1, f"best {best.perplexity:.1f}, trial {best.number}")
            told(tried)
    return tried


def best_of(tried: Sequence[Tried]) -> Tried:
    """Find the trial of the least perplexity among those that were not given up."""
    return min((trial for trial in tried if trial.state == "complete"), key=lambda trial: trial.perplexity)


def environment(settings: Mapping[str, Any]) -> dict[str, str]:
    """Write settings as the variables that the trainer reads."""
    return {f"HRNN_{name.upper()}": json.dumps(value) for name, value in settings.items()}


class _Trial(Hrnn):
    """The model fitted once, up to the newest slice, and asked about that."""

    def __init__(self, settings: FittingSettings, told: Callable[[Epoch], None]) -> None:
        super().__init__(settings)
        self._told = told

    def fit(self, split: Split) -> None:
        cutoff = math.nextafter(split.instant, -math.inf)
        self.fitted = fit(split.histories, cutoff, self.settings, told=self._told)


def _try(
    study: optuna.Study,
    space: Mapping[str, BaseDistribution],
    split: Split,
    settings: FittingSettings,
    *,
    prune: bool,
) -> None:
    """Run one trial; one that does not end, whatever the reason, stays in the study as failed."""
    trial = study.ask(dict(space))

    def hear(epoch: Epoch) -> None:
        trial.report(math.exp(min(epoch.newest_loss, 700.0)), epoch.number)
        if prune and epoch.number < settings.epochs and trial.should_prune():
            raise optuna.TrialPruned

    tried = _Trial(settings.model_copy(update=_typed(trial.params)), hear)
    try:
        figures = evaluate("trial", tried, split).figures
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)  # its value is what it reported last
        return
    except BaseException:
        study.tell(trial, state=TrialState.FAIL)
        raise
    assert tried.fitted is not None
    for name in ("ndcg_at_10", "recall_at_20", "mrr_at_20", "train_s"):
        trial.set_user_attr(name, figures[name])
    study.tell(trial, tried.fitted.valid_perplexity)


def _tried(study: optuna.Study) -> list[Tried]:
    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return [
        Tried(
            number,
            "complete" if trial.state == TrialState.COMPLETE else "pruned",
            _typed(trial.params),
            math.inf if trial.value is None else trial.value,
            trial.user_attrs,
        )
        for number, trial in enumerate(ended)
    ]


@contextmanager
def _storage(path: Path | None) -> Iterator[BaseStorage]:
    """Open a study's file for this search alone; without one, a study ends with the process."""
    if path is None:
        yield InMemoryStorage()
        return
    with ExitStack() as opened:
        try:
            # held to the end: to close any handle of the file would take SQLite's own locks away
            held = opened.enter_context(path.open("a+b"))
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held.seek(0)
            head = held.read(len(SQLITE))
            if head and head != SQLITE:
                raise BadStudy(f"{path} is no study but some other file")
            storage = RDBStorage(f"sqlite:///{path}")
        except BlockingIOError:
            raise BadStudy(f"{path}: another search goes on in it") from None
        except OSError as error:
            raise BadStudy(f"{path}: {error.strerror}") from None
        except RuntimeError as error:  # of another version of optuna
            raise BadStudy(f"{path}: {str(error).splitlines()[0]}") from None
        opened.callback(storage.engine.dispose)
        opened.callback(storage.remove_session)
        yield storage


def _study(
    storage: BaseStorage,
    path: Path | None,
    split: Split,
    settings: FittingSettings,
    space: Mapping[str, BaseDistribution],
) -> optuna.Study:
    """Begin a study or go on with it; raises BadStudy for one of another log or of other settings."""
    study = optuna.create_study(
        storage=storage,
        study_name="hrnn",
        direction="minimize",
        pruner=MedianPruner(n_startup_trials=STARTUP),
        load_if_exists=True,
    )
    histories = split.histories
    log = hashlib.sha256()
    for array in (histories.times, histories.items, histories.bounds, histories.order):
        log.update(np.ascontiguousarray(array).tobytes())
    fixed = {
        name: value
        for name, value in settings.model_dump(mode="json").items()
        if name not in space and name not in NOT_COMPARED
    }
    of: dict[str, Any] = {"log": log.hexdigest(), "searched": dict.fromkeys(space, "searched"), "settings": fixed}
    then = study.user_attrs
    if then.get("log", of["log"]) != of["log"]:
        raise BadStudy(f"{path} is of another log, or of another part of it")
    for name in ("searched", "settings"):
        if changed := _changed(then.get(name, of[name]), of[name]):
            raise BadStudy(f"{path} was begun with other settings: {', '.join(changed)}")
    for name, now in of.items():
        study.set_user_attr(name, now)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)  # its process is gone
    return study


def _changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name the settings that are not what they were, with what they were."""
    return [
        f"HRNN_{name.upper()} was {json.dumps(then.get(name))}"
        for name in {**then, **now}
        if then.get(name) != now.get(name)
    ]


def _space(settings: FittingSettings) -> dict[str, BaseDistribution]:
    """Put the settings' own half-lives among the choices, and write those as a study's file can hold them."""
    sets = dict.fromkeys(json.dumps(one) for one in (settings.half_lives_s, *HALF_LIVES_S))
    return {**SPACE, "half_lives_s": CategoricalDistribution(list(sets))}


def _said(name: str, value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_duration, value)) or "none"
    return _duration(value) if name.endswith("_s") else str(value)


def _duration(seconds: float) -> str:
    size, unit = next((one for one in ((DAY_S, "d"), (HOUR_S, "h"), (MINUTE_S, "m")) if seconds >= one[0]), (1.0, "s"))
    return f"{seconds / size:.4g}{unit}"


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, tuple) else value


def _typed(params: Mapping[str, Any]) -> dict[str, Any]:
    """Read a study's parameters as settings; further digits of a rate mean nothing."""
    return {
        name: tuple(json.loads(value))
        if isinstance(value, str)
        else float(f"{value:.5g}")
        if isinstance(value, float)
        else value
        for name, value in params.items()
    }
