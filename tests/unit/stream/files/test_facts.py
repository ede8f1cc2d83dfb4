"""Files of facts: what is read, and how line, column and remedy of what is wrong are named."""

from __future__ import annotations

import gzip
import io
import json
from typing import Any, BinaryIO, cast

import pytest

from models.facts.schema import Field, Kind, Schema
from stream.commands.failures import Failure
from stream.demo.movietweetings import ITEMS, _read
from stream.files.facts import FileFacts, infer_schema, read_facts
from stream.files.layout import Layout
from stream.files.opening import open_file

SCHEMA = Schema(
    "items",
    (
        Field("ITEM_ID", "string"),
        Field("CREATION_TIMESTAMP", "long", nullable=True),
        Field("GENRES", "string", categorical=True),
        Field("YEAR", "int", nullable=True),
        Field("ADULT", "boolean", nullable=True),
    ),
)
USERS = Schema("users", (Field("USER_ID", "string"), Field("AGE", "int")))


def source(content: bytes) -> BinaryIO:
    return cast(BinaryIO, io.BytesIO(content))


def read(content: bytes, schema: Schema = SCHEMA, **layout: Any) -> list[FileFacts]:
    return list(read_facts(source(content), schema, name="facts", layout=Layout(**layout)))


def inferred(content: bytes, kind: Kind = "items") -> Schema:
    return infer_schema(source(content), kind, name="facts", layout=Layout())


def test_columns_become_the_record_s_fields_and_typed_attributes() -> None:
    first, second = read(
        b"ITEM_ID,title,GENRES,CREATION_TIMESTAMP,YEAR,AVAILABLE,ADULT\n"
        b"007,Dr. No,Action|Crime,2024-05-01T00:00:00Z,1962,,false\n8,,War,,,False,\n"
    )
    assert (first.line, first.key, second.key) == (2, "007", "8")
    assert json.loads(first.value) == {
        "item_id": "007",
        "title": "Dr. No",
        "created_at": 1714521600.0,
        "attributes": {"GENRES": "Action|Crime", "YEAR": 1962, "ADULT": False},
    }
    assert json.loads(second.value) == {"item_id": "8", "available": False, "attributes": {"GENRES": "War"}}


def test_users_have_attributes_alone() -> None:
    (row,) = read(b"USER_ID,AGE\nu,30\n", USERS)
    assert (row.key, json.loads(row.value)) == ("u", {"user_id": "u", "attributes": {"AGE": 30}})


def test_json_lines_go_out_as_they_came() -> None:
    line = b'{"item_id":"i","attributes":{"GENRES":["War","Drama"]},"more":[1]}'
    (row,) = read(b"\n" + line + b"\n")
    assert (row.line, row.key, row.value) == (2, "i", line)


def test_other_names_and_separators_are_known_by_the_layout() -> None:
    (row,) = read(b"movieId;GENRES\n1;War\n", columns={"ITEM_ID": "movieId"}, separator=";")
    assert row.key == "1"


HEADER = b"ITEM_ID,GENRES,YEAR\n"
WRONG = {  # what is said after "facts", the remedy
    b"GENRES\nWar\n": (", line 1: the header has no ITEM_ID", "it needs a column ITEM_ID"),
    b"movieId,GENRES\n1,War\n": (", line 1: the header has no ITEM_ID", "--columns item=movieId"),
    b"": (", line 1: the file is empty", "ITEM_ID"),
    HEADER + b"1,War,1999\n2,War,soon\n": (", line 3: YEAR: 'soon' is not of type int", "type of YEAR in the schema"),
    HEADER + b"1,War,3000000000\n": (", line 2: YEAR: 3000000000 is too large", "type of YEAR"),
    HEADER + b"1,,1999\n": (", line 2: missing_field: attribute GENRES", "correct"),
    HEADER + b",War,1999\n": (", line 2: bad_id: item_id", "correct"),
    b"ITEM_ID,GENRES,COLOUR\n1,War,red\n": (", line 2: COLOUR is not in the schema", "add the field to the schema"),
    b"ITEM_ID,GENRES,AVAILABLE\n1,War,no\n": (", line 2: AVAILABLE: 'no' is neither", "correct"),
    b"ITEM_ID,GENRES,CREATION_TIMESTAMP\n1,War,1700000000000\n": (", line 2: creation_timestamp 17", "--time-unit ms"),
    b"ITEM_ID,GENRES\n1,War,Drama\n": (", line 2: 3 columns where the header has 2", "correct"),
    b"ITEM_ID,GENRES\n1,\xe9\n": (", line 2: not UTF-8: byte 0xe9", "iconv"),
    b'{"item_id":"i","attributes":{"GENRES":5}}': (
        ", line 1: wrong_type: attribute GENRES: 5 is not a string",
        "correct",
    ),
    b'{"item_id":"i","attributes":{"GENRES":{}}}': (", line 1: wrong_type: ", "correct"),
}


@pytest.mark.parametrize("content", WRONG, ids=lambda content: content[-30:].decode("latin-1"))
def test_what_is_wrong_is_named_with_line_column_and_remedy(content: bytes) -> None:
    said, remedy = WRONG[content]
    with pytest.raises(Failure) as failure:
        read(content)
    assert failure.value.what.startswith(f"facts{said}")
    assert remedy in failure.value.remedy
    assert failure.value.exit_code == 2


def test_a_schema_is_inferred_and_the_file_keeps_to_it() -> None:
    schema = inferred(b"ITEM_ID,TITLE,GENRES,YEAR\n1,One,War|Drama,1999\n2,Two,War,\n")
    assert schema.fields == (
        Field("ITEM_ID", "string"),
        Field("TITLE", "string"),
        Field("GENRES", "string", categorical=True),
        Field("YEAR", "int", nullable=True),
    )
    of_json = inferred(b'{"item_id":"1","title":"One","attributes":{"YEAR":1999}}\n{"item_id":"2"}\n')
    assert of_json.fields[1:] == (Field("YEAR", "int", nullable=True), Field("TITLE", "string", nullable=True))


def test_the_bundled_films_have_genres() -> None:
    content = _read(ITEMS)
    schema = inferred(content)
    assert schema.field("GENRES") == Field("GENRES", "string", nullable=True, categorical=True)
    rows = read(content, schema)
    assert len(rows) > 10_000
    assert json.loads(rows[0].value)["attributes"]["GENRES"] == "Crime|Drama"


def test_parquet_has_types_of_its_own() -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    held = io.BytesIO()
    parquet.write_table(arrow.table({"ITEM_ID": ["a"], "GENRES": ["War"], "YEAR": [1999]}), held)
    assert inferred(held.getvalue()).field("YEAR") == Field("YEAR", "int")
    (row,) = read(held.getvalue())
    assert json.loads(row.value)["attributes"] == {"GENRES": "War", "YEAR": 1999}


def test_a_wrong_row_may_come_of_damage_that_the_end_of_the_file_tells() -> None:
    rows = b"1,War,soon\n" + b"".join(b"%d,War,%d\n" % (n, n * n) for n in range(40_000))
    with open_file("-", source(gzip.compress(HEADER + rows)[:-20])) as opened:
        facts = read_facts(opened, SCHEMA, name="facts", layout=Layout())
        with pytest.raises(Failure, match="facts, near line"):
            next(facts)
