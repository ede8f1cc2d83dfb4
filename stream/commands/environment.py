"""The environment that the commands read, and the check that no variable of it is misspelt."""

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
    "HRNN_CACHE_DIR": ("~/.cache/hrnn-stream", "keeps Kafka's jars, fetched once for demo and tests"),
    "HRNN_TORCH_INDEX": ("", "a wheel index that `make install` takes torch from; PyPI's brings CUDA along"),
    "HRNN_LOG_LEVEL": ("info", "the same as --log-level; error for commands that are no services"),
    "HRNN_LOG_FORMAT": ("auto", "the same as --log-format: text at a terminal, JSON lines otherwise"),
}


READ_BY_COMMANDS = (
    *(*KafkaAccess.model_fields, "kafka_bootstrap", "topic_prefix", "partitions", "replication"),
    *("origin_key", "origin_key_file"),  # the audit and the doctor
    *("items_schema", "users_schema"),  # produce
)


class CommandSettings(KafkaSettings):
    """What the commands need to know beyond where Kafka is."""

    partitions: int = Field(
        8, ge=1, le=1000, description="the most workers that can share the load; can't be changed later"
    )
    replication: int = Field(1, ge=1, description="copies of each partition; 3 on a real cluster")


def read_settings(**given: object) -> CommandSettings:
    """Read the settings, `given` ones (None: not given) before the environment's; raises Failure."""
    return load(CommandSettings, **given)


def load(kind: type[S], **given: object) -> S:
    """Make settings of any kind, telling a person which variable is wrong and how."""
    make: Any = kind  # pydantic-settings' own arguments would be checked against the fields
    try:
        settings: S = make(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if not first["loc"]:  # how settings go together; the input is all of them, secrets too
            raise Failure(first["msg"].removeprefix("Value error, "), "see `hrnn settings`", exit_code=2) from None
        name = PREFIX + ".".join(str(part) for part in first["loc"]).upper()
        value = SHOWN_SECRET if name in secrets() else first["input"]
        raise Failure(f"{name}={value}: {first['msg']}", "correct or unset it", exit_code=2) from None
    except SettingsError as error:  # of values with parts, which are read as JSON
        name = PREFIX + str(error).split('"')[1].upper()
        raise Failure(
            f"{name}={os.environ.get(name)} is no list", "write it as JSON: [3600, 86400]", exit_code=2
        ) from None
    return settings


def secrets() -> set[str]:
    """Return the variables whose values nobody is shown."""
    fields = KafkaSettings.model_fields.items()
    return {PREFIX + name.upper() for name, field in fields if SecretStr in get_args(field.annotation)}


class Variable(NamedTuple):
    """One environment variable: which commands read it, its default, and why that."""

    name: str
    reader: str
    default: str
    reason: str


def all_variables() -> list[Variable]:
    """List every variable that some command reads."""
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
                default = str(list(field.default))  # as it has to be written
            if name not in found:
                found[name] = Variable(name, reader, default, field.description or "")
                continue
            other = found[name]
            both = other.default if other.default == default else f"{other.default}; {reader}: {default}"
            found[name] = other._replace(reader=f"{other.reader}, {reader}", default=both)
    return sorted(found.values())


def refuse_unknown(environ: Mapping[str, str] = os.environ) -> None:
    """Raise Failure for a variable that begins with HRNN_ and that nothing reads, naming the nearest one."""
    known = [variable.name for variable in all_variables()]
    for name in sorted(environ):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            nearest = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.0)
            raise Failure(f"{name} is set, and no such setting exists", f"did you mean {nearest[0]}?", exit_code=2)
