"""`hrnn models`: list, show, verify, rollback."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream.cli.options import Bootstrap, Json, Prefix, note, results
from stream.cli.tables import table

if TYPE_CHECKING:
    from stream.cli.environment import CommandSettings
    from stream.cli.published import PublishedModels

app = typer.Typer(help="Look at the published models, verify them, go back to an older one.", no_args_is_help=True)

Version = Annotated[str | None, typer.Argument(help="A version; the one that serves if none is named.")]


def _read(bootstrap: str | None, prefix: str | None) -> tuple[CommandSettings, PublishedModels]:
    from stream.cli.environment import read_settings
    from stream.cli.published import read_models

    settings = read_settings(kafka_bootstrap=bootstrap, topic_prefix=prefix)
    return settings, read_models(settings.kafka_bootstrap, settings.topics.models)


def _when(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


@app.command("list")
def list_models(bootstrap: Bootstrap = None, prefix: Prefix = None, as_json: Json = False) -> None:
    """List the versions that can be served or rolled back to, oldest first."""
    from models.weights import Manifest

    _, models = _read(bootstrap, prefix)
    serving = models.pointer.version if models.pointer else None
    if as_json:
        results(json.dumps([_described(version, models) for version in models.manifests]))
        return
    rows = []
    for version, manifest in models.manifests.items():
        mark = "serving" if version == serving else ""
        if isinstance(manifest, Manifest):
            measures = ", ".join(f"{name} {value:.4g}" for name, value in sorted(manifest.metrics.items())[:4])
            size = f"{manifest.size_bytes / 2**20:.1f} MiB"
            rows.append((version, mark, _when(manifest.trained_at), _when(manifest.data_watermark), size, measures))
        else:
            rows.append((version, mark or "bad", "", "", "", str(manifest)))
    table(("version", "", "trained", "newest event", "size", "measures"), rows)
    if serving is None:
        note("none serves: no model is published, lists are by popularity")


@app.command("show")
def show_model(version: Version = None, bootstrap: Bootstrap = None, prefix: Prefix = None) -> None:
    """Show a version's manifest, as JSON."""
    _, models = _read(bootstrap, prefix)
    version = version or models.serving
    models.manifest(version)
    results(json.dumps(_described(version, models), indent=2))


@app.command("verify")
def verify_model(version: Version = None, bootstrap: Bootstrap = None, prefix: Prefix = None) -> None:
    """Make every check that a worker makes before it serves a version; exit 1 if one fails."""
    _, models = _read(bootstrap, prefix)
    version = version or models.serving
    served = models.verify(version)
    note(f"{version} verifies: {len(served.catalogue.item_ids)} items, sha256 {served.manifest.sha256}")


@app.command("rollback")
def rollback_model(version: Version = None, bootstrap: Bootstrap = None, prefix: Prefix = None) -> None:
    """Make an older version serve: the named one, else the one before; workers swap to it within a second.

    The trainer's next publication takes over from it: stop the trainer first if what it publishes is the trouble.
    """
    from stream.cli.published import point_to

    settings, models = _read(bootstrap, prefix)
    serving = models.serving
    version = version or models.before(serving)
    models.verify(version)
    if version == serving:
        note(f"{version} serves already")
        return
    point_to(settings.kafka_bootstrap, settings.topics.models, version)
    note(f"{version} serves now instead of {serving}")


def _described(version: str, models: PublishedModels) -> dict[str, Any]:
    import msgspec

    from models.weights import Manifest

    manifest = models.manifests[version]
    described = msgspec.to_builtins(manifest) if isinstance(manifest, Manifest) else {"bad": str(manifest)}
    serving = models.pointer is not None and models.pointer.version == version
    return {"version": version, **described, "serving": serving}
