"""Seconds of training to a quality: today's way and faster ones, on the embedded films (params.yaml) and on real ones
(recipe `ours`).

Quality is the mean AUROC over ten renderings of all validation films, one view each, of the weights that training would
keep. The target is what today's way reaches after its last epoch, less .0005. No test film is scored.

Run from the project's root: `python bench/quality.py`. Hours on one core with all real films, which are left out where
they are not at hand; `--help` lists what makes it shorter.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pandas as pd
from _films import REAL
from ruamel.yaml import YAML
from torch import Tensor, nn

from pulmo.base import paths
from pulmo.base.params import Params, TrainParams
from pulmo.base.params_file import load_params
from pulmo.base.process import keep_memory, usable_cores
from pulmo.base.yaml import read_yaml
from pulmo.evaluation.probes.renderings import PLAIN, render_films
from pulmo.experiments.recipes import read_recipe
from pulmo.films.rows.processed import open_images, read_rows
from pulmo.metrics.ranking import ranking
from pulmo.model.classifier import Classifier
from pulmo.model.device import choose_device, choose_precision
from pulmo.package.harmony import read_harmony
from pulmo.package.info import PackageInfo
from pulmo.training import Films, Row, fit
from pulmo.training.state import State

ROOT = Path(__file__).resolve().parents[1]
MARGIN = 0.0005
FASTER: dict[str, dict[str, dict[str, Any]]] = {  # settings that differ from today's, by set of films and name
    "embedded": {
        "6 of 8 epochs at 64 px": {"early_epochs": 6, "early_size": 64},
        "3 of 5 epochs at 96 px, lr 0.002": {"epochs": 5, "early_epochs": 3, "early_size": 96, "lr": 0.002},
    },
    "real": {
        "10 epochs, layer1 frozen, 3 of 4 easy films skipped": {
            "epochs": 10,
            "freeze": "layer1",
            "cache_variants": -1,
            "skip_easy": 0.75,
        },
        "6 of 9 epochs at 128 px": {"epochs": 9, "early_epochs": 6, "early_size": 128},
        "4 of 6 at 112 px, layer1 frozen, lr 0.0006": {
            "epochs": 6,
            "early_epochs": 4,
            "early_size": 112,
            "freeze": "layer1",
            "cache_variants": -1,
            "lr": 0.0006,
        },
        "6 of 7 at 112 px, batches of 64, lr 0.001": {
            "epochs": 7,
            "early_epochs": 6,
            "early_size": 112,
            "batch_size": 64,
            "lr": 0.001,
        },
    },
}


class Epoch(NamedTuple):
    """The end of an epoch: seconds since the training was asked for, and the weights that it would keep."""

    seconds: float
    weights: dict[str, Tensor]


class Result(NamedTuple):
    """A way: the mean AUROC after its last epoch, seconds of the whole training, and those after which it has reached
    the target for good (nan: it has not)."""

    way: str
    auroc: float
    seconds: float
    reached: float


@dataclass(frozen=True)
class Task:
    """Films to train on, validation and its renderings, and the settings of today's way."""

    train: Films
    val: Films
    rendered: list[np.ndarray]
    info: PackageInfo
    settings: TrainParams


