"""A worker that kills itself (kill -9) the CRASH_AT-th time that it comes to the point CRASH_POINT.

Points are functions of the product, wrapped by name: one that is renamed makes this worker fail at its start.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import stream.faust_patches.changelog
import stream.stages.users
from stream.commands.main import main
from stream.faust_patches.changelog import Changelog
from stream.faust_patches.delivery import BatchConsumer
from stream.feeds.signal_topic import SignalTopic


class Point(NamedTuple):
    """Where to die: before or after calls of `owner.name` whose arguments `when` is true for."""

    owner: Any
    name: str
    before: bool
    when: Callable[[tuple[Any, ...]], bool] = lambda arguments: True


def _topic_ends(end: str) -> Callable[[tuple[Any, ...]], bool]:
    """Tell whether `append(producer, topic, …)` is for a topic of that name, under any prefix."""
    return lambda arguments: str(arguments[1]).endswith(end)


def _of_table(name: str) -> Callable[[tuple[Any, ...]], bool]:
    """Tell whether a method of `Changelog` is called on that table's."""
    return lambda arguments: arguments[0].topic.endswith(f"-{name}-changelog")


def _has_records(arguments: tuple[Any, ...]) -> bool:
    values: Iterable[Any] = arguments[-1]
    return _of_table("users")(arguments) and bool(values)


POINTS: dict[str, Point] = {
    "before-outputs-sent": Point(stream.stages.users, "append", True, _topic_ends("recommendations")),
    "after-outputs-sent": Point(stream.stages.users, "append", False, _topic_ends("recommendations")),
    "after-sessions-sent": Point(stream.stages.users, "append", False, _topic_ends("sessions")),
    "before-transitions-sent": Point(stream.stages.users, "append", True, _topic_ends("transitions")),
    "after-transitions-sent": Point(stream.stages.users, "append", False, _topic_ends("transitions")),
    "before-put": Point(Changelog, "write", True, _of_table("users")),
    "after-put-before-changelog": Point(stream.faust_patches.changelog, "append", True, _topic_ends("users-changelog")),
    "after-changelog-sent": Point(Changelog, "write", False, _of_table("users")),
    "after-changelog-ack": Point(Changelog, "confirm", False, _has_records),
    "after-batch-before-commit": Point(BatchConsumer, "finished", False),
    "before-commit": Point(BatchConsumer, "_commit", True),
    "after-commit": Point(BatchConsumer, "_commit", False),
    "items-after-put-before-changelog": Point(
        stream.faust_patches.changelog, "append", True, _topic_ends("items-changelog")
    ),
    "items-before-signals-sent": Point(SignalTopic, "append", True),
    "items-before-signals-ack": Point(SignalTopic, "confirm", True),
    "restore-midway": Point(Changelog, "merge", False),
}


def install(point: Point, at: int) -> None:
    """Wrap the function of a point."""
    original = getattr(point.owner, point.name)
    reached = 0

    def count(arguments: tuple[Any, ...]) -> None:
        nonlocal reached
        reached += point.when(arguments)
        if reached >= at:
            os.kill(os.getpid(), signal.SIGKILL)

    @functools.wraps(original)
    async def awaited(*arguments: Any, **more: Any) -> Any:
        if point.before:
            count(arguments)
        result = await original(*arguments, **more)
        if not point.before:
            count(arguments)
        return result

    @functools.wraps(original)
    def called(*arguments: Any, **more: Any) -> Any:
        if point.before:
            count(arguments)
        result = original(*arguments, **more)
        if not point.before:
            count(arguments)
        return result

    setattr(point.owner, point.name, awaited if inspect.iscoroutinefunction(original) else called)


if __name__ == "__main__":
    install(POINTS[os.environ["CRASH_POINT"]], int(os.environ["CRASH_AT"]))
    sys.argv[1:] = ["worker"]
    main()
