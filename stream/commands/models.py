"""`hrnn models`: list, show, verify, rollback."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream.commands.options import Bootstrap, Json, Prefix, note, results
from stream.commands.tables import table

if TYPE_CHECKING:
    from stream.commands.environment import CommandSettings
    from trainer.service.publishing import Listed

app = typer.Typer(help="List published models, verify them, roll back to an older one.", no_args_is_help=True)

SHOWN_MEASURES = ("hit_rate", "mrr")  # `hrnn models show` has all

Version = Annotated[str | None, typer.Argument(help="A version. Default: the one that serves.")]


def _settings(bootstrap: str | None, prefix: str | None) -> CommandSettings:
    from stream.commands.environment import read_settings

    return read_settings(kafka_bootstrap=bootstrap, topic_prefix=prefix)


@app.command("list")
def list_models(bootstrap: Bootstrap = None, prefix: Prefix = None, as_json: Json = False) -> None:
    """List the versions that can be served or rolled back to, newest first."""
    from stream.clients.published import model_topic

    with model_topic(_settings(bootstrap, prefix)) as models:
        versions = models.versions()
        serving = models.serving().version
    if as_json:
        results(json.dumps([_described(listed) for listed in versions]))
        return
    table(("version", "", "trained", "newest event", "size", "measures"), [_row(listed) for listed in versions])
    if not serving:
        note("no model is published, lists are by popularity")
    elif not any(listed.current for listed in versions):
        note(f"{serving} should serve but is incomplete: workers keep the previous one; see `hrnn models rollback`")


@app.command("show")
def show_model(version: Version = None, bootstrap: Bootstrap = None, prefix: Prefix = None) -> None:
    """Show a version's manifest, as JSON."""
    from stream.clients.published import model_topic, serving_version
    from trainer.service.publishing import NoSuchVersion

    settings = _settings(bootstrap, prefix)
    with model_topic(settings) as models:
        version = version or serving_version(models)
        for listed in models.versions():
            if listed.manifest.version == version:
                results(json.dumps(_described(listed), indent=2))
                return
        raise NoSuchVersion(f"{settings.topics.models} has no complete version {version!r}")


@app.command("verify")
def verify_model(version: Version = None, bootstrap: Bootstrap = None, prefix: Prefix = None) -> None:
    """Verify a version as a worker does before it serves it; exit 1 if a check fails."""
    from stream.clients.published import model_topic, serving_version, verified

    with model_topic(_settings(bootstrap, prefix)) as models:
        version = version or serving_version(models)
        served = verified(models, version)
    note(f"{version} verifies: {len(served.catalogue.item_ids)} items, sha256 {served.manifest.sha256}")


@app.command("rollback")
def rollback_model(version: Version = None, bootstrap: Bootstrap = None, prefix: Prefix = None) -> None:
    """Roll back to an older version: the given one, or the previous one. Workers swap to it at once.

    The trainer's next publication replaces it. Stop the trainer first if its models are the problem.
    """
    from stream.clients.published import model_topic, serving_version, verified, version_before

    with model_topic(_settings(bootstrap, prefix)) as models:
        serving = serving_version(models)
        version = version or version_before(serving, models.versions())
        if version == serving:
            note(f"{version} already serves")
            return
        verified(models, version)
        models.rollback(version, time.time())
    note(f"rolled back to {version} from {serving}")


def _described(listed: Listed) -> dict[str, Any]:
    import msgspec

    return {**msgspec.to_builtins(listed.manifest), "serving": listed.current}


def _row(listed: Listed) -> tuple[str, ...]:
    manifest = listed.manifest
    figures = sorted((name, value) for name, value in manifest.metrics.items() if name.startswith(SHOWN_MEASURES))
    measures = ", ".join(f"{name} {value:.4g}" for name, value in figures)
    return (
        manifest.version,
        "serving" if listed.current else "",
        _when(manifest.trained_at),
        _when(manifest.data_watermark),
        f"{manifest.size_bytes / 2**20:.1f} MiB",
        measures,
    )


def _when(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
