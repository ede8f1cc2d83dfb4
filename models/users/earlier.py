"""What a user had before the retained history: items and how often, no longer when.

A hundred events are a heavy shopper's last baskets, and two in five of MovieLens' users have rated more. What falls out
of them is kept by item, at some ten bytes each: enough to know what not to recommend again, and what is bought each
week. models/terms/evicted.py scores by it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

Item = TypeVar("Item", bound=Hashable)  # its id, or whatever else names it

EARLIER_ITEMS = 500
"""How many items are kept, those that fell out last: some 4 kB at the most, as much as the retained events take."""


def fold(earlier: Mapping[str, int], fallen: Iterable[str], most: int = EARLIER_ITEMS) -> dict[str, int]:
    """Take in the items that fell out of the retained history, oldest first -> items in the order they last fell out.

    Beyond `most` the one that fell out longest ago is forgotten, at each item anew: what is known does not depend on
    how many are taken in at once.
    """
    known = dict(earlier)
    for item_id in fallen:
        take_in(known, item_id, most)
    return known


def take_in(known: dict[Item, int], item: Item, most: int) -> int:
    """Take one more item into `known` and forget what is beyond `most` -> how often it fell out, as far as is known."""
    often = known[item] = known.pop(item, 0) + 1
    while len(known) > most:
        del known[next(iter(known))]
    return often
