"""Lists held against the replay: those of events, and the answers to requests."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from models.recommending.mask import MaskRule, not_had
from models.recommending.recipes import NEXT, RECIPES, Recipe, recipe_of
from models.records import POPULARITY, BadRecord, Request, decode_asker, rec_id, session_key
from models.users.state import HistoryEvent
from models.weights import ServingModel
from stream.audit.availability import ItemHistory
from stream.audit.events import Replayed
from stream.audit.lists import Given, Lists, Place, why_misshapen, why_not_popular
from stream.audit.models import PublishedModels
from stream.audit.reading import Cut, Log
from stream.audit.report import AuditReport
from stream.audit.scores import Asked, Job, asked_by, compare, compare_alone, compare_by_recipe, seen
from stream.audit.snapshots import SignalHistory
from stream.stages.intake import came_first, home_of, request_of

SNAPSHOTS = 300  # of one model, at most, drawn by their ids: each is a table of all items, some 10 ms of 10,000
LISTS = 3000  # of one model, at most, as many of each snapshot: one at a time, some ms each
IN_FLIGHT_S = 60.0  # a batch takes a second: what was older than this when an answer was made was surely in it


@dataclass(frozen=True)
class ListRules:
    """What the workers' settings say of lists."""

    top_k: int = 20
    exclude_seen: bool = True
    asking_gap_s: float = 0.0


