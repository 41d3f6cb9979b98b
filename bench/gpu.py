"""Ten epochs of ResNet-18 on as many films as the real training set has, on a GPU, against the bare step.

Run from the project's root: `python bench/gpu.py`. It needs a CUDA GPU.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from _films import describe, run_bare_steps, write_films

from pulmo.augment import Augmentation
from pulmo.training import Films, TrainSettings, fit

FILMS = 5232
EPOCHS = 10
BATCH = 128
ROUNDS = 3
AUGMENTATION = Augmentation(flip=0.5, rotation=7, zoom=0.1, translation=0.05, brightness=0.1, contrast=0.1)


def main() -> None:
    """Print ratios measured in this run."""
    if not torch.cuda.is_available():
        print("skipped: needs a CUDA GPU")
        return
    device = torch.device("cuda")
    with tempfile.TemporaryDirectory() as scratch:
        images, labels, what = write_films(Path(scratch), FILMS)
    print(f"{what}, ResNet-18, 224 px, batch {BATCH}, {torch.cuda.get_device_name()}, {EPOCHS} epochs:")
    ratios, seconds = [], []
    train_here(images, labels, 1)
    for turn in range(ROUNDS):
        bare = run_bare_steps(images, labels, device, EPOCHS, BATCH)
        ours = train_here(images, labels, EPOCHS)
        ratios.append(bare / ours)
        seconds.append(ours)
        print(f"  round {turn + 1}: bare step {bare:.2f} s, train {ours:.2f} s, {EPOCHS * FILMS / ours:.0f} images/s")
    print(f"training {describe(seconds)} s (under 10 wanted), {describe(ratios)} of the bare step's rate (.90 wanted)")


def train_here(images: np.ndarray, labels: np.ndarray, epochs: int) -> float:
    """Seconds of all epochs as the stage train runs them, with a validation of two films each."""
    settings = TrainSettings(epochs=epochs, batch_size=BATCH, augment=AUGMENTATION, device="gpu")
    rows = np.arange(len(images))
    fitted = fit(images, Films(rows, labels), Films(rows[:2], labels[:2]), settings, progress=False)
    return sum(row["seconds"] for row in fitted.history)


if __name__ == "__main__":
    main()
