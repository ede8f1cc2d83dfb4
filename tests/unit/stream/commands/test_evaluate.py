from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stream.commands.failures import Failure
from stream.commands.main import app

HEADER = "USER_ID,ITEM_ID,TIMESTAMP\n"
ROWS = "".join(f"u{n % 4},i{n * n % 7},{1000000 + 60 * n}\n" for n in range(80))
QUICK = {"HRNN_EPOCHS": "1", "HRNN_HIDDEN_DIMENSION": "4", "HRNN_TRAIN_THREADS": "1", "COLUMNS": "200"}
QUICK["HRNN_TRAIN_MIN_NEW_EVENTS"] = "3"
QUICK["HRNN_EXCLUDE_SEEN"] = "false"  # of few items, whose users soon have had all


def evaluated(tmp_path: Path, content: str | bytes, *arguments: str) -> str:
    path = tmp_path / "events.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    command = ["evaluate", "--interactions", str(path), *arguments]
    answer = CliRunner(env=QUICK).invoke(app, command, catch_exceptions=True)
    if answer.exception is not None and not isinstance(answer.exception, SystemExit):
        raise answer.exception
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def test_the_json_line_has_the_keys_that_scripts_read(tmp_path: Path) -> None:
    line = json.loads(evaluated(tmp_path, HEADER + ROWS, "--recipe", "hrnn", "--json"))
    names = {"recall_at_5", "recall_at_10", "recall_at_20", "ndcg_at_10", "mrr_at_20", "perplexity"}
    assert names | {"coverage_at_10", "events", "events_skipped", "train_s", "evaluate_s"} <= set(line)
    for cut in (line["with_new_items"], line["first_in_session"], *line["by_control_level"].values()):
        assert names | {"events"} <= set(cut)


@pytest.mark.parametrize(("longest_s", "said"), [("1e-9", True), ("600", False)])
def test_figures_of_a_fit_that_had_no_time_left_come_with_that_word(tmp_path: Path, longest_s: str, said: bool) -> None:
    path = tmp_path / "events.csv"
    path.write_text(HEADER + ROWS)
    answer = CliRunner(env=QUICK | {"HRNN_TRAIN_MAX_S": longest_s}).invoke(
        app, ["evaluate", "--interactions", str(path)]
    )
    assert answer.exit_code == 0, answer.output
    assert ("HRNN_TRAIN_MAX_S" in answer.stderr) is said


def test_a_sweep_is_a_row_a_recipe_and_a_picture(tmp_path: Path) -> None:
    picture = tmp_path / "sweep.png"
    lines = evaluated(tmp_path, HEADER + ROWS, "--sweep", "--plot", str(picture)).splitlines()
    assert picture.read_bytes().startswith(b"\x89PNG")
    recipes = [line.split("\t")[0] for line in lines[1:]]
    assert recipes == ["hrnn", "rnn", "popularity", "recent-popularity", "sims", "vsknn"]


def test_a_retrained_model_is_shown_beside_the_frozen_one(tmp_path: Path) -> None:
    picture, curves = tmp_path / "both.png", tmp_path / "curves.png"
    drawn = ["--plot", str(picture), "--curves", str(curves)]
    content = evaluated(tmp_path, HEADER + ROWS, "--train-fraction", "0.7", "--retrain-every", "5m", "--json", *drawn)
    frozen, retrained = map(json.loads, content.splitlines())
    assert (frozen["recipe"], retrained["recipe"]) == ("hrnn", "hrnn retrained")
    assert set(retrained) - set(frozen) == {
        "retrain_every_s",
        "retrainings",
        "retrainings_accepted",
        "retrain_s",
    }
    assert retrained["retrainings"] == 4  # of 24 minutes; HRNN_TRAIN_MIN_NEW_EVENTS is 3
    assert retrained["events"] == frozen["events"]
    for path in (picture, curves):
        assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--retrain-every", "1h", "--sweep"], "each a comparison"),
        (["--sweep", "--ablate"], "each a comparison"),
        (["--retrain-every", "1h", "--recipe", "sims"], "sims is not fitted in epochs"),
        (["--curves", "a.png", "--recipe", "vsknn"], "vsknn is not fitted in epochs"),
        (["--plot", "a.png"], "draws a comparison"),
    ],
)
def test_questions_that_make_no_sense_are_refused_before_any_work(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    with pytest.raises(Failure, match=said) as failure:
        evaluated(tmp_path, "", *arguments)
    assert failure.value.exit_code == 2


def test_rows_in_another_order_are_the_same_log(tmp_path: Path) -> None:
    backwards = "\n".join(reversed(ROWS.splitlines())) + "\n"
    one, other = (
        json.loads(evaluated(tmp_path, HEADER + rows, "--recipe", "popularity", "--json")) for rows in (ROWS, backwards)
    )
    assert {k: v for k, v in one.items() if not k.endswith("_s")} == {
        k: v for k, v in other.items() if not k.endswith("_s")
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "line 1: the file is empty"),
        (HEADER, "no events"),
        ("USER_ID,ITEM_ID\na,b\n", "no TIMESTAMP"),
        (HEADER + "a,b,then\n", "not a number"),
        (HEADER + "a,b,1\n", "no event lies before"),
        (HEADER + "a,b,1\na,c,1\n", "no event lies before"),
        (HEADER + "a,b,1\nc,b,2\n", "nothing can be predicted"),
        (HEADER.encode() + b"\xff,b,1\n", "not UTF-8"),
    ],
)
def test_bad_files_are_explained(tmp_path: Path, content: str | bytes, said: str) -> None:
    with pytest.raises(Failure, match=said):
        evaluated(tmp_path, content, "--recipe", "hrnn")


