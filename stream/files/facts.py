"""Read facts from a file of items or users: CSV or parquet with Amazon Personalize's columns, or JSON lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple, TypeVar

import msgspec

from models.facts.inference import Inference
from models.facts.records import Item, User, decode_item, decode_user
from models.facts.schema import ID_OF, RESERVED, Field, Kind, Schema, Value
from models.records import BadRecord
from stream.files.bad_file import BadRow, explained, refuse_other_text
from stream.files.layout import Layout
from stream.files.rows import buffered, rows_of
from stream.files.values import time_s

T = TypeVar("T")
_AVAILABLE = Field("AVAILABLE", "boolean")


class FileFacts(NamedTuple):
    """One row: its line, the id of its item or user, and the bytes of the record's value."""

    line: int
    key: str
    value: bytes


def infer_schema(source: BinaryIO, kind: Kind, *, name: str, layout: Layout) -> Schema:
    """Infer a schema that fits all rows; raises Failure with the file and the line of the first wrong row."""
    inference = Inference(kind)

    def see(line: int, row: dict[str, Any] | bytes) -> None:
        if isinstance(row, bytes):
            inference.see(_fields_of(_decoded(line, row, kind, None)), is_text=False)
        else:
            inference.see({column: cell for column, cell in row.items() if column != ID_OF[kind]}, is_text=True)

    for _ in _each_row(source, kind, name, layout, see):
        pass
    return inference.schema()


def read_facts(source: BinaryIO, schema: Schema, *, name: str, layout: Layout) -> Iterator[FileFacts]:
    """Read rows and check each against the schema; raises Failure with the file, line and column."""

    def facts_of(line: int, row: dict[str, Any] | bytes) -> FileFacts:
        value = row if isinstance(row, bytes) else _encoded(line, row, schema, layout)
        record = _decoded(line, value, schema.kind, schema)
        return FileFacts(line, record.item_id if isinstance(record, Item) else record.user_id, value)

    return _each_row(source, schema.kind, name, layout, facts_of)


def _each_row(
    source: BinaryIO, kind: Kind, name: str, layout: Layout, use: Callable[[int, dict[str, Any] | bytes], T]
) -> Iterator[T]:
    """Yield `use` of each row, with reserved columns in capitals. A BadRow becomes a Failure."""
    lines, line = buffered(source), 1
    rows = rows_of(lines, layout, (ID_OF[kind],))  # kept, as in events.py
    with explained(name, lambda: line, lines):
        for line, row in rows:
            yield use(line, row if isinstance(row, bytes) else {_known(key, kind): cell for key, cell in row.items()})
            line += 1  # the line of the reader's next error


def _known(column: str, kind: Kind) -> str:
    return column.upper() if column.upper() in RESERVED[kind] else column


def _encoded(line: int, cells: dict[str, Any], schema: Schema, layout: Layout) -> bytes:
    """Encode a row of cells as a record."""
    id_column = ID_OF[schema.kind]
    record: dict[str, Any] = {id_column.lower(): str(cells.pop(id_column))}
    attributes: dict[str, Value] = {}
    for column, cell in cells.items():
        if cell is None or cell == "":
            continue
        if column == "CREATION_TIMESTAMP":
            record["created_at"] = time_s(line, column, cell, layout)
        elif column == "TITLE":
            record["title"] = str(cell)
        elif column == "AVAILABLE" and schema.kind == "items":
            record["available"] = _value(line, _AVAILABLE, cell)
        elif (field := schema.field(column)) is None:
            raise BadRow(line, f"{column} is not in the schema", "add the field to the schema, or remove the column")
        else:
            attributes[column] = _value(line, field, cell)
    if attributes:
        record["attributes"] = attributes
    try:
        return msgspec.json.encode(record)
    except UnicodeEncodeError:
        texts = (*record.values(), *attributes.values())
        refuse_other_text(line, [text for text in texts if isinstance(text, str)])
        raise


def _value(line: int, field: Field, cell: Any) -> Value:
    """Convert a cell to its field's type. Cells of parquet already have a type."""
    try:
        value = field.parsed(cell) if isinstance(cell, str) else cell
        why = field.why_not(value)
    except ValueError as error:
        why = str(error)
    if why:
        raise BadRow(line, f"{field.name}: {why}", f"correct the line, or the type of {field.name} in the schema")
    return value


def _decoded(line: int, value: bytes, kind: Kind, schema: Schema | None) -> Item | User:
    """Decode a record as a worker does; raises BadRow."""
    try:
        return decode_item(value, schema) if kind == "items" else decode_user(value, schema)
    except BadRecord as bad:
        raise BadRow(line, str(bad)) from None


def _fields_of(record: Item | User) -> Mapping[str, Value | None]:
    """Return a record's fields under the column names of a file."""
    if isinstance(record, User):
        return record.attributes
    reserved = {"CREATION_TIMESTAMP": record.created_at, "TITLE": record.title}
    return {**record.attributes, **{name: value for name, value in reserved.items() if value is not None}}
