"""The trainer against a real broker: from session records to a model that a worker would serve, and back."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from kafka import KafkaProducer
from prometheus_client import CollectorRegistry

from models.records import Topics, encode
from models.weights import POINTER_KEY, Manifest, Pointer, ServingModel, chunk_key, describe, manifest_key, pack
from stream.clients.connection import administration
from stream.clients.reading import read_to_end
from stream.clients.topics import create, topic_table
from stream.demo.broker import LocalKafka
from tests.unit.trainer.made import circles, quick, session
from trainer.data.histories import Histories
from trainer.data.log_reader import LogReader, TopicMissing
from trainer.data.session_copy import SessionCopy
from trainer.evaluation.trials import evaluate, trials
from trainer.fitting.fit import fit
from trainer.service.publishing import ModelTopic, NoSuchVersion, Overtaken, Serving, version_name
from trainer.service.service import TrainerService
from trainer.settings import TrainerSettings

torch.set_num_threads(1)

SMALL: dict[str, Any] = {
    "train_interval_s": 0,
    "train_min_new_events": 100,
    "train_poll_s": 0.2,
    "keep_versions": 2,
    "fitting": quick(epochs=3),
}


@pytest.fixture
def settings(kafka: str, topic_prefix: str) -> TrainerSettings:
    """This test's topics, and settings that train in a second."""
    with administration(kafka) as admin:
        create(admin, topic_table(Topics(topic_prefix), partitions=3))
    return TrainerSettings(kafka_bootstrap=kafka, topic_prefix=topic_prefix, **SMALL)


@pytest.fixture
def models(settings: TrainerSettings) -> Iterator[ModelTopic]:
    """The models topic, to look at and write to."""
    topic = ModelTopic(settings.topics.models, settings.client_options())
    yield topic
    topic.close()


def send(settings: TrainerSettings, topic: str, records: list[tuple[bytes, bytes | None]]) -> None:
    producer = KafkaProducer(**settings.client_options(), acks="all")
    for key, value in records:
        producer.send(topic, key=key, value=value)
    producer.flush()
    producer.close()


def send_circles(settings: TrainerSettings, users: range, begin: float = 0.0, length: int = 10) -> None:
    """Write sessions as the stream does: again with each event, for users who walk round a circle of items."""
    records: list[tuple[bytes, bytes | None]] = []
    for user in users:
        events: list[Any] = []
        for n in range(length):
            events.append((f"i{(user + n) % 12:02d}", begin + user + 100.0 * n, "click", None))
            key, record = session(f"u{user:03d}", list(events))
            records.append((key, encode(record)))
    send(settings, settings.topics.sessions, records)


def made(n: int, epochs: int = 1) -> tuple[bytes, Manifest]:
    """Fit a small model and pack it as version n; all are of one second, so their names do not tell their order."""
    trained_at = 1e9 + n / 100
    fitted = fit(circles(users=10, seed=n), 900.0, quick(epochs=epochs))
    blob = pack(fitted.model, fitted.catalogue)
    manifest = describe(
        blob,
        version=version_name(blob, trained_at),
        config=fitted.model.config,
        catalogue=fitted.catalogue,
        metrics={},
        trained_at=trained_at,
        data_watermark=900.0,
        data_offsets={},
    )
    return blob, manifest


def metric(service: TrainerService, name: str, **labels: str) -> float:
    return service.registry.get_sample_value(name, labels) or 0.0


def test_sessions_become_a_model_that_foretells(settings: TrainerSettings, models: ModelTopic) -> None:
    send_circles(settings, range(60))
    service = TrainerService(settings.model_copy(update={"fitting": quick()}), CollectorRegistry())
    run = service.run_once()
    assert run.result == "published", run.reason
    assert models.serving().version == run.version
    serving = models.read_model(run.version)
    assert serving.manifest.metrics["recall_at_10"] > 0.9
    assert serving.manifest.metrics["events"] == 600
    assert sum(serving.manifest.data_offsets.values()) == 600
    assert serving.manifest.data_watermark == 59 + 900
    assert foretells(serving, circles(users=9, length=8)) < 2.0
    assert metric(service, "rec_models_published_total") == 1
    assert metric(service, "rec_train_runs_total", result="published") == 1
    assert metric(service, "rec_model_data_timestamp_seconds") == 59 + 900
    assert metric(service, "rec_session_records_total") == 600
    assert metric(service, "rec_train_last_success_timestamp_seconds") == pytest.approx(time.time(), abs=60)
    assert service.ready() == ""
    service.close()


def foretells(serving: ServingModel, histories: Histories) -> float:
    return evaluate(serving, histories, trials(histories, -1.0), None).measures()["perplexity"]


