"""What travels on the topics: names, records, and the bytes they are written as.

Values are JSON in UTF-8 unless a record says otherwise; times are Unix seconds; unknown fields are ignored.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from typing import Any

import msgspec

from models.decoding import MAX_ID_CHARS as MAX_ID_CHARS
from models.decoding import BadRecord as BadRecord
from models.decoding import check_id, check_time, decoded

BROKER_MAX_BYTES = 1_048_588
"""Kafka's default `message.max.bytes`, for a whole record batch: nothing written by us may need more."""

MAX_RECORD_BYTES = 1_000_000
"""What a record of ours has at the most, so that its batch fits BROKER_MAX_BYTES with headers and framing.

With the limits below the largest are a list of 500 items (0.8 MB) and a user's state (0.74 MB); a test holds this.
"""

MAX_EVENT_TYPE_CHARS = 256  # Personalize's own for EVENT_TYPE, too; a state keeps 100 of them
MAX_EVENT_BYTES = 64 * 1024  # an interaction is some 200 bytes; more is a mistake at the producer
MAX_REQUEST_BYTES = 64 * 1024  # a request is as small
MAX_REQUESTED_ITEMS = 500  # Amazon Personalize's own limit for numResults

OFFSET_BITS = 47  # of a position: 140 trillion records in a partition, and 65,535 epochs
MAX_EPOCH = 2 ** (63 - OFFSET_BITS) - 2  # a position of the last epoch is below 2**63 - 1
MAX_EVENT_VALUE = 1e12
"""The largest |event_value|: no price, rating or duration in seconds comes near it.

The sum of the squares of 1e9 such values, 1e33, is finite in float64, and a value that is standardised by a deviation
of at least 1e-12 is finite in float32.
"""

POPULARITY = "popularity"
"""The `model_version` of a list that no model made: before one was published, or by a recipe that reads none."""


@dataclass(frozen=True)
class Topics:
    """The names of the topics, under a prefix that lets several deployments share one Kafka."""

    prefix: str = ""

    @property
    def interactions(self) -> str:
        """Name the topic that events come in by: key user_id, value `Event`, 30 days.

        Events that are on another partition than their user's are forwarded there, with a signed header `hrnn-origin`.
        """
        return self.prefix + "interactions"

    @property
    def items(self) -> str:
        """Name the compacted topic of items' facts: key item_id, value `facts.records.Item`; null withdraws."""
        return self.prefix + "items"

    @property
    def users(self) -> str:
        """Name the compacted topic of users' facts: key user_id, value `facts.records.User`; nothing reads it yet."""
        return self.prefix + "users"

    @property
    def requests(self) -> str:
        """Name the topic that asks for lists: key user_id, value `Request`, one day."""
        return self.prefix + "requests"

    @property
    def recommendations(self) -> str:
        """Name the topic that lists go out by: key user_id, value `Recommendation`.

        It is compacted after a day. A list may occur twice, under one rec_id.
        """
        return self.prefix + "recommendations"

    @property
    def transitions(self) -> str:
        """Name the internal topic from the user stage to the item stage: no key, by items' partitions, seven days.

        A record is binary: what a batch of events means to a partition's items (`signals.encode_transitions`).
        """
        return self.prefix + "transitions"

    @property
    def signals(self) -> str:
        """Name the compacted topic of live item signals: key item_id, value `signals.SignalRecord`."""
        return self.prefix + "signals"

    @property
    def sessions(self) -> str:
        """Name the compacted topic that training reads: key `session_key`, value `SessionRecord`."""
        return self.prefix + "sessions"

    @property
    def models(self) -> str:
        """Name the compacted topic of weights, manifests and the pointer, with one partition.

        Keys are `chunk/<version>/<n>` (safetensors bytes), `manifest/<version>` and `current` (JSON), written in this
        order, so that a torn publish is invisible.
        """
        return self.prefix + "models"

    @property
    def dead_letters(self) -> str:
        """Name the topic of records that could not be applied: key, value and headers as they came, 30 days.

        Headers are added: reason, detail, source-topic, source-partition, source-offset, source-timestamp;
        `truncated` where something was cut, source-first-offset where the letter stands for a whole batch.
        """
        return self.prefix + "dead-letters"

    @property
    def app_id(self) -> str:
        """Name the stream's consumer group, which its tables' changelogs are named after."""
        return self.prefix + "hrnn"

    @property
    def user_states(self) -> str:
        """Name the changelog of users' states, by user_id (Faust's own naming); never add partitions to it."""
        return f"{self.app_id}-users-changelog"

    @property
    def item_states(self) -> str:
        """Name the changelog of items' signals, by item_id (Faust's own naming)."""
        return f"{self.app_id}-items-changelog"


