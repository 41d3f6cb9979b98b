"""Every probe of an evaluation with many films, made up: seconds of processors' time and peak memory of each.

Run from the project's root: `python bench/probes.py [FILMS]`, 100,000 val and test films unless said otherwise, which
takes about ten minutes. Each probe runs in a process of its own. The films are noise of 32 pixels, the network has not
learnt anything: neither changes what the time and the memory of many films are.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from estimates import make_predictions

from pulmo.base.params_file import load_params
from pulmo.evaluation.novelty import mark_unlike
from pulmo.evaluation.probes.probe import Data, Subject
from pulmo.evaluation.probes.renderings import score_renderings
from pulmo.evaluation.probing import PROBES
from pulmo.films.rows.labels import LABELS
from pulmo.metrics.bootstrap import Resampling
from pulmo.metrics.locked import LockingRules, lock
from pulmo.model.classifier import Classifier
from pulmo.model.export import export_checked
from pulmo.model.networks import build_model
from pulmo.package.info import PackageInfo

SIZE = 32
TRAIN = 20_000
FAMILIAR = "familiar films"  # no probe, but what the refusals need


def main() -> None:
    """Print a table, a line a probe."""
    if len(sys.argv) > 2:
        measure(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
        return
    films = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    print(
        f"{films:,} val and test films\n\n| probe | CPU seconds | peak memory, MB | before it |\n|---|---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "images.npy")
        images = np.lib.format.open_memmap(file, "w+", np.uint8, (films + TRAIN, SIZE, SIZE))
        images[:] = np.random.default_rng(0).integers(0, 256, images.shape, dtype=np.uint8)
        for name in [FAMILIAR, *(probe.name for probe in PROBES)]:
            subprocess.run([sys.executable, __file__, str(films), name, str(file)], check=True)


def measure(films: int, name: str, file: Path) -> None:
    """Run what has this name on the films of a file, and print its line of the table."""
    subject = make_subject(films, np.load(file, mmap_mode="r"))
    if name == FAMILIAR:
        data, predictions = subject.data, subject.predictions
        train = data.index.iloc[:TRAIN]
        network = export_checked(
            subject.classifier, predictions[predictions.split == "val"], data.images, subject.locked
        )
    before, worked = peak_memory(), time.process_time()
    if name == FAMILIAR:
        mark_unlike(predictions, train, data.images, network)
    else:
        next(probe for probe in PROBES if probe.name == name).measure(subject)
    print(f"| {name} | {time.process_time() - worked:.0f} | {peak_memory():,.0f} | {before:,.0f} |", flush=True)


def make_subject(films: int, images: np.ndarray) -> Subject:
    """A network that has learnt nothing, its decision, and tables as the pipeline writes them."""
    params = load_params().evaluate
    torch.manual_seed(0)
    network = build_model("resnet18", "none", 1, SIZE).eval()
    classifier = Classifier(network, PackageInfo(arch="resnet18", head=1, size=SIZE, fit="squash"))
    predictions, train = make_predictions(films), make_predictions(TRAIN).assign(split="train")
    for table, kind in ((train, "train-"), (predictions, "")):
        table["path"], table["patient"] = kind + table.path, kind + table.patient
    table = pd.concat([train, predictions], ignore_index=True)
    table["row"] = np.arange(len(table))
    table["bytes"] = table.width * table.height // 10 + np.random.default_rng(1).integers(0, 9999, len(table))
    splits = table[["path", "split", "patient"]].assign(label=np.array(LABELS)[table.label])
    data = Data(table[["path", "width", "height", "mode", "bytes"]], splits, table[["path", "row"]], images)
    predictions = table.iloc[TRAIN:]
    locked = lock(predictions[predictions.split == "val"], None, LockingRules(), Resampling(100))
    predictions = predictions.assign(
        prob_pneumonia=locked.calibrate(predictions.logit), unlike=predictions.logit > 4, target=predictions.label
    )
    val = predictions[predictions.split == "val"]
    rendered = score_renderings(classifier, val, images, params.batch_size, params.rendered_films, params.seed)
    return Subject(classifier, locked, data, predictions, rendered, params)


def peak_memory() -> float:
    """Largest memory of this process so far, in MB, what it read of the films' file included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    main()
