"""Weights as data: how a model travels through the `models` topic, and what is checked before it serves.

A model is one blob of safetensors bytes, its catalogue within, cut into chunks; then a manifest that
describes the blob; then the pointer to the version that serves. Nothing here can run code that a blob brings.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
import safetensors
import safetensors.torch
import torch

from models.catalogue import Catalogue
from models.config import ModelConfig
from models.encoders.hrnn import HRNNConfig
from models.encoders.registry import ENCODERS
from models.model import Model
from models.records import BadRecord

SCHEMA = 2  # 1 weighed what follows and what was had by a number each
CHUNK_BYTES = 512 * 1024  # Kafka takes records up to 1 MiB unless told otherwise
MAX_BLOB_BYTES = 2 << 30  # ten million items of 43 floats, twice: beyond, a manifest is wrong or hostile
POINTER_KEY = b"current"
CATALOGUE = "catalogue"  # the tensor that holds the catalogue's JSON

_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")  # a version is part of keys, labels and file names


class BadWeights(BadRecord):
    """A model that must not serve; `reason` is one of a few words."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a version is made of, and from what data."""

    version: str
    sha256: str
    size_bytes: int
    chunks: int
    config: dict[str, Any]
    vocabulary_hash: str
    metrics: dict[str, float]
    trained_at: float
    data_watermark: float  # time of the newest event that was trained on
    data_offsets: dict[str, int]  # partition of `sessions` -> offset that was read up to
    schema: int = SCHEMA
    architecture: str = HRNNConfig.architecture  # the encoder's; also of a manifest that does not name one


class Pointer(msgspec.Struct, frozen=True):
    """The version that serves, as `current` has it."""

    version: str
    published_at: float


class _CatalogueFields(msgspec.Struct):
    item_ids: list[str]
    event_types: list[str]
    value_mean: float
    value_std: float
    item_counts: list[int] = []  # models of earlier releases have none


@dataclass(frozen=True)
class ServingModel:
    """Everything of one version in one reference, so that a swap can't be torn."""

    version: str
    model: Model
    catalogue: Catalogue
    manifest: Manifest


@dataclass(frozen=True)
class ModelKey:
    """A key of the `models` topic; `version` is empty for the pointer, `chunk` is -1 for all but chunks."""

    kind: Literal["chunk", "manifest", "pointer"]
    version: str = ""
    chunk: int = -1


def chunk_key(version: str, number: int) -> bytes:
    """Key a version's chunk."""
    return f"chunk/{version}/{number}".encode()


def manifest_key(version: str) -> bytes:
    """Key a version's manifest."""
    return f"manifest/{version}".encode()


def parse_key(key: bytes | None) -> ModelKey | None:
    """Read a key of the `models` topic; None for a key that is none of ours."""
    if key == POINTER_KEY:
        return ModelKey("pointer")
    match (key or b"").decode("utf-8", "replace").split("/"):
        case ["manifest", version] if _VERSION.fullmatch(version):
            return ModelKey("manifest", version)
        case ["chunk", version, number] if _VERSION.fullmatch(version) and re.fullmatch("[0-9]{1,9}", number):
            return ModelKey("chunk", version, int(number))
    return None


def pack(model: Model, catalogue: Catalogue) -> bytes:
    """Write a model and its catalogue as one blob; raises ValueError if they don't fit each other."""
    if model.config.n_items != len(catalogue.item_ids):
        raise ValueError(f"a model of {model.config.n_items} items with {len(catalogue.item_ids)} ids")
    if model.config.n_event_types != len(catalogue.event_types):
        raise ValueError(f"a model of {model.config.n_event_types} event types with {catalogue.event_types}")
    fields = _CatalogueFields(
        catalogue.item_ids, catalogue.event_types, catalogue.value_mean, catalogue.value_std, catalogue.item_counts
    )
    own = model.state_dict()
    tensors = {stored: own[name].detach().cpu().contiguous() for stored, name in model.stored_names().items()}
    tensors[CATALOGUE] = torch.frombuffer(bytearray(msgspec.json.encode(fields)), dtype=torch.uint8)
    return safetensors.torch.save(tensors)


def describe(
    blob: bytes,
    *,
    version: str,
    config: ModelConfig,
    catalogue: Catalogue,
    metrics: Mapping[str, float],
    trained_at: float,
    data_watermark: float,
    data_offsets: Mapping[str, int],
) -> Manifest:
    """Make the manifest of `pack`'s blob; raises ValueError for a version that can't be part of a key."""
    if not _VERSION.fullmatch(version):
        raise ValueError(f"version {version!r} is not of letters, digits, dots, dashes and underscores")
    return Manifest(
        version=version,
        sha256=hashlib.sha256(blob).hexdigest(),
        size_bytes=len(blob),
        chunks=len(split(blob)),
        config=config.to_dict(),
        vocabulary_hash=catalogue.vocabulary_hash(),
        metrics=dict(metrics),
        trained_at=trained_at,
        data_watermark=data_watermark,
        data_offsets=dict(data_offsets),
        architecture=config.architecture,
    )


def split(blob: bytes, chunk_bytes: int = CHUNK_BYTES) -> list[bytes]:
    """Cut a blob into records' values."""
    return [blob[start : start + chunk_bytes] for start in range(0, len(blob), chunk_bytes)]


