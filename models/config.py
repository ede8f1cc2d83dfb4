"""The shape of a model: what each encoder's own config adds its fields to."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

from models.items.signals import SignalRules
from models.terms.registry import TermSet

if TYPE_CHECKING:
    from models.encoders.encoder import Encoder

_MOST = 1 << 30  # beyond this no weights fit the size that is accepted anyway


@dataclass(frozen=True)
class ModelConfig(ABC):
    """The shape of a model; raises ValueError for an impossible one.

    An encoder's config adds its fields, its name in manifests, and makes the encoder.
    """

    architecture: ClassVar[str]

    n_items: int
    n_event_types: int = 0  # without type 0, which stands for none and for the unknown
    hidden_dimension: int = 43  # of the encoder's output; Amazon Personalize's default for this recipe
    type_dimension: int = 4  # shops and sites have some 3 to 10 event types
    dropout: float = 0.1  # in training only: on the inputs and before the output layer
    tied: bool = False  # a separate output matrix: what an item leads to is not what leads to it
    half_lives_s: tuple[float, ...] = ()  # of trends
    successor_half_life_s: float = 0.0  # of what follows what; 0: not read
    terms: tuple[str, ...] = ("taste",)  # of a score, in the order of their weights; taste alone is the paper's model

    @abstractmethod
    def encoder(self) -> Encoder:
        """Make the encoder of this shape, with random weights."""

    def __post_init__(self) -> None:
        """Refuse shapes that no weights can have."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type in ("int", int):
                least = 0 if field.name == "n_event_types" else 1
                if type(value) is not int or not least <= value <= _MOST:
                    raise ValueError(f"{field.name} is {value!r}, not a whole number from {least} to {_MOST}")
            elif field.type in ("bool", bool) and type(value) is not bool:
                raise ValueError(f"{field.name} is {value!r}, neither true nor false")
        lives = (*self.half_lives_s, *([self.successor_half_life_s] if self.successor_half_life_s else []))
        require_positive("half-lives", lives)
        if type(self.dropout) not in (int, float) or not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout!r}, not a share below 1")
        _ = self.term_set

    @cached_property
    def term_set(self) -> TermSet:
        """Make the terms; raises ValueError for an impossible choice."""
        return TermSet(self.terms, self)

    @property
    def signal_rules(self) -> SignalRules | None:
        """Give the rules of the counts that this model reads; None for one that reads none."""
        if not self.half_lives_s and not self.successor_half_life_s:
            return None
        successors = self.successor_half_life_s or SignalRules.successor_half_life_s
        return SignalRules(half_lives_s=self.half_lives_s, successor_half_life_s=successors)

    def to_dict(self) -> dict[str, Any]:
        """Write the shape as JSON can hold it: tuples as lists."""
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read `to_dict`'s shape back; raises ValueError for unknown keys, missing ones and wrong values."""
        if "terms" not in values:
            values = _with_named_terms(values)
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = values.keys() - fields
        if unknown or "n_items" not in values:
            raise ValueError(f"unknown keys {sorted(unknown)}" if unknown else "n_items is missing")
        read = dict(values)
        for name, value in values.items():
            if isinstance(fields[name].default, tuple):
                if not isinstance(value, list | tuple):
                    raise ValueError(f"{name} is {value!r}, not a list")
                read[name] = tuple(value)
        return cls(**read)


_SWITCHES = {"net": True, "neighbours": False, "repeats": False, "earlier": False}


def _with_named_terms(values: Mapping[str, Any]) -> dict[str, Any]:
    """Name the terms of a model from before configs did, which had a switch for each."""
    switches = {name: values.get(name, default) for name, default in _SWITCHES.items()}
    if any(type(switch) is not bool for switch in switches.values()):
        raise ValueError(f"{switches} are not all true or false")
    used = {
        "taste": switches["net"],
        "trends": bool(values.get("half_lives_s")),
        "successors": bool(values.get("successor_half_life_s")),
        "neighbours": switches["neighbours"],
        "repeats": switches["repeats"],
        "evicted": switches["earlier"],
    }
    rest = {name: value for name, value in values.items() if name not in _SWITCHES}
    return {**rest, "terms": [name for name, is_used in used.items() if is_used]}


def require_positive(name: str, values_s: tuple[float, ...]) -> None:
    """Raise ValueError unless all durations are finite and positive."""
    if any(type(value) not in (int, float) or not math.isfinite(value) or value <= 0 for value in values_s):
        raise ValueError(f"{name} {values_s!r} are not finite positive seconds")
