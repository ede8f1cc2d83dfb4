"""Assign partitions to workers: partitions of equal number stay together, also when a topic gets more partitions.

The defect in Faust 0.15.3: `PartitionAssignor._get_copartitioned_groups` (assignor/partition_assignor.py) groups topics
with equal numbers of partitions. When `interactions` gets more partitions, it is assigned on its own, and a worker
reads users whose states are on another worker. Here a source topic stays with its changelog: an added partition p goes
to the worker that has partition p modulo the changelog's number of partitions.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from aiokafka.cluster import ClusterMetadata
from faust.assignor.client_assignment import ClientAssignment

from stream.faust_patches.group_member import MovedHostAssignor


class BatchAssignor(MovedHostAssignor):
    """Faust's assignor for source topics that may have more partitions than their changelogs."""

    _counts: Mapping[str, int] = {}  # partitions by topic, from the cluster's metadata

    def _perform_assignment(self, cluster: ClusterMetadata, member_metadata: Any) -> Any:
        topics = {topic for member in member_metadata.values() for topic in member.subscription}
        self._counts = {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        state_partitions = self._state_partitions()
        capped: Any = _Capped(cluster, state_partitions) if state_partitions else cluster
        return super()._perform_assignment(capped, member_metadata)

    def _state_partitions(self) -> int:
        """Return the changelogs' number of partitions; 0 while the changelogs are unknown."""
        counts = [self._counts.get(topic, 0) for topic in self._table_manager.changelog_topics]
        return min(counts, default=0)

    def _get_client_metadata(self, metadata: Any) -> Any:  # type: ignore[override]
        """Read a member's previous assignment, without added partitions: they follow from the others."""
        client = super()._get_client_metadata(metadata)
        if state_partitions := self._state_partitions():
            client.assignment.actives = {
                topic: [partition for partition in partitions if partition < state_partitions]
                for topic, partitions in client.assignment.actives.items()
            }
        return client

    def _global_table_standby_assignments(
        self, assignments: MutableMapping[str, ClientAssignment], partitions_by_topic: Mapping[str, int]
    ) -> Any:
        """Assign the added partitions, which Faust's grouping ignores."""
        if state_partitions := self._state_partitions():
            sources: set[str] = set(self.app.forwarding_topics)  # type: ignore[attr-defined]
            for assignment in assignments.values():
                for topic in sources & assignment.actives.keys():
                    held = assignment.actives[topic]
                    added = range(state_partitions, self._counts.get(topic, 0))
                    assignment.actives[topic] = [*held, *(p for p in added if p % state_partitions in held)]
        return super()._global_table_standby_assignments(assignments, partitions_by_topic)


class _Capped:
    """A cluster's metadata with each topic's partitions capped at the changelogs' number."""

    def __init__(self, cluster: ClusterMetadata, most: int) -> None:
        self._cluster = cluster
        self._most = most

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        """Return the topic's partitions, without the added ones."""
        found = self._cluster.partitions_for_topic(topic)
        return None if found is None else {partition for partition in found if partition < self._most}