class ListCheck:
    """Holds lists against what the log makes of their users."""

    def __init__(
        self,
        replayed: Replayed,
        lists: Lists,
        models: PublishedModels,
        signal_history: SignalHistory,
        item_history: ItemHistory,
        rules: ListRules,
        report: AuditReport,
    ) -> None:
        self._replayed = replayed
        self._lists = lists
        self._models = models
        self._signal_history = signal_history
        self._item_history = item_history
        self._rules = rules
        self._report = report
        histories = [replay.histories.values() for replay in replayed.by_partition.values()]
        items = {event.item_id for of_users in histories for history in of_users for event in history}
        self._occurred = None if replayed.trimmed or replayed.erased else items

    def check_events(self) -> None:
        """Check every list of an event, each copy of it."""
        jobs: list[Job] = []
        for copies in self._lists.of_events.values():
            for given in copies:
                if not self._replayed.known(given.user):
                    self._report.skip("lists", "not all events of their users are in the log, or some were erased")
                elif job := self._job_of_event(given):
                    jobs.append(job)
        self._check([[job] for job in jobs])

    def check_requests(self, log: Log, cut: Cut, dead: Mapping[Place, str]) -> None:
        """See that each judged request has an answer that it can have had, or a dead letter."""
        cases: list[list[Job]] = []
        for partition, records in log.records.items():
            epoch = log.epochs.get(partition, 0)
            for record in records:
                place = record.topic, record.partition, record.offset
                try:
                    request = request_of(record)
                except BadRecord as error:
                    if cut.before(record) and dead.get(place) != error.reason:
                        self._lose(f"request {record.partition}/{record.offset} ({error.reason}) has no dead letter")
                    asks = decode_asker(record.value) is not None
                    if cut.before(record) and asks and self._lists.refusals.get(rec_id(*place, epoch)) != str(error):
                        self._lose(f"request {record.partition}/{record.offset} ({error.reason}) has no answer")
                    continue
                origin = self._replayed.origins.of(record)
                if origin is None and home_of(request.user_id, self._replayed.kept_by) != record.partition:
                    if cut.before(record) and rec_id(*place, epoch) not in self._lists.of_requests:
                        self._lose(f"request {record.partition}/{record.offset} has no list")
                    continue
                source, asked_at = origin or came_first(record, epoch)
                name = rec_id(source.topic, source.partition, source.offset, source.epoch)
                copies = self._lists.of_requests.get(name, [])
                if not copies and cut.before(record):
                    if (record.partition, request.user_id) in self._lists.compacted | self._replayed.erased:
                        self._report.skip("answers", "compaction or an erasure may have taken some")
                    else:
                        self._lose(f"request {record.partition}/{record.offset} has no list")
                self._report.requests += bool(copies)
                for given in copies:
                    cases += self._jobs_of_request(given, request, asked_at)
        self._check(cases)

    def _lose(self, what: str) -> None:
        self._report.lost += 1
        self._report.note(what)

    def _wrong(self, given: Given, why: str) -> None:
        self._report.wrong_lists += 1
        _, partition, offset = given.source
        what = "list" if given.request_id is None else "answer"
        self._report.note(f"{what} of {partition}/{offset} for user {given.user_id} under {given.version}: {why}")

    # -- what is to be made again -----------------------------------------------------------------------------------

    def _job_of_event(self, given: Given) -> Job | None:
        """Find the event that a list is of, and check all but the items; None if there is nothing more to check."""
        _, partition, offset = given.source
        landed = self._replayed.landed.get((partition, offset), offset)
        replay = self._replayed.by_partition[given.partition]
        history = replay.histories.get(given.user_id, [])
        number = _index_at(landed, history)
        if number < 0:
            self._wrong(given, "its event was never applied")
            return None
        if given.recipe != NEXT:
            self._wrong(given, f"it is by the recipe {given.recipe}, which no event asks for")
            return None
        start, part = replay.pieces[given.user_id][number]
        event = self._replayed.outcomes[given.partition, landed][0].event
        if (given.session_id, given.event_time) != (session_key(given.user_id, start, part), event.timestamp):
            self._wrong(given, f"it says session {given.session_id!r} and time {given.event_time}")
            return None
        return Job(given, number + 1, self._rules.asking_gap_s, self._rules.top_k)

    def _jobs_of_request(self, given: Given, request: Request, asked_at: float) -> Iterator[list[Job]]:
        """List the states that an answer can have been made of: mostly one, more if events came at the same time."""
        at = asked_at if request.at is None else request.at
        if why := self._why_unasked(given, request, at):
            self._wrong(given, why)
            return
        if not self._replayed.known(given.user):
            self._report.skip("answers", "not all events of their users are in the log, or some were erased")
            return
        history = self._history_of(given)
        sourced = [self._replayed.outcomes[given.partition, event.offset][0] for event in history]
        least = sum(one.now < given.generated_at - IN_FLIGHT_S for one in sourced)
        most = max(least, sum(one.now < given.generated_at + IN_FLIGHT_S for one in sourced))
        gaps = [at - history[events - 1].timestamp if events else at for events in range(least, most + 1)]
        places = request.k or self._rules.top_k
        yield [Job(given, events, gap_s, places) for events, gap_s in enumerate(gaps, least)]

    def _why_unasked(self, given: Given, request: Request, at: float) -> str:
        """Say how an answer is not what its request asks for, "" if it is."""
        if (given.user_id, given.request_id) != (request.user_id, request.request_id):
            return f"it is for request {given.request_id}, not {request.request_id}"
        if given.event_time != at:
            return f"it is for the time {given.event_time}, not {at}"
        recipe = recipe_of(request)
        if given.recipe != recipe.name:
            return f"it is by the recipe {given.recipe}, not {recipe.name}"
        half_lives_s = recipe.half_lives_for(self._signal_history.rules, [request])
        if half_lives_s != ([] if given.half_life_s is None else [given.half_life_s]):
            return f"it is of the half-life {given.half_life_s}, not {half_lives_s}"
        return ""

    # -- making it again --------------------------------------------------------------------------------------------

    def _check(self, cases: Sequence[Sequence[Job]]) -> None:
        """Check lists; each is right if it is what one of its jobs comes to."""
        by_maker: dict[tuple[str, str], list[Sequence[Job]]] = {}
        for jobs in cases:
            given = jobs[0].given
            if why := self._why_unavailable(given):
                self._wrong(given, why)
            else:
                by_maker.setdefault((given.recipe, given.version), []).append(jobs)
        for (recipe, version), of_version in by_maker.items():
            model = self._models.by_version.get(version)
            if RECIPES[recipe].scores is not None:
                self._check_by_recipe(RECIPES[recipe], of_version)
            elif version == POPULARITY:
                self._check_popular(of_version)
            elif model is None:
                for jobs in of_version:
                    if self._models.was_withdrawn(version):
                        self._report.skip(
                            "lists", f"model {version}, which made some, is not on the models topic any more"
                        )
                    else:
                        self._wrong(jobs[0].given, "the models topic does not have its model")
            elif model.model.config.term_set.n_mixed:
                self._check_with_signals(model, of_version)
            else:
                self._check_without_signals(model, of_version)

    def _check_popular(self, cases: Sequence[Sequence[Job]]) -> None:
        for jobs in cases:
            given = jobs[0].given
            self._report.popularity_lists += 1
            if why := why_not_popular(given, self._excluded(jobs), jobs[0].places, self._occurred):
                self._wrong(given, why)

    def _excluded(self, jobs: Sequence[Job]) -> set[str]:
        """Name what none of the jobs' lists may name."""
        given = jobs[0].given
        if not_had not in self._rules_of(given):
            return set()
        history = self._history_of(given)
        return set.intersection(*(seen(history[: job.events]) for job in jobs))

    def _check_without_signals(self, model: ServingModel, cases: Sequence[Sequence[Job]]) -> None:
        by_items: dict[tuple[int, ...], list[Sequence[Job]]] = {}
        for jobs in cases:
            given = jobs[0].given
            if given.signals is not None and (why := self._why_unnamed(given)):
                self._report.skip("lists", why)
            else:
                by_items.setdefault(tuple(self._items_of(given)), []).append(jobs)
        for some in by_items.values():
            self._check_with_rules(model, some, self._rules_of(some[0][0].given))

    def _check_with_rules(self, model: ServingModel, cases: Sequence[Sequence[Job]], rules: Sequence[MaskRule]) -> None:
        found: dict[int, list[str]] = {}
        for batch in asked_by(model, self._replayed, [job for jobs in cases for job in jobs]):
            with_events = [one for one in batch if one.history]
            for job, why in compare(model, with_events, rules) if with_events else ():
                found.setdefault(id(job.given), []).append(why)
            for one in batch:
                if not one.history:
                    why = compare_alone(model, None, one, rules)
                    found.setdefault(id(one.job.given), []).append(why)
        self._settle(cases, found)

    def _check_with_signals(self, model: ServingModel, cases: Sequence[Sequence[Job]]) -> None:
        drawn = self._drawn(cases)
        asked: dict[str, list[Asked]] = {}
        wanted = [job for of_snapshot in drawn.values() for jobs in of_snapshot for job in jobs]
        for batch in asked_by(model, self._replayed, wanted):
            for one in batch:
                asked.setdefault(one.job.given.signals or "", []).append(one)
        found: dict[int, list[str]] = {}
        names = list(drawn)
        for index, moment in self._signal_history.moments(model, [self._lists.snapshots[name][1] for name in names]):
            for one in asked[names[index]]:
                why = compare_alone(model, moment, one, self._rules_of(one.job.given))
                found.setdefault(id(one.job.given), []).append(why)
        self._settle_with_signals(drawn, found)

    def _check_by_recipe(self, recipe: Recipe, cases: Sequence[Sequence[Job]]) -> None:
        drawn = self._drawn(cases)
        found: dict[int, list[str]] = {}
        names = list(drawn)
        for index, reading in self._signal_history.readings([self._lists.snapshots[name][1] for name in names]):
            for job in chain.from_iterable(drawn[names[index]]):
                history = self._history_of(job.given)[: job.events]
                why = compare_by_recipe(recipe, reading, job, history, self._rules_of(job.given))
                found.setdefault(id(job.given), []).append(why)
        self._settle_with_signals(drawn, found)

    def _drawn(self, cases: Sequence[Sequence[Job]]) -> dict[str, list[Sequence[Job]]]:
        """Draw the lists to make again, by snapshot, after what can be seen without it."""
        by_snapshot: dict[str, list[Sequence[Job]]] = {}
        for jobs in cases:
            given = jobs[0].given
            self._report.lists_with_signals += 1
            if why := why_misshapen(given, self._excluded(jobs), jobs[0].places):
                self._wrong(given, why)
            elif why := self._why_unnamed(given):
                self._report.skip("lists with signals", why)
            else:
                by_snapshot.setdefault(given.signals or "", []).append(jobs)
        drawn = sorted(by_snapshot)[:SNAPSHOTS]
        each = max(1, LISTS // max(1, len(drawn)))
        return {name: by_snapshot[name][:each] for name in drawn}

    def _settle_with_signals(
        self, drawn: Mapping[str, Sequence[Sequence[Job]]], found: Mapping[int, Sequence[str]]
    ) -> None:
        self._report.lists_with_signals_checked += len(found)
        self._settle([jobs for of_snapshot in drawn.values() for jobs in of_snapshot], found)

    def _rules_of(self, given: Given) -> tuple[MaskRule, ...]:
        rules = RECIPES[given.recipe].rules_for(self._rules.exclude_seen)
        return (*rules, *self._item_history.at(self._items_of(given)).rules)

    def _items_of(self, given: Given) -> list[int]:
        """Return up to where a list knows the records of `items`; nothing if it does not say so."""
        named = self._lists.snapshots.get(given.signals or "")
        return named[1].items if named else []

    def _why_unavailable(self, given: Given) -> str:
        """Return how a list is not of the items that were available, "" if it is, or if that is not known."""
        offsets = self._items_of(given)
        if (given.signals and given.signals not in self._lists.snapshots) or self._item_history.why_gone(offsets):
            return ""
        if named := self._item_history.at(offsets).unavailable.intersection(given.items):
            return f"names what is not available: {sorted(named)}"
        return self._item_history.why_stale(given, offsets)

    def _history_of(self, given: Given) -> list[HistoryEvent]:
        return self._replayed.by_partition[given.partition].histories.get(given.user_id, [])

    def _why_unnamed(self, given: Given) -> str:
        """Say why the signals that a list was made with are not known; "" if they are."""
        if given.signals is None:
            return "lists of an earlier release do not name their signals"
        version, snapshot = self._lists.snapshots.get(given.signals, ("", None))
        if snapshot is None or version != given.version:
            return "the list that says what their signals were is gone"
        gone = self._signal_history.why_gone(snapshot) if snapshot.offsets else ""
        return gone or self._item_history.why_gone(snapshot.items)

    def _settle(self, cases: Iterable[Sequence[Job]], found: Mapping[int, Sequence[str]]) -> None:
        for jobs in cases:
            given = jobs[0].given
            whys = found[id(given)]
            if given.request_id is None:
                self._report.lists_checked += 1
            else:
                self._report.answers_checked += 1
            if all(whys):
                self._wrong(given, whys[-1] + (f" (nor is it right after other {len(whys) - 1})" if whys[1:] else ""))


def _index_at(offset: int, history: Sequence[HistoryEvent]) -> int:
    """Find which event of a history stands at an offset; -1 for none."""
    index = bisect_left(history, offset, key=lambda event: event.offset)
    return index if index < len(history) and history[index].offset == offset else -1
