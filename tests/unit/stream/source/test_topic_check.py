from __future__ import annotations

import pytest

from models.records import Topics
from stream.source.topic_check import TopicFacts, all_topics, complaints

TOPICS = Topics()


def facts(**counts: int) -> TopicFacts:
    partitions_of = dict.fromkeys(all_topics(TOPICS), 4) | {TOPICS.models: 1} | counts
    present = {name: count for name, count in partitions_of.items() if count}
    return TopicFacts("cluster", {}, present, present.get(TOPICS.user_states, 0))


def test_topics_of_one_number_of_partitions_are_right() -> None:
    assert list(complaints(facts(), TOPICS)) == []
    assert facts().added(TOPICS) == {}


def test_added_partitions_are_counted_and_no_reason_not_to_start() -> None:
    assert facts(interactions=6, requests=5).added(TOPICS) == {"interactions": 2, "requests": 1}
    assert list(complaints(facts(interactions=6, requests=5, sessions=8), TOPICS)) == []


@pytest.mark.parametrize(
    ("counts", "complaint"),
    [
        ({"sessions": 0}, "topics sessions are missing"),
        ({TOPICS.user_states: 0}, "topics hrnn-users-changelog are missing"),
        ({"interactions": 3}, r"other topics have fewer: \{'interactions': 3\}"),
        ({TOPICS.user_states: 6}, "hrnn-users-changelog has 6 partitions"),
        ({"models": 2}, "models has 2 partitions"),
    ],
)
def test_what_keeps_a_worker_from_starting_is_named(counts: dict[str, int], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        raise AssertionError(next(iter(complaints(facts(**counts), TOPICS))))
