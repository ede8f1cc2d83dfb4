"""Versions on the `models` topic: which serves, which can be gone back to."""

import pytest
import torch

from models.catalogue import Catalogue
from models.hrnn import HRNN, HRNNConfig
from models.weights import Manifest, Pointer, describe, pack, split
from stream.cli.failures import Failure
from stream.cli.published import PublishedModels


def publish(models: PublishedModels, version: str) -> Manifest:
    torch.manual_seed(1)
    catalogue = Catalogue(["a", "b"], ["", "rating"], 0.0, 1.0)
    config = HRNNConfig(n_items=2, n_event_types=2, hidden_dimension=4)
    blob = pack(HRNN(config), catalogue)
    manifest = describe(
        blob,
        version=version,
        config=config,
        catalogue=catalogue,
        metrics={"mrr": 0.5},
        trained_at=1.0,
        data_watermark=1.0,
        data_offsets={"0": 3},
    )
    models.manifests[version] = manifest
    models.chunks[version] = dict(enumerate(split(blob)))
    models.pointer = Pointer(version, 1.0)
    return manifest


def test_without_a_pointer_the_remedy_is_to_train() -> None:
    with pytest.raises(Failure, match="hrnn trainer --once"):
        _ = PublishedModels("models").serving


def test_the_version_before_is_the_newest_sound_one() -> None:
    models = PublishedModels("models")
    for version in ("v1", "v2", "v3"):
        publish(models, version)
    assert models.serving == "v3"
    assert models.before("v3") == "v2"
    models.chunks["v2"][0] = b"torn"
    assert models.before("v3") == "v1"
    with pytest.raises(Failure, match="no sound version older than v1"):
        models.before("v1")


def test_verifying_says_why_a_version_can_not_serve() -> None:
    models = PublishedModels("models")
    publish(models, "v1")
    assert models.verify("v1").version == "v1"
    models.chunks["v1"].clear()
    with pytest.raises(Failure, match="v1 does not verify: missing_chunk"):
        models.verify("v1")
    with pytest.raises(Failure, match="no version v9"):
        models.verify("v9")
