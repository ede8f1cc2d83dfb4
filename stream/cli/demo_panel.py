"""What the demo shows while it runs: a panel on a terminal, plain lines elsewhere."""

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

PLAIN_EVERY_S = 2.0


@dataclass(frozen=True)
class Snapshot:
    """The figures of one moment."""

    phase: str
    events_per_s: float
    sent: int
    answered: int
    lag: int
    latency_p50_ms: float
    latency_p99_ms: float
    model_version: str
    model_age_s: float
    hit_rate: float
    popularity_hit_rate: float
    recent_popularity_hit_rate: float
    lists: Mapping[str, list[str]]  # a few users' latest lists, by title

    def line(self) -> str:
        """Say it in one line."""
        return (
            f"{self.phase:<11} events {self.answered}/{self.sent} at {self.events_per_s:,.0f}/s, lag {self.lag}, "
            f"latency p50 {self.latency_p50_ms:.0f} ms p99 {self.latency_p99_ms:.0f} ms, model {self.model_version} "
            f"({self.model_age_s:.0f} s old), hit-rate@10 {self.hit_rate:.4f} "
            f"(popularity {self.popularity_hit_rate:.4f}, of 24 h {self.recent_popularity_hit_rate:.4f})"
        )


class Display:
    """Shows snapshots; messages go above the panel, or between the lines."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(file=sys.stderr, quiet=quiet)
        self._live = Live(console=self._console, refresh_per_second=4) if self._console.is_terminal else None
        self._printed_at = 0.0

    def __enter__(self) -> Self:
        """Begin to draw."""
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last picture standing."""
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        """Say what happens next."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def show(self, snapshot: Snapshot) -> None:
        """Show the figures: at once on a terminal, now and then elsewhere."""
        if self._live:
            self._live.update(_panel(snapshot))
        elif time.monotonic() - self._printed_at >= PLAIN_EVERY_S:
            self._printed_at = time.monotonic()
            self._console.print(snapshot.line(), highlight=False, soft_wrap=True)


def _panel(now: Snapshot) -> Panel:
    figures = Table.grid(padding=(0, 3))
    figures.add_row("events/s", f"{now.events_per_s:,.0f}", "events", f"{now.answered:,} of {now.sent:,}")
    figures.add_row(
        "lag", f"{now.lag:,}", "latency", f"p50 {now.latency_p50_ms:.0f} ms, p99 {now.latency_p99_ms:.0f} ms"
    )
    figures.add_row("model", now.model_version, "age", f"{now.model_age_s:.0f} s")
    figures.add_row(
        "hit-rate@10",
        f"{now.hit_rate:.4f}",
        "popularity",
        f"{now.popularity_hit_rate:.4f} all-time, {now.recent_popularity_hit_rate:.4f} of the last 24 h",
    )
    lists = Table(expand=True, show_edge=False, pad_edge=False)
    lists.add_column("user", width=8)
    lists.add_column("latest list", no_wrap=True, overflow="ellipsis")
    for user_id, titles in now.lists.items():
        lists.add_row(user_id, " · ".join(titles))
    return Panel(Group(figures, lists), title=f"hrnn demo: {now.phase}", border_style="cyan")
