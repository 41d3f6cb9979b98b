"""A training from films in memory to the weights of the best epoch, in the order in which it happens."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from pulmo.base.cores import give_way
from pulmo.base.errors import UserError
from pulmo.base.params import TrainParams
from pulmo.metrics.ranking import ranking
from pulmo.model.augmentation import make_generator
from pulmo.model.device import choose_device, shared_cores
from pulmo.model.scoring import logit_pneumonia
from pulmo.model.start import Start
from pulmo.model.weights import find_head
from pulmo.training.checkpoints import Checkpoint
from pulmo.training.devices import (
    add_up,
    check_processes,
    explained_failures,
    open_fabric,
    resolve_settings,
    set_up,
)
from pulmo.training.features import Feed, make_feeds
from pulmo.training.network import Compilable, prepare_network
from pulmo.training.objective import Objective, Steps, film_weights
from pulmo.training.optimization import compute_loss
from pulmo.training.report import Report
from pulmo.training.rows import Films, check_classes, cut_batches, draw_order, skip_easy
from pulmo.training.sharding import join
from pulmo.training.state import Row, State

VAL_BATCH = 64
_LOOK_EVERY = 50  # steps between looks at the loss on a GPU, where each look waits for all work queued
_COMPILE_PAYS = 900  # seconds of training ahead from which a compilation (about a minute) is earned back


@dataclass(frozen=True)
class Fitted:
    """The network with the weights of its best epoch, in eval mode on the CPU, and how it came about."""

    start: Start
    history: list[Row]
    best_epoch: int
    device: str
    precision: str

    @property
    def model(self) -> nn.Module:
        """The network itself."""
        return self.start.network

    @property
    def best(self) -> Row:
        """The history's row of the best epoch, without what differs between equal runs."""
        return {key: value for key, value in self.history[self.best_epoch - 1].items() if key != "seconds"}


def fit(
    train: Films,
    val: Films,
    settings: TrainParams,
    resume: Path | None = None,
    history: Path | None = None,
    on_epoch: Callable[[Row], None] | None = None,
    progress: bool = True,
) -> Fitted:
    """Train on the films `train` and keep the epoch of the best AUROC on the films `val`.

    `resume` is a folder that carries a killed training over to the next call with the same arguments; `history` is a
    CSV file rewritten after every epoch; `on_epoch` gets each of its rows, those of a resumed training too.
    """
    check_classes(train=train, val=val)
    settings, place = resolve_settings(settings), choose_device(settings.device)
    with explained_failures(settings.batch_size), shared_cores(place), tempfile.TemporaryDirectory() as spare:
        fabric = open_fabric(settings)
        check_processes(fabric, min(settings.batch_size, len(train.rows)), resume.name if resume else "")
        start, frozen, net = prepare_network(settings, train.images.shape[1], fabric)
        stored = resume or Path(fabric.broadcast(spare))
        feeds = make_feeds(train, val, settings, frozen, stored, fabric, start.preparation)
        if not fabric.is_global_zero:  # of several processes one writes
            resume, history, on_epoch, progress = None, None, None, False
        network, targets, val_targets = Compilable(net), train.load_targets(), val.load_targets().to(fabric.device)
        state = State(net, settings, len(cut_batches(targets, settings.batch_size, fabric.world_size)))
        checkpoint = Checkpoint(resume) if resume else None
        report = Report(history, on_epoch, progress)
        if saved := fabric.broadcast(checkpoint.load() if checkpoint else None):
            state.load_state_dict(saved)
            report.resume(state.history, settings.epochs)
        objective, optimizer = set_up(fabric, Objective(network, feeds[0], targets, settings), state.optimizer)
        can_compile = fabric.device.type == "cuda" and fabric.world_size == 1
        with report.open_bar(settings.epochs, state.steps, len(state.history)) as bar:
            while not state.finished:
                began = time.perf_counter()
                trained = train_epoch(fabric, objective, optimizer, state, targets, bar)
                validated = validate(fabric, state.average or network, feeds[1], val_targets, state)
                seconds = time.perf_counter() - began
                row = {"epoch": state.epoch, "lr": state.lr, "seconds": seconds, **trained, **validated}
                state.end_epoch(fabric.broadcast(row))  # the best epoch and the end are those of the first process
                save_state(checkpoint, state)
                report.write(state.history, state.history[-1:])
                ahead = seconds * (settings.epochs - len(state.history))
                if can_compile and len(state.history) > 1 and ahead > _COMPILE_PAYS:
                    network.compile_soon()
        if checkpoint:
            checkpoint.wait()
        take_best(start.network, state)
    return Fitted(start, state.history, state.best_epoch, fabric.device.type, settings.precision)


def save_state(checkpoint: Checkpoint | None, state: State) -> None:
    """Save the state; where weights are cut, those processes that save nothing help to put them together."""
    if checkpoint:
        checkpoint.save(state.state_dict())
    elif state.is_cut:
        state.state_dict(keep=False)


