"""The layout of an input file: the roles of its columns, its separator, and the unit of its times.

Columns have the names of Amazon Personalize's dataset, or those of `--columns`. Two well-known formats are detected:
RecBole's `.inter` and `.item`, whose header has types (`user_id:token`), and MovieLens' `ratings.dat` and `u.data`,
which have no header.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from stream.commands.failures import Failure
from stream.files.bad_file import BAD_FILE, BadRow, refuse_other_text

Format = Literal["auto", "csv", "jsonl"]
TimeUnit = Literal["s", "ms", "us", "ns"]

REQUIRED = ("USER_ID", "ITEM_ID", "TIMESTAMP")
OPTIONAL = ("EVENT_TYPE", "EVENT_VALUE")
ROLES = {"user": "USER_ID", "item": "ITEM_ID", "time": "TIMESTAMP", "type": "EVENT_TYPE", "value": "EVENT_VALUE"}
UNITS_A_SECOND: dict[TimeUnit, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

# Names of these columns in other tools: only to suggest --columns, never used silently.
_GUESSES = {
    "USER_ID": ("userid", "user", "uid", "customerid", "visitorid", "customer", "reviewerid"),
    "ITEM_ID": ("itemid", "item", "movieid", "iid", "productid", "articleid", "product", "asin", "bookid", "sku"),
    "TIMESTAMP": ("timestamp", "time", "ts", "datetime", "date", "eventtime", "createdat", "unixreviewtime"),
    "EVENT_VALUE": ("rating", "eventvalue", "value", "score"),
    "EVENT_TYPE": ("eventtype", "event", "type", "action", "behavior"),
}
_RECBOLE = re.compile(r"(?P<name>[^:]+):(token|float|token_seq|float_seq)")
_RECBOLE_NAMES = {"RATING": "EVENT_VALUE", "LABEL": "EVENT_VALUE"}
_MOVIELENS = re.compile(rb"\s*\d+(::|\t)\d+\1\d+(\.\d+)?\1\d{6,}\s*")
_MOVIELENS_COLUMNS = ["USER_ID", "ITEM_ID", "EVENT_VALUE", "TIMESTAMP"]


@dataclass(frozen=True)
class Layout:
    """The layout given by the user. The rest is detected, or the default."""

    form: Format = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    """USER_ID -> the file's name of the column, or its number from 1 if there is no header."""
    separator: str = ""
    time_unit: TimeUnit = "s"

    @property
    def headless(self) -> bool:
        """Return whether the columns are given by number: then the first line is a row."""
        return bool(self.columns) and all(name.isdigit() for name in self.columns.values())


def parse_columns(text: str) -> dict[str, str]:
    """Parse `user=userId,item=movieId,time=timestamp`; raises Failure."""
    columns: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        role, equals, name = part.partition("=")
        if not equals or not name.strip() or role.strip() not in ROLES:
            raise Failure(
                f"--columns {text}: {part!r} is not one of user=, item=, time=, type=, value= with a column's name",
                "for example --columns user=userId,item=movieId,time=timestamp; or numbers, if there is no header",
                exit_code=BAD_FILE,
            )
        columns[ROLES[role.strip()]] = name.strip()
    return columns


def parse_separator(text: str) -> str:
    r"""Parse a separator from the command line: `;`, `|`, `::`, `tab` or `\t`."""
    if text in ("", ","):
        return ""  # a comma, or that of a detected format
    separator = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}.get(text, text)
    if not separator or "\n" in separator or '"' in separator:
        raise Failure(
            f"--sep {text!r} can't separate columns", "for example --sep ';' or --sep tab", exit_code=BAD_FILE
        )
    return separator


@dataclass(frozen=True)
class Table:
    """The columns of one file: the separator, and the name of each column ("" is skipped)."""

    separator: str
    columns: list[str]
    has_header: bool

    @property
    def needed(self) -> int:
        """Return the number of columns up to the last one with a name."""
        return max((place for place, name in enumerate(self.columns, 1) if name), default=0)


