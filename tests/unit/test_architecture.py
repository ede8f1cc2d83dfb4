"""What the shape of the project promises; who may import whom is test_layout's."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("models", "stream", "trainer")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
MOST_LINES = 400
UNPICKLERS = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}
CLOCKS = {"now", "utcnow", "today"}


def named(path: Path) -> set[str]:
    """List every module, attribute and function that a file names, dotted as it is written."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
        elif isinstance(node, ast.Attribute):
            found |= {ast.unparse(node), node.attr}
    return found


def inside(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_all_three_packages_are_looked_at() -> None:
    assert {inside(path).split("/")[0] for path in SOURCES} == set(PACKAGES)
    assert len(SOURCES) > 50


@pytest.mark.parametrize("path", SOURCES, ids=inside)
def test_nothing_is_unpickled(path: Path) -> None:
    names = named(path)
    assert not {name.partition(".")[0] for name in names} & UNPICKLERS
    assert not names & {"torch.load", "torch.save", "torch.jit.load", "numpy.load", "np.load"}


@pytest.mark.parametrize("path", SOURCES, ids=inside)
def test_no_file_is_long(path: Path) -> None:
    lines = path.read_text().count("\n")
    assert lines < MOST_LINES, f"{inside(path)} has {lines} lines"


@pytest.mark.parametrize("path", [path for path in SOURCES if inside(path).startswith("models/")], ids=inside)
def test_the_core_asks_neither_the_environment_nor_a_clock(path: Path) -> None:
    names = named(path)
    assert not names & {"environ", "getenv", "perf_counter", "monotonic", "time.time"}
    assert not {name for name in names if name.startswith("datetime") and name.rpartition(".")[2] in CLOCKS}
    assert not names & {"torch.cuda.is_available"}, "which device is used is a shell's choice"


def test_the_guide_names_what_is_there() -> None:
    """A reading guide that names a file of the past is worse than none."""
    sections = re.split(r"^## ", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    guides = [section for section in sections if section.startswith("Reading guide")]
    assert len(guides) == 1
    paths = re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", guides[0])
    assert len(paths) > 15
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_guide_leads_to_every_part_of_the_core_and_of_the_stream() -> None:
    guide = (ROOT / "README.md").read_text()
    for path in ("stream/app.py", "stream/faust_patches/delivery.py", "models/recommending/recommender.py"):
        assert f"`{path}`" in guide
    for room in sorted({inside(path.parent) for path in SOURCES}):
        assert f"`{room}/" in guide, room


@pytest.mark.parametrize("folder", ["models", "stream", "trainer", "tests"])
def test_no_file_is_called_utils(folder: str) -> None:
    assert [path for path in (ROOT / folder).rglob("*.py") if path.stem in ("utils", "helpers", "misc", "common")] == []
