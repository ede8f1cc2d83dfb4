"""What an audit found, and what it could not look at."""

from __future__ import annotations

from dataclasses import dataclass, field

EXAMPLES = 20
PASSED, WRONG, INCOMPLETE = 0, 1, 2


@dataclass
class AuditReport:
    """Counts by part; `examples` say where to look, `not_checked` names each part that was left out, and why."""

    events: int = 0
    applied: int = 0
    late: int = 0
    dead_letters: int = 0
    forwarded: int = 0
    recommendations: int = 0  # distinct
    requests: int = 0  # answered
    duplicates: int = 0  # further copies, equal in rec_id
    refused_too: int = 0  # applied, and a dead letter besides
    failed: int = 0  # dead letters, since the decision failed at them
    lost: int = 0
    wrong_states: int = 0
    wrong_lists: int = 0  # of events and of requests
    wrong_sessions: int = 0
    wrong_signals: int = 0
    wrong_stores: int = 0
    lists_checked: int = 0  # recomputed to the last score
    lists_with_signals: int = 0
    lists_with_signals_checked: int = 0  # of those: recomputed with the records of `signals` that they name
    popularity_lists: int = 0  # shape, exclusions and order alone can be checked
    answers_checked: int = 0  # recomputed
    sessions: int = 0
    stores: int = 0
    transitions: int = 0
    transitions_behind: int = 0  # that no worker has counted yet
    items: int = 0
    model_versions: int = 0
    not_checked: list[tuple[str, str]] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Tell whether nothing is lost or wrong, of what was checked."""
        wrong = self.wrong_states + self.wrong_lists + self.wrong_sessions + self.wrong_signals + self.wrong_stores
        return not (self.lost or wrong)

    @property
    def exit_status(self) -> int:
        """Give 0 if all is right, 1 if something is lost or wrong, 2 if a part could not be checked and the rest is."""
        if not self.passed:
            return WRONG
        return INCOMPLETE if self.not_checked else PASSED

    def note(self, text: str) -> None:
        """Keep an example, the first few."""
        if len(self.examples) < EXAMPLES:
            self.examples.append(text)

    def skip(self, part: str, why: str) -> None:
        """Name a part that could not be checked, once for each reason."""
        if (part, why) not in self.not_checked:
            self.not_checked.append((part, why))
