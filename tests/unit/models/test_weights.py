from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import weights
from models.catalogue import Catalogue
from models.encoders.hrnn import HRNNConfig
from models.model import Model
from models.weights import (
    BadWeights,
    Manifest,
    ModelKey,
    Pointer,
    ServingModel,
    chunk_key,
    decode_manifest,
    decode_pointer,
    describe,
    join,
    manifest_key,
    pack,
    parse_key,
    split,
    unpack,
)
from tests.unit.models.made import serving

RECORDED = Path(__file__).parent / "recorded"
SERVING = serving()
BLOB = pack(SERVING.model, SERVING.catalogue)
MANIFEST = SERVING.manifest


def rehashed(blob: bytes, **fields: Any) -> Manifest:
    """The manifest that a hostile publisher would write: it fits the blob."""
    fitting = {"sha256": hashlib.sha256(blob).hexdigest(), "size_bytes": len(blob), "chunks": len(split(blob))}
    return msgspec.structs.replace(MANIFEST, **{**fitting, **fields})


def with_tensors(change: Callable[[dict[str, torch.Tensor]], None]) -> bytes:
    tensors = safetensors.torch.load(BLOB)
    change(tensors)
    return safetensors.torch.save(tensors)


def refusal(manifest: Manifest, blob: bytes) -> str:
    with pytest.raises(BadWeights) as refused:
        unpack(manifest, blob)
    return refused.value.reason


def test_a_model_survives_its_chunks() -> None:
    chunks = dict(enumerate(split(BLOB, 1000)))
    assert all(len(chunk) <= 1000 for chunk in chunks.values())
    manifest = msgspec.structs.replace(MANIFEST, chunks=len(chunks))
    served = unpack(decode_manifest(msgspec.json.encode(manifest)), join(manifest, chunks))
    assert isinstance(served, ServingModel)
    assert served.version == "v1"
    assert not served.model.training
    assert not any(parameter.requires_grad for parameter in served.model.parameters())
    assert served.catalogue.item_ids == SERVING.catalogue.item_ids
    assert served.catalogue.event_types == ["click", "buy"]
    assert (served.catalogue.value_mean, served.catalogue.value_std) == (3.0, 2.0)
    for name, tensor in SERVING.model.state_dict().items():
        assert torch.equal(served.model.state_dict()[name], tensor)


def test_the_same_model_is_the_same_bytes() -> None:
    assert pack(SERVING.model, SERVING.catalogue) == BLOB


def test_a_model_that_an_earlier_release_published_is_read_and_its_terms_are_named() -> None:
    blob, manifest = (RECORDED / "hrnn.safetensors").read_bytes(), (RECORDED / "hrnn.json").read_bytes()
    served = unpack(decode_manifest(manifest), blob)
    assert pack(served.model, served.catalogue) == blob
    again = describe(
        blob, version="recorded", config=served.model.config, catalogue=served.catalogue, metrics={}, trained_at=1.0,
        data_watermark=1.0, data_offsets={},
    )  # fmt: skip
    then, now = json.loads(manifest), json.loads(msgspec.json.encode(again))
    assert now["config"].pop("terms") == ["taste", "trends", "successors", "neighbours", "repeats", "evicted"]
    assert [then["config"].pop(switch) for switch in ("net", "neighbours", "repeats", "earlier")] == [True] * 4
    assert now == then


def test_a_tied_model_travels_without_a_decoder() -> None:
    model = Model(HRNNConfig(3, hidden_dimension=4, tied=True))
    catalogue = Catalogue(["a", "b", "c"])
    blob = pack(model, catalogue)
    manifest = describe(
        blob, version="t", config=model.config, catalogue=catalogue, metrics={}, trained_at=0.0,
        data_watermark=0.0, data_offsets={},
    )  # fmt: skip
    assert torch.equal(unpack(manifest, blob).model.output_matrix, model.encoder.item.weight)