class Event(msgspec.Struct, frozen=True, gc=False):
    """One interaction, as it comes on `interactions`."""

    user_id: str
    item_id: str
    timestamp: float
    event_type: str | None = None
    event_value: float | None = None
    event_id: str | None = None


class Request(msgspec.Struct, frozen=True, gc=False):
    """A user's question for a list, as it comes on `requests`; None leaves a choice to the deployment."""

    request_id: str
    user_id: str
    at: float | None = None
    """The time that the list is for; None is when the broker took the request."""
    k: int | None = None
    """How many items are wanted."""
    recipe: str | None = None
    """What the list is made by (see models/recommending/recipes.py): `next`, the default, `popular` or `trending`."""
    window: str | None = None
    """How far back `trending` looks, such as 30m, 3h or 1d: the counted half-life nearest to it is read."""


class Source(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Where an event or a request stands in the log."""

    topic: str
    partition: int
    offset: int
    epoch: int = 0
    """How often the log of the partition began again before: after the topic was re-created, offsets come twice."""

    @property
    def position(self) -> int:
        """Give the place in all epochs of the partition."""
        return position(self.epoch, self.offset)


class RankedItem(msgspec.Struct, frozen=True, gc=False):
    """One place in a list."""

    item_id: str
    score: float


class SignalSnapshot(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Which records of `signals` and `items` lists were made with, so that they can be made again exactly."""

    at: float
    """The stream's time that the trends were read at."""
    offsets: list[int]
    """By partition of `signals`: the trends are those of all records before this offset."""
    newer_offsets: list[int] = []
    """The same of successors and neighbours, if further records were taken over after the trends were read."""
    items: list[int] = []
    """By partition of `items`: availability is that of all records before this offset; empty: of none."""


class Recommendation(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One list for one user, as it goes out on `recommendations`.

    Of two lists of a user that answer no request, of one source partition, the one with the higher source offset (the
    higher epoch first) is newer, whatever order the topic has them in: lists of a worker that was cut off may arrive
    after those of the partition's new owner.
    """

    rec_id: str
    user_id: str
    items: list[RankedItem]
    model_version: str
    session_id: str
    event_time: float
    generated_at: float
    source: Source
    request_id: str | None = None
    signals: str | None = None
    """The id of the signal snapshot (see `snapshot_id`); None for a list made without signals."""
    snapshot: SignalSnapshot | None = None
    """What the id stands for: in the first list of a batch, for all of the batch."""
    recipe: str | None = None
    """The recipe that a request asked for; None is `next`, which follows a user's events."""
    half_life_s: float | None = None
    """The half-life of the counts that the recipe ranked by."""
    error: str | None = None
    """Why a request was refused, "reason: detail"; there are no items then, and the user's list before stands."""


class SessionRecord(msgspec.Struct, frozen=True, gc=False):
    """One session of one user so far; `events` are [item_id, timestamp, event_type, event_value].

    A session's record only grows, and it is written again with each event. Of two records of one key the one with more
    events is right, whatever order the topic has them in; of two with as many, the later. Records of a worker that was
    cut off may arrive after those of the partition's new owner, so the last one may be shorter. A null erases: only
    records after it count.
    """

    user_id: str
    session_id: str
    start: float
    end: float
    events: list[tuple[str, float, str | None, float | None]]


class Asker(msgspec.Struct, frozen=True, gc=False):
    """Who asked, of a request that may be wrong in everything else."""

    request_id: str
    user_id: str


class _EventsOnly(msgspec.Struct, frozen=True, gc=False):
    events: list[msgspec.Raw]


_event_decoder = msgspec.json.Decoder(Event)
_request_decoder = msgspec.json.Decoder(Request)
_asker_decoder = msgspec.json.Decoder(Asker)
_recommendation_decoder = msgspec.json.Decoder(Recommendation)
_session_decoder = msgspec.json.Decoder(SessionRecord)
_events_only_decoder = msgspec.json.Decoder(_EventsOnly)
_encoder = msgspec.json.Encoder()
_NAMESPACE = uuid.NAMESPACE_URL.bytes


def decode_event(value: bytes | None) -> Event:
    """Read an interaction; raises BadRecord with a reason that says what is wrong with it."""
    event = decoded(_event_decoder, value, "an interaction", MAX_EVENT_BYTES)
    check_id("user_id", event.user_id)
    check_id("item_id", event.item_id)
    if event.event_id is not None and len(event.event_id) > MAX_ID_CHARS:
        raise BadRecord("bad_id", f"event_id has {len(event.event_id)} characters; at most {MAX_ID_CHARS} are allowed")
    if event.event_type is not None and len(event.event_type) > MAX_EVENT_TYPE_CHARS:
        length = len(event.event_type)
        raise BadRecord("bad_value", f"event_type has {length} characters; at most {MAX_EVENT_TYPE_CHARS} are allowed")
    check_time("timestamp", event.timestamp)
    # written so that NaN is refused, too
    if event.event_value is not None and not abs(event.event_value) <= MAX_EVENT_VALUE:
        raise BadRecord(
            "bad_value",
            f"event_value {event.event_value} is not between -{MAX_EVENT_VALUE:g} and {MAX_EVENT_VALUE:g}: "
            "send it in a larger unit, or leave it out",
        )
    return event


def decode_request(value: bytes | None) -> Request:
    """Read a request; raises BadRecord with a reason that says what is wrong with it."""
    request = decoded(_request_decoder, value, "a request", MAX_REQUEST_BYTES)
    check_id("request_id", request.request_id)
    check_id("user_id", request.user_id)
    if request.at is not None:
        check_time("at", request.at)
    if request.k is not None and not 1 <= request.k <= MAX_REQUESTED_ITEMS:
        raise BadRecord("bad_value", f"k is {request.k}; 1 to {MAX_REQUESTED_ITEMS} items can be asked for")
    return request


def decode_asker(value: bytes | None) -> Asker | None:
    """Read who sent a request that was refused; None if it does not say so."""
    try:
        asker = decoded(_asker_decoder, value, "a request", MAX_REQUEST_BYTES)
        check_id("request_id", asker.request_id)
        check_id("user_id", asker.user_id)
    except BadRecord:
        return None
    return asker


def decode_recommendation(value: bytes) -> Recommendation:
    """Read a list back, as a consumer of `recommendations` does."""
    return _recommendation_decoder.decode(value)


def decode_session(value: bytes) -> SessionRecord:
    """Read a session back; raises msgspec.DecodeError for bytes that hold none."""
    return _session_decoder.decode(value)


def count_session_events(value: bytes) -> int:
    """Count a session's events without reading them; raises msgspec.DecodeError for bytes that hold no session."""
    return len(_events_only_decoder.decode(value).events)


def encode(record: Any) -> bytes:
    """Write any of this module's records as JSON."""
    return _encoder.encode(record)


def position(epoch: int, offset: int) -> int:
    """Number a record of a partition over all its epochs: a later epoch's records come after an earlier one's.

    States hold positions where they say "offset". In epoch 0 the two are equal. A topic that is deleted and created
    again starts at offset 0; its epoch is then one higher (see stream/source/log_epochs.py), so that no event is taken
    for an old one.
    """
    return epoch << OFFSET_BITS | offset


def place_of(position: int) -> tuple[int, int]:
    """Split a position into epoch and offset."""
    return position >> OFFSET_BITS, position & (1 << OFFSET_BITS) - 1


def rec_id(topic: str, partition: int, offset: int, epoch: int = 0) -> str:
    """Name the list that an event or a request causes: the same for each of its deliveries.

    It is uuid5 of topic/partition/offset in the URL namespace (RFC 9562 §5.5), without the UUID object between,
    which costs more than all else here, once an event. In later epochs of a partition the name begins topic@epoch,
    as the offsets come again.
    """
    name = (f"{topic}@{epoch}/" if epoch else f"{topic}/").encode() + b"%d/%d" % (partition, offset)
    digest = bytearray(hashlib.sha1(_NAMESPACE + name, usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def snapshot_id(version: str, snapshot: SignalSnapshot) -> str:
    """Name a model's reading of the signals: 48 bits, so that of a million snapshots 1 in 500 shares its name."""
    name = f"{version}/{snapshot.at!r}/{snapshot.offsets}/{snapshot.newer_offsets}"
    name += f"/{snapshot.items}" if snapshot.items else ""
    return hashlib.blake2b(name.encode(), digest_size=6).hexdigest()


def session_key(user_id: str, start: float, part: int = 0) -> str:
    """Key a session on `sessions`; `part` tells apart the pieces of a session too long for one record."""
    return f"{user_id}|{start:.15g}" if part == 0 else f"{user_id}|{start:.15g}#{part}"
