"""What the shape of the project promises; who may import whom is test_layout's."""

from __future__ import annotations

import ast
import re
from itertools import combinations
from pathlib import Path

import pytest

from tests.unit.covered_by import COVERED_BY

UNIT = Path(__file__).parent
ROOT = UNIT.parents[1]
PACKAGES = ("models", "stream", "trainer")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
MOST_LINES = 400
UNPICKLERS = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}
CLOCKS = {"now", "utcnow", "today"}
MOST_EQUAL_LINES = 8
# this may only shrink: neither shell imports the other, so both have the file
KNOWN_COPIES = {("stream/kafka_access.py", "trainer/kafka_access.py")}


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


def equal_runs(files: dict[str, list[str]], longest: int) -> set[tuple[str, str]]:
    """Return the pairs of files that share a run of more than `longest` equal lines; blank lines do not count."""
    first_in: dict[tuple[str, ...], set[str]] = {}
    for name, lines in files.items():
        written = [line.strip() for line in lines if line.strip()]
        for begin in range(len(written) - longest):
            first_in.setdefault(tuple(written[begin : begin + longest + 1]), set()).add(name)
    return {pair for names in first_in.values() for pair in combinations(sorted(names), 2)}


def test_no_two_files_share_a_run_of_lines() -> None:
    files = {inside(path): path.read_text().splitlines() for path in SOURCES}
    assert equal_runs(files, MOST_EQUAL_LINES) == KNOWN_COPIES, "remove the copy, or its line above"


def test_a_shared_run_is_found_whatever_its_indentation() -> None:
    lines = [f"line_{number}()" for number in range(MOST_EQUAL_LINES + 1)]
    assert equal_runs({"a": lines, "b": ["other", "", *(f"    {line}" for line in lines)]}, MOST_EQUAL_LINES) == {
        ("a", "b")
    }
    assert equal_runs({"a": lines, "b": lines[:-1]}, MOST_EQUAL_LINES) == set()


def test_each_module_has_its_test_or_names_the_one_that_covers_it() -> None:
    modules = {inside(path) for path in SOURCES if path.name != "__init__.py"}
    mirrored = {name for name in modules if (UNIT / Path(name).parent / f"test_{Path(name).name}").exists()}
    assert modules - mirrored - COVERED_BY.keys() == set(), "add a test of the same path, or a line to covered_by.py"
    assert COVERED_BY.keys() - (modules - mirrored) == set(), "has a test of its own, or is no module: remove the line"
    assert {test for test in COVERED_BY.values() if not (ROOT / test).is_file()} == set()
