"""What `preprocess.harmonise` does to films, before anything is trained: how well train films are told from test films.

Run from the project's root, after `dvc repro preprocess` with `preprocess.harmonise: none`: `python docs/harmonise.py`.
Five minutes of one core. Kinds of film are told by their names, as in docs/acquisition.py; the ledger is that of
validation, so that no other label of test plays a part. All NORMAL films are measured, and some of the others.
"""

import time

import numpy as np
import pandas as pd
import torch
from acquisition import kind_of, tell_apart
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from pulmo.base import paths
from pulmo.base.errors import UserError
from pulmo.dataset.harmonising import learn_harmony
from pulmo.evaluation.probes.features import border, power_spectrum
from pulmo.films.rows.processed import open_images, read_rows
from pulmo.model.networks import build_model
from pulmo.model.scoring import to_input
from pulmo.package.harmony import Harmony, read_harmony
from pulmo.package.info import IMAGENET_MEAN, IMAGENET_STD

MODES = ("none", "gray", "spectrum", "both")
PNEUMONIA = 1500  # films of it
SHOWN = 300  # films of a kind before test that the network is shown
AGAIN = 300  # films that are harmonised a second time


def main() -> None:
    """Print a column for each mode."""
    if read_harmony(paths.HARMONY) != Harmony():
        raise UserError("the films are harmonised already", "set preprocess.harmonise: none and run preprocess")
    images = open_images(paths.IMAGES)
    table = pd.concat(read_rows(paths.SPLITS, paths.INDEX, name) for name in ("train", "val", "test"))
    train = table.row[table["split"] == "train"].to_numpy()
    ill = table[table.target == 1].sample(PNEUMONIA, random_state=0)
    table = pd.concat([table[table.target == 0], ill])
    columns = {}
    for mode in MODES:
        harmony, start = learn_harmony(images, train, mode), time.process_time()
        films = harmony.apply(images[table.row])
        seconds = time.process_time() - start
        columns[mode] = measure(table, films) | {"ms a film, one core": f"{1000 * seconds / len(films):.1f}"}
        drawn = films[np.random.default_rng(0).permutation(len(films))[:AGAIN]]
        changed = np.abs(harmony.apply(drawn).astype(int) - drawn).mean(axis=(1, 2))
        columns[mode] |= {"gray levels changed by a second time": f"{changed.mean():.2f} (most {changed.max():.2f})"}
        first = np.abs(films.astype(int) - images[table.row]).mean(axis=(1, 2))
        columns[mode] |= {"by the first time": f"{first.mean():.2f} (most {first.max():.2f})"}
        print(pd.Series(columns[mode]).to_string(), "\n", flush=True)
    with pd.option_context("display.width", 250, "display.max_colwidth", 60):
        print(pd.DataFrame(columns).to_string())


def measure(table: pd.DataFrame, films: np.ndarray) -> dict[str, str]:
    """Train against test for each kind of film by two sorts of features, and shortcuts on validation."""
    kinds = np.array([kind_of(path) for path in table.path])
    split, label = table["split"].to_numpy(), table.target.to_numpy()
    shortcuts = {
        "gray level": np.stack([films.mean(axis=(1, 2)), films.std(axis=(1, 2))], axis=1),
        "power spectrum": power_spectrum(films),
        "border": border(films),
    }
    row = {}
    for kind in np.unique(kinds):
        sides = (split != "test") & (kinds == kind), (split == "test") & (kinds == kind)
        row[f"spectrum, {kind}"] = tell_apart(shortcuts["power spectrum"], *sides)
        if kinds[sides[1]].size and not label[sides[1]].any():
            few = sides[0] & (np.cumsum(sides[0]) <= SHOWN)
            row[f"ResNet-18, {kind}"] = tell_apart(read_features(films, few | sides[1]), few, sides[1])
    for name, columns in shortcuts.items():
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
        scores = model.fit(columns[split == "train"], label[split == "train"]).decision_function(columns)
        auroc = roc_auc_score(label[split == "val"], scores[split == "val"])
        row[f"shortcut {name}, val"] = f"AUROC {auroc:.3f} ({(split == 'val').sum()} films)"
    return row


def read_features(films: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Pooled features (N, 512) of an ImageNet network of the films `wanted`; zeros for the others."""
    network = build_model("resnet18", "imagenet", 2, films.shape[1]).eval()
    network.fc = nn.Identity()
    features = np.zeros((len(films), 512))
    with torch.inference_mode():
        for rows in np.array_split(np.flatnonzero(wanted), max(1, wanted.sum() // 32)):
            features[rows] = network(to_input(torch.from_numpy(films[rows]), IMAGENET_MEAN, IMAGENET_STD)).numpy()
    return features


if __name__ == "__main__":
    main()
