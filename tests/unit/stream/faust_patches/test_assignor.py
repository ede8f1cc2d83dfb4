"""Which worker reads which partitions, by Faust's own protocol, without a broker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from faust.assignor.client_assignment import ClientAssignment, ClientMetadata

from stream.faust_patches.assignor import BatchAssignor

SOURCES = ("interactions", "requests", "transitions")
CHANGELOGS = {"users-changelog", "items-changelog"}
Held = dict[str, list[int]]


def assignor() -> Any:
    tables = SimpleNamespace(changelog_topics=CHANGELOGS, data={})
    conf = SimpleNamespace(canonical_url="http://here")
    app = SimpleNamespace(tables=tables, conf=conf, forwarding_topics=("interactions", "requests"))
    return BatchAssignor(app, replicas=0)  # type: ignore[arg-type]


def assign(counts: dict[str, int], held: dict[str, Held]) -> dict[str, Held]:
    """Give what each member gets, from what each had."""
    cluster = SimpleNamespace(partitions_for_topic=lambda topic: set(range(counts[topic])))
    members = {
        name: ConsumerProtocolMemberMetadata(
            2,
            [*SOURCES, *CHANGELOGS],
            ClientMetadata(
                assignment=ClientAssignment(actives=had, standbys={}), url="http://" + name, changelog_distribution={}
            ).dumps(),
        )
        for name, had in held.items()
    }
    made = assignor()._perform_assignment(cluster, members)
    return {name: {topic: sorted(parts) for topic, parts in given.assignment} for name, given in made.items()}


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_added_partitions_follow_the_partition_that_has_the_states(workers: int) -> None:
    counts = dict.fromkeys([*SOURCES, *CHANGELOGS], 4) | {"interactions": 7, "requests": 5}
    held: dict[str, Held] = {f"worker-{n}": {} for n in range(workers)}
    for _ in range(2):  # from nothing, and then from what each had
        held = assign(counts, held)
        for topic, count in counts.items():
            dealt = sorted(partition for given in held.values() for partition in given.get(topic, []))
            assert dealt == list(range(count))
        for given in held.values():
            own = set(given["users-changelog"])
            for topic in counts:
                assert {partition % 4 for partition in given[topic]} == own


def test_a_worker_that_joins_takes_over_half() -> None:
    counts = dict.fromkeys([*SOURCES, *CHANGELOGS], 4) | {"interactions": 8}
    alone = assign(counts, {"one": {}})
    both = assign(counts, {**alone, "two": {}})
    assert [len(given["interactions"]) for given in both.values()] == [4, 4]


def test_an_internal_topic_with_more_partitions_is_read_as_far_as_states_are_kept() -> None:
    counts = dict.fromkeys([*SOURCES, *CHANGELOGS], 4) | {"transitions": 6}
    assert assign(counts, {"one": {}})["one"]["transitions"] == [0, 1, 2, 3]
