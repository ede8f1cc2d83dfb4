"""The packaged events: MovieTweetings 100K (Dooms, De Pessemier and Martens 2013), MIT licence beside the data."""

from __future__ import annotations

import csv
import io
import lzma
from importlib.resources import files
from typing import BinaryIO, cast

from models.records import Event
from stream.files.events import read_events

INTERACTIONS = "movietweetings-100k.interactions.csv.xz"
ITEMS = "movietweetings-100k.items.csv.xz"


def load_events() -> list[Event]:
    """Return the 100,000 ratings in time order; those of the same second in the file's order."""
    rows = read_events(cast(BinaryIO, io.BytesIO(_read(INTERACTIONS))), name=INTERACTIONS)
    return sorted((row.event for row in rows), key=lambda event: event.timestamp)  # a stable sort


def load_titles() -> dict[str, str]:
    """Return the films' titles by item id."""
    rows = csv.DictReader(io.StringIO(_read(ITEMS).decode("utf-8"), newline=""))
    return {row["ITEM_ID"]: row["TITLE"] for row in rows}


def _read(name: str) -> bytes:
    return lzma.decompress(files("stream.demo").joinpath("data", name).read_bytes())
