"""The shape of the model that settings ask for."""

from __future__ import annotations

import dataclasses

from models.catalogue import Catalogue
from models.config import ModelConfig
from models.control import DEFAULT_BOUNDS_S
from models.encoders.registry import ENCODERS
from models.terms.registry import TERMS, in_order
from trainer.settings import FittingSettings


def config_of(settings: FittingSettings, catalogue: Catalogue) -> ModelConfig:
    """Fill the config of the settings' encoder from the settings of the same names; it ignores those that it lacks."""
    values = settings.model_dump() | {
        "n_items": len(catalogue.item_ids),
        "n_event_types": len(catalogue.event_types),
        "control_bounds_s": DEFAULT_BOUNDS_S if settings.control else (),
        "session_gap_s": settings.gap_s,
        "terms": in_order((name for name in TERMS if name not in settings.terms_left_out), settings),
    }
    kind = ENCODERS[settings.encoder]
    return kind(**{field.name: values[field.name] for field in dataclasses.fields(kind) if field.name in values})
