"""requirements.lock: what pyproject.toml asks for, pinned, hashed, from no particular host."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
PINS = [  # some twice, for different Pythons
    (canonicalize_name(name), version) for name, version in re.findall(r"^([\w.-]+)==([^\s;\\]+)", LOCK, re.MULTILINE)
]


def test_every_requirement_is_pinned_within_its_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["dev"],
        *project["build-system"]["requires"],  # the project is built without isolation, from these
    ]
    for requirement in map(Requirement, wanted):
        locked = [version for name, version in PINS if name == canonicalize_name(requirement.name)]
        assert locked, f"{requirement} is not locked: make lock"
        assert all(version in requirement.specifier for version in locked), f"{requirement}: {locked}: make lock"


def test_every_pin_has_a_hash_and_no_host() -> None:
    blocks = re.split(r"^(?=[A-Za-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(PINS)
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in LOCK
