"""`hrnn evaluate`: how well the model and its baselines predict a log's later events, without a look at the future."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stream.commands.options import Columns, Json, Separator, TimeUnitOption, duration_s, note, png, results

if TYPE_CHECKING:
    from trainer.evaluation.protocol import Result, Split
    from trainer.fitting.fit import Epoch
    from trainer.settings import FittingSettings

Name = Literal["hrnn", "rnn", "popularity", "recent-popularity", "sims", "vsknn"]

MAIN = ("ndcg_at_10", "recall_at_5", "recall_at_10", "recall_at_20", "mrr_at_20", "perplexity")
TIES_SEED = 0
SMALL_LOG = 1000  # events before the split: fewer show a catalogue of some hundred items hardly twice each
FITTED = ("hrnn", "rnn")  # those that go through their log in epochs


def evaluate(
    interactions: Annotated[str, typer.Option(help="CSV, JSON lines or parquet, plain or compressed; - for stdin.")],
    items: Annotated[str | None, typer.Option(help="CSV with ITEM_ID: items that can be recommended, too.")] = None,
    users: Annotated[str | None, typer.Option(help="CSV with USER_ID; checked, nothing here reads it.")] = None,
    recipe: Annotated[Name, typer.Option(help="What to evaluate: the model, hrnn, or a baseline.")] = "hrnn",
    train_fraction: Annotated[float, typer.Option(min=0.01, max=0.99, help="Of the events, by time.")] = 0.9,
    as_json: Json = False,
    columns: Columns = "",
    sep: Separator = ",",
    time_unit: TimeUnitOption = "s",
    mask_had: Annotated[
        bool | None,
        typer.Option(
            "--mask-had/--no-mask-had",
            help="Leave what a user has had out of every ranking, for baselines too; by default as HRNN_EXCLUDE_SEEN.",
        ),
    ] = None,
    ties: Annotated[
        Literal["file", "shuffled"], typer.Option(help="Events of the same second: as in the file, or shuffled.")
    ] = "file",
    sweep: Annotated[
        bool, typer.Option("--sweep", help="The model and all baselines on one split, a row each.")
    ] = False,
    ablate: Annotated[bool, typer.Option("--ablate", help="hrnn without one thing at a time.")] = False,
    retrain_every: Annotated[
        float | None,
        typer.Option(parser=duration_s, metavar="DURATION", help="Also with weights retrained so often: 30m, 6h, 1d."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(parser=png, metavar="PNG", help="Draw what is compared: a sweep, for example.")
    ] = None,
    curves: Annotated[
        Path | None, typer.Option(parser=png, metavar="PNG", help="Draw the loss of each fit by epoch.")
    ] = None,
) -> None:
    """Train on what came before one instant, then rank all items at each later event before learning of it.

    Counted are events whose user has an earlier event and whose item was in training; `with_new_items` counts the
    others, too. A row that occurs twice is two events; rows may come in any order, and those of the same second keep
    that of the file. One user or one item alone is a log like any other. How the model is fitted is read from the
    environment, see `hrnn settings`.

    Where a deployment lists nothing twice (HRNN_EXCLUDE_SEEN, the default), what a user has had is left out of every
    ranking, for baselines too, and events on such items are not asked; their number is said.

    Weights stay as they were at that instant. With --retrain-every a second row has them retrained as the trainer
    would: so often by the events' own time, on all before, if HRNN_TRAIN_MIN_NEW_EVENTS have come and the gate allows.
    """
    from stream.commands.environment import load
    from stream.commands.failures import Failure
    from stream.files.bad_file import BAD_FILE
    from stream.files.events import read_log
    from stream.files.layout import Layout, parse_columns, parse_separator
    from stream.settings import WorkerSettings
    from trainer.data.histories import from_events
    from trainer.evaluation.baselines.registry import ABLATIONS, PREDICTORS
    from trainer.evaluation.hrnn import Hrnn
    from trainer.evaluation.protocol import Unanswerable, split_at
    from trainer.evaluation.protocol import evaluate as evaluated
    from trainer.fitting.course import NothingToLearn
    from trainer.settings import FittingSettings

    if sweep + ablate + (retrain_every is not None) > 1:
        raise Failure("--sweep, --ablate and --retrain-every are each a comparison", "ask for one of them", exit_code=2)
    alone = not (sweep or ablate)
    if alone and recipe not in FITTED and (retrain_every is not None or curves):
        raise Failure(f"{recipe} is not fitted in epochs", f"--recipe {' or '.join(FITTED)}", exit_code=2)
    if alone and retrain_every is None and plot:
        raise Failure("--plot draws a comparison", "add --sweep, --ablate or --retrain-every", exit_code=2)
    layout = Layout("auto", parse_columns(columns), parse_separator(sep), time_unit)
    settings = load(FittingSettings)
    if mask_had is None:
        mask_had = load(WorkerSettings).exclude_seen
    events = read_log(interactions, sys.stdin.buffer, layout)
    offered = _ids(items, "ITEM_ID") if items else []
    if users:
        _ids(users, "USER_ID")
    chosen = PREDICTORS if sweep else ABLATIONS if ablate else {recipe: PREDICTORS[recipe]}
    shown: list[dict[str, Any]] = []
    beside: dict[str, Any] | None = None
    fits: dict[str, tuple[Epoch, ...]] = {}
    try:
        if ties == "shuffled":
            random.Random(TIES_SEED).shuffle(events)  # sorting by time is stable, so ties stay shuffled
        split = split_at(from_events(events), train_fraction, offered, mask_had=mask_had)
        note(
            f"{split.n_before} events before {split.instant:.0f}, {len(split.histories.items) - split.n_before} after; "
            f"{len(split.asked)} can be asked, {int(split.known.sum())} of them on items of training"
            + (f"; {split.skipped_had} on items that their user has had are not asked" if mask_had else "")
        )
        if alone and recipe in FITTED and retrain_every is None and split.n_before < SMALL_LOG:
            note(f"warning: {split.n_before} events are few for a model; popularity's figures stand beside its own")
            beside = evaluated("popularity", PREDICTORS["popularity"](settings), split).figures | {"ties": ties}
        for name, make in chosen.items():
            made = make(settings)
            for result in _results(name, made, split, settings, retrain_every):
                figures = result.figures | {"ties": ties}
                if beside is not None:
                    figures["popularity"] = beside
                shown.append(figures)
                if as_json:
                    results(json.dumps(figures))
                elif len(chosen) > 1:
                    note(f"{name}: ndcg@10 {_said(figures['ndcg_at_10'])}, {figures['train_s']:.0f} s of training")
            if isinstance(made, Hrnn) and made.fitted is not None:
                fits[name] = made.fitted.curve
                if made.fitted.out_of_time:
                    note(f"{name}: the fit, or its last pass, ended for lack of time, see HRNN_TRAIN_MAX_S")
    except (Unanswerable, NothingToLearn) as error:
        remedy = "give a longer log, or another --train-fraction"
        raise Failure(f"{interactions}: {error}", remedy, exit_code=BAD_FILE) from None
    if not as_json:
        _show([*shown, beside] if beside is not None else shown)
    _draw(shown, fits, "standard input" if interactions == "-" else Path(interactions).name, plot, curves)


def _results(
    name: str, made: Any, split: Split, settings: FittingSettings, retrain_every: float | None
) -> tuple[Result, ...]:
    """Evaluate the model or a baseline, with its weights as they are and, where that is asked for, retrained."""
    from stream.commands.environment import load
    from trainer.evaluation.protocol import evaluate as evaluated
    from trainer.evaluation.retraining import evaluate_retrained
    from trainer.settings import TrainerSettings

    if retrain_every is None:
        return (evaluated(name, made, split),)
    return evaluate_retrained(name, made, split, load(TrainerSettings, fitting=settings), retrain_every)


def _draw(
    shown: list[dict[str, Any]],
    fits: dict[str, tuple[Epoch, ...]],
    log_name: str,
    plot: Path | None,
    curves: Path | None,
) -> None:
    """Draw what was asked for; matplotlib, which takes a second to load, is for nothing else."""
    if plot:
        from trainer.plots import draw_comparison

        draw_comparison(plot, shown, log_name)
    if curves:
        from trainer.plots import draw_curves

        draw_curves(curves, fits)


def _ids(path: str, column: str) -> list[str]:
    from stream.files.ids import read_ids
    from stream.files.opening import open_file

    with open_file(path, sys.stdin.buffer) as source:
        return list(read_ids(source, column, name=path))


def _show(shown: list[dict[str, Any]]) -> None:
    from stream.commands.tables import table

    if len(shown) > 1:
        header = ["recipe", *MAIN, "coverage_at_10", "ndcg_at_10 new", "train_s", "evaluate_s"]
        rows = [
            [
                one["recipe"],
                *(_said(one[name]) for name in MAIN),
                _said(one["coverage_at_10"]),
                _said(one["with_new_items"]["ndcg_at_10"]),
                f"{one['train_s']:.1f}",
                f"{one['evaluate_s']:.1f}",
            ]
            for one in shown
        ]
        table(header, rows)
        for one in shown:
            if "retrainings" in one:
                note(
                    f"{one['recipe']}: {one['retrainings']} times, {one['retrainings_accepted']} models passed "
                    f"the gate, in {one['retrain_s']:.0f} s"
                )
                if not one["retrainings"]:
                    note("the later events end too soon, or fewer than HRNN_TRAIN_MIN_NEW_EVENTS come in that time")
        return
    (one,) = shown
    kinds = {
        "items of training": one,
        "with new items": one["with_new_items"],
        "first in session": one["first_in_session"],
        **{f"control level {level}": figures for level, figures in one["by_control_level"].items()},
    }
    table(["events", "n", *MAIN], [[k, str(f["events"]), *(_said(f[name]) for name in MAIN)] for k, f in kinds.items()])
    note(
        f"{one['recipe']}: {one['events_skipped']} later events not counted ({one['events_skipped_first_of_user']} are "
        f"their user's first, {one['events_skipped_new_item']} are of new items); coverage@10 "
        f"{_said(one['coverage_at_10'])}; {one['train_s']:.1f} s of training, {one['evaluate_s']:.1f} s of evaluation"
    )


def _said(figure: float | None) -> str:
    if figure is None:
        return "-"
    return f"{figure:.4f}" if figure < 10 else f"{figure:.1f}"
