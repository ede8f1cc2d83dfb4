"""A worker with one fault put in, to see that the checks find it: FAULT names one of FAULTS."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from typing import Any

import msgspec

import stream.stages.users
from models import weights
from models.recommending.recommender import Decision, Recommender
from models.records import RankedItem, Recommendation
from models.sessions import Placement, SessionRules
from models.users import earlier
from models.users.walk import SourcedEvent, Walk
from models.weights import Manifest, ServingModel
from stream.commands.main import main
from stream.faust_patches.delivery import Batch
from stream.stages.intake import Intake, take_in

FAULT_AT = 150  # events before the fault: late enough for the user to have a history


def drop() -> None:
    """Forget one event before anything is decided; the batch is finished all the same."""
    seen = 0

    def dropping(batch: Batch) -> Intake:
        nonlocal seen
        intake = take_in(batch)
        before, seen = seen, seen + len(intake.events)
        if before < FAULT_AT <= seen:
            del intake.events[FAULT_AT - before - 1]
        return intake

    stream.stages.users.take_in = dropping


def twice() -> None:
    """Apply one event a second time."""
    apply, seen = Walk.apply, 0

    def applying(self: Walk, rules: SessionRules, sourced: SourcedEvent) -> Placement:
        nonlocal seen
        seen += 1
        placement = apply(self, rules, sourced)
        return apply(self, rules, sourced) if seen == FAULT_AT else placement

    Walk.apply = applying  # type: ignore[method-assign]


def torn() -> None:
    """Swap a model in of which half of the tensors are still those of the model before."""
    unpack, before = weights.unpack, None

    def tearing(manifest: Manifest, blob: bytes) -> ServingModel:
        nonlocal before
        model = unpack(manifest, blob)
        if before is not None:
            new, old = model.model.state_dict(), before.model.state_dict()
            for name in list(new)[::2]:
                new[name].copy_(old[name])
            return model
        before = model
        return model

    weights.unpack = tearing


def silent() -> None:
    """Store an event's state and send no list for it."""
    _forget_one("recommendations")


def uncounted() -> None:
    """Do not tell the item stage of one thing that an event means to an item."""
    _forget_one("transitions")


def forgetful() -> None:
    """Keep nothing of what falls out of a user's history."""
    earlier.fold = lambda *_: {}


def _forget_one(what: str) -> None:
    """Leave one out of what decisions list."""
    decide, seen = Recommender.decide, 0

    def deciding(*arguments: Any, **more: Any) -> Decision:
        nonlocal seen
        decision = decide(*arguments, **more)
        listed = getattr(decision, what)
        before, seen = seen, seen + len(listed)
        if before < FAULT_AT <= seen:
            del listed[FAULT_AT - before - 1]
        return decision

    Recommender.decide = deciding  # type: ignore[method-assign]


def several() -> None:
    """Write no sessions of user-7, give lists after FAULT_AT other items' trends, answer with what a user has had."""
    decide, answer, seen = Recommender.decide, Recommender.answer, 0

    def deciding(self: Recommender, *given: Any, **more: Any) -> Decision:
        nonlocal seen
        *before, moment = given
        seen += len(before[3])
        if moment is not None and seen > FAULT_AT:
            decoder = moment.decoder._replace(matrix=moment.decoder.matrix.roll(1, 0))
            moment = dataclasses.replace(moment, decoder=decoder)
        decision = decide(self, *before, moment, **more)
        for key in [key for key, session in decision.sessions.items() if session.user_id == "user-7"]:
            del decision.sessions[key]
        return decision

    def answering(self: Recommender, *given: Any, **more: Any) -> list[Recommendation]:
        answers = answer(self, *given, **more)
        for number, (sourced, made) in enumerate(zip(given[3], answers, strict=True)):
            had = given[2][sourced.partition, sourced.request.user_id].history[-1].item_id
            answers[number] = msgspec.structs.replace(made, items=[RankedItem(had, 9.0), *made.items[1:]])
        return answers

    Recommender.decide = deciding  # type: ignore[assignment, method-assign]
    Recommender.answer = answering  # type: ignore[assignment, method-assign]


FAULTS: dict[str, Callable[[], None]] = {
    "drop": drop,
    "twice": twice,
    "torn": torn,
    "silent": silent,
    "uncounted": uncounted,
    "forgetful": forgetful,
    "several": several,
    "none": lambda: None,
}


if __name__ == "__main__":
    FAULTS[os.environ["FAULT"]]()
    sys.argv[1:] = ["worker"]
    main()
