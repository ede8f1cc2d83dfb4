from __future__ import annotations

from pathlib import Path

import pytest

from stream.commands.failures import Failure
from stream.commands.services import require_folder


def test_a_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    require_folder(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_what_can_not_be_a_folder_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "b", Path("/proc/hrnn")):
        with pytest.raises(Failure, match="can't write in") as failure:
            require_folder(path)
        assert "HRNN_DATA_DIR" in failure.value.remedy
