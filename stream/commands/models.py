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

app = typer.Typer(help="Look at the published models, verify them, go back to an older one.", no_args_is_help=True)

SHOWN_MEASURES = ("hit_rate", "mrr")  # of some ten; `hrnn models show` has all

Version = Annotated[str | None, typer.Argument(help="A version; the one that serves if none is named.")]


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
        note("none serves: no model is published, lists are by popularity")
    elif not any(listed.current for listed in versions):
        note(f"{serving} is meant to serve and is not whole: workers keep the one before; see `hrnn models rollback`")


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
        raise NoSuchVersion(f"{settings.topics.models} holds no whole version {version!r}")


@app.command("verify")
def verify_model(version: Version = None, bootstrap: Bootstrap = None, prefix: Prefix = None) -> None:
    """Make every check that a worker makes before it serves a version; exit 1 if one fails."""
    from stream.clients.published import model_topic, serving_version, verified

    with model_topic(_settings(bootstrap, prefix)) as models:
        version = version or serving_version(models)
        served = verified(models, version)
    note(f"{version} verifies: {len(served.catalogue.item_ids)} items, sha256 {served.manifest.sha256}")


@app.command("rollback")
def rollback_model(version: Version = None, bootstrap: Bootstrap = None, prefix: Prefix = None) -> None:
    """Make an older version serve: the named one, else the one before; workers swap to it at once.

    The trainer's next publication takes over from it: stop the trainer first if what it publishes is the trouble.
    """
    from stream.clients.published import model_topic, serving_version, verified, version_before

    with model_topic(_settings(bootstrap, prefix)) as models:
        serving = serving_version(models)
        version = version or version_before(serving, models.versions())
        if version == serving:
            note(f"{version} serves already")
            return
        verified(models, version)
        models.rollback(version, time.time())
    note(f"{version} serves now instead of {serving}")


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
