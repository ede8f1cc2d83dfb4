"""Things that tests make: models with random weights, and every kind of junk."""

from __future__ import annotations

import os

import msgspec
import torch
from kafka import KafkaProducer

from models import weights
from models.catalogue import Catalogue
from models.config import ModelConfig
from models.encoders.hrnn import HRNNConfig
from models.items.signals import SignalRules
from models.model import Model
from models.records import Topics
from models.terms.registry import TERMS
from models.weights import Manifest, Pointer


def made_model(
    n_items: int,
    *,
    seed: int = 0,
    version: str = "made",
    hidden: int = 43,
    rules: SignalRules | None = None,
    names: list[str] | None = None,
    kind: type[ModelConfig] = HRNNConfig,
) -> tuple[Manifest, bytes]:
    """Make a model that has learned nothing, for items `item-0` … (or `names`) and the event type `click`.

    With rules it looks at the live signals, too, in the proportions that a fit begins with.
    """
    known = (
        {}
        if rules is None
        else {
            "half_lives_s": rules.half_lives_s,
            "successor_half_life_s": rules.successor_half_life_s,
            "terms": tuple(TERMS),
        }
    )
    config = kind(n_items=n_items, n_event_types=1, hidden_dimension=hidden, **known)  # type: ignore[arg-type]
    catalogue = Catalogue(names or [f"item-{n}" for n in range(n_items)], ["click"], 2.0, 1.4)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Model(config)
    blob = weights.pack(model, catalogue)
    manifest = weights.describe(
        blob, version=version, config=config, catalogue=catalogue, metrics={}, trained_at=1.0, data_watermark=1.0,
        data_offsets={},
    )  # fmt: skip
    return manifest, blob


def publish_model(bootstrap: str, topics: Topics, manifest: Manifest, blob: bytes, *, tear: int | None = None) -> None:
    """Publish a model as the trainer does: chunks, manifest, pointer; `tear` leaves that chunk out."""
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", max_request_size=2**21)
    for number, chunk in enumerate(weights.split(blob)):
        if number != tear:
            producer.send(topics.models, key=weights.chunk_key(manifest.version, number), value=chunk).get(30)
    producer.send(topics.models, key=weights.manifest_key(manifest.version), value=msgspec.json.encode(manifest)).get(
        30
    )
    pointer = msgspec.json.encode(Pointer(manifest.version, 1.0))
    producer.send(topics.models, key=weights.POINTER_KEY, value=pointer).get(30)
    producer.close()


def junk_values() -> dict[str, bytes | None]:
    """One value of each kind that an interaction can be wrong in, by the reason that it must be refused for."""
    good = b'{"user_id":"u","item_id":"i","timestamp":1}'
    return {
        "not_json: random bytes": b"\x80" + os.urandom(63),  # one in twenty alone begins as some JSON does
        "not_json: NaN": b'{"user_id":"u","item_id":"i","timestamp":NaN}',
        "not_json: cut off": good[:-4],
        "not_json: deep": good[:-1] + b',"properties":' + b"[" * 50_000,
        "wrong_type: a number for a user": b'{"user_id":5,"item_id":"i","timestamp":1}',
        "wrong_type: a text for a time": b'{"user_id":"u","item_id":"i","timestamp":"now"}',
        "wrong_type: no object": b"[1]",
        "missing_field: no item": b'{"user_id":"u","timestamp":1}',
        "bad_id: an empty user": b'{"user_id":"","item_id":"i","timestamp":1}',
        "bad_timestamp: negative": b'{"user_id":"u","item_id":"i","timestamp":-1}',
        "future: year 3000": b'{"user_id":"u","item_id":"i","timestamp":32503680000}',
        "null_value: null": None,
        "too_large: 2 MB": good[:-1] + b',"properties":"' + b"x" * 2_000_000 + b'"}',
    }
