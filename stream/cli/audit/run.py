"""The proof: replay the log in one process and hold everything that the workers have written against it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from models.contracts import Topics
from models.sessions import SessionRules
from models.signals import SignalRules
from stream.cli.audit.events import check_events, dead_letters, replay_log
from stream.cli.audit.lists import sort_lists
from stream.cli.audit.models import published
from stream.cli.audit.reading import Log, reach, read_topic
from stream.cli.audit.recomputed import ListCheck, ListRules
from stream.cli.audit.report import AuditReport
from stream.cli.audit.sessions import check_sessions
from stream.cli.audit.signals import SignalCheck
from stream.cli.audit.snapshots import SignalHistory
from stream.cli.audit.states import check_states, erased_users
from stream.cli.audit.stores import check_stores
from stream.cli.connection import client_options


async def audit(
    bootstrap: str,
    topics: Topics,
    *,
    rules: SessionRules | None = None,
    top_k: int = 20,
    exclude_seen: bool = True,
    asking_gap_s: float = 0.0,
    signal_rules: SignalRules | None = None,
    data_dirs: Sequence[Path] = (),
    progress: Callable[[str], None] = lambda what: None,
) -> AuditReport:
    """Compare what the events and requests up to now must lead to, with workers at work, at rest or stopped.

    The settings are those of the workers. First the inputs' ends are taken, and waited for until the workers have
    committed them; then what the workers wrote is read, and last the inputs, so that whatever was written has its
    event among them. Only what lies before the ends taken first can be missing.
    """
    report, rules, signal_rules = AuditReport(), rules or SessionRules(), signal_rules or SignalRules()
    options = client_options(bootstrap, "hrnn-audit")

    async def read(topic: str) -> Log:
        progress(f"reading {topic}")
        return await read_topic(options, topic)

    progress("waiting until the workers have committed what the inputs have now")
    cut = await reach(options, topics.app_id, [topics.interactions, topics.requests])
    transition_cut = await reach(options, topics.app_id, [topics.transitions])
    given, dead_log, session_log = (
        await read(topics.recommendations),
        await read(topics.dead_letters),
        await read(topics.sessions),
    )
    user_states, signal_log = await read(topics.user_states), await read(topics.signals)
    item_states, transition_log = await read(topics.item_states), await read(topics.transitions)
    model_log, request_log, log = (
        await read(topics.models),
        await read(topics.requests),
        await read(topics.interactions),
    )

    progress("replaying the log")
    replayed = replay_log(log, rules, {partition: cut.end(topics.interactions, partition) for partition in log.records})
    lists = sort_lists(given, topics.interactions, report)
    replayed.erased = erased_users(user_states) | lists.erased
    dead = dead_letters(dead_log)
    report.dead_letters = sum(topic == topics.interactions for topic, _, _ in dead)
    check_events(log, cut, replayed, lists, dead, report)
    progress("comparing states and sessions")
    models = published(model_log)
    report.model_versions = len(models.by_version)
    check_states(user_states, replayed, models, report)
    check_sessions(session_log, replayed, report)
    progress("comparing the lists")
    history = SignalHistory(signal_log, signal_rules)
    check = ListCheck(replayed, lists, models, history, ListRules(top_k, exclude_seen, asking_gap_s), report)
    check.check_events()
    check.check_requests(request_log, cut, dead)
    progress("comparing the items' signals")
    SignalCheck(replayed, transition_log, item_states, signal_log, transition_cut, signal_rules, report).check()
    if data_dirs:
        progress("comparing the stores")
        check_stores(data_dirs, {"users": user_states, "items": item_states}, report)
    return report