def main() -> None:
    """Print a table of the ways for each set of films, and on stderr the epochs that were scored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=FASTER, default=list(FASTER), help="films to measure on")
    parser.add_argument("--real", type=Path, default=REAL, help="folder, .zip or .tar.gz of the real films")
    parser.add_argument("--films", type=int, default=0, help="number of films to train on, drawn; 0 = all")
    parser.add_argument("--size", type=int, default=0, help="side in pixels instead of today's; 0 = today's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42], help="seeds of the faster ways")
    parser.add_argument("--only", default="", metavar="TEXT", help="faster ways whose name holds this text")
    asked = parser.parse_args()
    keep_memory()
    for name in asked.sets:
        if name == "real" and not asked.real.exists():
            print(f"real: skipped, there is no {asked.real} (--real)")
            continue
        with tempfile.TemporaryDirectory() as scratch:
            task = prepare(Path(scratch), read_overlay(name, asked.real, asked.size), asked.films)
            print(f"{name}: {describe(task)}")
            today = measure(task, "today", task.settings, None)
            print(to_line(today, today), flush=True)
            for way, seed in product((each for each in FASTER[name] if asked.only in each), asked.seeds):
                settings = change(task.settings, FASTER[name][way] | {"seed": seed})
                faster = measure(task, f"{way}, seed {seed}", settings, today.auroc - MARGIN)
                print(to_line(faster, today), flush=True)


def read_overlay(name: str, real: Path, size: int) -> dict[str, Any]:
    """Params by their flat names that differ from params.yaml."""
    overlay: dict[str, Any] = {}
    if name == "real":
        source = {"data.source": "folder", "data.folder.path": str(real.resolve())}
        overlay = read_recipe(ROOT / "recipes", "ours", honest=True).params | source
    return overlay | ({"preprocess.size": size} if size else {})


def change(settings: TrainParams, values: Mapping[str, Any]) -> TrainParams:
    """Settings with other values, validated."""
    return TrainParams.model_validate(dict(settings) | values)


def prepare(folder: Path, overlay: Mapping[str, Any], films: int) -> Task:
    """Run the stages before train in a folder, with params.yaml and the overlay."""
    content = read_yaml(ROOT / paths.PARAMS)
    for key, value in overlay.items():
        *sections, last = key.split(".")
        place = content
        for section in sections:
            place = place[section]
        place[last] = value
    with (folder / paths.PARAMS).open("w") as file:
        YAML().dump(content, file)
    environment = os.environ | {"DVC_ROOT": str(folder), "PYTHONPATH": str(ROOT / "src")}
    for stage in ("download", "split", "preprocess"):
        command = [sys.executable, str(ROOT / "stages" / f"{stage}.py")]
        subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True)
    return read_task(folder, load_params(folder / paths.PARAMS), films)


def read_task(folder: Path, params: Params, films: int) -> Task:
    """The task of the films in a folder; of those of train, `films` drawn ones."""
    images = open_images(folder / paths.IMAGES)
    train, val = (read_rows(folder / paths.SPLITS, folder / paths.INDEX, split) for split in ("train", "val"))
    if films:
        train = train.sample(min(films, len(train)), random_state=0)
    plain, settings = np.ascontiguousarray(images[val.row]), params.train
    harmony = read_harmony(folder / paths.HARMONY)
    renderings = render_films(plain, val.target.to_numpy(), params.evaluate.seed)
    rendered = [one if name == PLAIN else harmony.apply(one) for name, one in renderings]
    info = PackageInfo(arch=settings.arch, head=settings.head, size=images.shape[1], fit=params.preprocess.fit)
    return Task(_to_films(images, train), _to_films(images, val), rendered, info, settings)


def _to_films(images: np.ndarray, table: pd.DataFrame) -> Films:
    return Films(images, table.row.to_numpy(), table.target.to_numpy())


def measure(task: Task, way: str, settings: TrainParams, target: float | None) -> Result:
    """Train, then score the epochs from the last one back, until one is below the target. Without a target it is what
    the last epoch reaches, less the margin."""
    network, epochs = train(task, settings)
    auroc, reached = 0.0, float("nan")
    for number, epoch in reversed(list(enumerate(epochs, 1))):
        network.load_state_dict(network.state_dict() | epoch.weights)
        value = score(task, network)
        print(f"  {way}, epoch {number}: {value:.4f} after {epoch.seconds:.0f} s", file=sys.stderr)
        auroc = auroc or value
        target = auroc - MARGIN if target is None else target
        if value < target:
            break
        reached = epoch.seconds
    return Result(way, auroc, epochs[-1].seconds, reached)


def train(task: Task, settings: TrainParams) -> tuple[nn.Module, list[Epoch]]:
    """The trained network, and its epochs; what it takes to keep their weights is no part of their seconds."""
    epochs: list[Epoch] = []
    end_epoch, began, spent = State.end_epoch, time.perf_counter(), 0.0

    def note(state: State, row: Row) -> None:
        nonlocal spent
        ended = time.perf_counter()
        end_epoch(state, row)
        scored = (state.average or state.net).state_dict()
        epochs.append(Epoch(ended - began - spent, {name: value.cpu().clone() for name, value in scored.items()}))
        spent += time.perf_counter() - ended

    with mock.patch.object(State, "end_epoch", note):
        fitted = fit(task.train, task.val, settings, progress=False)
    return fitted.model, epochs


def score(task: Task, network: nn.Module) -> float:
    """The mean AUROC over the renderings."""
    classifier, labels = Classifier(network.eval(), task.info), task.val.targets == 1
    once = np.ones((1, len(labels)))
    ranked = [ranking(labels, classifier.score(films).astype(float), with_auprc=False) for films in task.rendered]
    return float(np.mean([statistic(once)["auroc"][0] for statistic in ranked]))


def describe(task: Task) -> str:
    """Films and machine, and the head of a table of ways."""
    sizes = f"{len(task.train.rows)} to train on, {len(task.val.rows)} of validation, {task.info.size} px"
    place = f"cores: {usable_cores()}, {choose_precision('auto', choose_device())}"
    head = (
        "| way | AUROC at its end | seconds of training | seconds to the target | of today's |\n|---|---|---|---|---|"
    )
    return f"{sizes}, {place}\n{head}"


def to_line(result: Result, today: Result) -> str:
    """A line of the table."""
    way, auroc, seconds, reached = result
    return f"| {way} | {auroc:.4f} | {seconds:.0f} | {reached:.0f} | {reached / today.reached:.2f} |"


if __name__ == "__main__":
    main()
