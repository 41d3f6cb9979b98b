"""Films as rows of an array, as tensors on the device that trains, and in which order they come."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from pulmo.base.errors import UserError

_GPU_SHARE = 0.5  # of the free memory that data may take; the rest is for the network


@dataclass(frozen=True)
class Films:
    """Rows (n,) of an array of images (uint8 N, S, S), and their targets (n,), 1 = PNEUMONIA."""

    images: np.ndarray
    rows: np.ndarray
    targets: np.ndarray

    def load_targets(self) -> Tensor:
        """The targets as a tensor of their own, int64 (n,)."""
        return torch.from_numpy(np.array(self.targets, dtype=np.int64))


def check_classes(**splits: Films) -> None:
    """UserError where a split, named by its keyword, has no film of one class."""
    for name, films in splits.items():
        for target, label in enumerate(("NORMAL", "PNEUMONIA")):
            if not (films.targets == target).any():
                raise UserError(f"split {name} has no {label} film", "check the section split of params.yaml")


class Rows:
    """The chosen rows of an array, often memory-mapped: on a GPU where they fit there, else read batch by batch."""

    def __init__(self, array: np.ndarray, rows: np.ndarray, device: torch.device) -> None:
        self.array, self.rows, self.device = array, np.asarray(rows), device
        self.kind = torch.from_numpy(np.empty(0, array.dtype)).dtype
        self.resident: Tensor | None = None
        size = array[:1].nbytes * len(rows)
        if device.type == "cuda" and size < _GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
            whole = torch.empty((len(rows), *array.shape[1:]), dtype=self.kind, device=device)
            for start in range(0, len(rows), 1024):
                whole[start : start + 1024] = torch.from_numpy(array[self.rows[start : start + 1024]])
            self.resident = whole

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, positions: Tensor) -> Tensor:
        """The rows at these positions (batch,) among the chosen ones, on the device."""
        if self.resident is not None:
            return self.resident[positions.to(self.device, non_blocking=True)]
        rows, pinned = self.rows[positions.cpu().numpy()], self.device.type == "cuda"
        batch = torch.empty((len(rows), *self.array.shape[1:]), dtype=self.kind, pin_memory=pinned)
        np.take(self.array, rows, axis=0, out=batch.numpy(), mode="clip")  # another mode copies twice
        return batch.to(self.device, non_blocking=True)


def draw_order(targets: Tensor, balanced: bool, generator: Generator) -> Tensor:
    """Positions of one epoch: a permutation, or with `balanced` as many draws with both classes equally likely."""
    if not balanced:
        return torch.randperm(len(targets), generator=generator)
    weights = (1 / torch.bincount(targets, minlength=2))[targets]
    return torch.multinomial(weights, len(targets), replacement=True, generator=generator)


def skip_easy(order: Tensor, losses: Tensor, share: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """The positions of an epoch less a drawn `share` of the easy films, and how much each film (n,) counts.

    Easy are those whose loss, when they were last trained on, lies below the mean of `losses` (n,). The easy films that
    stay count 1 / (1 - share) times, so that the gradient is the same on average (InfoBatch, Qin et al. 2024).
    """
    easy = losses < losses.mean()
    skipped = easy & (torch.rand(len(losses), generator=generator) < share)
    return order[~skipped[order]], torch.where(easy, 1 / (1 - share), 1.0)


def cut_batches(order: Tensor, batch_size: int, processes: int = 1) -> list[Tensor]:
    """Slices of at most `batch_size`, but a last one that is too small joins the one before.

    Batch norm needs two films, and each of several processes one.
    """
    batches = list(torch.split(order, batch_size))
    if len(batches) > 1 and len(batches[-1]) < max(2, processes):
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches
