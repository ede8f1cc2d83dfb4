"""What one row found, as a line of JSON, a line for a person and a row of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

COUNTS = ("lost", "wrong_states", "wrong_lists", "wrong_sessions", "wrong_signals", "wrong_stores", "process_exits")


@dataclass
class FaultResult:
    """The figures of a row; a row is clean when nothing is lost or wrong and no process ended by itself."""

    name: str
    seed: int
    events: int = 0
    faults: int = 0  # kills, cuts, damages: how often harm was done
    lost: int = 0
    wrong_states: int = 0
    wrong_lists: int = 0
    wrong_sessions: int = 0
    wrong_signals: int = 0
    wrong_stores: int = 0
    process_exits: int = 0  # but for those that the row itself is about
    unavailable_s: float = 0.0  # the longest time that an event waited for its list
    duration_s: float = 0.0
    failures: list[str] = field(default_factory=list)  # what the row expects besides, and did not see
    notes: list[str] = field(default_factory=list)
    skipped: str = ""

    @property
    def violations(self) -> int:
        """Count all that is lost or wrong."""
        return sum(int(getattr(self, name)) for name in COUNTS) + len(self.failures)

    @property
    def clean(self) -> bool:
        """Tell whether nothing is lost or wrong."""
        return self.violations == 0

    def add(self, other: FaultResult) -> None:
        """Add a further round's figures."""
        for name in ("events", "faults", *COUNTS):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.unavailable_s = max(self.unavailable_s, other.unavailable_s)
        self.failures += other.failures
        self.notes += other.notes

    def line(self) -> str:
        """Say it in a line."""
        if self.skipped:
            return f"{self.name}: skipped, {self.skipped}"
        counts = " ".join(f"{name}={getattr(self, name)}" for name in COUNTS)
        verdict = "clean" if self.clean else "FAILED"
        return (
            f"{self.name}: {verdict} seed={self.seed} events={self.events} faults={self.faults} {counts} "
            f"unavailable_s={self.unavailable_s:.1f} duration_s={self.duration_s:.0f}"
        )


def markdown(results: Sequence[FaultResult]) -> str:
    """Write the rows as a table."""
    columns = [f.name for f in fields(FaultResult) if f.name not in ("failures", "notes", "skipped", "duration_s")]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for result in results:
        if result.skipped:
            cells = [result.name, str(result.seed), f"skipped: {result.skipped}", *[""] * (len(columns) - 3)]
        else:
            cells = [_cell(getattr(result, name)) for name in columns]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
