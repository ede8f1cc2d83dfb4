"""What everyone takes: the list until there is a model."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping
from itertools import islice

REFRESH_EVERY = 1000  # additions: a list of the most popular changes slowly once counts are large
KEPT = 1024  # ranks kept sorted: more than any list plus all that is kept of what a user has had


class Popularity:
    """Counts items; equal counts are ranked by item id, so that equal counts make equal lists."""

    __slots__ = ("_added", "_counts", "_ranked", "_total")

    def __init__(self) -> None:
        """Begin without counts."""
        self._counts: dict[str, int] = {}
        self._total = 0
        self._added = 0  # since the ranks were made
        self._ranked: list[tuple[str, int]] = []

    def add(self, item_id: str, count: int = 1) -> None:
        """Count an item once more, or several times at once."""
        self._counts[item_id] = self._counts.get(item_id, 0) + count
        self._total += count
        self._added += count

    def top(
        self, k: int, exclude: Collection[str] = (), more: Mapping[str, int] | None = None
    ) -> list[tuple[str, int]]:
        """List the k most popular items and their counts, without `exclude`; `more` counts beside what was added.

        The ranks are those of at most REFRESH_EVERY additions ago, and of at most 1 % of all additions ago.
        """
        if self._added > min(REFRESH_EVERY, self._total // 100):
            self._ranked = self._largest(KEPT)
            self._added = 0
        more = more or {}
        wanted = k + len(more)  # those of `more` rank elsewhere
        ranked = list(islice((place for place in self._ranked if place[0] not in exclude), wanted))
        if len(ranked) < wanted and len(self._ranked) < len(self._counts):
            ranked = [p for p in self._largest(KEPT + wanted + len(exclude)) if p[0] not in exclude][:wanted]
        if not more:
            return ranked
        counted = {item_id: self._counts.get(item_id, 0) + count for item_id, count in more.items()}
        ranked = [place for place in ranked if place[0] not in counted]
        ranked += [place for place in counted.items() if place[0] not in exclude]
        return sorted(ranked, key=_by_count)[:k]

    def _largest(self, n: int) -> list[tuple[str, int]]:
        return heapq.nsmallest(n, self._counts.items(), key=_by_count)


def _by_count(counted: tuple[str, int]) -> tuple[int, str]:
    return -counted[1], counted[0]
