"""The statistics of many films: one evaluation of made-up predictions, its time and its memory.

Run from the project's root: `python bench/estimates.py [FILMS]`, 100,000 unless said otherwise. About a minute.
"""

import resource
import sys
import time

import numpy as np
import pandas as pd

from pulmo.evaluation.report import evaluate_predictions
from pulmo.metrics.bootstrap import Resampling
from pulmo.metrics.locked import LockingRules


def main() -> None:
    """Print seconds and peak memory; a tenth of the films is validation."""
    films = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    predictions = make_predictions(films)
    before, start, worked = peak_memory(), time.perf_counter(), time.process_time()
    evaluate_predictions(predictions, None, LockingRules("youden", 0.95, 0.5, 0.02), Resampling(2000, 0))
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    memory = f"peak memory {peak_memory():.2f} GB ({before:.2f} before)"
    print(f"{films:,} films, 2,000 resamples: {seconds:.0f} s, {worked:.0f} s of processors' time, {memory}")


def make_predictions(films: int) -> pd.DataFrame:
    """Predictions of a fair model about `films` films of half as many patients, with three sizes of films."""
    dice = np.random.default_rng(0)
    label = dice.random(films) < 0.6
    return pd.DataFrame(
        {
            "path": [f"{row}.png" for row in range(films)],
            "split": np.where(np.arange(films) % 10 == 0, "val", "test"),
            "patient": [f"p{number}" for number in dice.integers(films // 2, size=films)],
            "label": label.astype(int),
            "subtype": np.where(label, np.where(dice.random(films) < 0.5, "bacterial", "viral"), "normal"),
            "logit": 2 * (label - 0.5) + dice.normal(0, 1.2, films),
            "width": dice.integers(900, 2000, films),
            "height": dice.integers(700, 1500, films),
            "mode": "L",
        }
    )


def peak_memory() -> float:
    """Largest memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
