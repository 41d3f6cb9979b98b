"""From positions of films to the loss of their batch."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from pulmo.base.params import TrainParams
from pulmo.model.scoring import logit_pneumonia
from pulmo.training.features import Feed
from pulmo.training.network import Compilable
from pulmo.training.optimization import class_weights, compute_divergence, compute_loss


class Objective(nn.Module):
    """Feed, network and loss as one module, so that Fabric runs all of them in its precision and one call is a step.

    Fabric rounds the inputs of a module to its precision: here they are positions, which stay as they are.
    """

    targets: Tensor
    weights: Tensor | None

    def __init__(self, network: Compilable, feed: Feed, targets: Tensor, settings: TrainParams) -> None:
        super().__init__()
        self.network, self.feed, self.settings = network, feed, settings
        self.register_buffer("targets", targets, persistent=False)
        weights = class_weights(targets) if settings.class_balance == "weights" else None
        self.register_buffer("weights", weights, persistent=False)

    def forward(
        self, positions: Tensor, generator: Generator, size: int, counts: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The loss of the films at these positions (batch,), augmented by `generator`, and the network's outputs.

        `size` is the side in pixels that films are scaled down to before, 0 for films as they are. `counts` (batch,) is
        how much each film counts. With `consistency` the feed appends the swapped films, whose answers are to be those
        of the films.
        """
        targets = self.targets[positions.to(self.targets.device, non_blocking=True)]
        outputs = self.network(self.feed(positions, generator, size))
        s = self.settings
        answers = outputs[: len(targets)]
        counts = None if counts is None else counts.to(targets.device, non_blocking=True)
        loss = compute_loss(answers, targets, s.loss, s.label_smoothing, self.weights, counts)
        if s.consistency:
            swapped = outputs[len(targets) :]
            loss = loss + s.consistency * compute_divergence(answers, swapped, targets, self.weights, counts)
        return loss, answers.detach()


def film_weights(targets: Tensor, class_balance: str) -> Tensor:
    """The weight of each film (n,) in the mean loss of its batch."""
    return class_weights(targets)[targets] if class_balance == "weights" else torch.ones(len(targets))


class Steps:
    """Films, outputs and losses of an epoch's steps in one of several processes.

    Lists, not sums: a GPU is kept waiting by each small operation.
    """

    def __init__(self, processes: int = 1) -> None:
        self.processes = processes
        self.batches: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.losses: list[Tensor] = []
        self.sizes: list[int] = []
        self._read = 0

    def add(self, positions: Tensor, outputs: Tensor, loss: Tensor, size: int) -> None:
        """Take the results of one step as they are on the device; `size` is that of the batch of all processes."""
        self.batches.append(positions)
        self.outputs.append(outputs)
        self.sizes.append(size)
        self.losses.append(loss.detach())

    def read_losses(self) -> list[tuple[int, float]]:
        """Step, counted from 1, and loss of the steps since the last call; waits for the device to compute them."""
        first, self._read = self._read, len(self.losses)
        if first == self._read:
            return []
        return list(enumerate(torch.stack(self.losses[first:]).tolist(), first + 1))

    def sums(self, targets: Tensor) -> Tensor:
        """Sums (3,) of the films' losses, of those answered rightly and of the films; over all processes they add up.

        `targets` are those of all positions.
        """
        device = self.losses[0].device
        sizes = torch.tensor(self.sizes, device=device)
        loss = (torch.stack(self.losses) * sizes).sum() / self.processes
        positive = (targets[torch.cat(self.batches)] == 1).to(device)
        right = (logit_pneumonia(torch.cat(self.outputs)) > 0) == positive
        return torch.stack([loss.double(), right.sum().double(), torch.full_like(loss, len(positive)).double()])

    def film_losses(self, targets: Tensor) -> Tensor:
        """Sums (2, n) of the cross-entropies of each film, as the network was at its step, and of its steps; over all
        processes they add up."""
        positions, logits = torch.cat(self.batches), logit_pneumonia(torch.cat(self.outputs)).float()
        positive = (targets[positions] == 1).to(logits.device)
        losses = F.binary_cross_entropy_with_logits(logits, positive.float(), reduction="none")
        sums = torch.zeros(2, len(targets), device=logits.device)
        return sums.index_add_(1, positions.to(logits.device), torch.stack([losses, torch.ones_like(losses)]))
