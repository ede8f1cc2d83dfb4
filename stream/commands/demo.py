"""`hrnn demo` and `hrnn audit`: run everything on this machine, and check a log."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from stream.commands.options import Bootstrap, Json, Prefix, note, results


def demo(
    rate: Annotated[
        float | None, typer.Option(min=1, help="Live events per second. Default: as fast as lists come back.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=8, help="Worker processes that share the partitions.")] = 1,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep everything running at the end, and print how to use it.")
    ] = False,
    events: Annotated[
        int | None, typer.Option(min=2000, help="Use only the first so many of the 100,000 events.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run everything on this machine: a real Kafka, 100,000 real events, workers, a trainer, a hot swap, a check.

    The first model is fitted to 80 % of the events. The rest is sent live while the trainer retrains. A quarter of the
    live events waits for the next model, so that it is swapped in under load. At the end every state and list is
    compared with a replay. The exit status is 0 only if nothing is lost or wrong and a swap happened. If
    HRNN_KAFKA_BOOTSTRAP is set, that broker is used.
    """
    from stream.demo.demo import DemoOptions, run_demo

    raise typer.Exit(run_demo(DemoOptions(rate, workers, keep, as_json, events=events)))


def audit(
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    data_dir: Annotated[
        list[Path] | None,
        typer.Option(help="A stopped worker's HRNN_DATA_DIR: also compare its stores with the changelogs; repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Replay the whole log in one process, and compare every state, session, list and dead letter with it.

    Workers may be running or stopped. The environment must have the workers' settings. Lists with signals are computed
    again from the records of `signals` that they name (a sample of 3,000 per model). For popularity lists the shape,
    the exclusions and the order are checked. Exit status 0: all is right; 1: something is lost or wrong; 2: nothing is
    wrong, but a part could not be checked (`not_checked` has the reason).
    """
    import asyncio

    from stream.audit import audit as run_audit
    from stream.clients.connection import require_broker
    from stream.commands.environment import load, read_settings
    from stream.settings import WorkerSettings

    settings = read_settings(kafka_bootstrap=bootstrap, topic_prefix=prefix)
    worker = load(WorkerSettings)
    require_broker(settings.kafka_bootstrap)
    report = asyncio.run(
        run_audit(
            settings.kafka_bootstrap,
            settings.topics,
            rules=worker.session_rules,
            top_k=worker.top_k,
            exclude_seen=worker.exclude_seen,
            asking_gap_s=worker.asking_gap_s,
            signal_rules=worker.signal_rules,
            signing_key=worker.signing_key,
            items_schema=worker.schema_of("items"),
            data_dirs=data_dir or (),
            progress=note,
        )
    )
    if as_json:
        import json

        results(json.dumps({**asdict(report), "exit_status": report.exit_status}))
    else:
        for name, value in asdict(report).items():
            if name not in ("examples", "not_checked"):
                results(f"{name:<26} {value}")
        for part, why in report.not_checked:
            results(f"not checked: {part}: {why}")
        for example in report.examples:
            results(f"  {example}")
    raise typer.Exit(report.exit_status)
