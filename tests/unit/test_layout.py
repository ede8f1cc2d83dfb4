"""Which part may import which: the core knows neither shell, the shells not each other."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PURE = {"models", "numpy", "torch", "msgspec", "safetensors"}
SHELL_ONLY = {"os", "time", "socket", "subprocess", "asyncio", "threading", "logging"}  # the world, to a pure part


def imports(path: Path) -> Iterator[str]:
    """Yield the first part of each absolute import, wherever in the file it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


MEETING = (ROOT / "stream/commands", ROOT / "stream/clients")  # the commands of both shells, and what they read with


def sources(folder: str, *, beside: tuple[Path, ...] = ()) -> list[Path]:
    """List a package's files, without those below `beside`."""
    return [path for path in sorted((ROOT / folder).rglob("*.py")) if not {*beside} & {*path.parents}]


@pytest.mark.parametrize(
    ("files", "forbidden"),
    [
        (sources("models"), {"stream", "trainer", "kafka", "aiokafka", "faust", "mode", *SHELL_ONLY}),
        (sources("stream", beside=MEETING), {"trainer"}),
        (sources("trainer"), {"stream", "faust", "mode", "aiokafka"}),
    ],
    ids=["models", "stream", "trainer"],
)
def test_imports_go_one_way(files: list[Path], forbidden: set[str]) -> None:
    assert files
    found = [(path.relative_to(ROOT), name) for path in files for name in imports(path) if name in forbidden]
    assert found == []


def test_the_core_needs_few_libraries() -> None:
    import sys

    allowed = PURE | sys.stdlib_module_names
    assert {name for path in sources("models") for name in imports(path)} <= allowed
