"""`hrnn topics`: create and list."""

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
        None, min=1, help="Of each topic but models; the most workers. [HRNN_PARTITIONS, else those there are, else 8]"
    ),
    replication: int | None = typer.Option(None, min=1, help="Copies of each. [HRNN_REPLICATION, else 1]"),
    alter: bool = typer.Option(False, "--alter", help="Also set right the configs of topics that exist."),
) -> None:
    """Create the topics that are missing and check the others; exit 1 if one is not as it has to be."""
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
    note(f"{len(created)} created, {len(specs) - len(created)} were there, at {settings.kafka_bootstrap}")
    for difference in wrong:
        note(f"wrong: {difference}")
    if wrong:
        raise typer.Exit(1)


@app.command("list")
def list_topics(bootstrap: Bootstrap = None, prefix: Prefix = None, as_json: Json = False) -> None:
    """List the topics, with how they are held and whether that is right; exit 1 if not."""
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
