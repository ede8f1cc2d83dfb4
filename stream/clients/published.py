"""Access of the commands to the `models` topic. Failures name the version and the remedy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from models.weights import BadWeights, ServingModel
from stream.clients.connection import client_options, explained, missing_topic, require_broker
from stream.commands.environment import CommandSettings
from stream.commands.failures import Failure
from trainer.data.log_reader import TopicMissing
from trainer.service.publishing import Listed, ModelTopic, NoSuchVersion


@contextmanager
def model_topic(settings: CommandSettings) -> Iterator[ModelTopic]:
    """Open the topic; raises Failure for errors inside the block."""
    bootstrap, topic = settings.kafka_bootstrap, settings.topics.models
    require_broker(bootstrap)
    with explained(bootstrap):
        models = ModelTopic(topic, client_options(bootstrap, "hrnn-models"))
        try:
            yield models
        except TopicMissing:
            raise missing_topic(bootstrap, topic) from None
        except NoSuchVersion as error:
            raise Failure(str(error), "`hrnn models list` shows the versions") from None
        finally:
            models.close()


def serving_version(models: ModelTopic) -> str:
    """Return the version that the pointer names; raises Failure if there is none."""
    version = models.serving().version
    if not version:
        raise Failure(
            "no model is published",
            "run `hrnn trainer --once` once workers have written sessions; until then lists are by popularity",
        )
    return version


def verified(models: ModelTopic, version: str) -> ServingModel:
    """Verify a version as a worker does before it serves it; raises Failure."""
    try:
        return models.read_model(version)
    except BadWeights as bad:
        remedy = "workers refuse it and keep the previous one: `hrnn models rollback`, then `hrnn trainer --once`"
        raise Failure(f"version {version} does not verify: {bad}", remedy) from None


def version_before(serving: str, versions: Sequence[Listed]) -> str:
    """Return the newest version that is older than the one that serves; raises Failure if there is none."""
    older = [listed.manifest.version for listed in versions if listed.manifest.version < serving]
    if not older:
        raise Failure(f"there is no version older than {serving}", "`hrnn models list` shows the versions")
    return max(older)
