"""Losses, optimisers and learning-rate schedules."""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pulmo.model.scoring import logit_pneumonia

FOCAL_GAMMA = 2.0  # Lin et al. 2017, the value they recommend
PLATEAU_FACTOR, PLATEAU_PATIENCE = 0.1, 2  # epochs without a lower validation loss
ONE_CYCLE_RISE, ONE_CYCLE_START, ONE_CYCLE_END = 0.3, 1 / 25, 1 / 250_000  # PyTorch's defaults


def class_weights(targets: Tensor) -> Tensor:
    """1 / count of each class (2,), scaled to a mean of 1 over the films."""
    counts = torch.bincount(targets, minlength=2).float()
    return counts.sum() / (2 * counts)


def compute_loss(
    outputs: Tensor,
    targets: Tensor,
    loss: str,
    label_smoothing: float = 0.0,
    weights: Tensor | None = None,
    counts: Tensor | None = None,
) -> Tensor:
    """Mean loss of a batch, weighted by `weights` of the classes (2,) as PyTorch's cross-entropy is.

    `counts` (batch,) multiply the loss of each film, and leave its weight in the mean as it is. Cross-entropy of two
    logits is binary cross-entropy of their difference, so one formula serves both heads.
    """
    logits, truth = logit_pneumonia(outputs), targets.float()
    if label_smoothing:
        truth = truth * (1 - label_smoothing) + label_smoothing / 2
    each = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    if loss == "focal":
        wrong = torch.sigmoid(torch.where(targets == 1, -logits, logits))
        each = wrong**FOCAL_GAMMA * each
    return _mean(each, targets, weights, counts)


def compute_divergence(
    outputs: Tensor, others: Tensor, targets: Tensor, weights: Tensor | None = None, counts: Tensor | None = None
) -> Tensor:
    """Mean symmetric Kullback-Leibler divergence of two answers to each film, weighted as `compute_loss` weighs films.

    Of two classes it is the difference of the probabilities times that of the log-odds. Liang et al. 2021 (R-Drop) have
    two dropouts agree so. Near agreement it is eight times the Jensen-Shannon divergence of AugMix (Hendrycks et al.
    2020), which has an upper bound and hardly pulls where two sure answers contradict each other.
    """
    first, second = logit_pneumonia(outputs), logit_pneumonia(others)
    return _mean((first.sigmoid() - second.sigmoid()) * (first - second), targets, weights, counts)


def _mean(each: Tensor, targets: Tensor, weights: Tensor | None, counts: Tensor | None) -> Tensor:
    each = each if counts is None else each * counts
    if weights is None:
        return each.mean()
    return (each * weights[targets]).sum() / weights[targets].sum()


def build_optimizer(
    name: str, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float, fused: bool
) -> torch.optim.Optimizer:
    """SGD with momentum .9, Adam or AdamW; `fused` runs the update as one GPU kernel."""
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    if name == "sgd":
        return torch.optim.SGD(trainable, lr, momentum=0.9, weight_decay=weight_decay, fused=fused or None)
    adam: type[torch.optim.Adam] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    return adam(trainable, lr, weight_decay=weight_decay, fused=fused or None)


def learning_rate(schedule: str, lr: float, done: float, warmup: float) -> float:
    """Learning rate where `done` (0..1) of all steps are taken, the first `warmup` (0..1) of them rising linearly.

    `warmup` belongs to cosine; one_cycle has its own rise, constant and plateau have none.
    """
    if schedule == "cosine":
        if done < warmup:
            return lr * done / warmup
        return lr * _anneal(1.0, 0.0, (done - warmup) / (1 - warmup))
    if schedule == "one_cycle":
        if done < ONE_CYCLE_RISE:
            return lr * _anneal(ONE_CYCLE_START, 1.0, done / ONE_CYCLE_RISE)
        return lr * _anneal(1.0, ONE_CYCLE_END, (done - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE))
    return lr


def _anneal(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2
