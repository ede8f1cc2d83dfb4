from __future__ import annotations

import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from stream.commands.tables import draw

HEADER = ("setting", "default", "why")
ROWS = [
    ("HRNN_SUCCESSOR_HALF_LIFE_S", "2592000.0", "of what follows what, seconds; must be the models'"),
    ("HRNN_SASL_PASSWORD_FILE", "", "holds the password, as a mounted Secret does; a line end after it does not count"),
]


def drawn(width: int, rows: list[tuple[str, ...]] = ROWS) -> str:
    out = io.StringIO()
    draw(Console(file=out, width=width, force_terminal=False), HEADER, rows)
    return out.getvalue()


@pytest.mark.parametrize("width", [200, 80, 60, 40, 20])
def test_no_word_is_broken_however_narrow_the_terminal(width: int) -> None:
    words = drawn(width).split()
    for row in ROWS:
        for word in " ".join(row).split():
            assert word in words


def test_a_table_that_fits_is_drawn_in_columns() -> None:
    assert drawn(80).splitlines()[1].split() == ["setting", "default", "why"]
    assert max(map(len, drawn(80).splitlines())) <= 80


def test_a_narrow_terminal_gets_a_list() -> None:
    assert drawn(40).splitlines()[0] == "setting  HRNN_SUCCESSOR_HALF_LIFE_S"


@example([("", "", " " + 28 * "[")], 52)
@given(st.lists(st.tuples(*[st.text("ab []/", max_size=30)] * 3), min_size=1, max_size=3), st.integers(10, 120))
def test_cells_are_text_whatever_is_in_them(rows: list[tuple[str, ...]], width: int) -> None:
    words = drawn(width, rows).split()
    for row in rows:
        for word in " ".join(row).split():
            assert word in words
