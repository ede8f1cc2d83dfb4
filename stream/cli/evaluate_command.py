"""`hrnn evaluate`: how well recipes foretell a log's later events, without a look at the future."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import typer

from stream.cli.options import Json, note, results

Name = Literal["hrnn", "rnn", "popularity", "recent-popularity", "sims", "vsknn"]

MAIN = ("ndcg_at_10", "recall_at_5", "recall_at_10", "recall_at_20", "mrr_at_20", "perplexity")


def evaluate(
    interactions: Annotated[str, typer.Option(help="CSV or JSON lines, plain, .xz, .gz or .zst; - for stdin.")],
    items: Annotated[str | None, typer.Option(help="CSV with ITEM_ID: items that can be recommended, too.")] = None,
    users: Annotated[str | None, typer.Option(help="CSV with USER_ID; checked, no recipe here reads it.")] = None,
    recipe: Annotated[Name, typer.Option(help="What to evaluate.")] = "hrnn",
    train_fraction: Annotated[float, typer.Option(min=0.01, max=0.99, help="Of the events, by time.")] = 0.9,
    as_json: Json = False,
    sweep: Annotated[bool, typer.Option("--sweep", help="All recipes on one split, a row each.")] = False,
    ablate: Annotated[bool, typer.Option("--ablate", help="hrnn without one thing at a time.")] = False,
) -> None:
    """Train on what came before one instant, then rank all items at each later event before learning of it.

    Counted are events whose user has an earlier event and whose item was in training; `with_new_items` counts the
    others, too. A row that occurs twice is two events; rows may come in any order, and those of the same second keep
    that of the file. How the model is fitted is read from the environment, see `hrnn settings`.
    """
    from pydantic import ValidationError

    from stream.cli.failures import Failure
    from trainer.course import NothingToLearn
    from trainer.histories import from_events
    from trainer.protocol import Unanswerable, split_at
    from trainer.protocol import evaluate as foretell
    from trainer.recipes import ABLATIONS, RECIPES
    from trainer.settings import FittingSettings

    if sweep and ablate:
        raise Failure("--sweep and --ablate each print a table of their own", "ask for one of them", exit_code=2)
    try:
        settings = FittingSettings()
    except ValidationError as error:
        raise Failure(f"settings: {error.errors()[0]['msg']}", "see `hrnn settings`", exit_code=2) from None
    events = _events(interactions)
    offered = _ids(items, "ITEM_ID") if items else []
    if users:
        _ids(users, "USER_ID")
    chosen = RECIPES if sweep else ABLATIONS if ablate else {recipe: RECIPES[recipe]}
    shown: list[dict[str, Any]] = []
    try:
        split = split_at(from_events(events), train_fraction, offered)
        note(
            f"{split.n_before} events before {split.instant:.0f}, {len(split.histories.items) - split.n_before} after; "
            f"{len(split.asked)} can be asked, {int(split.known.sum())} of them on items of training"
        )
        for name, make in chosen.items():
            figures = foretell(name, make(settings), split).figures
            shown.append(figures)
            if as_json:
                results(json.dumps(figures))
            elif len(chosen) > 1:
                note(f"{name}: ndcg@10 {_said(figures['ndcg_at_10'])}, {figures['train_s']:.0f} s of training")
    except (Unanswerable, NothingToLearn) as error:
        raise Failure(f"{interactions}: {error}", "give a longer log, or another --train-fraction") from None
    if not as_json:
        _show(shown)


def _events(path: str) -> list[Any]:
    import sys

    from stream.cli.event_files import open_events, read_events
    from stream.cli.failures import Failure

    name = "standard input" if path == "-" else path
    with open_events(path, sys.stdin.buffer) as source:
        events = [row.event for row in read_events(source, name=name)]
    if not events:
        raise Failure(f"{name} holds no events", "it needs rows under USER_ID,ITEM_ID,TIMESTAMP")
    return events


def _ids(path: str, column: str) -> list[str]:
    import sys

    from stream.cli.event_files import open_events, read_ids

    with open_events(path, sys.stdin.buffer) as source:
        return list(read_ids(source, column, name=path))


def _show(shown: list[dict[str, Any]]) -> None:
    from stream.cli.tables import table

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
