"""`hrnn tune`: a search for settings that suit a log."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.commands.options import Columns, Json, Separator, TimeUnitOption, note, png, results

if TYPE_CHECKING:
    from trainer.tuning import Tried

COMPARED = ("ndcg_at_10", "recall_at_20", "mrr_at_20", "train_s")


def tune(
    interactions: Annotated[str, typer.Option(help="CSV, JSON lines or parquet, plain or compressed; - for stdin.")],
    trials: Annotated[int, typer.Option(min=1, help="In all, with those that the study has already.")] = 30,
    study: Annotated[
        Path | None, typer.Option(dir_okay=False, help="SQLite file: rerun with it to go on where it stopped.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(parser=png, metavar="PNG", help="Draw the search.")] = None,
    train_fraction: Annotated[float, typer.Option(min=0.01, max=0.99, help="What is later is not looked at.")] = 0.9,
    as_json: Json = False,
    columns: Columns = "",
    sep: Separator = ",",
    time_unit: TimeUnitOption = "s",
) -> None:
    """Search settings of the model by fits on the log, and print the best as environment variables.

    Searched: hidden dimension 32 to 256, layers 1 to 3, bptt, recency mask, learning rate, dropout, half-lives. A
    setting that the environment has is kept as it is there.

    Only the first --train-fraction of the events is used, the same that `hrnn evaluate` trains on, so that its figures
    are of events that chose nothing. Of those, a trial is fitted on all but the newest HRNN_VALID_FRACTION and judged
    by its perplexity on these; it is given up when it falls behind the median. The first trial is the defaults.

    Rows may come in any order and those of the same second keep that of the file; a row that occurs twice is two
    events. An interrupted search loses the trial that was under way.
    """
    from stream.commands.environment import load
    from stream.commands.failures import Failure
    from stream.files.bad_file import BAD_FILE
    from stream.files.events import read_log
    from stream.files.layout import Layout, parse_columns, parse_separator
    from trainer.data.histories import from_events
    from trainer.evaluation.baselines.registry import PREDICTORS
    from trainer.evaluation.hrnn import Hrnn
    from trainer.evaluation.protocol import Unanswerable, cut_at
    from trainer.fitting.course import NothingToLearn
    from trainer.settings import FittingSettings
    from trainer.tuning import SPACE, BadStudy, search

    layout = Layout("auto", parse_columns(columns), parse_separator(sep), time_unit)
    given = load(FittingSettings)
    if {*SPACE, "half_lives_s"} <= given.model_fields_set:
        raise Failure("the environment has all that could be searched", "unset what is to be searched", exit_code=2)
    predictor = PREDICTORS["hrnn"](given)
    assert isinstance(predictor, Hrnn)
    histories = from_events(read_log(interactions, sys.stdin.buffer, layout))
    tried: list[Tried] = []
    try:
        n_before, instant = cut_at(histories, train_fraction)
        note(f"{n_before} events before {instant:.0f}; {histories.n_events - n_before} later ones are not looked at")
        search(
            histories.part(histories.order[:n_before]),
            predictor.settings,
            trials,
            keep=frozenset(given.model_fields_set),
            study_path=study,
            told=lambda so_far: _tell(so_far, tried),
        )
    except BadStudy as error:
        raise Failure(str(error), "name another --study", exit_code=2) from None
    except (Unanswerable, NothingToLearn) as error:
        raise Failure(f"{interactions}: {error}", "give a longer log", exit_code=BAD_FILE) from None
    except KeyboardInterrupt:
        note(f"interrupted after {len(tried)} trials" + (f"; rerun to go on with {study}" if study else ""))
        if tried:
            _show(tried, as_json=as_json, plot=plot)
        raise typer.Exit(130) from None
    _show(tried, as_json=as_json, plot=plot)


def _tell(so_far: list[Tried], tried: list[Tried]) -> None:
    """Keep and tell what came of the newest trial."""
    from trainer.tuning import best_of

    first, tried[:] = not tried, so_far
    if not so_far:
        return
    if first and len(so_far) > 1:
        note(f"{len(so_far)} trials are in the study already")
    newest = so_far[-1]
    best = best_of(so_far)
    outcome = f"{newest.perplexity:.1f}" + ("" if newest.state == "complete" else ", given up")
    said = ", ".join(f"{name} {value}" for name, value in newest.said.items())
    note(f"trial {newest.number}: perplexity {outcome}; best {best.perplexity:.1f}, trial {best.number}; {said}")


def _show(tried: Sequence[Tried], *, as_json: bool, plot: Path | None) -> None:
    """Compare the best with the defaults, and write it as variables."""
    from stream.commands.tables import table
    from trainer.tuning import best_of, environment

    defaults, best = tried[0], best_of(tried)
    variables = environment(best.settings)
    if as_json:
        figures = {
            of: {"trial": one.number, "perplexity": one.perplexity, **{name: one.figures[name] for name in COMPARED}}
            for of, one in (("defaults", defaults), ("best", best))
        }
        pruned = sum(one.state == "pruned" for one in tried)
        results(json.dumps({"trials": len(tried), "pruned": pruned, **figures, "environment": variables}))
    else:
        rows = [["perplexity", *(f"{one.perplexity:.1f}" for one in (defaults, best))]]
        rows += [[name, *(f"{one.figures[name]:.4g}" for one in (defaults, best))] for name in COMPARED]
        rows += [[name, defaults.said[name], best.said[name]] for name in best.settings]
        table(["on the newest slice", "defaults (trial 0)", f"best (trial {best.number})"], rows)
        for name, value in variables.items():
            results(f"{name}={shlex.quote(value)}")
        if best is defaults:
            note(f"none of {len(tried) - 1} others was better than the defaults")
    if plot:
        from trainer.plots import draw_search

        draw_search(plot, tried)
