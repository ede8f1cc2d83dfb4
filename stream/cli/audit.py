"""The proof: replay the log in one process and hold every state, list and dead letter against it."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from aiokafka import TopicPartition

from models import state, weights
from models.contracts import (
    POPULARITY,
    BadRecord,
    Recommendation,
    Topics,
    decode_recommendation,
    rec_id,
)
from models.earlier import fold
from models.replay import Outcome, Replay, forward_state, replay
from models.sessions import SessionRules
from models.signals import SignalRules
from models.state import HISTORY_EVENTS, HistoryEvent, UserState
from models.weights import ServingModel
from stream.cli.audit_lists import Answer, wrong_answers
from stream.cli.audit_signals import audit_signals
from stream.cli.connection import client_options
from stream.intake import event_of, home_of, request_of, sourced
from stream.log_reader import Record, log_reader, read_stretch
from stream.origins import Origins, origins_for

H_TOLERANCE = 1e-5  # what batching alone may change of a float32 hidden state between -1 and 1
EXAMPLES = 20


@dataclass
class AuditReport:
    """What was found; `examples` say where to look."""

    events: int = 0
    applied: int = 0
    late: int = 0
    dead_letters: int = 0
    forwarded: int = 0
    recommendations: int = 0  # distinct
    requests: int = 0  # answered
    duplicates: int = 0  # further copies, equal in rec_id
    refused_too: int = 0  # applied, and a dead letter besides
    lost: int = 0
    wrong_states: int = 0
    wrong_lists: int = 0
    wrong_signals: int = 0
    lists_checked: int = 0
    lists_with_signals: int = 0  # of which only the shape can be checked: what the signals said is not kept
    transitions: int = 0
    transitions_behind: int = 0  # that no worker has counted yet
    items: int = 0
    model_versions: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Tell whether nothing is lost or wrong."""
        return not (self.lost or self.wrong_states or self.wrong_lists or self.wrong_signals)

    def note(self, text: str) -> None:
        """Keep an example, the first few."""
        if len(self.examples) < EXAMPLES:
            self.examples.append(text)


async def audit(
    bootstrap: str,
    topics: Topics,
    *,
    rules: SessionRules | None = None,
    top_k: int = 20,
    exclude_seen: bool = True,
    asking_gap_s: float = 0.0,
    signal_rules: SignalRules | None = None,
    signing_key: bytes | None = None,
    progress: Callable[[str], None] = lambda what: None,
) -> AuditReport:
    """Read every topic to its end and compare; the workers must be at rest, and of the settings given here."""
    report, rules = AuditReport(), rules or SessionRules()
    options = client_options(bootstrap, "hrnn-audit")
    origins = await origins_for(signing_key, topics, options)
    progress("reading the log of events")
    log = await _read(options, topics.interactions)
    progress("reading lists and dead letters")
    landed = _landings(log, origins)
    given = await _read(options, topics.recommendations)
    _check_requests(await _read(options, topics.requests), given, origins, report)
    answers = _answers(given, landed, report)
    dead = _dead_letters(await _read(options, topics.dead_letters), topics.interactions)
    report.dead_letters = len(dead)
    progress("replaying the log")
    replays = {p: _replay(p, records, len(log), rules, origins, answers, dead, report) for p, records in log.items()}
    _check_landings(log, landed, origins, report)
    progress("comparing the states")
    models = _models(await _read(options, topics.models))
    report.model_versions = len(models)
    held = _newest(await _read(options, topics.user_states))
    _check_states(replays, held, models, report)
    progress("comparing the lists")
    for version, model in models.items():
        asked = [a for of_event in answers.values() for a in of_event if a.version == version]
        if model.model.config.n_trends + model.model.config.n_sparse:
            report.lists_with_signals += len(asked)
        else:
            report.lists_checked += len(asked)
        for answer, why in wrong_answers(model, replays, asked, top_k, asking_gap_s, exclude_seen):
            report.wrong_lists += 1
            report.note(f"list at {answer.partition}/{answer.offset} for user {answer.user_id} under {version}: {why}")
    for of_event in answers.values():
        for answer in of_event:
            if answer.version != POPULARITY and answer.version not in models:
                report.wrong_lists += 1
                report.note(
                    f"a list for user {answer.user_id} names model {answer.version}, which the topic does not have"
                )
    progress("comparing the items' signals")
    of_items = await audit_signals(functools.partial(_read, options), topics, replays, signal_rules or SignalRules())
    report.transitions, report.items, report.wrong_signals = of_items.transitions, of_items.items, of_items.wrong
    report.transitions_behind = of_items.behind
    for example in of_items.examples:
        report.note(example)
    return report


