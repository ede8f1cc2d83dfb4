"""`hrnn settings`: every variable that is read from the environment."""

from __future__ import annotations

import json
import os

from stream.cli.options import Json, results
from stream.cli.tables import table


def settings(as_json: Json = False) -> None:
    """List the environment variables: who reads each, its value now if set, its default, and why that."""
    from stream.cli.environment import all_variables

    variables = all_variables()
    if as_json:
        rows = [{**variable._asdict(), "value": os.environ.get(variable.name)} for variable in variables]
        results(json.dumps(rows))
        return
    table(
        ("variable", "read by", "set to", "default", "why"),
        [
            (variable.name, variable.reader, os.environ.get(variable.name, ""), variable.default, variable.reason)
            for variable in variables
        ],
    )
