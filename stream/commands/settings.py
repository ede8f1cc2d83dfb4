"""`hrnn settings`: list the environment variables."""

from __future__ import annotations

import json
import os

from stream.commands.options import Json, results
from stream.commands.tables import table


def settings(as_json: Json = False) -> None:
    """List the environment variables: readers, current value, default, description."""
    from stream.commands.environment import SHOWN_SECRET, all_variables, secrets

    environ = {**os.environ, **{name: SHOWN_SECRET for name in secrets() if os.environ.get(name)}}
    variables = all_variables()
    if as_json:
        rows = [{**variable._asdict(), "value": environ.get(variable.name)} for variable in variables]
        results(json.dumps(rows))
        return
    table(
        ("variable", "read by", "set to", "default", "description"),
        [
            (variable.name, variable.reader, environ.get(variable.name, ""), variable.default, variable.reason)
            for variable in variables
        ],
    )
