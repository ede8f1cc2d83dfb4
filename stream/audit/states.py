"""Users' states, as the changelog has them, against the replay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from models.oracle import forward_state
from models.users import state
from models.users.earlier import fold
from models.users.state import BadState, HistoryEvent, UserState
from stream.audit.events import Replayed
from stream.audit.lists import User
from stream.audit.models import PublishedModels
from stream.audit.reading import Log
from stream.audit.report import AuditReport
from stream.source.log_reader import Record

H_TOLERANCE = 1e-5  # what batching alone may change of a float32 hidden state between -1 and 1


def merged(records: Iterable[Record], applied_offset: Callable[[bytes], int]) -> dict[bytes, bytes | None]:
    """Merge a changelog's partition as a restore does: by applied offset, whatever the order; None was erased.

    Keys that begin with a NUL are not of users or items, but of what the stores keep beside them.
    """
    newest: dict[bytes, bytes | None] = {}
    for record in records:
        key, value = record.key or b"", record.value
        if key.startswith(b"\0"):
            continue
        held = newest.get(key)
        if value is None or held is None or applied_offset(held) <= applied_offset(value):
            newest[key] = value
    return newest


def erased_users(changelog: Log) -> set[User]:
    """Name the users with a null on the changelog, also those who have come back since."""
    return {
        (partition, (record.key or b"").decode(errors="replace"))
        for partition, records in changelog.records.items()
        for record in records
        if record.value is None
    }


def check_states(changelog: Log, replayed: Replayed, models: PublishedModels, report: AuditReport) -> None:
    """Compare every user's state with the replay of the user's events up to the offset that the state has applied."""
    for partition, of_partition in replayed.by_partition.items():
        held = merged(changelog.records.get(partition, ()), applied_offset)
        found = {key.decode(errors="replace"): value for key, value in held.items() if value is not None}
        for user_id in {**of_partition.states, **found}:
            user = partition, user_id
            why = _why_wrong(user, found.get(user_id), replayed, models, report)
            if why:
                report.wrong_states += 1
                report.note(f"state of user {user_id} in partition {partition}: {why}")


def applied_offset(value: bytes) -> int:
    """Read which offset a user's state has applied; -1 of what is no state."""
    try:
        return state.applied_offset(value)
    except BadState:
        return -1


def _why_wrong(
    user: User,
    value: bytes | None,
    replayed: Replayed,
    models: PublishedModels,
    report: AuditReport,
) -> str:
    partition, user_id = user
    of_partition = replayed.by_partition[partition]
    if user in replayed.erased:
        report.skip("states", "users were erased: what was applied before is not known")
        return ""
    if value is None:
        return "missing" if partition not in replayed.trimmed and replayed.judged(user) else ""
    try:
        found = state.decode(value)
    except BadState as error:
        return f"it can't be read: {error}"
    if partition in replayed.trimmed:
        report.skip("states", "the first events of their partition are gone from the log")
        return ""
    expected, of_user = of_partition.states.get(user_id), of_partition
    if expected is None:
        return "no event of the log makes it"
    if found.applied_offset < expected.applied_offset:
        left = [event.offset for event in of_partition.histories[user_id] if event.offset > found.applied_offset]
        if left[0] < replayed.ends[partition]:
            return f"applied_offset: {found.applied_offset}, not {expected.applied_offset}"
        # a worker is at work: this is what it had done when the changelog was read
        expected, of_user = replayed.up_to(user, found.applied_offset)
        if expected is None:
            return f"applied_offset: {found.applied_offset}, where no event was applied"
    if models.was_withdrawn(found.model_version):
        report.skip("states", f"model {found.model_version}, which made some, is not on the models topic any more")
        return ""
    return difference(expected, found, of_user.histories[user_id], models)


def difference(expected: UserState, found: UserState, history: Sequence[HistoryEvent], models: PublishedModels) -> str:
    """Say how a state differs from what the log makes it, "" if it does not."""
    for name in ("applied_offset", "origins", "events", "history", "session_start", "session_part", "session_len"):
        if getattr(expected, name) != getattr(found, name):
            return f"{name}: {str(getattr(found, name))[-200:]}, not {str(getattr(expected, name))[-200:]}"
    kept = found.earlier_events == expected.earlier_events  # else an older release has cut the history first
    earlier = expected.earlier if kept else _earlier(found, history)
    if list(found.earlier.items()) != list(earlier.items()):
        return f"earlier: {str(found.earlier)[-200:]}, not {str(earlier)[-200:]}"
    if found.model_version == "":
        return "" if found.h == b"" else "h: without a model"
    model = models.by_version.get(found.model_version)
    if model is None:
        return f"model_version: {found.model_version} is not on the models topic"
    [h] = model.model.encoder.spec.decode([found.h])
    off = float((h - forward_state(model, history, found.h_events)).abs().max())
    return "" if off <= H_TOLERANCE else f"h: off by {off:.2g} after {found.h_events} events"


def _earlier(found: UserState, history: Sequence[HistoryEvent]) -> dict[str, int]:
    """Count the items of as many events as the state says, of those that fell out of the retained ones last."""
    fallen = [event.item_id for event in history[: len(history) - len(found.history)]]
    return fold({}, fallen[max(0, len(fallen) - found.earlier_events) :])
