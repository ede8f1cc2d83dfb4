"""Files that are wrong, through the very entry point: what is said, by which status, and never a stack trace."""

from __future__ import annotations

import gzip
import lzma
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stream.commands.main import main

HEADER = b"USER_ID,ITEM_ID,TIMESTAMP\n"
ROWS = b"".join(b"u%d,i%d,%d\n" % (n % 4, n * n % 7, 1000000 + 60 * n) for n in range(80))
COMMANDS = {
    "evaluate": ["evaluate", "--recipe", "popularity", "--interactions"],
    "tune": ["tune", "--trials", "1", "--interactions"],
    "produce": ["produce"],
}
QUICK = {"HRNN_EPOCHS": "1", "HRNN_HIDDEN_DIMENSION": "4", "HRNN_TRAIN_THREADS": "1", "HRNN_EXCLUDE_SEEN": "false"}


def _damaged(content: bytes) -> bytes:
    """Change one byte in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


WRONG: dict[str, tuple[bytes, str, str]] = {  # what is in it, what is said after its name, the remedy
    "empty": (b"", ", line 1: the file is empty", "USER_ID,ITEM_ID,TIMESTAMP"),
    "missing column": (b"USER_ID,ITEM_ID\na,b\n", ", line 1: the header has no TIMESTAMP", "USER_ID,ITEM_ID,TIMESTAMP"),
    "other names": (
        b"userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n",
        ", line 1: the header has no USER_ID, ITEM_ID",
        "--columns user=userId,item=movieId,time=timestamp,value=rating",
    ),
    "semicolons": (
        b"USER_ID;ITEM_ID;TIMESTAMP\nu0;i0;1700000000\n",
        ", line 1: the header has no USER_ID, ITEM_ID, TIMESTAMP",
        "--sep ';'",
    ),
    "no header": (b"a,b,1\na,c,2\n", ", line 1: the header has no USER_ID, ITEM_ID, TIMESTAMP", "the columns are"),
    "missing cell": (HEADER + ROWS + b"u,i\n", ", line 82: 2 columns where the header has 3", "correct"),
    "wrong type": (HEADER + ROWS + b"u,i,soon\n", ", line 82: TIMESTAMP is 'soon', not a number", "correct"),
    "wrong type of value": (
        b"USER_ID,ITEM_ID,TIMESTAMP,EVENT_VALUE\na,b,1,good\n",
        ", line 2: EVENT_VALUE is 'good', not a number",
        "correct",
    ),
    "not a number": (HEADER + b"u,i,nan\n", ", line 2: TIMESTAMP is 'nan'", "correct"),
    "infinite": (HEADER + b"u,i,1e999\n", ", line 2: TIMESTAMP is '1e999'", "correct"),
    "before 1970": (HEADER + b"u,i,-5\n", ", line 2: bad_timestamp", "correct"),
    "milliseconds": (
        HEADER + ROWS + b"u,i,1672531200000\n",
        ", line 82: timestamp 1672531200000 is not a Unix time in seconds",
        "--time-unit ms",
    ),
    "end of time": (HEADER + b"u,i,%d\n" % 10**40, ", line 2: timestamp 1e+40", "divide"),
    "endless digits": (HEADER + b"u,i," + b"9" * 5000 + b"\n", ", line 2: TIMESTAMP is '999", "correct"),
    "no user": (HEADER + b",i,1\n", ", line 2: bad_id: user_id", "correct"),
    "latin-1": (HEADER + ROWS + "José,i,1\n".encode("latin-1") + ROWS, ", line 82: not UTF-8: byte 0xe9", "iconv"),
    "latin-1 header": (b"USER_ID,ITEM_ID,TIMESTAMP,\xe9\n", ", line 1: not UTF-8: byte 0xe9", "iconv"),
    "utf-16": ((HEADER + ROWS).decode().encode("utf-16"), " is UTF-16 text", "iconv -f utf-16"),
    "utf-16 without a mark": ((HEADER + ROWS).decode().encode("utf-16-le"), " is UTF-16 text without", "iconv"),
    "unclosed quote": (
        b'USER_ID,ITEM_ID,TIMESTAMP,TITLE\nann,1,1,"7 inch\nbob,2,2,film\ncid,3,3,film\n',
        ", line 2: a quote opens here and is never closed",
        "close it",
    ),
    "quote that closes rows later": (
        b'USER_ID,ITEM_ID,TIMESTAMP,TITLE\nann,1,1,"7 inch\nbob,2,2,film\ncid,3,3,12"\n',
        ", line 2: a quote opens here and closes in line 4",
        "close the quote",
    ),
    "text after a quote": (HEADER + b'u,"i"x,1\n', ", line 2: ", "correct"),
    "value without a name": (HEADER[:-1] + b",\nu,i,1,x\n", ", line 2: column 4 has a value and no name", "name"),
    "json array": (b'[{"user_id":"u","item_id":"i","timestamp":1}]\n', ", line 1: a JSON array", "jq -c '.[]'"),
    "json over several lines": (
        b'{\n  "user_id": "u"\n}\n',
        ", line 1: not_json: an object of several lines",
        "jq -c .",
    ),
    "zip": (b"PK\x03\x04" + b"\0" * 60, " is a zip archive, or a spreadsheet", "unpack"),
    "tar": (b"a".ljust(257, b"\0") + b"ustar\x0000", " is a tar archive", "unpack"),
    "tar in gzip": (gzip.compress(b"a".ljust(257, b"\0") + b"ustar\x0000"), " is a tar archive", "unpack"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + b"\0" * 20, " is a 7z archive", "unpack"),
    "sqlite": (b"SQLite format 3\x00" + b"\0" * 80, " is an SQLite database", "export"),
    "pickle": (b"\x80\x04\x95" + b"\0" * 20, " is a Python pickle", "CSV or parquet"),
    "web page": (b"<!DOCTYPE html>\n<html>", " is a web page", "download"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid", " is a Git LFS pointer", "git lfs pull"),
    "binary": (b"\x01\x02\x03\x00\x05\x06\x07", " is binary data, not text", "CSV, JSON lines or parquet"),
    "a date as spreadsheets write it": (HEADER + b"u,i,5/1/2024\n", ", line 2: TIMESTAMP is '5/1/2024'", "ISO 8601"),
    "json of wrong type": (b'{"user_id":"u","item_id":"i","timestamp":"1"}\n', ", line 1: wrong_type", "correct"),
    "json cut off": (b'{"user_id":"u","item_id":"i","timestamp":1}\n{"user', ", line 2: not_json", "correct"),
    "json not UTF-8": (b'{"user_id":"\xff","item_id":"i","timestamp":1}\n', ", line 1: not_json", "correct"),
    "truncated .xz": (lzma.compress(HEADER + ROWS * 50)[:-20], ", near line", "damaged or cut off"),
    "stump of an .xz": (lzma.compress(HEADER + ROWS)[:14], ", near line 1", "damaged or cut off"),
    "truncated .gz": (gzip.compress(HEADER + ROWS * 50)[:-20], ", near line", "damaged or cut off"),
    "damaged .gz": (_damaged(gzip.compress(HEADER + ROWS * 50)), ", near line", "damaged or cut off"),
}

UNANSWERABLE: dict[str, tuple[bytes, str]] = {
    "no rows": (HEADER, " has no events"),
    "one row": (HEADER + b"a,b,1\n", "no event lies before the split"),
    "one instant": (HEADER + b"a,b,1\na,c,1\na,d,1\n", "no event lies before the split"),
    "nobody twice": (HEADER + b"".join(b"u%d,i,%d\n" % (n, n) for n in range(30)), "no"),
}

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hrnn(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the entry point -> exit status, standard output, standard error."""
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hrnn", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return int(ended.value.code or 0), said.out, said.err

    return run


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_file_is_named_with_line_reason_and_remedy(hrnn: Run, tmp_path: Path, kind: str, command: str) -> None:
    content, said, remedy = WRONG[kind]
    path = tmp_path / "events"
    path.write_bytes(content)
    status, out, err = hrnn(*COMMANDS[command], str(path))
    assert (status, out) == (1 if "damaged" in remedy else 2, "")
    first, second = err.splitlines()
    assert first.startswith(f"error: {path}{said}")
    assert second.startswith("remedy: ")
    assert remedy in second


