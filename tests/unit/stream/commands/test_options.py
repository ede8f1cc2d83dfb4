from __future__ import annotations

from pathlib import Path

import pytest
import typer

from stream.commands.options import duration_s, png


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("6h", 21600), ("1d", 86400), ("1d12h", 129600), ("0.5h", 1800), ("2w", 1209600)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "6", "h", "6 h", "-6h", "6y", "0s", "0.5s", "1e3s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        duration_s(text)


def test_a_picture_that_could_not_be_written_is_refused_at_once(tmp_path: Path) -> None:
    assert png(str(tmp_path / "a.png")) == tmp_path / "a.png"
    (tmp_path / "folder.png").mkdir()
    for name in ("a.jpg", "nowhere/a.png", "folder.png"):
        with pytest.raises(typer.BadParameter):
            png(str(tmp_path / name))
