"""The demo's display: a panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table

PLAIN_EVERY_S = 5.0
NOTHING = "\u2013"  # before the first measurement


@dataclass(frozen=True)
class Snapshot:
    """The figures at one time; None before the first measurement."""

    phase: str
    events_per_s: float
    answered: int
    total: int  # events of the whole demo
    lag: int
    latency_ms: tuple[float, float] | None  # the median, the 99th percentile
    model_version: str
    model_age_s: float
    hit_rates: tuple[float, float, float] | None  # ours, popularity's of all time, of 24 hours
    lists: Mapping[str, list[str]]  # a few users' latest lists, by title

    @property
    def latency(self) -> str:
        """Return the latency as text."""
        return (
            NOTHING if self.latency_ms is None else f"p50 {self.latency_ms[0]:.0f} ms, p99 {self.latency_ms[1]:.0f} ms"
        )

    def hit_rate(self, number: int) -> str:
        """Return one of the hit-rates as text."""
        return NOTHING if self.hit_rates is None else f"{self.hit_rates[number]:.4f}"

    def lines(self) -> list[str]:
        """Return it as lines of fewer than 80 characters."""
        return [
            self.phase,
            f"  {self.answered:,} of {self.total:,} events, {self.events_per_s:,.0f}/s, lag {self.lag:,}",
            f"  latency {self.latency}; model {self.model_version}, {self.model_age_s:.0f} s",
            f"  hit-rate@10 {self.hit_rate(0)} (popularity {self.hit_rate(1)}, of 24 h {self.hit_rate(2)})",
        ]


class Display:
    """Shows snapshots. Messages are printed above the panel, or between the lines."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(file=sys.stderr, quiet=quiet)
        self._live = Live(console=self._console, refresh_per_second=4) if self._console.is_terminal else None
        self._printed_at = 0.0

    def __enter__(self) -> Self:
        """Start drawing."""
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing and leave the last panel on the terminal."""
        if self._live:
            self._live.stop()

    def message(self, text: str) -> None:
        """Print a message."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def show(self, snapshot: Snapshot) -> None:
        """Show the figures: at once on a terminal, every few seconds elsewhere."""
        if self._live:
            self._live.update(_panel(snapshot))
        elif time.monotonic() - self._printed_at >= PLAIN_EVERY_S:
            self._printed_at = time.monotonic()
            self._console.print("\n".join(snapshot.lines()), highlight=False, soft_wrap=True)


def _panel(now: Snapshot) -> Panel:
    figures = Table.grid(padding=(0, 2))
    figures.add_row("events", f"{now.answered:,} of {now.total:,}", "events/s", f"{now.events_per_s:,.0f}")
    figures.add_row("latency", now.latency, "lag", f"{now.lag:,}")
    figures.add_row("model", now.model_version, "age", f"{now.model_age_s:.0f} s")
    figures.add_row("hit-rate@10", now.hit_rate(0), "popularity", now.hit_rate(1))
    figures.add_row("", "", "of 24 h", now.hit_rate(2))
    lists = Table(expand=True, show_edge=False, pad_edge=False)
    lists.add_column("user", width=8, no_wrap=True, overflow="ellipsis")
    lists.add_column("latest list", no_wrap=True, overflow="ellipsis")
    for user_id, titles in now.lists.items():
        lists.add_row(user_id, " · ".join(titles))
    return Panel(Group(figures, lists), title=f"hrnn demo: {now.phase}", border_style="cyan", width=min(100, _width()))


def _width() -> int:
    return Console(stderr=True).width