async def _read(options: Mapping[str, object], topic: str) -> dict[int, list[Record]]:
    """Read all partitions of a topic as they are now."""
    found: dict[int, list[Record]] = {}
    async with log_reader(options, committed=True) as reader:
        # a group-less client knows the metadata only of topics that it has asked for
        await reader._client.add_topic(topic)
        tps = [TopicPartition(topic, p) for p in sorted(reader.partitions_for_topic(topic) or ())]
        begins, ends = await reader.beginning_offsets(tps), await reader.end_offsets(tps)
        for tp in tps:
            found[tp.partition] = []
        stretches = {tp: (begins[tp], ends[tp]) for tp in tps}
        async for tp, records in read_stretch(reader, stretches, unreadable=True):
            found[tp.partition].extend(records)
    return found


def _landings(log: Mapping[int, list[Record]], origins: Origins) -> dict[tuple[int, int], int]:
    """Map events that were sent on, by where they came in first, to their offset in their user's own partition."""
    landed: dict[tuple[int, int], int] = {}
    for records in log.values():
        for record in records:
            if origin := origins.of(record):
                landed.setdefault((origin.source.partition, origin.source.offset), record.offset)
    return landed


def _answers(
    topic: Mapping[int, list[Record]], landed: Mapping[tuple[int, int], int], report: AuditReport
) -> dict[str, list[Answer]]:
    """Sort lists by the event that caused them."""
    answers: dict[str, list[Answer]] = {}
    for records in topic.values():
        for record in records:
            given: Recommendation = decode_recommendation(record.value or b"")
            if given.request_id is not None:
                continue
            source = given.source.partition, given.source.offset
            if given.rec_id != rec_id(given.source.topic, *source):
                report.lost += 1
                report.note(f"list of {source} carries rec_id {given.rec_id}, not its own")
                continue
            items = [i.item_id for i in given.items], np.array([i.score for i in given.items])
            answers.setdefault(given.rec_id, []).append(
                Answer(given.user_id, record.partition, landed.get(source, source[1]), given.model_version, *items)
            )
    report.recommendations = len(answers)
    report.duplicates = sum(len(of_event) - 1 for of_event in answers.values())
    return answers


def _check_requests(
    log: Mapping[int, list[Record]], topic: Mapping[int, list[Record]], origins: Origins, report: AuditReport
) -> None:
    """See that each request has an answer; what the state and the signals were at that moment is not kept."""
    lists = (decode_recommendation(record.value or b"") for records in topic.values() for record in records)
    answered = {given.rec_id for given in lists if given.request_id is not None}
    report.requests = len(answered)
    for records in log.values():
        for record in records:
            try:
                request_of(record)
            except BadRecord:
                continue
            place = record.topic, record.partition, record.offset
            if origins.of(record) is None and rec_id(*place) not in answered:
                report.lost += 1
                report.note(f"request {record.partition}/{record.offset} has no list")


def _dead_letters(topic: Mapping[int, list[Record]], source: str) -> dict[tuple[int, int], str]:
    dead: dict[tuple[int, int], str] = {}
    for records in topic.values():
        for record in records:
            headers = {name: (value or b"").decode("utf-8", "replace") for name, value in record.headers}
            if headers.get("source-topic") == source:
                dead[int(headers["source-partition"]), int(headers["source-offset"])] = headers["reason"]
    return dead


def _replay(
    partition: int,
    records: list[Record],
    partitions: int,
    rules: SessionRules,
    origins: Origins,
    answers: Mapping[str, list[Answer]],
    dead: Mapping[tuple[int, int], str],
    report: AuditReport,
) -> Replay:
    """Replay one partition, and look for what each of its records must have caused."""
    events = []
    for record in records:
        report.events += origins.of(record) is None
        try:
            event = event_of(record)
        except BadRecord as error:
            _expect_dead(record, error.reason, dead, report)
            continue
        if origins.of(record) is None and home_of(event.user_id, partitions) != partition:
            continue  # it was sent on: its landing is looked for later
        events.append(sourced(record, event, origins))
    result = replay(rules, HISTORY_EVENTS, events)
    for given, outcome in zip(events, result.outcomes, strict=True):
        origin = given.origin
        if outcome in (Outcome.LATE, Outcome.FUTURE):
            report.late += outcome is Outcome.LATE
            if (partition, given.offset) not in dead:
                report.lost += 1
                report.note(f"{outcome.value} event {partition}/{given.offset} is not among the dead letters")
            continue
        report.applied += outcome is Outcome.APPLIED
        if (partition, given.offset) in dead:
            report.refused_too += 1
            report.note(
                f"event {partition}/{given.offset} is applied and a dead letter: {dead[partition, given.offset]}"
            )
        if rec_id(origin.topic, origin.partition, origin.offset) not in answers:
            report.lost += 1
            report.note(f"event {origin.partition}/{origin.offset} of user {given.event.user_id} has no list")
    return result