def test_training_counts_travel_and_those_of_an_older_blob_are_none() -> None:
    model = Model(HRNNConfig(3, hidden_dimension=4))
    catalogue = Catalogue(["a", "b", "c"], item_counts=[5, 0, 2])
    blob = pack(model, catalogue)
    manifest = describe(
        blob, version="t", config=model.config, catalogue=catalogue, metrics={}, trained_at=0.0,
        data_watermark=0.0, data_offsets={},
    )  # fmt: skip
    assert unpack(manifest, blob).catalogue.item_counts == [5, 0, 2]
    tensors = safetensors.torch.load(blob)
    fields = msgspec.json.decode(tensors["catalogue"].numpy().tobytes())
    del fields["item_counts"]
    tensors["catalogue"] = torch.frombuffer(bytearray(msgspec.json.encode(fields)), dtype=torch.uint8)
    older = safetensors.torch.save(tensors)
    sha256 = hashlib.sha256(older).hexdigest()
    manifest = msgspec.structs.replace(manifest, sha256=sha256, size_bytes=len(older))
    assert unpack(manifest, older).catalogue.item_counts == []


def test_a_missing_chunk_is_named() -> None:
    manifest = msgspec.structs.replace(MANIFEST, chunks=3)
    with pytest.raises(BadWeights, match="missing_chunk: 2 of 3, first 1"):
        join(manifest, {0: b"a", 7: b"of an older publish"})


def test_truncated_and_grown_blobs_are_refused() -> None:
    assert refusal(MANIFEST, BLOB[:-1]) == "size"
    assert refusal(MANIFEST, BLOB + b"\0") == "size"
    assert refusal(MANIFEST, b"") == "size"
    assert refusal(rehashed(BLOB[:-1]), BLOB[:-1]) == "not_safetensors"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(BLOB) * 8 - 1))
def test_a_flipped_bit_is_refused(bit: int) -> None:
    flipped = bytearray(BLOB)
    flipped[bit // 8] ^= 1 << bit % 8
    assert refusal(MANIFEST, bytes(flipped)) == "sha256"


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(BLOB) * 8 - 1) | st.integers(0, 8 * 1200))
def test_a_flipped_bit_with_a_fitting_manifest_is_refused_or_serves_finite_scores(bit: int) -> None:
    flipped = bytearray(BLOB)
    flipped[bit // 8] ^= 1 << bit % 8
    try:
        served = unpack(rehashed(bytes(flipped)), bytes(flipped))
    except BadWeights:
        return
    assert torch.isfinite(served.model.scores(torch.zeros(1, 7))[:, 1:]).all()


def test_a_pickle_is_never_run() -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (pytest.fail, ("the payload ran",))

    payload = pickle.dumps(Payload())
    assert refusal(rehashed(payload), payload) == "not_safetensors"


@pytest.mark.parametrize("worst", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["item.weight", "decoder.weight", "cell.weight_hh", "out.bias", "bias"])
def test_weights_that_are_not_finite_are_refused(name: str, worst: float) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name].view(-1)[-1] = worst

    blob = with_tensors(change)
    assert refusal(rehashed(blob), blob) == "not_finite"


def test_weights_whose_scores_overflow_are_refused() -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["out.weight"].fill_(3e38)
        tensors["decoder.weight"].fill_(3e38)

    blob = with_tensors(change)
    assert refusal(rehashed(blob), blob) == "not_finite"


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("shape", lambda t: t.update({"bias": torch.zeros(5)})),
        ("shape", lambda t: t.update({"item.weight": t["item.weight"].T.contiguous()})),
        ("shape", lambda t: t.update({"bias": t["bias"].double()})),
        ("shape", lambda t: t.update({"bias": t["bias"].half()})),
        ("tensors", lambda t: t.pop("out.weight")),
        ("tensors", lambda t: t.update({"more": torch.zeros(1)})),
        ("catalogue", lambda t: t.pop("catalogue")),
        ("catalogue", lambda t: t.update({"catalogue": torch.zeros(9)})),
        ("catalogue", lambda t: t.update({"catalogue": torch.zeros(9, dtype=torch.uint8)})),
    ],
)
def test_tensors_that_do_not_fit_are_refused(reason: str, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    blob = with_tensors(change)
    assert refusal(rehashed(blob), blob) == reason


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("vocabulary", lambda fields: fields["item_ids"].reverse()),
        ("vocabulary", lambda fields: fields["item_ids"].pop()),
        ("vocabulary", lambda fields: fields["event_types"].append("like")),
        ("catalogue", lambda fields: fields["item_ids"].append("item-0")),
        ("catalogue", lambda fields: fields.update(value_std=0)),
        ("catalogue", lambda fields: fields.update(item_ids=[1])),
    ],
)
def test_another_catalogue_is_refused(reason: str, change: Callable[[dict[str, Any]], None]) -> None:
    def replace(tensors: dict[str, torch.Tensor]) -> None:
        fields = json.loads(tensors["catalogue"].numpy().tobytes())
        change(fields)
        tensors["catalogue"] = torch.tensor(list(json.dumps(fields).encode()), dtype=torch.uint8)

    blob = with_tensors(replace)
    assert refusal(rehashed(blob), blob) == reason


