"""The device, the precision and the processes of a training: the one place that makes a Fabric."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.fabric import Fabric
from torch import nn
from torch.optim import Optimizer

from pulmo.base.errors import UserError
from pulmo.base.params import TrainParams
from pulmo.model.device import choose_device, choose_precision

_ALGORITHMS = 4  # of each convolution that cuDNN tries on a GPU, in the order of its own guess; PyTorch lets it try 10
_LOGGERS = ("lightning.fabric", "lightning.fabric.utilities.rank_zero", "lightning.pytorch.utilities.rank_zero")


def resolve_settings(settings: TrainParams) -> TrainParams:
    """The settings with what `auto` means on this machine."""
    device = choose_device(settings.device)
    precision = choose_precision(settings.precision, device)
    return settings.model_copy(update={"device": "gpu" if device.type == "cuda" else "cpu", "precision": precision})


def open_fabric(settings: TrainParams) -> Fabric:
    """Fabric as resolved settings want it. It knows the rank of this process and their number: one, so far."""
    if settings.device == "gpu":
        torch.backends.cudnn.benchmark_limit = _ALGORITHMS
    with _quiet():
        return Fabric(
            accelerator=settings.device,
            devices=1,
            precision="bf16-mixed" if settings.precision == "bf16" else "32-true",
        )


def set_up(fabric: Fabric, module: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
    """The module and its optimiser as Fabric runs them: on its device, in its precision, across its processes."""
    with _quiet():
        prepared: tuple[nn.Module, Optimizer] = fabric.setup(module, optimizer)
    return prepared


@contextmanager
def explained_memory(batch_size: int) -> Iterator[None]:
    """Turn an exhausted GPU into a UserError that names a batch size to try."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise UserError(
            f"the GPU's memory is too small for train.batch_size {batch_size}", f"try {max(1, batch_size // 2)}"
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's tips and warnings, which speak to people who write training loops."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