def decode_manifest(value: bytes) -> Manifest:
    """Read a manifest; raises BadWeights for anything that is none, or that no reader here can serve."""
    try:
        manifest = msgspec.json.decode(value, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadWeights("bad_manifest", str(error)) from None
    if manifest.schema != SCHEMA:
        raise BadWeights("schema", f"schema {manifest.schema}; this reader knows {SCHEMA}")
    if manifest.architecture not in ENCODERS:
        raise BadWeights("architecture", f"{manifest.architecture!r}; this reader knows {', '.join(ENCODERS)}")
    if not _VERSION.fullmatch(manifest.version):
        raise BadWeights("bad_manifest", f"version {manifest.version!r}")
    if not 0 < manifest.size_bytes <= MAX_BLOB_BYTES:
        raise BadWeights("size", f"{manifest.size_bytes} bytes; at most {MAX_BLOB_BYTES} are accepted")
    if not 0 < manifest.chunks <= manifest.size_bytes:
        raise BadWeights("bad_manifest", f"{manifest.chunks} chunks for {manifest.size_bytes} bytes")
    return manifest


def decode_pointer(value: bytes) -> Pointer:
    """Read the pointer; raises BadWeights for anything that is none."""
    try:
        return msgspec.json.decode(value, type=Pointer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadWeights("bad_pointer", str(error)) from None


def join(manifest: Manifest, chunks: Mapping[int, bytes]) -> bytes:
    """Put a manifest's chunks together; raises BadWeights if one is missing."""
    missing = [number for number in range(manifest.chunks) if number not in chunks]
    if missing:
        raise BadWeights("missing_chunk", f"{len(missing)} of {manifest.chunks}, first {missing[0]}")
    return b"".join(chunks[number] for number in range(manifest.chunks))


def unpack(manifest: Manifest, blob: bytes) -> ServingModel:
    """Verify a blob against its manifest and make it ready to serve; raises BadWeights with the reason."""
    manifest = decode_manifest(msgspec.json.encode(manifest))  # one that was made here is checked like any other
    if len(blob) != manifest.size_bytes:
        raise BadWeights("size", f"{len(blob)} bytes where the manifest has {manifest.size_bytes}")
    if hashlib.sha256(blob).hexdigest() != manifest.sha256:
        raise BadWeights("sha256", "the bytes are not those that the manifest describes")
    try:
        config = ENCODERS[manifest.architecture].from_dict(manifest.config)
    except ValueError as error:
        raise BadWeights("config", str(error)) from None
    try:
        tensors = safetensors.torch.load(blob)
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise BadWeights("not_safetensors", str(error)) from None
    catalogue = _catalogue(manifest, config, tensors.pop(CATALOGUE, None))
    model = _model(config, tensors)
    return ServingModel(manifest.version, model, catalogue, manifest)


def _catalogue(manifest: Manifest, config: ModelConfig, tensor: torch.Tensor | None) -> Catalogue:
    if tensor is None or tensor.dtype != torch.uint8 or tensor.ndim != 1:
        raise BadWeights("catalogue", "the blob has no catalogue")
    try:
        fields = msgspec.json.decode(tensor.numpy().tobytes(), type=_CatalogueFields)
        catalogue = Catalogue(
            fields.item_ids, fields.event_types, fields.value_mean, fields.value_std, fields.item_counts
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise BadWeights("catalogue", str(error)) from None
    if catalogue.vocabulary_hash() != manifest.vocabulary_hash:
        raise BadWeights("vocabulary", "the blob's catalogue is not the one that the manifest names")
    if (len(catalogue.item_ids), len(catalogue.event_types)) != (config.n_items, config.n_event_types):
        raise BadWeights("vocabulary", "the catalogue has another size than the weights")
    return catalogue


def _model(config: ModelConfig, tensors: Mapping[str, torch.Tensor]) -> Model:
    with torch.device("meta"):  # shapes without memory: a hostile config must not be able to exhaust it
        model = Model(config)
    own, names = model.state_dict(), model.stored_names()
    expected = {stored: own[name] for stored, name in names.items()}
    if expected.keys() != tensors.keys():
        raise BadWeights("tensors", f"unexpected or missing: {sorted(expected.keys() ^ tensors.keys())}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape or tensor.dtype != torch.float32:
            raise BadWeights(
                "shape", f"{name} is {tensor.dtype} {tuple(tensor.shape)}, not {tuple(expected[name].shape)}"
            )
        if not torch.isfinite(tensor).all():
            raise BadWeights("not_finite", f"{name} holds NaN or infinity")
    model.load_state_dict({names[stored]: tensor for stored, tensor in tensors.items()}, assign=True)
    model.eval().requires_grad_(False)
    _probe(model)
    return model


def _probe(model: Model) -> None:
    """Refuse finite weights whose scores overflow: take a step from nothing and score every item."""
    encoder = model.encoder
    h = encoder.step(encoder.initial(1), encoder.spec.step_inputs(np.zeros(1, np.int64), np.zeros(1), [0], [0.0]))
    if not torch.isfinite(model.scores(h)[:, 1:]).all():
        raise BadWeights("not_finite", "scores overflow")
