"""`hrnn doctor`: check the deployment, with a remedy for each problem."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from stream.commands.options import Bootstrap, Json, Prefix, note, results


def doctor(bootstrap: Bootstrap = None, prefix: Prefix = None, as_json: Json = False) -> None:
    """Check versions, the broker, the topics and the published model; exit 1 if something is wrong."""
    from stream.commands.environment import read_settings
    from stream.doctor.examine import examine

    findings = []
    for finding in examine(read_settings(kafka_bootstrap=bootstrap, topic_prefix=prefix)):
        findings.append(finding)
        if not as_json:
            mark = typer.style("ok   ", fg="green") if finding.well else typer.style("wrong", fg="red")
            results(f"{mark}  {finding.subject}: {finding.detail}")
            if finding.remedy:
                results(f"       remedy: {finding.remedy}")
    if as_json:
        results(json.dumps([asdict(finding) for finding in findings]))
    wrong = sum(not finding.well for finding in findings)
    if wrong:
        note(f"{wrong} wrong")
        raise typer.Exit(1)
