"""The live signals at one time, for lists that no model makes."""

from __future__ import annotations

from dataclasses import dataclass

from models.items.signal_table import Floats, SignalTable
from models.records import SignalSnapshot, snapshot_id


@dataclass(frozen=True)
class SignalReading:
    """A signal table and a time; to be used before the table takes further records over."""

    table: SignalTable
    at: float  # the stream's time

    def trend(self, half_life_s: float) -> Floats:
        """Read one trend of all items: (rows,)."""
        return self.table.trend(half_life_s, self.at)

    def named(self, version: str) -> tuple[str | None, SignalSnapshot | None]:
        """Name the records that lists are made with -> the snapshot's id, the snapshot; (None, None) if not known."""
        if not self.table.offsets:
            return None, None
        snapshot = SignalSnapshot(self.at, list(self.table.offsets))
        return snapshot_id(version, snapshot), snapshot