@pytest.mark.parametrize("rows", ["a,x,{}\n", "a,x{},{}\n", "a{},x,{}\n"], ids=["one both", "one user", "one item"])
def test_one_user_or_one_item_is_no_error(tmp_path: Path, rows: str) -> None:
    content = HEADER + "".join(rows.format(*([n % 3, n] if rows.count("{}") == 2 else [n])) for n in range(40))
    evaluated(tmp_path, content, "--recipe", "hrnn", "--json")


def test_items_and_users_are_checked(tmp_path: Path) -> None:
    items = tmp_path / "items.csv"
    items.write_text("ITEM,GENRES\n1,x\n")
    with pytest.raises(Failure, match="no ITEM_ID"):
        evaluated(tmp_path, HEADER + ROWS, "--items", str(items))


def test_what_was_had_is_masked_for_every_recipe_where_nothing_is_listed_twice(tmp_path: Path) -> None:
    rows = "".join(f"u{n % 4},i{n // 4},{1000000 + 60 * n}\n" for n in range(80))  # everybody has all, one a minute
    again = "".join(f"u{n % 4},i0,{1100000 + 60 * n}\n" for n in range(8))  # and the first once more
    for default, arguments in (("true", []), ("false", ["--mask-had"])):
        QUICK["HRNN_EXCLUDE_SEEN"] = default
        try:
            lines = evaluated(tmp_path, HEADER + rows + again, "--sweep", "--json", *arguments).splitlines()
        finally:
            QUICK["HRNN_EXCLUDE_SEEN"] = "false"
        for figures in map(json.loads, lines):
            assert figures["mask_had"] is True
            assert figures["ties"] == "file"
            assert figures["events_skipped_had"] == 8
            assert figures["perplexity"] is None or figures["perplexity"] <= 20


def test_with_all_later_items_had_there_is_nothing_to_ask(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="--no-mask-had") as failure:
        evaluated(tmp_path, HEADER + "".join(f"u,i,{n}\n" for n in range(80)), "--mask-had")
    assert failure.value.exit_code == 2


def test_ties_can_be_shuffled(tmp_path: Path) -> None:
    same_second = HEADER + "".join(f"u{n % 4},i{n * n % 7},{1000000 + n // 8}\n" for n in range(80))
    figures = [
        json.loads(evaluated(tmp_path, same_second, "--recipe", "popularity", "--json", "--ties", ties))
        for ties in ("file", "shuffled", "shuffled")
    ]
    assert [one["ties"] for one in figures] == ["file", "shuffled", "shuffled"]
    for name in ("train_s", "evaluate_s"):
        for one in figures:
            del one[name]
    assert figures[1] == figures[2]
    assert figures[0]["ndcg_at_10"] != figures[1]["ndcg_at_10"]


def test_a_small_log_gets_a_warning_and_popularity_beside(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text(HEADER + ROWS)
    answer = CliRunner(env=QUICK).invoke(app, ["evaluate", "--interactions", str(path), "--json"])
    figures = json.loads(answer.stdout)
    assert (figures["recipe"], figures["popularity"]["recipe"]) == ("hrnn", "popularity")
    assert figures["popularity"]["events"] == figures["events"]
    assert "warning: 72 events are few for a model" in answer.stderr
