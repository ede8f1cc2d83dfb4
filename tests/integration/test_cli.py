"""The commands against a real broker: what they do, say and end with."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from models.catalogue import Catalogue
from models.encoders.hrnn import HRNNConfig
from models.model import Model
from models.records import BROKER_MAX_BYTES, RankedItem, Recommendation, Source, Topics, encode
from models.weights import POINTER_KEY, Pointer, chunk_key, describe, manifest_key, pack, split
from stream.clients.connection import administration
from stream.clients.reading import read_to_end
from stream.clients.topics import create, differences, existing, topic_table
from stream.commands.environment import read_settings

Hrnn = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hrnn(kafka: str, topic_prefix: str) -> Hrnn:
    """Runs the command with this test's prefix."""
    environ = {**os.environ, "HRNN_KAFKA_BOOTSTRAP": kafka, "HRNN_TOPIC_PREFIX": topic_prefix, "HRNN_PARTITIONS": "4"}

    def run(*arguments: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "stream.commands.main", *arguments],
            input=stdin,
            env=environ | more,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def publish(bootstrap: str, topics: Topics, version: str, *, torn: bool = False) -> None:
    torch.manual_seed(1)
    catalogue = Catalogue(["a", "b"], ["", "rating"], 0.0, 1.0)
    config = HRNNConfig(n_items=2, n_event_types=2, hidden_dimension=4)
    blob = pack(Model(config), catalogue)
    manifest = describe(
        blob,
        version=version,
        config=config,
        catalogue=catalogue,
        metrics={"mrr": 0.5},
        trained_at=time.time(),
        data_watermark=1.0,
        data_offsets={"0": 3},
    )
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    for number, chunk in enumerate(split(blob)):
        producer.send(topics.models, key=chunk_key(version, number), value=chunk[:-1] if torn else chunk)
    producer.send(topics.models, key=manifest_key(version), value=encode(manifest))
    producer.send(topics.models, key=POINTER_KEY, value=encode(Pointer(version, time.time())))
    producer.flush()
    producer.close()


def test_topics_are_created_once_and_checked_ever_after(hrnn: Hrnn, topic_prefix: str) -> None:
    first = hrnn("topics", "create")
    assert (first.returncode, first.stderr.count("created ")) == (0, len(topic_table(Topics()))), first.stderr
    again = hrnn("topics", "create")
    assert again.returncode == 0
    assert "0 created" in again.stderr
    other = hrnn("topics", "create", "--partitions", "2")
    assert other.returncode == 1
    assert f"{topic_prefix}interactions: has 4 partitions instead of 2" in other.stderr
    listed = hrnn("topics", "list", "--json", HRNN_PARTITIONS="4")
    assert listed.returncode == 0
    partitions = {topic["name"]: topic["partitions"] for topic in json.loads(listed.stdout)}
    assert partitions[f"{topic_prefix}models"] == 1
    assert partitions[f"{topic_prefix}interactions"] == 4


