"""How near training comes to the bare step, how far it leaves the published way behind, and what Lightning costs.

Run from the project's root: `python bench/train.py`. About five minutes on two quiet cores.
"""

import tempfile
import time
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from _films import AUGMENTATION, BATCH, CPU, describe, run_bare_steps, train_as_published, train_here, write_films
from torch import nn

from pulmo.base.process import keep_memory, usable_cores
from pulmo.model.device import choose_precision
from pulmo.training import TrainSettings
from pulmo.training.learner import Batches

FILMS = 320
ROUNDS = 5
SETTINGS = TrainSettings(epochs=1, batch_size=BATCH, augment=AUGMENTATION, device="cpu")


def main() -> None:
    """Print ratios measured in this run; all ways have the memory that a stage keeps."""
    keep_memory()
    chosen = choose_precision("auto", CPU)
    other = "fp32" if chosen == "bf16" else "bf16"
    ours, bare, rejected, published = [], [], [], []
    with tempfile.TemporaryDirectory() as scratch:
        images, labels, what = write_films(Path(scratch), FILMS)
        place = f"{usable_cores()} cores, {chosen}"
        print(f"{what}, ResNet-18, {images.shape[1]} px, batch {BATCH}, {place}, images per second:")
        run_bare_steps(images[: 2 * BATCH], labels, CPU, 1, BATCH)
        for turn in range(ROUNDS):
            bare.append(FILMS / run_bare_steps(images, labels, CPU, 1, BATCH))
            rejected.append(FILMS / run_bare_steps(images, labels, CPU, 1, BATCH, other))
            ours.append(FILMS / train_here(images, labels, SETTINGS)[1])
            published.append(FILMS / train_as_published(Path(scratch), lambda model: list(model.parameters()), True))
            print(
                f"  round {turn + 1}: bare step {bare[-1]:.1f}, in {other} {rejected[-1]:.1f}, train {ours[-1]:.1f}, "
                f"published {published[-1]:.1f}"
            )
    print(f"bare step in {chosen} / in {other}: {describe([a / b for a, b in zip(bare, rejected, strict=True)])}")
    print(f"train / bare step: {describe([a / b for a, b in zip(ours, bare, strict=True)])}; at least .97 is wanted")
    print(f"train / published way: {describe([a / b for a, b in zip(ours, published, strict=True)])}; at least 2")
    raw, with_lightning = zip(*(time_tiny_steps() for _ in range(ROUNDS)), strict=True)
    extra = [1000 * (after - before) for after, before in zip(with_lightning, raw, strict=True)]
    share = np.median(extra) / (1000 * BATCH / np.median(bare))
    print(f"Lightning adds {describe(extra)} ms to each step, {share:.2%} of the bare step")


class Tiny(pl.LightningModule):
    """A network that costs nothing, so that the time of a step is the time of what surrounds it."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.layer = nn.Linear(8, 1)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.step(batch, self.trainer.optimizers[0])

    def step(self, batch: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        self.layer(batch).mean().backward()
        optimizer.step()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters())


def time_tiny_steps(steps: int = 2000) -> tuple[float, float]:
    """Seconds per step of a plain loop, and of the same under Lightning."""
    batches, plain = [torch.zeros(BATCH, 8)] * steps, Tiny()
    optimizer = plain.configure_optimizers()
    began = time.perf_counter()
    for batch in batches:
        plain.step(batch, optimizer)
    raw = (time.perf_counter() - began) / steps
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, **dict.fromkeys(off, False))
    began = time.perf_counter()
    trainer.fit(Tiny(), Batches(steps, lambda: batches))
    return raw, (time.perf_counter() - began) / steps


if __name__ == "__main__":
    import logging
    import warnings

    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    main()
