"""Send the rows of a file to a topic, like any producer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import msgspec
from kafka import KafkaProducer
from kafka.errors import KafkaError

from models.records import Event
from stream.clients.connection import client_options, explained, require_topic
from stream.commands.failures import Failure

PACE_S = 0.02  # a rate is kept by short bursts: a sleep per record would cost more than sending it


def value_of(event: Event) -> bytes:
    """Encode an event without its empty fields, like a producer."""
    record = {name: value for name, value in msgspec.structs.asdict(event).items() if value is not None}
    return msgspec.json.encode(record)


def send_rows(
    bootstrap: str,
    topic: str,
    rows: Iterable[tuple[str, bytes]],
    *,
    what: str,
    rate: float | None = None,
    progress: Callable[[int], None] = lambda sent: None,
) -> int:
    """Send each row, a key and a value, and return the number of acknowledged ones.

    `rate` is in rows per second, `what` names the rows, `progress` is called with the number sent so far. Raises
    Failure if the broker refuses a record or is unreachable.
    """
    require_topic(bootstrap, topic)
    refused: list[BaseException] = []
    sent = 0
    with explained(bootstrap):
        producer = KafkaProducer(
            **client_options(bootstrap, "hrnn-produce"),
            acks="all",
            enable_idempotence=True,  # a retry must not make a second event
            linger_ms=5,
            batch_size=128 * 1024,
            max_request_size=4 * 2**20,
        )
        try:
            began = time.monotonic()
            for key, value in rows:
                if rate is not None:
                    ahead = sent / rate - (time.monotonic() - began)
                    if ahead > PACE_S:
                        time.sleep(ahead)
                future = producer.send(topic, key=key.encode(), value=value)
                future.add_errback(refused.append)
                sent += 1
                if sent % 256 == 0:
                    progress(sent)
                    if refused:
                        break
            producer.flush()
            progress(sent)
        except Failure as failure:
            producer.flush()
            before = f"{sent} {what} before it were sent" if sent else "nothing was sent"
            raise Failure(failure.what, f"{failure.remedy}; {before}", exit_code=failure.exit_code) from None
        finally:
            producer.close()
        for error in refused:
            raise error if isinstance(error, KafkaError) else KafkaError(str(error))
    return sent
