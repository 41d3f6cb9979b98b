"""Ten epochs of ResNet-18 on as many films as the real training set has, on a GPU, against the bare step.

Run from the project's root: `python bench/gpu.py`. It needs a CUDA GPU, and about two minutes of it.
"""

import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from _films import AUGMENTATION, describe, run_bare_steps, train_here, write_films

from pulmo.base.params import TrainParams

FILMS = 5232
EPOCHS = 10
BATCH = 128
ROUNDS = 5
SETTINGS = TrainParams(epochs=EPOCHS, batch_size=BATCH, augment=AUGMENTATION, device="gpu")


def main() -> None:
    """Print ratios measured in this run."""
    if not torch.cuda.is_available():
        print("skipped: needs a CUDA GPU")
        return
    device = torch.device("cuda")
    with tempfile.TemporaryDirectory() as scratch:
        images, labels, what = write_films(Path(scratch), FILMS)
    print(f"{what}, ResNet-18, 224 px, batch {BATCH}, {torch.cuda.get_device_name()}, {EPOCHS} epochs:")
    began = time.perf_counter()
    first = train_here(images, labels, SETTINGS)[1]
    print(
        f"first training of the process: {first:.2f} s, {time.perf_counter() - began:.2f} s with all that goes before"
    )
    ratios, seconds, streamed = [], [], []
    for turn in range(ROUNDS):
        bare = run_bare_steps(images, labels, device, EPOCHS, BATCH)
        seconds.append(train_here(images, labels, SETTINGS)[1])
        with mock.patch("pulmo.training.rows._GPU_SHARE", 0.0):
            streamed.append(seconds[-1] / train_here(images, labels, SETTINGS)[1])
        ratios.append(bare / seconds[-1])
        rate = EPOCHS * len(images) / seconds[-1]
        print(f"  round {turn + 1}: bare step {bare:.2f} s, train {seconds[-1]:.2f} s, {rate:.0f} images per second")
    print(f"training {describe(seconds)} s (under 10 wanted), {describe(ratios)} of the bare step's rate (.90 wanted)")
    print(f"films streamed from memory instead of resident on the GPU: {describe(streamed)} of that rate")
    measure_compilation(images, labels)


def measure_compilation(images: np.ndarray, labels: np.ndarray) -> None:
    """Print what `torch.compile` costs and gains: it starts after the second epoch where it is worth it."""
    with mock.patch("pulmo.training.loop._COMPILE_PAYS", -1.0):
        epochs = [row["seconds"] for row in train_here(images, labels, SETTINGS.model_copy(update={"epochs": 8}))[0]]
    before, after = epochs[1], float(np.median(epochs[4:]))
    print(f"torch.compile: {epochs[2] - after:.1f} s once, then {before / after:.2f} times the rate")


if __name__ == "__main__":
    main()
