"""How near training comes to the bare step, how far it leaves the published way behind, and what Fabric costs.

Run from the project's root: `python bench/train.py`. About five minutes on two quiet cores.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _films import AUGMENTATION, BATCH, CPU, describe, run_bare_steps, train_as_published, train_here, write_films
from torch import nn

from pulmo.base.params import TrainParams
from pulmo.base.process import keep_memory, usable_cores
from pulmo.model.device import choose_precision
from pulmo.training import resolve_settings
from pulmo.training.devices import open_fabric, set_up

FILMS = 320
ROUNDS = 5
SETTINGS = TrainParams(epochs=1, batch_size=BATCH, augment=AUGMENTATION, device="cpu")


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
    raw, with_fabric = zip(*(time_tiny_steps() for _ in range(ROUNDS)), strict=True)
    extra = [1000 * (after - before) for after, before in zip(with_fabric, raw, strict=True)]
    share = np.median(extra) / (1000 * BATCH / np.median(bare))
    print(f"Fabric adds {describe(extra)} ms to each step, {share:.2%} of the bare step")


def time_tiny_steps(steps: int = 2000) -> tuple[float, float]:
    """Seconds per step of a network that costs nothing, in a plain loop and in the same under Fabric."""
    fabric = open_fabric(resolve_settings(SETTINGS))
    layer = nn.Linear(8, 1)
    optimizer = torch.optim.AdamW(layer.parameters())
    plain = time_loop(steps, layer, optimizer, lambda loss: loss.backward())
    return plain, time_loop(steps, *set_up(fabric, layer, optimizer), lambda loss: fabric.backward(loss))


def time_loop(
    steps: int, layer: nn.Module, optimizer: torch.optim.Optimizer, backward: Callable[[torch.Tensor], None]
) -> float:
    """Seconds per step."""
    batch = torch.zeros(BATCH, 8)
    began = time.perf_counter()
    for _ in range(steps):
        loss = layer(batch).mean()
        optimizer.zero_grad()
        backward(loss)
        optimizer.step()
    return (time.perf_counter() - began) / steps


if __name__ == "__main__":
    main()
