"""Rendering the overlays with whatever kustomize this machine has; `python -m tests.unit.deploy.rendering` writes the
golden files anew.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
GOLDEN = Path(__file__).parent / "golden"
OVERLAYS = sorted(path.parent.name for path in (ROOT / "k8s" / "overlays").glob("*/kustomization.yaml"))
REMEDY = (
    "the overlays are not rendered: install kubectl 1.25 or newer, or run "
    "`go install sigs.k8s.io/kustomize/kustomize/v5@v5.7.0`"
)

Manifest = dict[str, Any]


@functools.cache
def kustomize() -> tuple[str, ...]:
    """Find a command that builds an overlay; () if there is none. Components came with kustomize 3.7, kubectl 1.21."""
    standalone = shutil.which("kustomize") or shutil.which("kustomize", path=str(Path.home() / "go" / "bin"))
    if standalone:
        return standalone, "build"
    if kubectl := shutil.which("kubectl"):
        said = subprocess.run(
            [kubectl, "version", "--client", "-o", "json"], capture_output=True, text=True, check=False
        )
        version = json.loads(said.stdout or "{}").get("clientVersion", {})
        if int(version.get("major", 0)) > 1 or int(str(version.get("minor", 0)).rstrip("+")) >= 25:
            return kubectl, "kustomize"
    return ()


@functools.cache
def _rendered(overlay: str) -> str:
    return _built(ROOT / "k8s" / "overlays" / overlay)


def with_component(overlay: str, component: str, folder: Path) -> list[Manifest]:
    """Give what an overlay applies with one more component, by a kustomization written into an empty folder."""
    parts = {"resources": ROOT / "k8s/overlays" / overlay, "components": ROOT / "k8s/components" / component}
    folder = folder.resolve()
    relative = {kind: [os.path.relpath(path.resolve(), folder)] for kind, path in parts.items()}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(relative))
    return [manifest for manifest in yaml.safe_load_all(_built(folder)) if manifest]


def _built(folder: Path) -> str:
    command = kustomize()
    if not command:
        pytest.skip(REMEDY)
    built = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False, env=os.environ)
    assert built.returncode == 0, f"{' '.join(command)} {folder}: {built.stderr}"
    return built.stdout


def rendered(overlay: str) -> list[Manifest]:
    """Give what an overlay applies, one resource each; skips without a tool."""
    return [manifest for manifest in yaml.safe_load_all(_rendered(overlay)) if manifest]


def golden_text(manifests: list[Manifest]) -> str:
    """Write an overlay as its golden file has it: in a fixed order, a dashboard as its hash."""
    shown = []
    for manifest in sorted(manifests, key=lambda m: (m["kind"], m["metadata"]["name"])):
        is_dashboard = "grafana_dashboard" in manifest["metadata"].get("labels", {})
        hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in manifest.get("data", {}).items()}
        shown.append({**manifest, "data": hashes} if is_dashboard else manifest)
    return "---\n".join(yaml.safe_dump(manifest, width=120) for manifest in shown)


def main() -> None:
    """Write the golden files."""
    if not kustomize():
        sys.exit(REMEDY)
    GOLDEN.mkdir(exist_ok=True)
    for overlay in OVERLAYS:
        (GOLDEN / f"{overlay}.yaml").write_text(golden_text(rendered(overlay)))


if __name__ == "__main__":
    main()
