"""Settings of the commands from the environment, and the check for misspelt variables."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar, get_args

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsError

from stream.commands.failures import Failure
from stream.kafka_access import KafkaAccess
from stream.settings import KafkaSettings, WorkerSettings

S = TypeVar("S", bound=BaseSettings)

PREFIX = "HRNN_"
SHOWN_SECRET = "(set)"

OWN_VARIABLES = {
    "HRNN_CACHE_DIR": ("~/.cache/hrnn-stream", "folder of Kafka's jars, fetched once for demo and tests"),
    "HRNN_TORCH_INDEX": ("", "wheel index of torch for `make install`; PyPI's wheel includes CUDA"),
    "HRNN_LOG_LEVEL": ("info", "like --log-level; the default is error for commands that are not services"),
    "HRNN_LOG_FORMAT": ("auto", "like --log-format: text at a terminal, JSON lines otherwise"),
}


READ_BY_COMMANDS = (
    *(*KafkaAccess.model_fields, "kafka_bootstrap", "topic_prefix", "partitions", "replication"),
    *("origin_key", "origin_key_file"),  # the audit and the doctor
    *("items_schema", "users_schema"),  # produce
)


class CommandSettings(KafkaSettings):
    """The settings of the commands."""

    partitions: int = Field(
        8, ge=1, le=1000, description="partitions, the maximum number of workers; can't be changed later"
    )
    replication: int = Field(1, ge=1, description="copies of each partition; use 3 on a real cluster")


def read_settings(**given: object) -> CommandSettings:
    """Return the settings. `given` values other than None override the environment; raises Failure."""
    return load(CommandSettings, **given)


def load(kind: type[S], **given: object) -> S:
    """Return settings of a kind; raises Failure with the name of a wrong variable."""
    make: Any = kind  # Any, as mypy would check pydantic-settings' own arguments against the fields
    try:
        settings: S = make(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if not first["loc"]:  # a combination of settings; the input has all of them, including secrets
            raise Failure(first["msg"].removeprefix("Value error, "), "see `hrnn settings`", exit_code=2) from None
        name = PREFIX + ".".join(str(part) for part in first["loc"]).upper()
        value = SHOWN_SECRET if name in secrets() else first["input"]
        raise Failure(f"{name}={value}: {first['msg']}", "correct or unset it", exit_code=2) from None
    except SettingsError as error:  # lists are read as JSON
        name = PREFIX + str(error).split('"')[1].upper()
        raise Failure(
            f"{name}={os.environ.get(name)} is not a list", "write it as JSON: [3600, 86400]", exit_code=2
        ) from None
    return settings


def secrets() -> set[str]:
    """Return the variables whose values are never shown."""
    fields = KafkaSettings.model_fields.items()
    return {PREFIX + name.upper() for name, field in fields if SecretStr in get_args(field.annotation)}


class Variable(NamedTuple):
    """One environment variable: which commands read it, its default, and its description."""

    name: str
    reader: str
    default: str
    reason: str


def all_variables() -> list[Variable]:
    """Return every variable that a command reads."""
    from trainer.settings import FittingSettings, TrainerSettings

    found = {name: Variable(name, "commands", default, reason) for name, (default, reason) in OWN_VARIABLES.items()}
    kinds: list[tuple[str, type[BaseSettings]]] = [
        ("commands", CommandSettings),
        ("worker", WorkerSettings),
        ("trainer", TrainerSettings),
        ("trainer", FittingSettings),
    ]
    for reader, kind in kinds:
        for field_name, field in kind.model_fields.items():
            if field.annotation is FittingSettings or (reader == "commands" and field_name not in READ_BY_COMMANDS):
                continue
            name = PREFIX + field_name.upper()
            default = "" if field.default is None else str(field.default)
            if isinstance(field.default, tuple):
                default = str(list(field.default))  # in the form of the variable
            if name not in found:
                found[name] = Variable(name, reader, default, field.description or "")
                continue
            other = found[name]
            both = other.default if other.default == default else f"{other.default}; {reader}: {default}"
            found[name] = other._replace(reader=f"{other.reader}, {reader}", default=both)
    return sorted(found.values())


def refuse_unknown(environ: Mapping[str, str] = os.environ) -> None:
    """Raise Failure for an unknown variable that begins with HRNN_, with the nearest known one."""
    known = [variable.name for variable in all_variables()]
    for name in sorted(environ):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            nearest = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.0)
            raise Failure(f"{name} is set, and no such setting exists", f"did you mean {nearest[0]}?", exit_code=2)
