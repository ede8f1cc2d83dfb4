from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from stream.commands.failures import Failure
from stream.commands.main import app

HEADER = "USER_ID,ITEM_ID,TIMESTAMP\n"
ROWS = [f"u{n % 4},i{n * n % 7},{1000000 + 60 * n}\n" for n in range(80)]
QUICK = {"HRNN_EPOCHS": "1", "HRNN_HIDDEN_DIMENSION": "4", "HRNN_TRAIN_THREADS": "1", "COLUMNS": "200"}


def tuned(tmp_path: Path, *arguments: str, rows: list[str] = ROWS, **environ: str) -> Result:
    path = tmp_path / "events.csv"
    path.write_text(HEADER + "".join(rows))
    answer = CliRunner(env={**QUICK, **environ}).invoke(app, ["tune", "--interactions", str(path), *arguments])
    if answer.exception is not None and not isinstance(answer.exception, SystemExit):
        raise answer.exception
    return answer


def test_the_best_settings_are_printed_as_variables_beside_the_defaults(tmp_path: Path) -> None:
    lines = tuned(tmp_path, "--trials", "2").stdout.splitlines()
    assert lines[0].startswith("on the newest slice\tdefaults (trial 0)\tbest (trial ")
    assert [line.split("\t")[0] for line in lines[1:5]] == ["perplexity", "ndcg_at_10", "recall_at_20", "mrr_at_20"]
    variables = dict(line.split("=", 1) for line in lines if line.startswith("HRNN_"))
    assert {"HRNN_BPTT", "HRNN_DROPOUT", "HRNN_LEARNING_RATE", "HRNN_HALF_LIVES_S"} < set(variables)
    assert "HRNN_HIDDEN_DIMENSION" not in variables  # the environment has it


def test_a_study_is_gone_on_with_and_drawn(tmp_path: Path) -> None:
    study, picture = tmp_path / "study", tmp_path / "search.png"
    tuned(tmp_path, "--trials", "1", "--study", str(study))
    answer = tuned(tmp_path, "--trials", "3", "--study", str(study), "--plot", str(picture), "--json")
    line = json.loads(answer.stdout)
    assert line["trials"] == 3
    assert line["best"]["perplexity"] <= line["defaults"]["perplexity"]
    assert set(line["environment"]) > {"HRNN_BPTT", "HRNN_DROPOUT"}
    assert "trial 2: perplexity" in answer.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_what_is_later_than_the_training_fraction_is_not_looked_at(tmp_path: Path) -> None:
    """Another future gives the same search; another past does not."""
    other = [*ROWS[:64], *(f"v{n},new{n},{2000000 + n}\n" for n in range(16))]
    arguments = ("--trials", "2", "--train-fraction", "0.8", "--json")
    found = []
    for rows in (ROWS, other, ROWS[1:]):
        line = json.loads(tuned(tmp_path, *arguments, rows=rows).stdout)
        for of in ("defaults", "best"):
            line[of].pop("train_s")
        found.append(line)
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_an_interrupted_search_shows_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer import tuning

    real, begun = tuning.evaluate, []

    def interrupted(*arguments: object) -> object:
        begun.append(1)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(tuning, "evaluate", interrupted)
    study = tmp_path / "study"
    answer = tuned(tmp_path, "--trials", "3", "--study", str(study), "--json")
    assert answer.exit_code == 130
    assert json.loads(answer.stdout)["trials"] == 1
    assert f"interrupted after 1 trials; rerun to go on with {study}" in answer.stderr
    assert json.loads(tuned(tmp_path, "--trials", "2", "--study", str(study), "--json").stdout)["trials"] == 2


def test_a_study_that_is_none_is_refused_with_a_remedy(tmp_path: Path) -> None:
    study = tmp_path / "study"
    study.write_text("something else")
    with pytest.raises(Failure, match="some other file") as failure:
        tuned(tmp_path, "--study", str(study))
    assert failure.value.exit_code == 2
    assert failure.value.remedy


def test_with_nothing_left_to_search_it_says_so(tmp_path: Path) -> None:
    from trainer.settings import FittingSettings
    from trainer.tuning import SPACE, environment

    defaults = FittingSettings()
    everything = environment({name: getattr(defaults, name) for name in (*SPACE, "half_lives_s")})
    with pytest.raises(Failure, match="all that could be searched"):
        tuned(tmp_path, **everything)
