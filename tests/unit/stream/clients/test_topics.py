"""The table of topics, and what is said of those that differ from it."""

from dataclasses import replace

from models.records import BROKER_MAX_BYTES, MAX_EVENT_BYTES, MAX_RECORD_BYTES, Topics
from models.weights import CHUNK_BYTES
from stream.clients.topics import differences, topic_table
from stream.doctor.limits import NEEDED_BYTES
from trainer.settings import TrainerSettings


def test_every_topic_of_the_contract_is_in_the_table() -> None:
    topics = Topics("p-")
    of_the_contract = {
        getattr(topics, name)
        for name, member in vars(Topics).items()
        if isinstance(member, property) and name != "app_id"
    }
    assert {spec.name for spec in topic_table(topics)} == of_the_contract


def test_what_is_keyed_by_user_has_equal_partitions_and_models_has_one() -> None:
    counts = {spec.name: spec.partitions for spec in topic_table(Topics(), partitions=5)}
    assert counts.pop("models") == 1
    assert set(counts.values()) == {5}


def test_logs_of_latest_values_are_compacted_and_streams_are_not() -> None:
    policies = {spec.name: spec.configs["cleanup.policy"] for spec in topic_table(Topics())}
    assert {name for name, policy in policies.items() if policy == "delete"} == {
        "interactions",
        "requests",
        "transitions",
        "dead-letters",
    }


def test_a_write_counts_with_two_copies_once_there_are_three() -> None:
    for replication, copies in ((1, "1"), (2, "1"), (3, "2")):
        table = topic_table(Topics(), replication=replication)
        assert {spec.configs["min.insync.replicas"] for spec in table} == {copies}


def test_oversized_events_get_as_far_as_the_worker() -> None:
    (interactions,) = (spec for spec in topic_table(Topics()) if spec.name == "interactions")
    assert int(interactions.configs["max.message.bytes"]) > 2 * BROKER_MAX_BYTES > MAX_EVENT_BYTES


def test_nothing_that_is_written_needs_more_than_a_brokers_default() -> None:
    """A topic's own limit may be higher; where we write it is not lower, and never needed."""
    own = {spec.name: spec.configs.get("max.message.bytes") for spec in topic_table(Topics())}
    assert {name for name, limit in own.items() if limit is not None} == {"interactions", "models"}
    assert int(own["models"] or 0) >= NEEDED_BYTES > CHUNK_BYTES
    assert BROKER_MAX_BYTES >= NEEDED_BYTES > MAX_RECORD_BYTES


def test_trainers_have_read_a_session_long_before_compaction_may_keep_a_shorter_record_of_it() -> None:
    (sessions,) = (spec for spec in topic_table(Topics()) if spec.name == "sessions")
    lag_s = int(sessions.configs["min.compaction.lag.ms"]) / 1000
    assert lag_s >= 100 * TrainerSettings.model_fields["train_poll_s"].default


def test_events_are_placed_by_the_clock_of_the_broker() -> None:
    (interactions,) = (spec for spec in topic_table(Topics()) if spec.name == "interactions")
    assert interactions.configs["message.timestamp.type"] == "LogAppendTime"


def test_each_difference_names_a_remedy() -> None:
    specs = topic_table(Topics(), partitions=8, replication=2)
    found = {spec.name: spec for spec in specs if spec.name != "items"}
    found["users"] = replace(found["users"], partitions=4)
    found["models"] = replace(found["models"], replication=1)
    found["sessions"] = replace(found["sessions"], configs={"cleanup.policy": "delete"})
    assert not differences(specs, {spec.name: spec for spec in specs})
    said = [str(difference) for difference in differences(specs, found)]
    assert "items: does not exist (run `hrnn topics create`)" in said
    assert any(line.startswith("users: has 4 partitions instead of 8") for line in said)
    assert any(line.startswith("models: has 1 replicas instead of 2") for line in said)
    assert "sessions: has cleanup.policy=delete instead of compact (run `hrnn topics create --alter`)" in said


def test_more_copies_than_asked_for_are_no_trouble() -> None:
    specs = topic_table(Topics(), replication=1)
    assert not differences(specs, {spec.name: replace(spec, replication=3) for spec in specs})
