"""Variants of `ours`, in small or in full: how each bears validation films in other renderings and from other
equipment.

Run from the project's root, after `dvc repro split` with the real films:
`python docs/trials.py FOLDER [--full] [--seeds SEED ...] [--only VARIANT ...]`. For each seed of a variant it takes
some minutes of one core, in full a quarter of an hour, and most of an hour with ResNet-50. Answers are kept in FOLDER,
one for either extent, so that a killed run goes on, and the table is of all that lies there. Validation alone is
scored: no test film, and nothing of the second set of other equipment.
"""

import argparse
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from pulmo.base import paths
from pulmo.base.files import write_csv
from pulmo.base.params import TrainParams
from pulmo.base.yaml import read_yaml
from pulmo.dataset.harmonising import learn_harmony
from pulmo.dataset.preprocessing import process_films
from pulmo.evaluation.probes.equipment_films import FIRST, deliver_films
from pulmo.evaluation.probes.probe import draw_rows
from pulmo.evaluation.probes.renderings import PLAIN, render_films
from pulmo.films.rows.processed import open_images, read_rows
from pulmo.films.rows.table import read_films
from pulmo.images.film_store import FilmStore
from pulmo.metrics.calibration import fit_temperature
from pulmo.model.scoring import predict_logits
from pulmo.training import Films, fit

SEEDS = (42, 1, 2)


@dataclass(frozen=True)
class Extent:
    """How much of the recipe a trial is: the side of its films, films to train on, which the seed of a trial draws,
    films to score, which are drawn once for all, epochs, and what else differs from the recipe's settings."""

    size: int
    train: int
    val: int
    epochs: int
    settings: dict[str, Any] = field(default_factory=dict)


ALL = 10**6
SMALL = Extent(size=80, train=1300, val=300, epochs=3)
QUICKER = {"freeze": "layer1", "cache_variants": -1, "skip_easy": 0.75}  # a third of the training
FULL = Extent(size=192, train=ALL, val=ALL, epochs=10, settings=QUICKER)


@dataclass(frozen=True)
class Variant:
    """What a variant changes: settings of the training, and how films are prepared."""

    train: dict[str, Any] = field(default_factory=dict)
    augment: dict[str, Any] = field(default_factory=dict)
    last_epoch: float = 1  # the side of films in the last epoch and later, as a multiple of that before
    fit: str = "squash"
    harmonise: str = "none"


VARIANTS = {
    "base": Variant(),
    "harmonise-gray": Variant(harmonise="gray"),
    "harmonise-spectrum": Variant(harmonise="spectrum"),
    "harmonise-both": Variant(harmonise="both"),
    "fit-crop": Variant(fit="crop"),
    "consistency-1": Variant({"consistency": 1.0}),
    "consistency-1-no-foreign-spectra": Variant({"consistency": 1.0}, {"spectrum": 0.0}),
    "larger-last-epoch": Variant(last_epoch=1.4),
    "freeze-layer1": Variant({"freeze": "layer1", "cache_variants": -1}),
    "resnet50": Variant({"arch": "resnet50"}),
}
AVERAGES = {"base and resnet50, averaged": ("base", "resnet50")}
SETS = [
    f"{title}, {cell}" for title in ("ten renderings", "other equipment") for cell in ("mean", "less base", "lowest")
]
COLUMNS = ("variant", "seeds", "as it is", *SETS)


def main(folder: Path, extent: Extent, names: Sequence[str], seeds: Sequence[int]) -> None:
    """Run the trials that are missing, those of base too, and print the table of all of them."""
    for seed in seeds:
        for name in dict.fromkeys(("base", *names)):
            file, resume = folder / f"{name}.{seed}.csv", folder / f"{name}.{seed}"
            if not file.exists():
                began = time.perf_counter()
                write_csv(file, run_trial(VARIANTS[name], extent, seed, resume))
                shutil.rmtree(resume)
                print(f"{name}, seed {seed}: {time.perf_counter() - began:.0f} s", flush=True)
    print_table(folder)


def run_trial(variant: Variant, extent: Extent, seed: int, resume: Path) -> pd.DataFrame:
    """A row (set, name, label, logit) for each validation film in each rendering and from each other equipment."""
    films = prepare_films(resume.parent, round(extent.size * variant.last_epoch), variant.fit)
    train, val = (read_rows(paths.SPLITS, films / "index.csv", split) for split in ("train", "val"))
    images = open_images(films / "images.npy")
    harmony = learn_harmony(images, train.row.to_numpy(), variant.harmonise)
    train = train.iloc[draw_rows(train.target.to_numpy(), extent.train, seed)]
    val = val.iloc[draw_rows(val.target.to_numpy(), extent.val, 42)]
    received = harmony.apply(np.array(images))
    splits = (Films(received, table.row.to_numpy(), table.target.to_numpy()) for table in (train, val))
    fitted = fit(*splits, make_settings(variant, extent, seed), resume=resume)
    tables = []
    for group, name, delivered in deliver(images[val.row], val.target.to_numpy()):
        logits = predict_logits(fitted.model, harmony.apply(delivered)).astype(float)
        tables.append(pd.DataFrame({"set": group, "name": name, "label": val.target, "logit": logits}))
    return pd.concat(tables, ignore_index=True)


