"""Where the shift lies: how well the power spectrum alone tells train films from test films of the same kind.

Run from the project's root, after the pipeline: `python docs/acquisition.py`. Seconds. A value of .5 means that the two
were made and stored alike; labels and models play no part.
"""

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pulmo.base import paths
from pulmo.evaluation.probes.features import power_spectrum
from pulmo.films.names import read_name
from pulmo.films.rows.processed import open_images, read_rows

NORMAL = ("IM", "NORMAL2-IM")


def main() -> None:
    """Print the AUROC of train against test for each kind of film, and of one NORMAL series against the other."""
    splits = {name: read_rows(paths.SPLITS, paths.INDEX, name) for name in ("train", "val", "test")}
    table = pd.concat(splits.values(), keys=["before", "before", "test"], names=["when"]).reset_index("when")
    spectra = power_spectrum(open_images(paths.IMAGES))[table.row]
    kinds = np.array([kind_of(path) for path in table.path])
    before, test = (table.when == "before").to_numpy(), (table.when == "test").to_numpy()
    for kind in np.unique(kinds):
        print(f"{kind:12} train against test: {tell_apart(spectra, before & (kinds == kind), test & (kinds == kind))}")
    if set(NORMAL) <= set(kinds):
        series = (before & (kinds == name) for name in NORMAL)
        print(f"{' against '.join(NORMAL)}, both of train: {tell_apart(spectra, *series)}")


def kind_of(path: str) -> str:
    """The series of a NORMAL film, bacterial or viral."""
    key, kind = read_name(path)
    return key.rpartition("-")[0] if kind == "normal" else kind


def tell_apart(features: np.ndarray, first: np.ndarray, second: np.ndarray) -> str:
    """Cross-validated AUROC of a logistic regression, and how many films there are on either side."""
    if min(first.sum(), second.sum()) < 5:
        return "too few films"
    label = np.repeat([0, 1], [first.sum(), second.sum()])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    columns = np.concatenate([features[first], features[second]])
    scores = cross_val_predict(model, columns, label, cv=5, method="decision_function")
    return f"AUROC {roc_auc_score(label, scores):.3f} ({first.sum()} and {second.sum()} films)"


if __name__ == "__main__":
    main()