def _expect_dead(record: Record, reason: str, dead: Mapping[tuple[int, int], str], report: AuditReport) -> None:
    found = dead.get((record.partition, record.offset))
    if found != reason:
        report.lost += 1
        report.note(f"record {record.partition}/{record.offset} ({reason}) is a dead letter for {found}")


def _check_landings(
    log: Mapping[int, list[Record]], landed: Mapping[tuple[int, int], int], origins: Origins, report: AuditReport
) -> None:
    """See that each event of a user at home elsewhere arrived there."""
    for partition, records in log.items():
        for record in records:
            try:
                user_id = event_of(record).user_id
            except BadRecord:
                continue
            if origins.of(record) is None and home_of(user_id, len(log)) != partition:
                report.forwarded += 1
                if (partition, record.offset) not in landed:
                    report.lost += 1
                    report.note(f"event {partition}/{record.offset} of user {user_id} never arrived at its home")


def _newest(topic: Mapping[int, list[Record]]) -> dict[tuple[int, str], UserState]:
    """Merge a changelog as a restore does: by applied offset, whatever the order."""
    newest: dict[tuple[int, bytes], bytes] = {}
    for records in topic.values():
        for record in records:
            key, value = (record.partition, record.key or b""), record.value or b""
            if key not in newest or state.applied_offset(newest[key]) <= state.applied_offset(value):
                newest[key] = value
    return {(partition, key.decode()): state.decode(value) for (partition, key), value in newest.items()}


def _check_states(
    replays: Mapping[int, Replay],
    held: dict[tuple[int, str], UserState],
    models: Mapping[str, ServingModel],
    report: AuditReport,
) -> None:
    wrong: Counter[str] = Counter()
    for partition, of_partition in replays.items():
        for user_id, expected in of_partition.states.items():
            found = held.pop((partition, user_id), None)
            why = _difference(expected, found, of_partition, user_id, models)
            if why:
                wrong[why.split(":")[0]] += 1
                report.note(f"state of user {user_id} in partition {partition}: {why}")
    for partition, user_id in held:
        wrong["unexpected"] += 1
        report.note(f"state of user {user_id} in partition {partition}: no event of the log makes it")
    report.wrong_states = sum(wrong.values())


def _difference(
    expected: UserState,
    found: UserState | None,
    of_partition: Replay,
    user_id: str,
    models: Mapping[str, ServingModel],
) -> str:
    """Say how a state differs from what the log makes it, "" if it does not."""
    if found is None:
        return "missing"
    for name in ("applied_offset", "origins", "events", "history", "session_start", "session_part", "session_len"):
        if getattr(expected, name) != getattr(found, name):
            return f"{name}: {str(getattr(found, name))[-200:]}, not {str(getattr(expected, name))[-200:]}"
    kept = found.earlier_events == expected.earlier_events  # else an older release has cut the history first
    earlier = expected.earlier if kept else _earlier(found, of_partition.histories[user_id])
    if list(found.earlier.items()) != list(earlier.items()):
        return f"earlier: {str(found.earlier)[-200:]}, not {str(earlier)[-200:]}"
    if found.model_version == "":
        return "" if found.h == b"" else "h: without a model"
    model = models.get(found.model_version)
    if model is None:
        return f"model_version: {found.model_version} is not on the models topic"
    h = np.frombuffer(found.h, np.float32) if found.h else np.zeros(model.model.config.state_width, np.float32)
    right = forward_state(model, of_partition.histories[user_id], found.h_events).numpy()
    off = float(np.abs(h - right).max())
    return "" if off <= H_TOLERANCE else f"h: off by {off:.2g} after {found.h_events} events"


def _earlier(found: UserState, history: Sequence[HistoryEvent]) -> dict[str, int]:
    """Count the items of as many events as the state says, of those that fell out of the retained ones last."""
    fallen = [event.item_id for event in history[: len(history) - len(found.history)]]
    return fold({}, fallen[max(0, len(fallen) - found.earlier_events) :])


def _models(topic: Mapping[int, list[Record]]) -> dict[str, ServingModel]:
    """Verify and load every version that is wholly on the topic."""
    manifests: dict[str, bytes] = {}
    chunks: dict[str, dict[int, bytes]] = {}
    for record in topic.get(0, []):
        key = weights.parse_key(record.key)
        if key is None or key.kind == "pointer":
            continue
        if record.value is None:
            manifests.pop(key.version, None)
        elif key.kind == "manifest":
            manifests[key.version] = record.value
        else:
            chunks.setdefault(key.version, {})[key.chunk] = record.value
    models = {}
    for version, value in manifests.items():
        try:
            manifest = weights.decode_manifest(value)
            models[version] = weights.unpack(manifest, weights.join(manifest, chunks.get(version, {})))
        except (weights.BadWeights, msgspec.DecodeError):
            continue  # the workers refused it too; a list that names it is reported
    return models
