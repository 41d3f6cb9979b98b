"""Five epochs with most of ResNet-18 frozen: the stored outputs of the frozen part against the published way.

Run from the project's root: `python bench/frozen.py`. About six minutes on two quiet cores.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _films import BATCH, describe, train_as_published, train_here, write_films
from torch import nn

from pulmo.base.params import AugmentParams, TrainParams
from pulmo.base.process import usable_cores

FILMS = 640
EPOCHS = 5
ROUNDS = 2
Chosen = Callable[[nn.Module], list[nn.Parameter]]
WAYS: dict[str, tuple[str, float, Chosen]] = {
    "head only": ("backbone", 7, lambda model: list(model.get_submodule("fc").parameters())),
    "layer4 + fc": (
        "layer3",
        3.5,
        lambda model: [*model.get_submodule("layer4").parameters(), *model.get_submodule("fc").parameters()],
    ),
}


def main() -> None:
    """Print ratios measured in this run; the published way does the same in each epoch, so one is measured."""
    with tempfile.TemporaryDirectory() as scratch:
        images, labels, what = write_films(Path(scratch), FILMS)
        print(f"{what}, flips, batch {BATCH}, {EPOCHS} epochs, {usable_cores()} cores:")
        for name, (freeze, wanted, chosen) in WAYS.items():
            ratios, further = [], []
            for turn in range(ROUNDS):
                published = EPOCHS * train_as_published(Path(scratch), chosen, False)
                seconds, epoch = time_training(images, labels, freeze)
                ratios.append(published / seconds)
                further.append(epoch)
                print(f"  {name}, round {turn + 1}: published {published:.1f} s, here {seconds:.1f} s")
            print(f"{name}: {describe(ratios)} times faster ({wanted} wanted), a further epoch {describe(further)} s")


def time_training(images: np.ndarray, labels: np.ndarray, freeze: str) -> tuple[float, float]:
    """Seconds of everything that the stage train does between reading and writing, and of an epoch after the first."""
    settings = TrainParams(
        freeze=freeze,
        epochs=EPOCHS,
        batch_size=BATCH,
        augment=AugmentParams(flip=0.5),
        schedule="constant",
        device="cpu",
    )
    began = time.perf_counter()
    history, _ = train_here(images, labels, settings)
    return time.perf_counter() - began, statistics.median(row["seconds"] for row in history[1:])


if __name__ == "__main__":
    main()
