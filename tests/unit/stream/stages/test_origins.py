"""Who can say where a record came in first: workers, and nobody else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.records import Source, Topics
from stream.stages.origins import ORIGIN_HEADER, Origins, derived_key

ORIGINS = Origins(b"a secret of sixteen bytes")
AT_MS = 1_700_000_000_123


def record(partition: int = 3, offset: int = 77, **more: Any) -> Any:
    given = {"topic": "interactions", "key": b"u", "value": b"{}", "headers": (), "timestamp": AT_MS}
    return SimpleNamespace(**(given | {"partition": partition, "offset": offset} | more))


def arrived(first: Any, user_id: str = "u", home: int = 6, origins: Origins = ORIGINS, **more: Any) -> Any:
    given = {"key": user_id.encode(), "headers": origins.forwarded(first, user_id, home), "timestamp": AT_MS + 500}
    return record(home, 900, **(given | more))


def test_a_forwarded_record_names_its_first_place_and_time() -> None:
    origin = ORIGINS.of(arrived(record(3, 77)))
    assert origin is not None
    assert origin == (Source("interactions", 3, 77), AT_MS / 1000)


def test_every_worker_of_a_deployment_reads_it() -> None:
    key = derived_key("cluster-1", Topics("shop-"))
    assert Origins(key).of(arrived(record(), origins=Origins(derived_key("cluster-1", Topics("shop-")))))


@pytest.mark.parametrize(
    "changed",
    [{"topic": "other"}, {"partition": 5}, {"key": b"v"}, {"key": None}, {"value": b"{ }"}, {"value": None}],
    ids=str,
)
def test_a_signed_header_is_valid_of_its_own_record_alone(changed: dict[str, Any]) -> None:
    copied = arrived(record())
    assert ORIGINS.of(copied)
    assert ORIGINS.of(SimpleNamespace(**(vars(copied) | changed))) is None


@pytest.mark.parametrize("other", [b"another secret of its own", derived_key("cluster-2", Topics())])
def test_another_key_does_not_count(other: bytes) -> None:
    assert ORIGINS.of(arrived(record(), origins=Origins(other))) is None


def test_keys_of_other_clusters_and_deployments_differ() -> None:
    keys = [derived_key("a", Topics()), derived_key("b", Topics()), derived_key("a", Topics("x-"))]
    assert len(set(keys)) == 3


@pytest.mark.parametrize(
    "value",
    [
        None, b"", b"x", b"1/2", b"-1/2/3", b"1/2/3", b"1/2/3/4", b"9" * 20 + b"/1/1", b"1/2/1700000000123",
        b"1/2/3/" + b"0" * 32, b"1/2/3/" + b"0" * 31 + b"\xff", b"1/2/3/" + b"0" * 32 + b"\n",
    ],
)  # fmt: skip
def test_a_header_that_a_client_wrote_is_ignored(value: bytes | None) -> None:
    assert ORIGINS.of(record(0, headers=[(ORIGIN_HEADER, value)])) is None


@given(st.lists(st.tuples(st.sampled_from([ORIGIN_HEADER, "trace", "\udcff"]), st.none() | st.binary(max_size=60))))
def test_no_headers_of_a_client_count_or_go_along_under_our_name(headers: list[tuple[str, bytes | None]]) -> None:
    first = record(headers=headers)
    assert ORIGINS.of(first) is None
    sent = ORIGINS.forwarded(first, "u", 6)
    assert sent[:-1] == [header for header in headers if header[0] != ORIGIN_HEADER]
    assert [name for name, _ in sent].count(ORIGIN_HEADER) == 1
    # one that is put before ours changes nothing
    landed = arrived(first, headers=[*headers, *sent])
    assert ORIGINS.of(landed) == ORIGINS.of(arrived(record()))


def test_no_time_is_later_than_the_record_itself() -> None:
    origin = ORIGINS.of(arrived(record(), timestamp=AT_MS - 60_000))
    assert origin is not None
    assert origin.time == (AT_MS - 60_000) / 1000
    assert ORIGINS.of(arrived(record(timestamp=-1))), "a broker of old messages knows no time"


def test_a_record_that_names_its_own_partition_came_here_first() -> None:
    assert ORIGINS.of(arrived(record(6, 77))) is None