def take_best(network: nn.Module, state: State) -> None:
    """Give a whole network the weights of the best epoch, and bring it to the CPU in eval mode."""
    best: dict[str, Tensor] = join(state.best)
    whole = best.keys() <= network.state_dict().keys()
    part = network if whole else network.get_submodule(find_head(network))  # all that is trained of what is not traced
    part.load_state_dict(part.state_dict() | best)
    network.cpu().eval()


def train_epoch(
    fabric: Fabric, objective: nn.Module, optimizer: Optimizer, state: State, targets: Tensor, bar: "tqdm[Any]"
) -> Row:
    """Take a step on each batch of an epoch; mean loss and accuracy of its films, as the network was at their step."""
    settings, device = state.settings, fabric.device
    rank, processes = fabric.global_rank, fabric.world_size
    steps, weights = Steps(processes), film_weights(targets, settings.class_balance) if processes > 1 else None
    bar.set_description(f"epoch {state.epoch}/{settings.epochs}", refresh=False)
    torch.manual_seed(settings.seed * 100_003 + state.epoch + (rank << 50))  # dropout and stochastic depth
    order = make_generator(torch.device("cpu"), settings.seed, "order", state.epoch)
    positions, counts = draw_order(targets, settings.class_balance == "sampler", order), None
    if state.losses is not None:
        positions, counts = skip_easy(positions, state.losses, settings.skip_easy, order)
    batches = cut_batches(fabric.broadcast(positions), settings.batch_size, processes)
    state.batches = len(batches)
    objective.train()
    for index, batch in enumerate(batches):
        give_way()
        state.set_lr(index)
        own = batch[rank::processes]
        if device.type == "cuda":  # the search for algorithms takes seconds: for the size that recurs alone
            torch.backends.cudnn.benchmark = len(batch) == settings.batch_size
        key = ("augment", state.epoch, index) + ((rank,) if rank else ())
        chosen = None if counts is None else counts[own]
        loss, outputs = objective(own, make_generator(device, settings.seed, *key), state.film_size, chosen)
        if weights is not None:  # Fabric takes the mean over processes, whose shares of the batch weigh differently
            loss = loss * (processes * float(weights[own].sum() / weights[batch].sum()))
        steps.add(own, outputs, loss, len(batch))
        bar.update(1)
        if device.type == "cpu" or index % _LOOK_EVERY == _LOOK_EVERY - 1:
            look_at_losses(steps, state, bar)
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()
        state.update_average(index)
    look_at_losses(steps, state, bar)
    bar.update(state.steps - len(batches))
    if settings.skip_easy:
        sums, seen = add_up(fabric, steps.film_losses(targets)).cpu()
        state.losses = sums / seen if state.losses is None else torch.where(seen > 0, sums / seen, state.losses)
    loss_sum, right, films = add_up(fabric, steps.sums(targets)).tolist()
    return {"train_loss": loss_sum / films, "train_accuracy": right / films}


def look_at_losses(steps: Steps, state: State, bar: "tqdm[Any]") -> None:
    """Show the last loss; UserError where one since the last look is not finite."""
    losses = steps.read_losses()
    for step, loss in losses:
        if not np.isfinite(loss):
            raise UserError(
                f"the loss is not finite at epoch {state.epoch}, step {step}, learning rate {state.lr:g}",
                "lower train.lr, or set train.precision: fp32",
            )
    if losses:
        auroc = f"{state.history[-1]['val_auroc']:.3f}" if state.history else "-"
        bar.set_postfix_str(f"loss {losses[-1][1]:.3f}, val AUROC {auroc}", refresh=False)


@torch.no_grad()  # not inference_mode, whose tensors a network cut into shares could not be trained on
def validate(fabric: Fabric, net: nn.Module, feed: Feed, targets: Tensor, state: State) -> Row:
    """Loss, accuracy and AUROC of the validation films as they are, also after an epoch of smaller ones, so that the
    best epoch is chosen by what the network will be used on."""
    give_way()
    torch.backends.cudnn.benchmark = False
    net.eval()
    s = state.settings
    outputs = torch.zeros(len(targets), s.head, device=targets.device)
    own = torch.arange(len(targets))[fabric.global_rank :: fabric.world_size]
    missing = -(-len(targets) // fabric.world_size) - len(own)
    filled = torch.cat([own, own.new_zeros(missing)])  # all processes run a network that is cut into shares
    with fabric.autocast():
        scored = torch.cat([net(feed(positions, None)).float() for positions in torch.split(filled, VAL_BATCH)])
    outputs[own.to(targets.device)] = scored[: len(own)]
    outputs = add_up(fabric, outputs)  # each film is scored once, and is zero elsewhere
    loss = compute_loss(outputs, targets, s.loss, s.label_smoothing).item()
    logits, labels = logit_pneumonia(outputs).cpu().numpy(), targets.cpu().numpy() == 1
    if not np.isfinite(logits).all():
        raise UserError(f"the network's outputs are not finite after epoch {state.epoch}", "lower train.lr")
    auroc = ranking(labels, logits.astype(np.float64))(np.ones((1, len(labels))))["auroc"][0]
    return {"val_loss": loss, "val_accuracy": float(((logits > 0) == labels).mean()), "val_auroc": float(auroc)}