def test_a_second_run_begins_with_the_serving_model_and_is_held_against_it(
    settings: TrainerSettings, models: ModelTopic
) -> None:
    send_circles(settings, range(40))
    service = TrainerService(settings)
    first = service.run_once()
    send_circles(settings, range(40, 60), begin=5000.0)
    second = service.run_once()
    assert (first.result, second.result) == ("published", "published")
    assert "serving model" in second.reason
    assert [listed.manifest.version for listed in models.versions()] == [second.version, first.version]
    assert metric(service, "rec_session_records_total") == 600  # each record once
    assert metric(service, "rec_valid", of="serving", figure="trials") == metric(
        service, "rec_valid", of="candidate", figure="trials"
    )
    service.close()


def test_a_worse_candidate_is_not_published(settings: TrainerSettings, models: ModelTopic) -> None:
    send_circles(settings, range(60))
    good = TrainerService(settings.model_copy(update={"fitting": quick(epochs=12)}))
    first = good.run_once()
    send_circles(settings, range(60, 90), begin=5000.0)
    unlearned = quick(epochs=1, learning_rate=1e-9, training_mode="full")
    bad = TrainerService(settings.model_copy(update={"fitting": unlearned}))
    run = bad.run_once()
    assert run.result == "rejected", run.reason
    assert models.serving().version == first.version
    assert metric(bad, "rec_gate_rejections_total") == 1
    for service in (good, bad):
        service.close()


def test_chunks_then_manifest_then_pointer(settings: TrainerSettings, models: ModelTopic) -> None:
    blob, manifest = made(1)
    models.publish(blob, manifest, Serving(), now=5.0)
    keys = [record.key for record in read_to_end(settings.kafka_bootstrap, settings.topics.models)]
    assert keys == [chunk_key(manifest.version, 0), manifest_key(manifest.version), POINTER_KEY]


def test_whoever_was_overtaken_takes_its_version_back(settings: TrainerSettings, models: ModelTopic) -> None:
    slow = models.serving()
    other = ModelTopic(settings.topics.models, settings.client_options())
    other.publish(*made(1), since=other.serving(), now=5.0)
    blob, manifest = made(2)
    with pytest.raises(Overtaken):
        models.publish(blob, manifest, slow, now=6.0)
    assert [listed.current for listed in models.versions()] == [True]
    with pytest.raises(NoSuchVersion):
        other.read_model(manifest.version)
    # and a rollback to what served already overtakes as well: somebody has decided meanwhile
    since = models.serving()
    other.rollback(since.version, now=7.0)
    with pytest.raises(Overtaken):
        models.publish(blob, manifest, since, now=8.0)
    other.close()


def test_rollback_and_retention_never_remove_what_serves(settings: TrainerSettings, models: ModelTopic) -> None:
    versions = []
    for n in range(4):
        blob, manifest = made(n)
        models.publish(blob, manifest, models.serving(), now=float(n))
        versions.append(manifest.version)
    models.rollback(versions[0], now=9.0)
    # a trainer that died halfway: chunks without a manifest
    send(settings, settings.topics.models, [(chunk_key("20000101T000000Z-00000000", 0), b"half")])
    assert models.retain(keep=2) == ["20000101T000000Z-00000000", versions[1]]
    listed = {entry.manifest.version: entry.current for entry in models.versions()}
    assert listed == {versions[3]: False, versions[2]: False, versions[0]: True}
    fresh = ModelTopic(settings.topics.models, settings.client_options())
    assert fresh.serving().version == versions[0]
    assert fresh.read_model(versions[3]).version == versions[3]
    for gone in (versions[1], "20000101T000000Z-00000000"):
        with pytest.raises(NoSuchVersion):
            fresh.rollback(gone, now=10.0)
    fresh.close()


def test_curves_are_kept_as_long_as_their_version(
    settings: TrainerSettings, models: ModelTopic, tmp_path: Path
) -> None:
    send_circles(settings, range(20))
    service = TrainerService(settings.model_copy(update={"trainer_dir": tmp_path}))
    runs = [service.run_once() for _ in range(settings.keep_versions + 2)]
    service.close()
    assert {run.result for run in runs} == {"published"}
    kept = {f"curves-{entry.manifest.version}.png" for entry in models.versions()}
    assert f"curves-{runs[-1].version}.png" in kept
    assert {path.name for path in tmp_path.glob("*.png")} == kept
    assert len(kept) == settings.keep_versions


