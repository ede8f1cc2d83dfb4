"""`hrnn demo` and `hrnn audit`: see it work, and prove it on a log of one's own."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from stream.commands.options import Bootstrap, Json, Prefix, note, results


def demo(
    rate: Annotated[
        float | None, typer.Option(min=1, help="Live events a second; as fast as answers come if not given.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=8, help="Worker processes that share the partitions.")] = 1,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything running at the end, and say how to use it.")
    ] = False,
    events: Annotated[
        int | None, typer.Option(min=2000, help="Use only the first so many of the 100,000 events.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run everything on this machine: a real Kafka, 100,000 real events, workers, a trainer, a hot swap, a check.

    80 % of the events are history that the first model is fitted to; the rest comes live while the trainer retrains.
    A quarter of the live events waits for the next model, so that it is swapped in under load. At the end every
    state and list is compared with a replay. Exit status 0 only if nothing is lost or wrong and a swap happened.
    With HRNN_KAFKA_BOOTSTRAP set that broker is used and none is started.
    """
    from stream.demo.demo import DemoOptions, run_demo

    raise typer.Exit(run_demo(DemoOptions(rate, workers, keep, as_json, events=events)))


def audit(
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    data_dir: Annotated[
        list[Path] | None,
        typer.Option(help="A stopped worker's HRNN_DATA_DIR: compare its stores with the changelogs, too; repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Replay the whole log in one process, and compare every state, session, list, answer and dead letter with it.

    Workers may be at work, at rest or stopped, and have had the settings that this command reads from the same
    environment. Lists made with signals are made again from the records of `signals` that they name (a sample of
    3,000 a model); of popularity lists the shape, the exclusions and the order are checked. Exit status 0: all is
    right; 1: something is lost or wrong; 2: nothing is, but a part could not be checked (`not_checked` says why).
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
