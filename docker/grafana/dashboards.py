"""Write the dashboards as the JSON that Grafana is provisioned with: `make dashboards`."""

from __future__ import annotations

import json
from pathlib import Path

import quality_board
import stream_board
import trainer_board
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from panels import built

FOLDER = Path(__file__).parent / "dashboards"
BOARDS = (stream_board.BOARD, trainer_board.BOARD, quality_board.BOARD)


def texts() -> dict[str, str]:
    """Give each dashboard's JSON by its file's name."""
    return {
        f"{board.uid}.json": json.dumps(built(board).build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
        for board in BOARDS
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in texts().items():
        (FOLDER / name).write_text(text)