def test_nothing_is_sent_of_a_file_that_is_damaged_in_the_middle(hrnn: Run, tmp_path: Path) -> None:
    """No broker is asked: a file is checked whole before anything is sent."""
    path = tmp_path / "events.csv.gz"
    path.write_bytes(_damaged(gzip.compress(HEADER + ROWS * 50)))
    status, _, err = hrnn("produce", str(path), "--bootstrap", "127.0.0.1:1")
    assert status == 1
    assert "damaged" in err


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_file_is_said_to_be_none(hrnn: Run, tmp_path: Path, command: str) -> None:
    for path, why in ((tmp_path / "nope.csv", "No such file or directory"), (tmp_path, "Is a directory")):
        status, out, err = hrnn(*COMMANDS[command], str(path))
        assert (status, out) == (2, "")
        assert err.splitlines()[0] == f"error: can't read {path}: {why}"


@pytest.mark.parametrize("command", ["evaluate", "tune"])
@pytest.mark.parametrize("kind", UNANSWERABLE)
def test_a_log_that_nothing_can_be_asked_of_is_refused(hrnn: Run, tmp_path: Path, kind: str, command: str) -> None:
    content, said = UNANSWERABLE[kind]
    path = tmp_path / "events"
    path.write_bytes(content)
    status, out, err = hrnn(*COMMANDS[command], str(path), "--train-fraction", "0.8")
    assert (status, out) == (2, "")
    error, remedy = err.splitlines()[-2:]
    assert error.startswith(f"error: {path}")
    assert said in error
    assert remedy.startswith("remedy: ")


