"""Heads on a frozen ImageNet ResNet-18 by how films are harmonised: how they bear other renderings and equipment.

Run from the project's root, after `dvc repro preprocess` with `preprocess.harmonise: none`:
`python docs/harmonise_heads.py [--last]`. Two minutes of one core at 128 px. With --last, the second set of changes
and test instead, which are for one look once all is chosen.
"""

import sys
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from equipment import SECOND
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from pulmo.base import paths
from pulmo.base.errors import UserError
from pulmo.dataset.harmonising import learn_harmony
from pulmo.evaluation.probes.equipment_films import FIRST, deliver_films
from pulmo.evaluation.probes.probe import draw_rows
from pulmo.evaluation.probes.renderings import render_films
from pulmo.films.rows.processed import open_images, read_rows
from pulmo.model.networks import build_model
from pulmo.model.scoring import to_input
from pulmo.package.harmony import Harmony, read_harmony

MODES = ("none", "gray", "both")
SEEDS = (42, 1, 2)  # each draws its train films
POOL, TRAIN, VAL = 1200, 800, 200  # train films, those of a head drawn of them, and films that are re-rendered
RIDGE = 0.01  # C of the logistic regression, fixed beforehand: 512 features are many for 800 films


def main(last: bool) -> None:
    """Print a row for each mode and seed, and the means over the seeds."""
    if read_harmony(paths.HARMONY) != Harmony():
        raise UserError("the films are harmonised already", "set preprocess.harmonise: none and run preprocess")
    images = open_images(paths.IMAGES)
    train, val, test = (read_rows(paths.SPLITS, paths.INDEX, name) for name in ("train", "val", "test"))
    pool = train.sample(POOL, random_state=0)
    network = build_model("resnet18", "imagenet", 2, images.shape[1]).eval()
    network.fc = nn.Identity()
    rows = []
    for mode in MODES:
        harmony = learn_harmony(images, train.row.to_numpy(), mode)
        known = read_features(network, harmony.apply(images[pool.row]))
        sets = {name: read_features(network, films) for name, films in deliver(val, images, harmony, last)}
        shown = val.target.to_numpy()[draw_rows(val.target.to_numpy(), VAL, 42)]
        if last:
            sets["test"] = read_features(network, harmony.apply(images[test.row]))
        for seed in SEEDS:
            drawn = np.random.default_rng(seed).permutation(POOL)[:TRAIN]
            head = make_pipeline(StandardScaler(), LogisticRegression(C=RIDGE, max_iter=2000))
            head.fit(known[drawn], pool.target.to_numpy()[drawn])
            aurocs = {
                name: roc_auc_score(test.target if name == "test" else shown, head.decision_function(features))
                for name, features in sets.items()
            }
            rows.append({"mode": mode, "seed": seed} | aurocs)
        print(f"{mode} done", flush=True)
    table = pd.DataFrame(rows).set_index(["mode", "seed"])
    changed = [name for name in table if name in (SECOND if last else FIRST)]
    rendered = [name for name in table if name not in (*changed, "test")]
    for name, columns in (("mean of the set", changed), ("mean of the renderings", rendered)):
        if columns:
            table[name] = table[columns].mean(axis=1)
    print(table.T.to_string(float_format="{:.4f}".format))
    print(table.groupby(level=0, sort=False).mean().T.to_string(float_format="{:.4f}".format))


def deliver(val: pd.DataFrame, images: np.ndarray, harmony: Harmony, last: bool) -> Iterator[tuple[str, np.ndarray]]:
    """Names and films of every rendering and change, as they are received: made of the film as it was delivered."""
    val = val.iloc[draw_rows(val.target.to_numpy(), VAL, 42)]
    films = np.ascontiguousarray(images[val.row])
    if not last:
        for name, rendered in render_films(films, val.target.to_numpy(), 42):
            yield name, harmony.apply(rendered)
    for name, change in (SECOND if last else FIRST).items():
        yield name, harmony.apply(deliver_films(films, change, 42))


def read_features(network: nn.Module, films: np.ndarray) -> np.ndarray:
    """Pooled features (N, 512) of films (N, S, S)."""
    with torch.inference_mode():
        parts = (torch.from_numpy(films[start : start + 32]) for start in range(0, len(films), 32))
        return np.concatenate([network(to_input(part)).numpy() for part in parts])


if __name__ == "__main__":
    main("--last" in sys.argv)