def test_a_wrong_config_is_reported_and_altered(kafka: str, topic_prefix: str) -> None:
    specs = topic_table(Topics(topic_prefix), partitions=2)
    with administration(kafka) as admin:
        name = specs[0].name
        wrong = {"num_partitions": 2, "replication_factor": 1, "configs": {"retention.ms": "1000"}}
        admin.create_topics({name: wrong})
        create(admin, specs)
        said = [str(difference) for difference in differences(specs, existing(admin, specs))]
        assert f"{name}: has message.timestamp.type=CreateTime instead of LogAppendTime" in "\n".join(said)
        create(admin, specs, alter=True)
        deadline = time.monotonic() + 10
        while differences(specs, existing(admin, specs)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert differences(specs, existing(admin, specs)) == []


def test_partitions_are_those_that_there_are_unless_asked_for(kafka: str, topic_prefix: str) -> None:
    from stream.clients.topics import wanted

    settings = read_settings(kafka_bootstrap=kafka, topic_prefix=topic_prefix)
    with administration(kafka) as admin:
        create(admin, topic_table(settings.topics, partitions=3))
        assert {spec.partitions for spec in wanted(admin, settings)} == {3, 1}


def test_a_file_arrives_keyed_by_user_in_order(hrnn: Hrnn, kafka: str, topic_prefix: str, tmp_path: Path) -> None:
    hrnn("topics", "create")
    path = tmp_path / "events.csv"
    path.write_text("USER_ID,ITEM_ID,TIMESTAMP\n" + "".join(f"u{n % 7},i{n},{n}\n" for n in range(500)))
    answer = hrnn("produce", str(path))
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr.strip() == f"500 events sent to {topic_prefix}interactions at {kafka}"
    by_user: dict[str, list[int]] = {}
    for record in read_to_end(kafka, f"{topic_prefix}interactions"):
        event = json.loads(record.value)
        assert record.key.decode() == event["user_id"]
        by_user.setdefault(event["user_id"], []).append(event["timestamp"])
    assert sum(map(len, by_user.values())) == 500
    assert all(times == sorted(times) for times in by_user.values())


def test_a_wrong_line_stops_a_file_before_anything_is_sent(
    hrnn: Hrnn, kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    hrnn("topics", "create")
    path = tmp_path / "events.csv"
    path.write_text("USER_ID,ITEM_ID,TIMESTAMP\nu,i,1\nu,i,soon\n")
    answer = hrnn("produce", str(path))
    assert answer.returncode == 2
    assert f"error: {path}, line 3: TIMESTAMP is 'soon'" in answer.stderr
    assert list(read_to_end(kafka, f"{topic_prefix}interactions")) == []


def test_items_and_users_are_sent_before_the_events_by_an_inferred_schema(
    hrnn: Hrnn, kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    assert hrnn("topics", "create").returncode == 0
    files = {
        "items": "ITEM_ID,TITLE,GENRES,AVAILABLE\ni,One,War|Drama,true\nj,Two,War,false\n",
        "users": "USER_ID,AGE\nu,30\n",
        "events": "USER_ID,ITEM_ID,TIMESTAMP\nu,i,1\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    items, users, events = (str(tmp_path / name) for name in files)
    answer = hrnn("produce", events, "--items", items, "--users", users)
    assert answer.returncode == 0, answer.stderr
    sent = [line.split(" at ")[0] for line in answer.stderr.splitlines() if " sent to " in line]
    topics = Topics(topic_prefix)
    assert sent == [
        f"2 items sent to {topics.items}",
        f"1 users sent to {topics.users}",
        f"1 events sent to {topics.interactions}",
    ]
    held = {record.key: json.loads(record.value) for record in read_to_end(kafka, topics.items)}
    assert held[b"j"] == {"item_id": "j", "title": "Two", "available": False, "attributes": {"GENRES": "War"}}
    schema = tmp_path / "schema.json"
    schema.write_text(answer.stdout[: answer.stdout.index("}\n{") + 2])
    again = hrnn("produce", "--items", "-", stdin=files["items"], HRNN_ITEMS_SCHEMA=str(schema))
    assert (again.returncode, again.stdout) == (0, ""), again.stderr


def test_standard_input_is_sent_up_to_the_wrong_line(hrnn: Hrnn, kafka: str, topic_prefix: str) -> None:
    hrnn("topics", "create")
    answer = hrnn("produce", "-", stdin='{"user_id":"u","item_id":"i","timestamp":1}\n{"user_id":"u"}\n')
    assert answer.returncode == 2
    assert "standard input, line 2: missing_field" in answer.stderr
    assert "1 events before it were sent" in answer.stderr
    assert len(list(read_to_end(kafka, f"{topic_prefix}interactions"))) == 1


def test_without_topics_the_remedy_is_named(hrnn: Hrnn) -> None:
    for arguments in (("produce", "-"), ("watch",), ("models", "list"), ("worker",), ("trainer", "--once")):
        answer = hrnn(*arguments, stdin='{"user_id":"u","item_id":"i","timestamp":1}\n', HRNN_METRICS_PORT="0")
        assert answer.returncode == 1, arguments
        assert "hrnn topics create" in answer.stderr
        assert "Traceback" not in answer.stderr


def test_a_rate_is_kept(hrnn: Hrnn) -> None:
    hrnn("topics", "create")
    lines = "".join(f'{{"user_id":"u","item_id":"i","timestamp":{n}}}\n' for n in range(60))
    began = time.monotonic()
    assert hrnn("produce", "-", "--rate", "20", stdin=lines).returncode == 0
    assert time.monotonic() - began > 2.8


def test_watch_shows_one_users_lists(hrnn: Hrnn, kafka: str, topic_prefix: str) -> None:
    hrnn("topics", "create")
    producer = KafkaProducer(bootstrap_servers=kafka)
    for number, user in enumerate(["u", "v", "u"]):
        recommendation = Recommendation(
            f"r{number}", user, [RankedItem("i", 1.0)], "v1", "s", 0.0, 0.0, Source("interactions", 0, number)
        )
        producer.send(f"{topic_prefix}recommendations", key=user.encode(), value=encode(recommendation))
    producer.send(f"{topic_prefix}recommendations", key=b"v", value=b"no list")
    producer.flush()
    producer.close()
    answer = hrnn("watch", "--user", "u", "--from-beginning", "--limit", "2", "--json")
    assert answer.returncode == 0
    assert [json.loads(line)["rec_id"] for line in answer.stdout.splitlines()] == ["r0", "r2"]


def test_models_are_listed_verified_and_rolled_back(hrnn: Hrnn, kafka: str, topic_prefix: str) -> None:
    hrnn("topics", "create")
    topics = Topics(topic_prefix)
    publish(kafka, topics, "v1")
    publish(kafka, topics, "v2")
    publish(kafka, topics, "v3", torn=True)
    listed = json.loads(hrnn("models", "list", "--json").stdout)
    assert [(model["version"], model["serving"]) for model in listed] == [("v3", True), ("v2", False), ("v1", False)]
    assert json.loads(hrnn("models", "show", "v1").stdout)["metrics"] == {"mrr": 0.5}
    torn = hrnn("models", "verify")
    assert torn.returncode == 1
    assert "v3 does not verify" in torn.stderr
    back = hrnn("models", "rollback")
    assert back.returncode == 0
    assert "rolled back to v2 from v3" in back.stderr
    assert hrnn("models", "verify").returncode == 0


def test_the_doctor_finds_each_thing_that_is_wrong(hrnn: Hrnn, kafka: str, topic_prefix: str) -> None:
    def subjects(*arguments: str) -> tuple[int, dict[str, bool]]:
        answer = hrnn("doctor", "--json", *arguments)
        findings = json.loads(answer.stdout)
        assert all(finding["well"] or finding["remedy"] for finding in findings)
        return answer.returncode, {finding["subject"]: finding["well"] for finding in findings}

    status, found = subjects("--bootstrap", "127.0.0.1:1")
    assert (status, found["broker"]) == (1, False)
    status, found = subjects()
    assert (status, found["broker"], found["topics"]) == (1, True, False)
    hrnn("topics", "create")
    status, found = subjects()
    assert (status, found["topics"], found["model"]) == (1, True, False)
    for most_bytes, fits in ((100_000, False), (BROKER_MAX_BYTES, True)):
        with administration(kafka) as admin:
            limit = {"max.message.bytes": str(most_bytes)}
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, f"{topic_prefix}sessions", limit)])
        assert subjects()[1]["limits"] == fits
    publish(kafka, Topics(topic_prefix), "v1", torn=True)
    assert subjects()[0] == 1
    publish(kafka, Topics(topic_prefix), "v2")
    names = ("versions", "broker", "topics", "codecs", "group", "clock", "limits", "origin key", "model")
    well = dict.fromkeys(names, True)
    assert subjects() == (0, well)


def test_dead_letters_are_listed_by_reason(hrnn: Hrnn, kafka: str, topic_prefix: str) -> None:
    hrnn("topics", "create")
    producer = KafkaProducer(bootstrap_servers=kafka)
    for number, reason in enumerate((b"late", b"not_json", b"late")):
        headers = [("reason", reason), ("detail", b"why"), ("source-offset", b"%d" % number)]
        producer.send(Topics(topic_prefix).dead_letters, b"value %d" % number, headers=headers)
    producer.flush()
    producer.close()
    listed = hrnn("dead-letters")
    assert listed.returncode == 0, listed.stderr
    assert len(listed.stdout.splitlines()) == 3
    assert "3 dead letters: late 2, not_json 1" in listed.stderr
    late = hrnn("dead-letters", "--reason", "late", "--json")
    assert {json.loads(line)["value"] for line in late.stdout.splitlines()} == {"value 0", "value 2"}
    followed = hrnn("dead-letters", "--follow", "--limit", "2")
    assert len(followed.stdout.splitlines()) == 2
