"""The state of a training between two epochs: network, optimiser, learning rate, history."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pulmo.base.params import TrainParams
from pulmo.training.optimization import PLATEAU_FACTOR, PLATEAU_PATIENCE, build_optimizer, learning_rate
from pulmo.training.sharding import cut, cut_optimizer_state, join, own_share, shard

Row = dict[str, float]
"""One epoch of the history: its number, learning rate, seconds, and the losses and metrics of both splits."""


class State:
    """Everything that the next epoch depends on; random numbers follow from seed and epoch alone.

    `net` is trained, `average` is the moving average of its weights (or None), `best` holds the weights of the best
    epoch so far. `losses` (n,) are those of the films when they were last trained on, where `skip_easy` asks for them.
    """

    def __init__(self, net: nn.Module, settings: TrainParams, steps: int) -> None:
        self.net, self.settings, self.steps = net, settings, steps
        self.average = copy.deepcopy(net) if settings.ema else None
        if self.is_cut:
            for part in filter(None, (net, self.average)):
                shard(part)
        fused = next(net.parameters()).device.type == "cuda"
        s = settings
        self.optimizer = build_optimizer(s.optimizer, net.parameters(), s.lr, s.weight_decay, fused)
        self.plateau: ReduceLROnPlateau | None = None
        if settings.schedule == "plateau":
            self.plateau = ReduceLROnPlateau(self.optimizer, factor=PLATEAU_FACTOR, patience=PLATEAU_PATIENCE)
        self.batches = steps  # of the epoch under way, which are fewer where it skips films
        self.losses: Tensor | None = None
        self.history: list[Row] = []
        self.best: dict[str, Tensor] = {}

    @property
    def is_cut(self) -> bool:
        """True where each process holds a share of every weight."""
        return self.settings.strategy == "fsdp"

    @property
    def epoch(self) -> int:
        """The epoch under way, counted from 1; also the number of finished ones + 1."""
        return len(self.history) + 1

    @property
    def film_size(self) -> int:
        """The side in pixels that films are scaled down to in the epoch under way, 0 for films as they are."""
        return self.settings.early_size if self.epoch <= self.settings.early_epochs else 0

    @property
    def best_epoch(self) -> int:
        """The epoch of the highest validation AUROC, the lower loss and the earlier epoch winning a tie; 0 = none."""
        ranked = [(-row["val_auroc"], row["val_loss"], row["epoch"]) for row in self.history]
        return int(min(ranked)[2]) if ranked else 0

    @property
    def finished(self) -> bool:
        """True when every epoch is done, or `patience` epochs have gone by without a better one."""
        done, patience = len(self.history), self.settings.patience
        return done >= self.settings.epochs or bool(patience and done - self.best_epoch >= patience)

    @property
    def lr(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def set_lr(self, step: int) -> None:
        """Set the learning rate of this step of the epoch, counted from 0; a plateau's follows the validation loss."""
        s = self.settings
        if s.schedule == "plateau":
            return
        done = self._steps_before(step + 0.5) / (s.epochs * self.steps)
        lr = learning_rate(s.schedule, s.lr, done, s.warmup_epochs / s.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    @torch.no_grad()
    def update_average(self, step: int) -> None:
        """Blend the weights after this step of the epoch, counted from 0, into their average."""
        if self.average is None:
            return
        updates = self._steps_before(step)
        if not self.film_size:  # begins anew, for batch-norm statistics of smaller films are other ones
            updates -= self.settings.early_epochs * self.steps
        decay = min(self.settings.ema, (1 + updates) / (10 + updates))  # else the random start lingers
        mean, trained = (map(own_share, part.state_dict().values()) for part in (self.average, self.net))
        pairs = list(zip(mean, trained, strict=True))
        means, values = zip(*[pair for pair in pairs if pair[0].is_floating_point()], strict=True)
        torch._foreach_lerp_(means, values, 1 - decay)  # in one go, as PyTorch's own averages are
        for count, value in pairs:
            if not count.is_floating_point():
                count.copy_(value)

    def end_epoch(self, row: Row) -> None:
        """Add the epoch to the history, keep its weights where it is the best, and follow the plateau."""
        self.history.append(row)
        if self.best_epoch == row["epoch"]:
            scored = self.net if self.average is None else self.average
            self.best = {name: value.detach().clone() for name, value in scored.state_dict().items()}
        if self.plateau:
            self.plateau.step(row["val_loss"])

    def state_dict(self, keep: bool = True) -> dict[str, Any]:
        """The state for a checkpoint; its tensors are those of the training itself, or whole copies of what is cut: all
        processes must ask for them, also those that do not `keep` them."""
        state = {
            "net": self.net.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "plateau": self.plateau.state_dict() if self.plateau else None,
            "losses": self.losses,
            "history": self.history,
            "best": self.best,
        }
        joined: dict[str, Any] = join(state, keep)
        return joined

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the last epoch of `state`."""
        weights = self.net.state_dict()
        self.net.load_state_dict(cut(state["net"], weights))
        if self.average is not None:
            self.average.load_state_dict(cut(state["average"], weights))
        self.optimizer.load_state_dict(cut_optimizer_state(state["optimizer"], self.optimizer))
        if self.plateau:
            self.plateau.load_state_dict(state["plateau"])
        self.losses = state["losses"]
        self.history, self.best = state["history"], cut(state["best"], weights)

    def _steps_before(self, step: float) -> float:
        """The steps before this one of the epoch, on the scale of a training that skips no film."""
        return (self.epoch - 1) * self.steps + step * self.steps / self.batches