def prepare_films(parent: Path, size: int, fit_as: str) -> Path:
    """The folder in `parent` with all films of that side and fit, which are decoded unless they are there."""
    folder = parent / f"films-{size}-{fit_as}"
    if not (folder / "index.csv").exists():
        with FilmStore(size, fit_as) as store:
            process_films(paths.RAW, read_films(paths.FILMS), store, 1, 0, folder)
    return folder


def make_settings(variant: Variant, extent: Extent, seed: int) -> TrainParams:
    """The recipe's settings in the extent, with what the variant changes."""
    recipe = read_yaml(Path("recipes/ours.yaml"))["params"]["train"]
    changes = extent.settings | {"epochs": extent.epochs, "seed": seed, "augment": recipe["augment"] | variant.augment}
    if variant.last_epoch != 1:
        changes |= {"early_epochs": extent.epochs - 1, "early_size": extent.size}
    return TrainParams.model_validate(recipe | changes | variant.train)


def deliver(films: np.ndarray, labels: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    """Set, name and films (N, S, S) of each rendering and of each change of the first set of other equipment."""
    for name, rendered in render_films(films, labels, 42):
        yield "rendering", name, rendered
    for name, change in FIRST.items():
        yield "equipment", name, deliver_films(films, change, 42)


def print_table(folder: Path) -> None:
    """Print a Markdown row for each variant and average: means over the seeds, lowest to highest."""
    trials: dict[str, dict[int, pd.DataFrame]] = {}
    for name in VARIANTS:
        files = {int(file.suffixes[-2][1:]): file for file in folder.glob(f"{name}.*.csv")}
        trials[name] = {seed: pd.read_csv(file) for seed, file in sorted(files.items())}
    for name, parts in AVERAGES.items():
        common = set.intersection(*(set(trials[part]) for part in parts))
        trials[name] = {seed: average([trials[part][seed] for part in parts]) for seed in sorted(common)}
    aurocs = {name: read_aurocs(tables) for name, tables in trials.items() if tables}
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for name, own in aurocs.items():
        print(f"| {name} | {len(own)} | {' | '.join(summarise(own, aurocs['base']))} |")


def average(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The mean log-odds of several models, each divided by its temperature, fitted on all renderings as in evaluate."""
    total = np.zeros(len(tables[0]))
    for table in tables:
        rendered = table[table["set"] == "rendering"]
        total += table.logit / fit_temperature(rendered.label, rendered.logit).value
    return tables[0].assign(logit=total / len(tables))


def read_aurocs(tables: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """AUROC, a row for each seed and a column for each set and name."""
    rows = {}
    for seed, table in tables.items():
        groups = table.groupby(["set", "name"], sort=False)[["label", "logit"]]
        rows[seed] = groups.apply(lambda films: roc_auc_score(films.label, films.logit))
    return pd.DataFrame(rows).T


def summarise(aurocs: pd.DataFrame, base: pd.DataFrame) -> list[str]:
    """The cells of a variant's row; it is compared with base by the seeds that both have."""
    cells = [describe(aurocs["rendering", PLAIN])]
    for group in ("rendering", "equipment"):
        each, mean = aurocs[group], aurocs[group].mean(axis=1)
        lowest = str(each.mean().idxmin())
        gain = (mean - base[group].mean(axis=1)).dropna()
        cells += [describe(mean), describe(gain, "+.4f"), f"{lowest}, {describe(each[lowest])}"]
    return cells


def describe(values: pd.Series, form: str = ".4f") -> str:
    """Mean of the seeds, lowest to highest."""
    mean, low, high = (format(value, form) for value in (values.mean(), values.min(), values.max()))
    return f"{mean} ({low} to {high})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--full", action="store_true", help="all films, 192 px, ten epochs, in which easy films are skipped"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--only", choices=VARIANTS, nargs="*", default=tuple(VARIANTS), metavar="VARIANT")
    arguments = parser.parse_args()
    main(arguments.folder, FULL if arguments.full else SMALL, arguments.only, arguments.seeds)