@pytest.mark.parametrize("command", ["evaluate", "tune"])
@pytest.mark.parametrize("row", [b"a,i%d,%d\n", b"u%d,x,%d\n"], ids=["one user", "one item"])
def test_one_user_and_one_item_are_logs_like_any_other(hrnn: Run, tmp_path: Path, row: bytes, command: str) -> None:
    path = tmp_path / "events"
    path.write_bytes(HEADER + b"".join(row % (n % 3, 60 * n) for n in range(60)))
    status, out, _ = hrnn(*COMMANDS[command], str(path), "--json")
    assert status == 0
    assert '"perplexity": ' in out


def test_rows_in_any_order_and_twice_are_as_the_help_has_it(hrnn: Run, tmp_path: Path) -> None:
    """Unsorted rows are sorted by time, stably; a row that occurs twice is two events."""
    path, logs = tmp_path / "events", {}
    in_order = ROWS.splitlines(keepends=True)
    for name, rows in {
        "in order": in_order,
        "unsorted": in_order[::-1],
        "twice": [row for row in in_order for _ in range(2)],
    }.items():
        path.write_bytes(HEADER + b"".join(rows))
        status, out, err = hrnn(*COMMANDS["evaluate"], str(path))
        assert status == 0
        logs[name] = (out, err.splitlines()[0])
    assert logs["in order"] == logs["unsorted"]
    assert logs["in order"][1].startswith("72 events before")
    assert logs["twice"][1].startswith("144 events before")


def test_a_movielens_file_is_evaluated_in_one_command(hrnn: Run, tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    rows = "".join(f"{n % 4},{n * n % 7},4.0,{1000000 + 60 * n}\n" for n in range(80))
    path.write_text("userId,movieId,rating,timestamp\n" + rows)
    columns = "user=userId,item=movieId,value=rating,time=timestamp"
    status, out, _ = hrnn("evaluate", "--interactions", str(path), "--columns", columns, "--json")
    assert status == 0
    assert '"ndcg_at_10"' in out


@pytest.mark.parametrize(
    ("option", "said"),
    [(("--columns", "who=a"), "--columns who=a: 'who=a'"), (("--sep", '"'), "--sep '\"'")],
)
def test_what_can_not_be_meant_is_refused(hrnn: Run, tmp_path: Path, option: tuple[str, str], said: str) -> None:
    path = tmp_path / "events"
    path.write_bytes(HEADER + ROWS)
    status, _, err = hrnn("evaluate", "--interactions", str(path), *option)
    assert status == 2
    assert err.startswith(f"error: {said}")


def test_a_wrong_file_of_facts_is_named_and_nothing_is_sent(
    hrnn: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No broker is asked, though the file of events is right."""
    events, items, schema = tmp_path / "events", tmp_path / "items", tmp_path / "schema.json"
    events.write_bytes(HEADER + ROWS)
    items.write_bytes(b"ITEM_ID,YEAR\n1,1999\n2,soon\n")
    schema.write_text('{"type":"record","fields":[{"name":"ITEM_ID","type":"string"},{"name":"YEAR","type":"int"}]}')
    monkeypatch.setenv("HRNN_ITEMS_SCHEMA", str(schema))
    status, out, err = hrnn("produce", str(events), "--items", str(items), "--bootstrap", "127.0.0.1:1")
    assert (status, out) == (2, "")
    error, remedy = err.splitlines()
    assert error == f"error: {items}, line 3: YEAR: 'soon' is not of type int"
    assert remedy == "remedy: correct the line, or the type of YEAR in the schema"
    schema.write_text('{"type":"record","fields":[{"name":"ITEM_ID","type":"string"},{"name":"A","type":"text"}]}')
    status, _, err = hrnn("produce", "--items", str(items))
    assert status == 2
    assert f"HRNN_ITEMS_SCHEMA={schema}: field A: its type is 'text'; use one of string, int" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to send"),
        (["-", "--items", "-"], "standard input can be only one of the files"),
        (["e", "--items", "i", "--columns", "item=id"], "--columns applies to one file only"),
        (["--users", "nope.csv"], "can't read nope.csv: No such file or directory"),
    ],
)
def test_files_that_can_not_be_sent_together_are_refused(hrnn: Run, arguments: list[str], said: str) -> None:
    status, out, err = hrnn("produce", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {said}")
