"""The lists as they stand on `recommendations`: sorted by what caused them, and what can be seen of them alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from models.recommending.recipes import NEXT
from models.records import Recommendation, SignalSnapshot, decode_recommendation, rec_id, snapshot_id
from stream.audit.reading import Log
from stream.audit.report import AuditReport
from stream.source.log_reader import Record

Place = tuple[str, int, int]
"""Topic, partition and offset of a record."""
User = tuple[int, str]
"""The partition that a user is at home in, and the user."""


@dataclass(frozen=True)
class Given:
    """One list as it was emitted, for an event or a request."""

    user_id: str
    partition: int  # the user's own
    offset: int  # where the list stands in that partition of its topic
    source: Place
    version: str
    items: list[str]
    scores: npt.NDArray[np.float64]
    event_time: float
    generated_at: float
    session_id: str
    request_id: str | None
    signals: str | None  # id of the snapshot
    recipe: str
    half_life_s: float | None

    @property
    def user(self) -> User:
        """Name the user."""
        return self.partition, self.user_id


@dataclass
class Lists:
    """Every list by its rec_id, copies in the order of the topic."""

    of_events: dict[str, list[Given]] = field(default_factory=dict)
    of_requests: dict[str, list[Given]] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    """By rec_id: why a request was refused, as its answer says."""
    snapshots: dict[str, tuple[str, SignalSnapshot]] = field(default_factory=dict)
    """By its id: a model's version, and the signals that it was read with."""
    erased: set[User] = field(default_factory=set)
    """Whose lists end with a null: what it erased is gone, or about to be."""
    compacted: set[User] = field(default_factory=set)
    """Who have lists where compaction has taken records: older ones of theirs may be among these."""


def sort_lists(log: Log, interactions: str, report: AuditReport) -> Lists:
    """Read all lists, and see that each names itself by its source, in the order of the sources, the same each time."""
    lists = Lists()
    newest: dict[tuple[User, str, int], int] = {}  # source offset of each user's newest first copy, by source partition
    for partition, records in log.records.items():
        for record in records:
            user = partition, (record.key or b"").decode(errors="replace")
            if log.has_holes(partition):
                lists.compacted.add(user)
            if record.value is None:
                lists.erased.add(user)
                continue
            try:
                given = decode_recommendation(record.value)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                _wrong(report, record, f"is no list: {error}")
                continue
            if why := _why_misnamed(given, user, interactions):
                _wrong(report, record, why)
                continue
            if given.error is not None:
                lists.refusals[given.rec_id] = given.error
                continue
            _take_in(given, record, lists, newest, report)
    report.recommendations = len(lists.of_events)
    report.duplicates = sum(len(copies) - 1 for copies in lists.of_events.values())
    return lists


def _why_misnamed(given: Recommendation, user: User, interactions: str) -> str:
    source = given.source
    if given.rec_id != rec_id(source.topic, source.partition, source.offset, source.epoch):
        return f"of {source.partition}/{source.offset} carries rec_id {given.rec_id}, not its own"
    if (source.topic == interactions) != (given.request_id is None):
        return f"of {source.topic} has the request_id {given.request_id}"
    if given.user_id != user[1]:
        return f"is for user {given.user_id} under the key of {user[1]}"
    if (given.snapshot is not None) and given.signals != snapshot_id(given.model_version, given.snapshot):
        return f"names the signals {given.signals}, and a snapshot that has another id"
    return ""


def _take_in(
    given: Recommendation, record: Record, lists: Lists, newest: dict[tuple[User, str, int], int], report: AuditReport
) -> None:
    source = given.source
    if given.signals is not None and given.snapshot is not None:
        lists.snapshots[given.signals] = given.model_version, given.snapshot
    one = Given(
        user_id=given.user_id,
        partition=record.partition,
        offset=record.offset,
        source=(source.topic, source.partition, source.offset),
        version=given.model_version,
        items=[item.item_id for item in given.items],
        scores=np.array([item.score for item in given.items]),
        event_time=given.event_time,
        generated_at=given.generated_at,
        session_id=given.session_id,
        request_id=given.request_id,
        signals=given.signals,
        recipe=given.recipe or NEXT,
        half_life_s=given.half_life_s,
    )
    copies = (lists.of_events if given.request_id is None else lists.of_requests).setdefault(given.rec_id, [])
    if copies:
        # weights, signals and counts may be others after a crash, and so may the items; whose list it is may not
        first = copies[0]
        same = first.event_time == one.event_time and first.request_id == one.request_id
        if first.user != one.user or not same:
            _wrong(report, record, f"has the rec_id {given.rec_id} of another list, of user {first.user_id}")
    else:
        of_source = one.user, source.topic, source.partition
        before = newest.get(of_source, -1)
        if source.position < before:
            _wrong(report, record, f"of {source.position} comes after the same user's list of {before}")
        newest[of_source] = max(before, source.position)
    copies.append(one)


def why_misshapen(given: Given, seen: set[str], most: int) -> str:
    """Say what no list may be, whatever the weights and the signals said."""
    if not len(given.items) <= most or len(set(given.items)) != len(given.items):
        return f"{len(given.items)} items, {len(set(given.items))} of them distinct"
    if not seen.isdisjoint(given.items):
        return f"names what the user has had: {seen.intersection(given.items)}"
    if not np.isfinite(given.scores).all() or (np.diff(given.scores) > 0).any():
        return "its scores are not finite, or do not fall"
    return ""


def why_not_popular(given: Given, seen: set[str], most: int, occurred: set[str] | None) -> str:
    """Say what no list of popular items may be; the counts are of one worker's partitions, since it started.

    `occurred` are the items that the log has (None: not all of it is there).
    """
    if why := why_misshapen(given, seen, most):
        return why
    counts = given.scores
    if (counts < 1).any() or (counts != np.floor(counts)).any():
        return "its counts are no whole numbers from 1"
    placed = list(zip((-counts).tolist(), given.items, strict=True))
    if placed != sorted(placed):
        return "its equal counts are not in the order of the items"
    if occurred is not None and not occurred.issuperset(given.items):
        return f"names items that never occurred: {set(given.items) - occurred}"
    return ""


def _wrong(report: AuditReport, record: Record, why: str) -> None:
    report.wrong_lists += 1
    report.note(f"list at {record.partition}/{record.offset} {why}")
