"""Faults by name: run rows, print what each found; exit status 1 if one is not clean.

python -m tests.system.faults --only kill9 hot-user --seed 7 --json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from stream.demo.broker import LocalKafka
from tests.system.faults.result import FaultResult, markdown
from tests.system.faults.rows import ROWS
from tests.system.faults.scene import Setup


async def run_row(
    name: str, bootstrap: str, folder: Path, seed: int, *, kills: int | None = None, short: bool = False
) -> FaultResult:
    """Run one row on a broker that it leaves as it is; what it raises is a failure of the row."""
    result, began = FaultResult(name, seed), time.monotonic()

    def say(text: str) -> None:
        sys.stderr.write(f"{time.monotonic() - began:6.1f} s  {text}\n")

    try:
        await ROWS[name].run(Setup(bootstrap, folder, seed, result, kills, short, say))
    except Exception as error:
        say(f"{name}: FAILED {type(error).__name__}: {error}")
        result.failures.append(f"{type(error).__name__}: {error}")
        if not isinstance(error, AssertionError | OSError):
            import traceback

            traceback.print_exc()
    result.duration_s = round(time.monotonic() - began, 1)
    return result


def main() -> int:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(ROWS), metavar="NAME", help="these rows, all unless given")
    parser.add_argument("--seed", type=int, default=None, help="of faults and events; drawn and printed if not given")
    parser.add_argument("--kills", type=int, default=None, help="how many kills the row kill9 does")
    parser.add_argument("--json", action="store_true", help="one line of JSON a row")
    parser.add_argument("--markdown", action="store_true", help="end with a table")
    parser.add_argument("--list", action="store_true", help="list the rows and end")
    parser.add_argument("--keep", action="store_true", help="keep the workers' logs and stores")
    given = parser.parse_args()
    if given.list:
        for name, row in ROWS.items():
            sys.stdout.write(f"{name:<16} {row.summary}\n")
        return 0
    for name in ("aiokafka", "kafka"):  # the harness's own clients say the same twice a second while a broker is down
        logging.getLogger(name).setLevel(logging.CRITICAL)
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    folder = Path(tempfile.mkdtemp(prefix="hrnn-faults-"))
    sys.stderr.write(f"seed {seed}, logs in {folder}\n")
    results: list[FaultResult] = []
    with LocalKafka() as kafka:
        for name in given.only or ROWS:
            result = asyncio.run(run_row(name, kafka.bootstrap, folder, seed, kills=given.kills))
            results.append(result)
            sys.stderr.write(result.line() + "\n")
            if given.json:
                sys.stdout.write(json.dumps(asdict(result)) + "\n")
                sys.stdout.flush()
    if given.markdown:
        sys.stdout.write(markdown(results) + "\n")
    clean = all(result.clean for result in results)
    if clean and not given.keep:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
