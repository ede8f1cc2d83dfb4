"""`hrnn topics`: create and list the topics."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from stream.commands.options import Bootstrap, Json, Prefix, note, results
from stream.commands.tables import table

app = typer.Typer(help="Create and list the topics.", no_args_is_help=True)


@app.command("create")
def create_topics(
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    partitions: int | None = typer.Option(
        None, min=1, help="Partitions of each topic but models. [HRNN_PARTITIONS, else the existing number, else 8]"
    ),
    replication: int | None = typer.Option(None, min=1, help="Copies of each partition. [HRNN_REPLICATION, else 1]"),
    alter: bool = typer.Option(False, "--alter", help="Also fix the configs of existing topics."),
) -> None:
    """Create the missing topics and check the others; exit 1 if one is wrong."""
    from stream.clients.connection import administration
    from stream.clients.topics import create, differences, existing, wanted
    from stream.commands.environment import read_settings

    settings = read_settings(
        kafka_bootstrap=bootstrap, topic_prefix=prefix, partitions=partitions, replication=replication
    )
    with administration(settings.kafka_bootstrap) as admin:
        specs = wanted(admin, settings)
        created = create(admin, specs, alter=alter)
        wrong = differences(specs, existing(admin, specs))
    for name in created:
        note(f"created {name}")
    note(f"{len(created)} created, {len(specs) - len(created)} existed, at {settings.kafka_bootstrap}")
    for difference in wrong:
        note(f"wrong: {difference}")
    if wrong:
        raise typer.Exit(1)


@app.command("list")
def list_topics(bootstrap: Bootstrap = None, prefix: Prefix = None, as_json: Json = False) -> None:
    """List the topics with their configuration and state; exit 1 if one is wrong."""
    from stream.clients.connection import administration
    from stream.clients.topics import differences, existing, wanted
    from stream.commands.environment import read_settings

    settings = read_settings(kafka_bootstrap=bootstrap, topic_prefix=prefix)
    with administration(settings.kafka_bootstrap) as admin:
        specs = wanted(admin, settings)
        found = existing(admin, specs)
    wrong = differences(specs, found)
    troubles = {spec.name: [str(d) for d in wrong if d.topic == spec.name] for spec in specs}
    if as_json:
        topics = [
            {**asdict(found.get(spec.name, spec)), "exists": spec.name in found, "wrong": troubles[spec.name]}
            for spec in specs
        ]
        results(json.dumps(topics))
    else:
        rows = [
            (
                spec.name,
                spec.purpose,
                str(found[spec.name].partitions) if spec.name in found else "-",
                str(found[spec.name].replication) if spec.name in found else "-",
                spec.configs["cleanup.policy"],
                "ok" if not troubles[spec.name] else "missing" if spec.name not in found else "wrong",
            )
            for spec in specs
        ]
        table(("topic", "for", "partitions", "copies", "cleanup", "state"), rows)
        for difference in wrong:
            note(f"wrong: {difference}")
    if wrong:
        raise typer.Exit(1)
