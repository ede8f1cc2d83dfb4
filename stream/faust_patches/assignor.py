"""Which worker reads which partitions: those of one number together, also where a topic was given more of them.

What it mends, and where Faust 0.15.3 has it: `PartitionAssignor._get_copartitioned_groups` (assignor/
partition_assignor.py) puts topics together that have equally many partitions. When `interactions` is given more, it is
assigned on its own, and a worker reads users whose states another one holds. Here the sources stay with their
changelogs: added partition p goes to the worker that has partition p modulo the number that states are kept by.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from aiokafka.cluster import ClusterMetadata
from faust.assignor.client_assignment import ClientAssignment

from stream.faust_patches.group_member import MovedHostAssignor


class BatchAssignor(MovedHostAssignor):
    """Faust's assignor for sources that may have more partitions than states are kept by."""

    _counts: Mapping[str, int] = {}  # partitions by topic, as the cluster's metadata has them

    def _perform_assignment(self, cluster: ClusterMetadata, member_metadata: Any) -> Any:
        topics = {topic for member in member_metadata.values() for topic in member.subscription}
        self._counts = {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        kept_by = self._kept_by()
        capped: Any = _Capped(cluster, kept_by) if kept_by else cluster
        return super()._perform_assignment(capped, member_metadata)

    def _kept_by(self) -> int:
        """Give the number of partitions that states are kept by; 0 while the changelogs are not known."""
        counts = [self._counts.get(topic, 0) for topic in self._table_manager.changelog_topics]
        return min(counts, default=0)

    def _get_client_metadata(self, metadata: Any) -> Any:  # type: ignore[override]
        """Read what a member had before, without its added partitions: they are dealt out by the others."""
        client = super()._get_client_metadata(metadata)
        if kept_by := self._kept_by():
            client.assignment.actives = {
                topic: [partition for partition in partitions if partition < kept_by]
                for topic, partitions in client.assignment.actives.items()
            }
        return client

    def _global_table_standby_assignments(
        self, assignments: MutableMapping[str, ClientAssignment], partitions_by_topic: Mapping[str, int]
    ) -> Any:
        """Give out added partitions, of which Faust's grouping does not know."""
        if kept_by := self._kept_by():
            sources: set[str] = set(self.app.forwarding_topics)  # type: ignore[attr-defined]
            for assignment in assignments.values():
                for topic in sources & assignment.actives.keys():
                    held = assignment.actives[topic]
                    added = range(kept_by, self._counts.get(topic, 0))
                    assignment.actives[topic] = [*held, *(p for p in added if p % kept_by in held)]
        return super()._global_table_standby_assignments(assignments, partitions_by_topic)


class _Capped:
    """A cluster's metadata in which no topic has more partitions than states are kept by."""

    def __init__(self, cluster: ClusterMetadata, most: int) -> None:
        self._cluster = cluster
        self._most = most

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        """Give the topic's partitions, without those that were added."""
        found = self._cluster.partitions_for_topic(topic)
        return None if found is None else {partition for partition in found if partition < self._most}
