"""The command line: help, exit statuses, and what is not imported on the way."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from models.records import RankedItem, Recommendation, Source
from stream.commands.main import app
from stream.commands.watch import line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["worker", "trainer", "topics", "produce", "watch", "models", "doctor"]),
        (["produce"], ["USER_ID,ITEM_ID,TIMESTAMP", "--rate", "--format"]),
        (["watch"], ["--user", "--from-beginning", "--json"]),
        (["topics"], ["create", "list"]),
        (["topics", "create"], ["--partitions", "--replication", "--alter"]),
        (["models"], ["list", "show", "verify", "rollback"]),
        (["doctor"], ["--json", "HRNN_KAFKA_BOOTSTRAP"]),
        (["evaluate"], ["--interactions", "--train-fraction", "--sweep", "--ablate", "--json", "--retrain-every"]),
        (["tune"], ["--interactions", "--trials", "--study", "--plot", "layers 1 to 3", "a row that occurs twice"]),
        (["worker"], ["HRNN_DATA_DIR"]),
        (["trainer"], ["--once"]),
    ],
)
def test_help_names_what_there_is(arguments: list[str], words: list[str]) -> None:
    answer = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, [*arguments, "--help"])
    assert answer.exit_code == 0
    for word in words:
        assert word in answer.output


def hrnn(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stream.commands.main", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments", [("nope",), ("produce",), ("watch", "--limit", "0"), ("doctor", "--what"), ("topics", "drop")]
)
def test_a_wrong_question_ends_with_status_2(arguments: tuple[str, ...]) -> None:
    assert hrnn(*arguments).returncode == 2


def test_an_unknown_variable_ends_any_command_with_status_2() -> None:
    answer = hrnn("topics", "list", HRNN_TOPIC_PREFX="x")
    assert answer.returncode == 2
    assert answer.stderr.splitlines() == [
        "error: HRNN_TOPIC_PREFX is set, and no such setting exists",
        "remedy: did you mean HRNN_TOPIC_PREFIX?",
    ]


def test_no_broker_is_said_in_two_lines_without_a_trace() -> None:
    answer = hrnn("topics", "list", "--bootstrap", "127.0.0.1:1")
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: no Kafka answers at 127.0.0.1:1\nremedy: ")
    assert "Traceback" not in answer.stderr


def test_help_comes_without_the_heavy_libraries() -> None:
    script = (
        "import sys\nfrom stream.commands.main import main\nsys.argv = ['hrnn', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'faust', 'kafka', 'optuna', 'matplotlib'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


def test_a_list_is_said_in_a_line() -> None:
    items = [RankedItem("1", 0.5), RankedItem("2", 0.4), RankedItem("3", 0.3)]
    recommendation = Recommendation("r", "u", items, "v7", "s", 0.0, 0.0, Source("interactions", 0, 0))
    said = line(recommendation, {"1": "Casablanca (1942)"}, top=2)
    assert said.endswith("  u  [v7]  Casablanca (1942) | 2")
    by_recipe = Recommendation("r", "u", items, "popularity", "s", 0.0, 0.0, recommendation.source, recipe="trending")
    assert "[trending]" in line(by_recipe, {}, top=2)
