"""The trainer through what happens to it: killed while it publishes, brokers that go, topics that are made again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient

from models.records import Topics, encode
from stream.clients.connection import administration
from stream.clients.topics import create, topic_table
from tests.integration.test_trainer import SMALL, metric, running, send, send_circles, wait_for
from tests.system.faulty_trainer import STEPS
from tests.unit.trainer.made import quick, session
from trainer.service.publishing import ModelTopic
from trainer.service.service import TrainerService
from trainer.settings import TrainerSettings

LARGE = 256  # dimensions of a state: a model of several chunks


@pytest.fixture
def settings(kafka: str, topic_prefix: str) -> TrainerSettings:
    with administration(kafka) as admin:
        create(admin, topic_table(Topics(topic_prefix), partitions=3))
    return TrainerSettings(kafka_bootstrap=kafka, topic_prefix=topic_prefix, **SMALL)


def killed(settings: TrainerSettings, step: str) -> None:
    """Let a trainer train once, and see it killed at a step of publishing."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "CRASH_AT": step,
        "HRNN_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "HRNN_TOPIC_PREFIX": settings.topic_prefix,
        "HRNN_HIDDEN_DIMENSION": str(LARGE),
        "HRNN_EPOCHS": "1",
        "HRNN_KEEP_VERSIONS": "1",
        "HRNN_TRAINING_MODE": "full",
        "HRNN_GATE_TOLERANCE": "1",
    }
    process = subprocess.run(
        [sys.executable, "-m", "tests.system.faulty_trainer", "--once"],
        env=environment,
        capture_output=True,
        timeout=90,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()


def test_killed_at_any_step_of_publishing_readers_have_the_old_model_or_the_new_one(settings: TrainerSettings) -> None:
    send_circles(settings, range(20))
    large = settings.model_copy(
        update={"fitting": quick(epochs=1, hidden_dimension=LARGE), "keep_versions": 1, "gate_tolerance": 1.0}
    )
    service = TrainerService(large)
    before = service.run_once().version
    for step in STEPS:
        killed(settings, step)
        fresh = ModelTopic(settings.topics.models, settings.client_options())
        served = fresh.serving().version
        assert (served == before) == (step != "removal"), step
        model = fresh.read_model(served)
        assert model.manifest.chunks > 1
        whole = {listed.manifest.version for listed in fresh.versions()}
        assert served in whole
        for version in whole:
            fresh.read_model(version)
        fresh.close()
    last = service.run_once()
    assert last.result == "published"
    fresh = ModelTopic(settings.topics.models, settings.client_options())
    assert [listed.manifest.version for listed in fresh.versions()] == [last.version]
    assert fresh._chunks.keys() == {last.version}, "what the killed ones left is removed"
    fresh.close()
    service.close()


def test_one_absurd_value_and_odd_records_do_not_keep_it_from_publishing(settings: TrainerSettings) -> None:
    send_circles(settings, range(20))
    key, absurd = session("odd", [("i00", 5.0, "click", 1e200), ("i01", 6.0, "x" * 60_000, -1.7e308)])
    no_events = encode(absurd).replace(b'"i00"', b'""')
    send(settings, settings.topics.sessions, [(key, encode(absurd)), (b"bad|1", no_events), (b"\xff", b"{}")])
    service = TrainerService(settings)
    assert service.run_once().result == "published"
    assert metric(service, "rec_bad_session_records") == 2
    service.close()


def test_topics_that_are_made_again_are_read_again(settings: TrainerSettings, tmp_path: Path) -> None:
    settings = settings.model_copy(update={"trainer_dir": tmp_path})
    send_circles(settings, range(40))
    service = TrainerService(settings)
    with running(service):
        wait_for(lambda: metric(service, "rec_models_published_total") == 1)
        with administration(settings.kafka_bootstrap) as admin:
            recreate(admin, settings)
        send_circles(settings, range(100, 160), begin=5000.0)  # longer than the one before
        wait_for(lambda: metric(service, "rec_train_events") == 600, 90.0)
        wait_for(lambda: metric(service, "rec_models_published_total") == 2)
    fresh = ModelTopic(settings.topics.models, settings.client_options())
    assert len(fresh.versions()) == 1
    assert fresh.read_model(fresh.serving().version).manifest.metrics["events"] == 600
    fresh.close()


def recreate(admin: KafkaAdminClient, settings: TrainerSettings) -> None:
    names = [settings.topics.sessions, settings.topics.models]
    admin.delete_topics(names)
    wait_for(lambda: not set(names) & set(admin.list_topics()))
    create(admin, topic_table(settings.topics, partitions=3))


def test_a_sample_of_users_is_said_in_the_manifest_and_a_restart_does_not_train_again(
    settings: TrainerSettings,
) -> None:
    settings = settings.model_copy(update={"train_max_events": 150, "train_window_s": 10_000.0})
    send_circles(settings, range(20))
    first = TrainerService(settings)
    run = first.run_once()
    assert run.result == "published"
    assert 100 <= metric(first, "rec_train_used_events") <= 150
    first.close()
    models = ModelTopic(settings.topics.models, settings.client_options())
    metrics = models.read_model(run.version).manifest.metrics
    models.close()
    assert metrics["events"] == 10 * metrics["users"] <= 150
    assert metrics["events_copied"] == 200
    assert metrics["users_share"] == metrics["users"] / 20
    assert metrics["trained_since"] == 19 + 900 - 10_000
    again = TrainerService(settings)
    again._read_sessions()
    again._read_serving()
    assert not again._due(), "the events left out are not new ones"
    again.close()
