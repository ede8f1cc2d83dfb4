"""Fetches in line: what is passed, what is sought again, and what a second reader has to confirm."""

from __future__ import annotations

from typing import Any, cast

import pytest
from faust.types import TP

from stream.source import continuity
from stream.source.continuity import Continuity
from stream.source.record_batches import Stretch

A = TP("interactions", 0)


class Line(Continuity):
    """A line whose seeks and holes are kept."""

    def __init__(self) -> None:
        self.sought: list[int] = []
        self.holes = 0
        super().__init__(self._note_seek, self._note_hole, dict)

    async def _note_seek(self, tp: TP, offset: int) -> None:
        self.sought.append(offset)

    def _note_hole(self) -> None:
        self.holes += 1


def stretch(begin: int, end: int) -> Stretch:
    made = Stretch(begin)
    made.extend(cast(Any, type("R", (), {"offset": offset})()) for offset in range(begin, end))
    made.end = end
    return made


@pytest.mark.parametrize("confirmed", [True, False])
async def test_a_hole_is_believed_when_a_second_reader_sees_it(
    monkeypatch: pytest.MonkeyPatch, confirmed: bool
) -> None:
    asked: list[tuple[int, int]] = []

    async def is_hole(client_options: Any, tp: Any, first: int, end: int) -> bool:
        asked.append((first, end))
        return confirmed

    monkeypatch.setattr(continuity, "is_hole", is_hole)
    line = Line()
    assert not await line.follows(A, 3, stretch(7, 9))
    assert asked == [], "it is sought again first: a race is likelier"
    assert await line.follows(A, 3, stretch(7, 9)) is confirmed
    assert asked == [(3, 7)]
    assert line.holes == int(confirmed)
    assert line.sought == [3] if confirmed else [3, 3]


async def test_what_comes_before_any_position_is_not_taken() -> None:
    line = Line()
    assert not await line.follows(A, None, stretch(0, 3))
    assert line.sought == []


async def test_an_older_fetch_is_never_a_hole() -> None:
    line = Line()
    for _ in range(3):
        assert not await line.follows(A, 5, stretch(2, 4))
    assert line.sought == [5, 5, 5]


async def test_what_was_passed_is_forgotten_with_the_position() -> None:
    line = Line()
    line.passed(A, 5, 8)
    assert (line.after_empty(A, 5), line.after_empty(A, 4)) == (8, 4)
    assert await line.follows(A, 5, stretch(8, 9))
    assert await line.follows(A, 5, stretch(5, 9))
    line.forget()
    assert line.after_empty(A, 5) == 5
