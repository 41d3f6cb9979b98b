"""One epoch after the other: the Lightning module that steps, validates, keeps the best epoch and saves its state."""

import copy
import time
from collections.abc import Callable, Iterator
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from tqdm import tqdm

from pulmo.metrics.ranking import ranking
from pulmo.model.augmentation import make_generator
from pulmo.model.scoring import logit_pneumonia
from pulmo.training import optimization
from pulmo.training.features import Feed
from pulmo.training.rows import cut_batches, draw_order
from pulmo.training.settings import TrainSettings

Row = dict[str, float]
VAL_BATCH = 64
_CHECK_EVERY = 50  # steps between looks at the loss on a GPU, where each look waits for all work queued
_COMPILE_PAYS = 900  # seconds of training ahead from which a compilation (about a minute) is earned back


class Batches:
    """Batches of positions; `draw` is asked anew in every epoch."""

    def __init__(self, count: int, draw: Callable[[], list[Tensor]]) -> None:
        self.count, self.draw = count, draw

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Tensor]:
        yield from self.draw()


class Learner(pl.LightningModule):
    """Trains `net` on `feed`; `history` and `best` hold what came of it."""

    targets: Tensor
    val_targets: Tensor
    class_weights: Tensor | None

    def __init__(
        self,
        net: nn.Module,
        feed: Feed,
        targets: Tensor,
        val_feed: Feed,
        val_targets: Tensor,
        settings: TrainSettings,
        on_epoch: Callable[["Learner"], None],
        progress: bool,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False  # halves what Lightning adds to a step
        self.net, self.feed, self.val_feed, self.settings = net, feed, val_feed, settings
        self.seed, self.batch_size = settings.seed, settings.batch_size
        self.balanced = settings.class_balance == "sampler"
        self.order_targets = targets
        self.register_buffer("targets", targets, persistent=False)
        self.register_buffer("val_targets", val_targets, persistent=False)
        weights = optimization.class_weights(targets) if settings.class_balance == "weights" else None
        self.register_buffer("class_weights", weights, persistent=False)
        self.average = copy.deepcopy(net) if settings.ema else None
        self.steps = len(cut_batches(targets, self.batch_size))
        self.history: list[Row] = []
        self.best: dict[str, Tensor] = {}
        self.plateau: ReduceLROnPlateau | None = None
        self.restored: dict[str, Any] | None = None
        self._on_epoch = on_epoch
        self._compiled = False
        self._bar = tqdm(total=settings.epochs * self.steps, unit="batch", disable=None if progress else True)

    @property
    def epoch(self) -> int:
        """The epoch under way, counted from 1; also the number of finished ones + 1."""
        return len(self.history) + 1

    @property
    def best_epoch(self) -> int:
        """The epoch of the highest validation AUROC, the lower loss and the earlier epoch winning a tie; 0 = none."""
        ranked = [(-row["val_auroc"], row["val_loss"], row["epoch"]) for row in self.history]
        return int(min(ranked)[2]) if ranked else 0

    @property
    def finished(self) -> bool:
        """Whether every epoch is done, or `patience` epochs have gone by without a better one."""
        done, patience = len(self.history), self.settings.patience
        return done >= self.settings.epochs or bool(patience and done - self.best_epoch >= patience)

    def train_dataloader(self) -> Batches:
        return Batches(self.steps, self._draw_batches)

    def val_dataloader(self) -> Batches:
        batches = list(torch.split(torch.arange(len(self.val_targets)), VAL_BATCH))
        return Batches(len(batches), lambda: batches)

    def _draw_batches(self) -> list[Tensor]:
        generator = make_generator(torch.device("cpu"), self.seed, "order", self.epoch)
        return cut_batches(draw_order(self.order_targets, self.balanced, generator), self.batch_size)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        s = self.settings
        fused = self.device.type == "cuda"
        optimizer = optimization.build_optimizer(s.optimizer, self.net.parameters(), s.lr, s.weight_decay, fused)
        if s.schedule == "plateau":
            self.plateau = ReduceLROnPlateau(
                optimizer, factor=optimization.PLATEAU_FACTOR, patience=optimization.PLATEAU_PATIENCE
            )
        return optimizer

    def get_state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on; random numbers follow from seed and epoch alone."""
        return {
            "net": self.net.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.trainer.optimizers[0].state_dict(),
            "plateau": self.plateau.state_dict() if self.plateau else None,
            "history": self.history,
            "best": self.best,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on after the last epoch of `state`; the optimiser follows when training starts."""
        self.net.load_state_dict(state["net"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.history, self.best, self.restored = state["history"], state["best"], state
        self._bar.initial = self._bar.n = self.steps * len(self.history)

    def transfer_batch_to_device(self, batch: Tensor, device: torch.device, dataloader_idx: int) -> Tensor:
        return batch  # positions are needed on the CPU where films are streamed

    def on_train_start(self) -> None:
        if self.restored is not None:
            self.trainer.optimizers[0].load_state_dict(self.restored["optimizer"])
            if self.plateau:
                self.plateau.load_state_dict(self.restored["plateau"])

    def on_train_epoch_start(self) -> None:
        self._began = time.perf_counter()
        self._batches: list[Tensor] = []  # lists, not sums: a GPU is kept waiting by each small operation
        self._outputs: list[Tensor] = []
        self._losses: list[Tensor] = []
        self._checked = 0
        self._bar.set_description(f"epoch {self.epoch}/{self.settings.epochs}", refresh=False)
        torch.manual_seed(self.seed * 100_003 + self.epoch)  # dropout and stochastic depth

    def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> None:
        s = self.settings
        if self.device.type == "cuda":  # the search for algorithms takes seconds: for the size that recurs alone
            torch.backends.cudnn.benchmark = len(batch) == self.batch_size
        if s.schedule != "plateau":
            done = (self._steps_before(batch_idx) + 0.5) / (s.epochs * self.steps)
            warmup = s.warmup_epochs / s.epochs
            self._set_rate(optimization.learning_rate(s.schedule, s.lr, done, warmup))

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        loss, optimizer = self.compute_loss(batch, batch_idx), self.trainer.optimizers[0]
        with torch.autocast(self.device.type, enabled=False):  # which is for the forward pass alone
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()

    def compute_loss(self, batch: Tensor, batch_idx: int) -> Tensor:
        """The loss of one batch of positions, and what the epoch's report is made of."""
        generator = make_generator(self.device, self.seed, "augment", self.epoch, batch_idx)
        targets = self.targets[batch.to(self.device, non_blocking=True)]
        outputs = self.net(self.feed(batch, generator))
        loss = self._loss(outputs, targets, self.class_weights)
        self._batches.append(batch)
        self._outputs.append(outputs.detach())
        self._losses.append(loss.detach())
        self._bar.update(1)
        if self.device.type == "cpu" or batch_idx % _CHECK_EVERY == _CHECK_EVERY - 1:
            self._check_losses()
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Tensor, batch_idx: int) -> None:
        if self.average is not None:
            self._blend(self.average, self._steps_before(batch_idx))

    def on_validation_epoch_start(self) -> None:
        self._val_outputs: list[Tensor] = []
        torch.backends.cudnn.benchmark = False

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self._val_outputs.append(self._scored()(self.val_feed(batch, None)).float())

    def on_train_epoch_end(self) -> None:
        self._check_losses()
        outputs = torch.cat(self._val_outputs)
        val_loss = self._loss(outputs, self.val_targets, None).item()
        logits, labels = logit_pneumonia(outputs).cpu().numpy(), self.val_targets.cpu().numpy() == 1
        if not np.isfinite(logits).all():
            raise ValueError(f"the network's outputs are not finite after epoch {self.epoch}; lower train.lr")
        train_loss, train_accuracy = self._sum_up()
        row = {
            "epoch": self.epoch,
            "lr": self.trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": time.perf_counter() - self._began,
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            "val_loss": val_loss,
            "val_accuracy": float(((logits > 0) == labels).mean()),
            "val_auroc": float(ranking(labels, logits.astype(np.float64))(np.ones((1, len(labels))))["auroc"][0]),
        }
        self.history.append(row)
        if self.best_epoch == row["epoch"]:
            self.best = {name: value.detach().clone() for name, value in self._scored().state_dict().items()}
        if self.plateau:
            self.plateau.step(val_loss)
        self._on_epoch(self)
        self.trainer.should_stop = self.finished
        ahead = (self.settings.epochs - len(self.history)) * row["seconds"]
        if self.device.type == "cuda" and not self._compiled and len(self.history) > 1 and ahead > _COMPILE_PAYS:
            torch._dynamo.config.suppress_errors = True  # where no compiler is found, training goes on without
            self.net.compile()
            self._compiled = True

    def close(self) -> None:
        """End the progress bar."""
        self._bar.close()

    def _loss(self, outputs: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        s = self.settings
        return optimization.compute_loss(outputs, targets, s.loss, s.label_smoothing, weights)

    def _scored(self) -> nn.Module:
        return self.net if self.average is None else self.average

    def _set_rate(self, lr: float) -> None:
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = lr

    def _sum_up(self) -> tuple[float, float]:
        """Mean loss and accuracy of the epoch's training films."""
        sizes = torch.tensor([len(batch) for batch in self._batches], device=self.device)
        loss = (torch.stack(self._losses) * sizes).sum()
        positive = self.targets[torch.cat(self._batches).to(self.device)] == 1
        right = (logit_pneumonia(torch.cat(self._outputs)) > 0) == positive
        return float(loss) / len(positive), float(right.sum()) / len(positive)

    def _check_losses(self) -> None:
        fresh = torch.stack(self._losses[self._checked :]).tolist() if self._checked < len(self._losses) else []
        for step, loss in enumerate(fresh, self._checked + 1):
            if not np.isfinite(loss):
                lr = self.trainer.optimizers[0].param_groups[0]["lr"]
                raise ValueError(
                    f"the loss is not finite at epoch {self.epoch}, step {step}, learning rate {lr:g}; "
                    "lower train.lr, or set train.precision: fp32"
                )
        self._checked = len(self._losses)
        if fresh:
            auroc = f"{self.history[-1]['val_auroc']:.3f}" if self.history else "-"
            self._bar.set_postfix_str(f"loss {fresh[-1]:.3f}, val AUROC {auroc}", refresh=False)

    def _steps_before(self, batch_idx: int) -> int:
        return (self.epoch - 1) * self.steps + batch_idx

    @torch.no_grad()
    def _blend(self, average: nn.Module, updates: int) -> None:
        decay = min(self.settings.ema, (1 + updates) / (10 + updates))  # else the random start lingers
        pairs = list(zip(average.state_dict().values(), self.net.state_dict().values(), strict=True))
        means, values = zip(*[pair for pair in pairs if pair[0].is_floating_point()], strict=True)
        torch._foreach_lerp_(means, values, 1 - decay)  # in one go, as PyTorch's own averages are
        for count, value in pairs:
            if not count.is_floating_point():
                count.copy_(value)
