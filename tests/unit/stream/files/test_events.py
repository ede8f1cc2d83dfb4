"""Files of events: what is read, and how the first wrong line is named."""

import bz2
import gzip
import io
import json
import lzma
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
import zstandard

from stream.commands.failures import Failure
from stream.files.events import FileEvent, read_events
from stream.files.layout import Layout
from stream.files.opening import open_file

CSV = b"USER_ID,ITEM_ID,TIMESTAMP,EVENT_TYPE,EVENT_VALUE\nu,007,12,rating,8\nv,9,13.5,,\n"


def read(content: bytes, **layout: Any) -> list[FileEvent]:
    return list(read_events(cast(BinaryIO, io.BytesIO(content)), name="events", layout=Layout(**layout)))


def test_csv_rows_become_events_with_their_lines() -> None:
    first, second = read(CSV)
    assert (first.line, second.line) == (2, 3)
    assert json.loads(first.value) == {
        "user_id": "u",
        "item_id": "007",  # an id is text: its zeros stay
        "timestamp": 12,
        "event_type": "rating",
        "event_value": 8,
    }
    assert json.loads(second.value) == {"user_id": "v", "item_id": "9", "timestamp": 13.5}


def test_columns_may_come_in_any_order_and_further_ones_are_properties() -> None:
    (row,) = read(b"\xef\xbb\xbftimestamp,device,item_id,user_id\n7,phone,i,u\n")
    assert json.loads(row.value) == {
        "user_id": "u",
        "item_id": "i",
        "timestamp": 7,
        "properties": {"device": "phone"},
    }


def test_quoted_commas_and_line_breaks_keep_the_line_number_true() -> None:
    rows = read(b'USER_ID,ITEM_ID,TIMESTAMP\n"a,b","c\nd",1\nu,i,2\n')
    assert [(row.event.user_id, row.event.item_id, row.line) for row in rows] == [("a,b", "c\nd", 3), ("u", "i", 4)]


def test_json_lines_go_out_as_they_came() -> None:
    (row,) = read(b'\n {"user_id":"u","item_id":"i","timestamp":1,"properties":{"a":[1]}} \n')
    assert row.line == 2
    assert row.value == b'{"user_id":"u","item_id":"i","timestamp":1,"properties":{"a":[1]}}'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "line 1: the file is empty"),
        (b"USER_ID,TIMESTAMP\n", "line 1: the header has no ITEM_ID"),
        (b"USER_ID,ITEM_ID,TIMESTAMP,USER_ID\n", "line 1: the header has USER_ID twice"),
        (b"USER_ID,ITEM_ID,TIMESTAMP\nu,i,1\nu,i\n", "line 3: 2 columns where the header has 3"),
        (b"USER_ID,ITEM_ID,TIMESTAMP\nu,i,soon\n", "line 2: TIMESTAMP is 'soon', not a number"),
        (b"USER_ID,ITEM_ID,TIMESTAMP\nu,i,nan\n", "line 2: "),
        (b"USER_ID,ITEM_ID,TIMESTAMP\n,i,1\n", "line 2: bad_id: user_id has 0 characters"),
        (b"USER_ID,ITEM_ID,TIMESTAMP\nu,i,-1\n", "line 2: bad_timestamp"),
        (b"USER_ID,ITEM_ID,TIMESTAMP,EVENT_VALUE\nu,i,1,much\n", "line 2: EVENT_VALUE is 'much'"),
        (b"USER_ID,ITEM_ID,TIMESTAMP\nu,i,1\nu,\xff,1\n", "not UTF-8"),
        (b'{"user_id":"u","item_id":"i","timestamp":1}\n{"user_id":"u"}\n', "line 2: missing_field"),
        (b'{"user_id":"u","item_id":"i","timestamp":1}\nnonsense\n', "line 2: not_json"),
        (b'{"user_id":7,"item_id":"i","timestamp":1}\n', "line 1: wrong_type"),
    ],
)
def test_the_first_wrong_line_is_named_with_what_is_wrong(content: bytes, said: str) -> None:
    with pytest.raises(Failure) as failure:
        read(content)
    assert failure.value.what.startswith("events, line ")
    assert said in failure.value.what
    assert failure.value.remedy


@pytest.mark.parametrize(
    "pack",
    [
        lambda data: data,
        lzma.compress,
        gzip.compress,
        bz2.compress,
        lambda data: zstandard.ZstdCompressor().compress(data),
    ],
    ids=["plain", "xz", "gz", "bz2", "zst"],
)
def test_compressed_files_are_known_by_their_first_bytes(pack: object, tmp_path: Path) -> None:
    assert callable(pack)
    path = tmp_path / "events"
    path.write_bytes(pack(CSV))
    with open_file(str(path), io.BytesIO()) as source:
        assert [row.event.user_id for row in read_events(source, name="events")] == ["u", "v"]


