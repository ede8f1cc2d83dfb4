"""Files of events: what is read, and how the first wrong line is named."""

import gzip
import io
import json
import lzma
from pathlib import Path
from typing import BinaryIO, cast

import pytest
import zstandard

from stream.cli.event_files import FileEvent, open_events, read_events
from stream.cli.failures import Failure

CSV = b"USER_ID,ITEM_ID,TIMESTAMP,EVENT_TYPE,EVENT_VALUE\nu,007,12,rating,8\nv,9,13.5,,\n"


def read(content: bytes) -> list[FileEvent]:
    return list(read_events(cast(BinaryIO, io.BytesIO(content)), name="events"))


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
        (b"USER_ID,ITEM_ID,TIMESTAMP\nu,i,soon\n", "line 2: TIMESTAMP is 'soon', which is no number"),
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
    [lambda data: data, lzma.compress, gzip.compress, lambda data: zstandard.ZstdCompressor().compress(data)],
    ids=["plain", "xz", "gz", "zst"],
)
def test_compressed_files_are_known_by_their_first_bytes(pack: object, tmp_path: Path) -> None:
    assert callable(pack)
    path = tmp_path / "events"
    path.write_bytes(pack(CSV))
    with open_events(str(path), io.BytesIO()) as source:
        assert [row.event.user_id for row in read_events(source, name="events")] == ["u", "v"]


@pytest.mark.parametrize("pack", [lzma.compress, gzip.compress, zstandard.ZstdCompressor().compress])
def test_a_file_that_was_cut_off_is_refused(pack: object, tmp_path: Path) -> None:
    assert callable(pack)
    path = tmp_path / "events"
    path.write_bytes(pack(CSV * 500)[:-20])
    with open_events(str(path), io.BytesIO()) as source, pytest.raises(Failure):
        list(read_events(source, name="events"))


def test_standard_input_is_read_for_a_dash() -> None:
    with open_events("-", io.BytesIO(gzip.compress(CSV))) as source:
        assert len(list(read_events(source, name="events"))) == 2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"nope\.csv: No such file"):
        open_events(str(tmp_path / "nope.csv"), io.BytesIO())
