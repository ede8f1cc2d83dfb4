"""The models that lists and states can have been made with."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from models import weights
from models.weights import ServingModel
from stream.audit.reading import Log


@dataclass
class PublishedModels:
    """Every version that is wholly on the topic, and those that were there."""

    by_version: dict[str, ServingModel] = field(default_factory=dict)
    withdrawn: set[str] = field(default_factory=set)
    forgetful: bool = False  # whether compaction may have taken a version without a trace

    def was_withdrawn(self, version: str) -> bool:
        """Tell whether a version may have been served that is not there any more."""
        return version not in self.by_version and (version in self.withdrawn or self.forgetful)


def published(log: Log) -> PublishedModels:
    """Verify and load what the topic has; a version that does not verify is refused by workers, too."""
    found = PublishedModels(forgetful=log.has_holes(0))
    manifests: dict[str, bytes] = {}
    chunks: dict[str, dict[int, bytes]] = {}
    for record in log.records.get(0, []):
        key = weights.parse_key(record.key)
        if key is None or key.kind == "pointer":
            continue
        if record.value is None:
            manifests.pop(key.version, None)
            found.withdrawn.add(key.version)
        elif key.kind == "manifest":
            manifests[key.version] = record.value
        else:
            chunks.setdefault(key.version, {})[key.chunk] = record.value
    for version, value in manifests.items():
        try:
            manifest = weights.decode_manifest(value)
            found.by_version[version] = weights.unpack(manifest, weights.join(manifest, chunks.get(version, {})))
        except (weights.BadWeights, msgspec.DecodeError):
            continue
    return found