@pytest.mark.parametrize("pack", [lzma.compress, gzip.compress, zstandard.ZstdCompressor().compress])
def test_a_file_that_was_cut_off_is_refused(pack: object, tmp_path: Path) -> None:
    assert callable(pack)
    path = tmp_path / "events"
    path.write_bytes(pack(CSV * 500)[:-20])
    with open_file(str(path), io.BytesIO()) as source, pytest.raises(Failure):
        list(read_events(source, name="events"))


def test_standard_input_is_read_for_a_dash() -> None:
    with open_file("-", io.BytesIO(gzip.compress(CSV))) as source:
        assert len(list(read_events(source, name="events"))) == 2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"nope\.csv: No such file"):
        open_file(str(tmp_path / "nope.csv"), io.BytesIO())


def test_columns_are_those_that_were_named_and_times_in_the_unit_that_was_named() -> None:
    content = b"userId;movieId;rating;timestamp\n7;31;2.5;1260759144000\n"
    columns = {"USER_ID": "userId", "ITEM_ID": "movieId", "TIMESTAMP": "timestamp", "EVENT_VALUE": "rating"}
    (row,) = read(content, columns=columns, separator=";", time_unit="ms")
    assert json.loads(row.value) == {"user_id": "7", "item_id": "31", "timestamp": 1260759144.0, "event_value": 2.5}


def test_a_file_without_a_header_is_read_by_the_numbers_of_its_columns() -> None:
    columns = {"USER_ID": "2", "ITEM_ID": "1", "TIMESTAMP": "4"}
    rows = read(b"i,u,x,5\nj,v,y,6\n", columns=columns)
    assert [(r.line, r.event.user_id, r.event.item_id, r.event.timestamp) for r in rows] == [
        (1, "u", "i", 5.0),
        (2, "v", "j", 6.0),
    ]


@pytest.mark.parametrize("separator", ["::", "\t"])
def test_movielens_files_are_known_without_being_told(separator: str) -> None:
    content = "\n".join(
        separator.join(row) for row in (("1", "1193", "5", "978300760"), ("2", "9", "3.5", "978300761"))
    )
    first, second = read(content.encode())
    assert (first.line, first.event.user_id, first.event.item_id) == (1, "1", "1193")
    assert (second.event.event_value, second.event.timestamp) == (3.5, 978300761.0)


def test_recbole_files_are_known_by_the_types_in_their_header() -> None:
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\tgenre:token_seq"
    (row,) = read(f"{header}\n196\t242\t3\t881250949\tComedy Drama\n".encode())
    assert json.loads(row.value) == {
        "user_id": "196",
        "item_id": "242",
        "timestamp": 881250949,
        "event_value": 3,
        "properties": {"genre": "Comedy Drama"},
    }


@pytest.mark.parametrize(
    ("cell", "seconds"),
    [
        ("2024-05-01T12:00:00Z", 1714564800.0),
        ("2024-05-01 12:00:00", 1714564800.0),
        ("2024-05-01T14:00:00+02:00", 1714564800.0),
        ("2024-05-01", 1714521600.0),
        ("2024-05-01T12:00:00.250Z", 1714564800.25),
    ],
)
def test_times_may_be_iso_8601(cell: str, seconds: float) -> None:
    (row,) = read(f"USER_ID,ITEM_ID,TIMESTAMP\nu,i,{cell}\n".encode())
    assert row.event.timestamp == seconds


def test_empty_columns_without_a_name_and_empty_rows_are_passed_over() -> None:
    rows = read(b"USER_ID,ITEM_ID,TIMESTAMP,,\nu,i,1,,\n,,,,\nv,j,2\n\nw,k,3,,,,\n")
    assert [(row.line, row.event.user_id) for row in rows] == [(2, "u"), (4, "v"), (6, "w")]


def test_json_lines_may_begin_with_a_byte_order_mark() -> None:
    (row,) = read(b'\xef\xbb\xbf{"user_id":"u","item_id":"i","timestamp":1}\n')
    assert row.value == b'{"user_id":"u","item_id":"i","timestamp":1}'


@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
def test_either_line_end_is_read(ends: bytes) -> None:
    assert [row.line for row in read(CSV.replace(b"\n", ends))] == [2, 3]


def test_parquet_is_read_with_times_as_they_are_typed() -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = arrow.table(
        {"user": ["u", "v"], "item": [7, 8], "at": arrow.array([1_000_000, 2_000_000], arrow.timestamp("ms"))}
    )
    sink = io.BytesIO()
    parquet.write_table(table, sink)
    rows = read(sink.getvalue(), columns={"USER_ID": "user", "ITEM_ID": "item", "TIMESTAMP": "at"})
    assert [(r.line, r.event.user_id, r.event.item_id, r.event.timestamp) for r in rows] == [
        (1, "u", "7", 1000.0),
        (2, "v", "8", 2000.0),
    ]
    with pytest.raises(Failure, match="can't be read"):
        read(sink.getvalue()[:-30])
