"""What a linter of manifests finds in each overlay, but for the exceptions that k8s/checkov.yaml argues."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.unit.deploy.rendering import OVERLAYS, ROOT, rendered

CHECKOV = "3.3.30"
REMEDY = (
    "the overlays are not linted: checkov is not there. It pins what it depends on, so give it an environment of its "
    f"own: python3 -m venv ~/.cache/hrnn-stream/checkov, then in that bin/pip install checkov=={CHECKOV}"
)


@pytest.fixture(scope="module")
def checkov() -> str:
    """The command, from the PATH or from where the CI puts it."""
    own = Path(os.environ.get("HRNN_CACHE_DIR") or Path.home() / ".cache" / "hrnn-stream") / "checkov" / "bin"
    found = shutil.which("checkov") or shutil.which("checkov", path=str(own))
    if found is None:
        pytest.skip(REMEDY)
    return found


def lint(checkov: str, folder: Path) -> subprocess.CompletedProcess[str]:
    config = str(ROOT / "k8s" / "checkov.yaml")
    return subprocess.run(
        [checkov, "--config-file", config, "--skip-download", "-d", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_overlays_pass(checkov: str, tmp_path: Path) -> None:
    for overlay in OVERLAYS:
        (tmp_path / f"{overlay}.yaml").write_text(yaml.safe_dump_all(rendered(overlay)))
    said = lint(checkov, tmp_path)
    assert said.returncode == 0, said.stdout + said.stderr


def test_a_pod_of_root_does_not(checkov: str, tmp_path: Path) -> None:
    container = {"name": "c", "image": "i", "securityContext": {"privileged": True}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"}}
    (tmp_path / "root.yaml").write_text(yaml.safe_dump({**pod, "spec": {"containers": [container]}}))
    said = lint(checkov, tmp_path)
    assert said.returncode == 1, said.stdout
    assert "CKV_K8S_16" in said.stdout
