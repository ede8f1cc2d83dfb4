"""The proof: replay the log in one process and hold everything that the workers have written against it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from models.facts.schema import Schema
from models.items.signals import SignalRules
from models.records import Topics
from models.sessions import SessionRules
from stream.audit.availability import ItemHistory
from stream.audit.events import check_events, dead_letters, failed_events, replay_log
from stream.audit.lists import sort_lists
from stream.audit.marks import mark_epochs
from stream.audit.models import published
from stream.audit.reading import Cut, Log, reach, read_topic
from stream.audit.recomputed import ListCheck, ListRules
from stream.audit.report import AuditReport
from stream.audit.sessions import check_sessions
from stream.audit.signals import SignalCheck
from stream.audit.snapshots import SignalHistory
from stream.audit.states import check_states, erased_users
from stream.audit.stores import check_stores
from stream.clients.connection import client_options
from stream.stages.origins import Origins, origins_for


@dataclass(frozen=True)
class Logs:
    """Every topic that is compared, as it was read."""

    interactions: Log
    requests: Log
    recommendations: Log
    dead_letters: Log
    sessions: Log
    user_states: Log
    item_states: Log
    transitions: Log
    signals: Log
    models: Log
    items: Log = field(default_factory=Log)


@dataclass(frozen=True)
class Settings:
    """The workers' settings, as far as what they write hangs on them."""

    rules: SessionRules = field(default_factory=SessionRules)
    lists: ListRules = field(default_factory=ListRules)
    signal_rules: SignalRules = field(default_factory=SignalRules)
    origins: Origins = field(default_factory=lambda: Origins(b""))
    items_schema: Schema | None = None


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
    items_schema: Schema | None = None,
    data_dirs: Sequence[Path] = (),
    progress: Callable[[str], None] = lambda what: None,
) -> AuditReport:
    """Compare what the events and requests up to now must lead to, with workers at work, at rest or stopped.

    The settings are those of the workers. First the inputs' ends are taken, and waited for until the workers have
    committed them; then what the workers wrote is read, and last the inputs, so that whatever was written has its
    event among them. Only what lies before the ends taken first can be missing.
    """
    options = client_options(bootstrap, "hrnn-audit")
    settings = Settings(
        rules=rules or SessionRules(),
        lists=ListRules(top_k, exclude_seen, asking_gap_s),
        signal_rules=signal_rules or SignalRules(),
        origins=await origins_for(signing_key, topics, options),
        items_schema=items_schema,
    )
    progress("waiting until the workers have committed what the inputs have now")
    cut = await reach(options, topics.app_id, [topics.interactions, topics.requests])
    transition_cut = await reach(options, topics.app_id, [topics.transitions])
    read: dict[str, Log] = {}
    # what is caused before what causes it: items' records, states, transitions; all of it before the events
    for name in (
        *("recommendations", "dead_letters", "sessions", "user_states", "signals", "item_states", "transitions"),
        *("models", "items", "requests", "interactions"),
    ):
        progress(f"reading {getattr(topics, name)}")
        read[name] = await read_topic(options, getattr(topics, name))
    # in a thread: a client beside us, as the demo's, must go on talking to the broker
    return await asyncio.to_thread(compare, Logs(**read), topics, cut, transition_cut, settings, data_dirs, progress)


def compare(
    logs: Logs,
    topics: Topics,
    cut: Cut,
    transition_cut: Cut,
    settings: Settings,
    data_dirs: Sequence[Path] = (),
    progress: Callable[[str], None] = lambda what: None,
) -> AuditReport:
    """Hold what was read against the replay; `cut` is of the inputs."""
    report, log = AuditReport(), logs.interactions
    mark_epochs(logs.user_states, logs.item_states, logs.interactions, logs.requests, logs.transitions)
    progress("replaying the log")
    ends = {partition: cut.end(topics.interactions, partition) for partition in log.records}
    dead = dead_letters(logs.dead_letters)
    lists = sort_lists(logs.recommendations, topics.interactions, report)
    kept_by = len(logs.user_states.records) or len(log.records)  # a topic may have been given more partitions since
    replayed = replay_log(log, settings.rules, settings.origins, ends, kept_by, failed_events(dead, lists))
    replayed.erased = erased_users(logs.user_states) | lists.erased
    report.dead_letters = sum(topic == topics.interactions for topic, _, _ in dead)
    check_events(log, cut, replayed, lists, dead, report)
    progress("comparing states and sessions")
    models = published(logs.models)
    report.model_versions = len(models.by_version)
    check_states(logs.user_states, replayed, models, report)
    check_sessions(logs.sessions, replayed, report)
    progress("comparing the lists")
    signal_history = SignalHistory(logs.signals, settings.signal_rules)
    item_history = ItemHistory(logs.items, settings.items_schema)
    check = ListCheck(*(replayed, lists, models, signal_history, item_history), settings.lists, report)
    check.check_events()
    check.check_requests(logs.requests, cut, dead)
    progress("comparing the items' signals")
    SignalCheck(
        replayed, logs.transitions, logs.item_states, logs.signals, transition_cut, settings.signal_rules, report
    ).check()
    if data_dirs:
        progress("comparing the stores")
        changelogs = {"users": logs.user_states, "items": logs.item_states}
        committed = {
            "users": cut.committed_of(topics.interactions),
            "items": transition_cut.committed_of(topics.transitions),
        }
        check_stores(data_dirs, changelogs, committed, report)
    return report