def test_a_pointer_to_a_broken_model_does_not_stop_the_trainer(
    settings: TrainerSettings, models: ModelTopic, caplog: pytest.LogCaptureFixture
) -> None:
    send(settings, settings.topics.models, [(POINTER_KEY, encode(Pointer("nowhere", 1.0)))])
    service = TrainerService(settings)
    for _ in range(3):
        assert service.run_once().result == "skipped"  # there are no sessions yet
    assert caplog.text.count("read of the serving model failed, skipped version=nowhere") == 1
    send_circles(settings, range(20))
    assert service.run_once().result == "published"
    assert models.serving().version != "nowhere"
    service.close()


def test_the_loop_trains_when_there_is_enough_and_stops_at_once(settings: TrainerSettings, models: ModelTopic) -> None:
    service = TrainerService(settings)
    with running(service):
        send_circles(settings, range(5))  # too few
        wait_for(lambda: metric(service, "rec_train_events") == 50 and service.ready() == "")
        assert models.serving() == Serving()
        send_circles(settings, range(5, 20))
        wait_for(lambda: metric(service, "rec_models_published_total") == 1)
        send_circles(settings, range(20, 40), begin=5000.0)
        ends = ("published", "rejected")
        wait_for(lambda: sum(metric(service, "rec_train_runs_total", result=end) for end in ends) == 2)
    assert metric(service, "rec_train_runs_total", result="failed") == 0


def test_a_restarted_trainer_goes_on_where_the_last_one_stood(settings: TrainerSettings, models: ModelTopic) -> None:
    send_circles(settings, range(20))
    first = TrainerService(settings)
    version = first.run_once().version
    first.close()
    service = TrainerService(settings)
    with running(service):
        wait_for(lambda: service.ready() == "")
        time.sleep(3 * settings.train_poll_s)  # rounds in which it could train again on the same events
        assert metric(service, "rec_train_runs_total", result="published") == 0
        assert metric(service, "rec_model_info", version=version, sha=models.read_model(version).manifest.sha256[:12])


def test_the_loop_outlives_missing_topics(kafka: str, topic_prefix: str) -> None:
    settings = TrainerSettings(kafka_bootstrap=kafka, topic_prefix=topic_prefix, train_poll_s=0.1)
    service = TrainerService(settings)
    with running(service):
        wait_for(lambda: metric(service, "rec_train_runs_total", result="failed") >= 2)
        assert "sessions" in service.ready()
    once = TrainerService(settings)
    with pytest.raises(TopicMissing):
        once.run_once()
    once.close()


def test_the_loop_outlives_a_broker_that_dies() -> None:
    with LocalKafka(own=True) as broker:
        settings = TrainerSettings(kafka_bootstrap=broker.bootstrap, **SMALL)
        with administration(broker.bootstrap) as admin:
            create(admin, topic_table(settings.topics, partitions=3))
        send_circles(settings, range(20))
        service = TrainerService(settings)
        with running(service):
            wait_for(lambda: metric(service, "rec_models_published_total") == 1)
            broker.kill()
            wait_for(lambda: service.ready() != "", 120.0)  # a call that has begun is given up after a minute
            broker.restart()
            send_circles(settings, range(20, 40), begin=5000.0)
            wait_for(lambda: metric(service, "rec_models_published_total") == 2)


def test_the_loop_outlives_a_client_that_can_no_more(settings: TrainerSettings) -> None:
    send_circles(settings, range(20))
    service = TrainerService(settings)
    with running(service):
        wait_for(lambda: metric(service, "rec_models_published_total") == 1)
        assert service._sessions is not None
        service._sessions.close()  # stands for one that is connected and fetches nothing: neither mends itself
        wait_for(lambda: metric(service, "rec_train_runs_total", result="failed") >= 1)
        send_circles(settings, range(20, 40), begin=5000.0)
        wait_for(lambda: metric(service, "rec_models_published_total") == 2)


def test_reading_ends_where_the_topic_ended_at_the_start(settings: TrainerSettings) -> None:
    send_circles(settings, range(30))
    reader = LogReader(settings.topics.sessions, settings.client_options())
    spans = reader.bounds()
    send_circles(settings, range(30, 40))
    assert sum(len(records) for records, _ in reader.read(spans)) == 300
    copy = SessionCopy()
    assert copy.update(reader, now=time.time()) == 400
    assert len(list(copy.sessions())) == 40
    assert copy.update(reader, now=time.time()) == 0
    reader.close()


@contextmanager
def running(service: TrainerService) -> Iterator[None]:
    """Let the loop run in a thread, and check that it ends promptly when told to."""
    thread = threading.Thread(target=service.run)
    thread.start()
    try:
        yield
    finally:
        service.stopping.set()
        thread.join(15)
    assert not thread.is_alive()
    service.close()


def wait_for(condition: Any, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
