from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from trainer.fitting.fit import Epoch
from trainer.plots import draw_comparison, draw_curves, draw_search
from trainer.tuning import Tried

CURVE = (Epoch(1, 7.0, 6.5, 1.0), Epoch(2, 6.0, 6.2, 2.0), Epoch(3, 5.5, 6.3, 3.0))


def drawn(path: Path) -> np.ndarray[Any, np.dtype[Any]]:
    """Read a picture back; one that shows nothing is a failure."""
    assert path.read_bytes().startswith(b"\x89PNG")
    pixels = np.asarray(imread(path))[:, :, :3]
    assert pixels.shape[0] > 200
    assert pixels.shape[1] > 800
    assert 0.002 < (pixels < 0.9).any(2).mean() < 0.5
    return pixels


def figures(name: str, ndcg: float, perplexity: float | None) -> dict[str, Any]:
    named = {"ndcg_at_10": ndcg, "recall_at_20": 2 * ndcg, "mrr_at_20": ndcg / 2}
    return {"recipe": name, "events": 1000, **named, "perplexity": perplexity}


def tried(number: int, perplexity: float, *, pruned: bool = False) -> Tried:
    settings = {"learning_rate": 0.001 * (number + 1), "recency_mask": number % 2 == 0, "half_lives_s": (60.0, 7200.0)}
    return Tried(number, "pruned" if pruned else "complete", settings, perplexity, {})


def test_curves_are_drawn_of_one_fit_and_of_several(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    draw_curves(path, {"hrnn": CURVE})
    one = drawn(path)
    draw_curves(path, {"hrnn": CURVE, "rnn": CURVE[:2]})
    other = drawn(path)
    assert one.shape != other.shape or (one != other).any()


@pytest.mark.parametrize(
    "curve",
    [(Epoch(0, math.nan, 6.0, 0.0), *CURVE), (Epoch(1, 7.0, math.nan, 1.0),), (Epoch(1, 9.0, 1e9, 1.0),)],
    ids=["warm", "nothing asked", "diverged"],
)
def test_curves_with_holes_are_drawn(tmp_path: Path, curve: tuple[Epoch, ...]) -> None:
    draw_curves(tmp_path / "curves.png", {"v1": curve})
    drawn(tmp_path / "curves.png")


def test_predictors_are_drawn_those_without_probabilities_too(tmp_path: Path) -> None:
    path = tmp_path / "predictors.png"
    draw_comparison(path, [figures("hrnn", 0.1, 50.0), figures("fixed", 0.05, None)], "events.csv")
    two = drawn(path)
    draw_comparison(path, [figures(f"r{n}", 0.1 / (n + 1), 50.0 + n) for n in range(8)], "events.csv")
    assert drawn(path).shape[0] > two.shape[0]  # a row a predictor


def test_a_search_is_drawn_hopeless_trials_and_all(tmp_path: Path) -> None:
    path = tmp_path / "search.png"
    draw_search(path, [tried(0, 50.0), tried(1, 1e200), tried(2, 45.0), tried(3, 80.0, pruned=True)])
    drawn(path)
    draw_search(path, [tried(0, 50.0)])
    drawn(path)


def test_half_lives_are_said_as_people_do() -> None:
    said = Tried(0, "complete", {"half_lives_s": (1800.0, 10800.0, 5184000.0), "successor_half_life_s": 45.0}, 1.0, {})
    assert said.said == {"half_lives_s": "30m 3h 60d", "successor_half_life_s": "45s"}


def test_a_display_is_not_asked_for_and_the_trainer_loads_no_plotting() -> None:
    script = (
        "import sys, trainer.service.service, trainer.evaluation.retraining\n"
        "assert not {'matplotlib', 'optuna'} & sys.modules.keys()\n"
        "import trainer.plots\n"
        "assert not {'tkinter', 'matplotlib.pyplot', 'optuna'} & sys.modules.keys()"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
