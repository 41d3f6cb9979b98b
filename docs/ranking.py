"""How validation ranks experiments, as it is and re-rendered, beside how test ranks them.

Run from the project's root, after `make recipes`: `python docs/ranking.py EXPERIMENT EXPERIMENT EXPERIMENT ...`. About
two minutes each. No test film is scored anew: what test says is read from the experiments' reports.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dvc.api
import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from pulmo.evaluation.probes.renderings import measure_renderings, score_renderings
from pulmo.films.rows.processed import open_images, read_rows
from pulmo.metrics.bootstrap import Resampling
from pulmo.model.classifier import Classifier, load_classifier

RESAMPLES = 200
INPUTS = (
    "models/package",
    "data/processed/images.npy",
    "data/processed/index.csv",
    "data/splits.csv",
    "data/processed/rejected.csv",
)


def main(names: list[str]) -> None:
    """Print a row for each experiment, best on test first, and Spearman's rank correlations with test."""
    table = pd.DataFrame({name: measure(name) for name in names}).T.sort_values("test AUROC", ascending=False)
    print(table.to_string(float_format=lambda value: f"{value:.4f}"))
    print(f"\nSpearman's rank correlation with test, {len(table)} experiments:   AUROC   specificity")
    for column in table.columns[2:]:
        found = [spearmanr(table[column], table[by]).statistic for by in ("test AUROC", "test specificity")]
        print(f"{column:48} {found[0]:10.2f} {found[1]:10.2f}")


@contextmanager
def opened(name: str) -> Iterator[tuple[Classifier, np.ndarray, pd.DataFrame]]:
    """The model of an experiment, its films and the rows of its validation films, out of DVC's cache."""
    with tempfile.TemporaryDirectory() as scratch:
        held, folder = dvc.api.DVCFileSystem(rev=name), Path(scratch)
        for path in INPUTS:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            held.get(path, str(folder / path), recursive=held.isdir(path))
        images, val = open_images(folder / INPUTS[1]), read_rows(folder / INPUTS[3], folder / INPUTS[2], "val")
        yield load_classifier(folder / INPUTS[0]), images, val


def measure(name: str) -> dict[str, float]:
    """AUROC on all validation films as they are, in each rendering and on the mean, beside what test gave."""
    with opened(name) as (package, images, val):
        rendered = score_renderings(package, val, images, 64, len(val), 42)
    test = json.loads(dvc.api.read("reports/evaluation.json", rev=name))["test"]["metrics"]
    row = {"test AUROC": test["auroc"]["value"], "test specificity": test["specificity"]["value"]}
    aurocs = read_aurocs(rendered)
    return row | {"mean of all": aurocs.pop("mean"), **aurocs}


def read_aurocs(rendered: pd.DataFrame) -> dict[str, float]:
    """AUROC in each rendering of a table of `score_renderings`, and `mean`, that of them all."""
    found = measure_renderings(rendered, Resampling(RESAMPLES))
    return {name: float(estimate.value) for name, estimate in (found.each | {"mean": found.mean}).items()}


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("name three experiments or more: python docs/ranking.py EXPERIMENT EXPERIMENT EXPERIMENT ...")
    main(sys.argv[1:])