def test_a_catalogue_of_another_size_is_refused_even_if_its_hash_fits() -> None:
    catalogue = Catalogue(["a"], ["click", "buy"])
    fields = {"item_ids": ["a"], "event_types": ["click", "buy"], "value_mean": 0.0, "value_std": 1.0}
    encoded = torch.tensor(list(json.dumps(fields).encode()), dtype=torch.uint8)
    blob = with_tensors(lambda tensors: tensors.update(catalogue=encoded))
    assert refusal(rehashed(blob, vocabulary_hash=catalogue.vocabulary_hash()), blob) == "vocabulary"


@pytest.mark.parametrize(
    ("reason", "fields"),
    [
        ("schema", {"schema": 3}),
        ("architecture", {"architecture": "transformer"}),
        ("size", {"size_bytes": weights.MAX_BLOB_BYTES + 1}),
        ("size", {"size_bytes": 0}),
        ("bad_manifest", {"chunks": 0}),
        ("bad_manifest", {"chunks": 1 << 40}),
        ("bad_manifest", {"version": "../../etc"}),
        ("config", {"config": {"n_items": 30, "cells": 9}}),
        ("config", {"config": {"n_items": "30"}}),
        ("vocabulary", {"config": {"n_items": 29}}),
        ("vocabulary", {"vocabulary_hash": "0" * 64}),
    ],
)
def test_a_manifest_that_cannot_be_served_is_refused(reason: str, fields: dict[str, Any]) -> None:
    assert refusal(msgspec.structs.replace(MANIFEST, **fields), BLOB) == reason


def test_a_config_cannot_exhaust_the_memory() -> None:
    config = {**MANIFEST.config, "hidden_dimension": 1 << 20}  # 12 TB, were it made
    assert refusal(msgspec.structs.replace(MANIFEST, config=config), BLOB) == "shape"


@given(st.binary(max_size=60) | st.just(b"{}") | st.just(b"null"))
def test_junk_is_no_manifest_and_no_pointer(value: bytes) -> None:
    with pytest.raises(BadWeights, match="bad_manifest"):
        decode_manifest(value)
    with pytest.raises(BadWeights, match="bad_pointer"):
        decode_pointer(value)


def test_keys_and_pointers_survive_their_bytes() -> None:
    assert parse_key(chunk_key("2024.v-1_a", 12)) == ModelKey("chunk", "2024.v-1_a", 12)
    assert parse_key(manifest_key("v1")) == ModelKey("manifest", "v1")
    assert parse_key(weights.POINTER_KEY) == ModelKey("pointer")
    for foreign in (None, b"", b"chunk/v1", b"chunk/v1/x", b"chunk/v1/-1", b"chunk//1", b"manifest/a/b", b"\xff"):
        assert parse_key(foreign) is None
    pointer = Pointer("v1", 12.5)
    assert decode_pointer(msgspec.json.encode(pointer)) == pointer


def test_a_model_and_a_catalogue_that_do_not_fit_are_not_packed() -> None:
    model = Model(HRNNConfig(2, 1, hidden_dimension=2))
    with pytest.raises(ValueError, match="items"):
        pack(model, Catalogue(["a"], ["click"]))
    with pytest.raises(ValueError, match="event types"):
        pack(model, Catalogue(["a", "b"]))


def test_a_version_that_cannot_be_part_of_a_key_is_not_described() -> None:
    with pytest.raises(ValueError, match="version"):
        describe(
            BLOB, version="a/b", config=SERVING.model.config, catalogue=SERVING.catalogue, metrics={},
            trained_at=0.0, data_watermark=0.0, data_offsets={},
        )  # fmt: skip