def table_of(layout: Layout, first_line: bytes, required: tuple[str, ...] = REQUIRED) -> Table:
    """Return a file's columns from the given layout and its first line; raises BadRow."""
    if not layout.columns and (found := _MOVIELENS.fullmatch(first_line)) and required == REQUIRED:
        return Table(found[1].decode(), list(_MOVIELENS_COLUMNS), has_header=False)
    text = first_line.decode("utf-8-sig", "surrogateescape").rstrip("\r\n")
    separator = layout.separator or ("\t" if "\t" in text and _RECBOLE.match(text) else ",")
    cells = [cell.strip().strip('"').strip() for cell in text.split(separator)]
    refuse_other_text(1, cells)
    if layout.headless:
        return _by_number(layout, separator, len(cells), required)
    columns = _named(cells, layout.columns)
    missing = [name for name in required if name not in columns]
    if missing:
        raise BadRow(1, f"the header has no {', '.join(missing)}", _remedy(text, cells, layout, required))
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise BadRow(1, f"the header has {', '.join(twice)} twice")
    return Table(separator, columns, has_header=True)


def _by_number(layout: Layout, separator: str, width: int, required: tuple[str, ...]) -> Table:
    columns = [""] * width
    for name, number in layout.columns.items():
        if not 1 <= int(number) <= width:
            raise BadRow(1, f"there is no column {number}, but {width}", "number --columns from 1, or set --sep")
        columns[int(number) - 1] = name
    missing = [name for name in required if name not in columns]
    if missing:
        raise BadRow(1, f"--columns does not name {', '.join(missing)}", "name user, item and time")
    return Table(separator, columns, has_header=False)


def _named(cells: list[str], given: Mapping[str, str]) -> list[str]:
    """Return the columns' names: from --columns, RecBole's without the type, or the file's own."""
    known = {*REQUIRED, *OPTIONAL}
    named = {name: role for role, name in given.items()}
    absent = [name for name in named if name not in cells]
    if absent:
        raise BadRow(1, f"the header has no {', '.join(absent)}", f"its columns are {', '.join(filter(None, cells))}")
    columns = []
    for cell in cells:
        if cell in named:
            columns.append(named[cell])
            continue
        bare = found["name"] if (found := _RECBOLE.fullmatch(cell)) else cell
        upper = bare.upper()
        if found:
            upper = _RECBOLE_NAMES.get(upper, upper)
        # a role that --columns gives to another column is not this one's, too
        columns.append(upper if upper in known and upper not in given else bare)
    return columns


def _remedy(text: str, cells: list[str], layout: Layout, required: tuple[str, ...]) -> str:
    """Suggest options that would make the header readable: another separator, or names for the columns."""
    if not layout.separator:
        for separator, shown in ((";", "';'"), ("\t", "tab"), ("|", "'|'"), ("::", "::")):
            if text.count(separator) >= len(required) - 1 > text.count(","):
                return f"the columns seem to have another separator: --sep {shown}"
    by_role = {name: role for role, name in ROLES.items()}
    proposed = []
    for name in (*required, "EVENT_VALUE"):
        plain = {re.sub(r"[^a-z]", "", cell.lower()): cell for cell in reversed(cells)}
        guess = next((plain[word] for word in (*_GUESSES[name], name.lower().replace("_", "")) if word in plain), None)
        if guess is not None:
            proposed.append(f"{by_role[name]}={guess}")
    if sum(not part.startswith("value") for part in proposed) == len(required):
        return f"name the columns: --columns {','.join(proposed)}"
    if required != REQUIRED:
        name = required[0]
        return f"it needs a column {name}; or say which one that is: --columns {by_role[name]}=NAME"
    return (
        "the columns are USER_ID,ITEM_ID,TIMESTAMP and optionally EVENT_TYPE,EVENT_VALUE; "
        "or name them: --columns user=NAME,item=NAME,time=NAME"
    )
