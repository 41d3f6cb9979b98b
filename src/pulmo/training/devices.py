"""The device, the precision and the processes of a training: the one place that makes a Fabric."""

import logging
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.fabric.strategies import DDPStrategy
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from pulmo.base.errors import UserError
from pulmo.base.params import TrainParams
from pulmo.model.device import choose_device, choose_precision
from pulmo.training.launch import find_launch

TIME_LIMIT = timedelta(minutes=10)  # for which a process waits for another one's answer
_ALGORITHMS = 4  # of each convolution that cuDNN tries on a GPU, in the order of its own guess; PyTorch lets it try 10
_LOGGERS = ("lightning.fabric", "lightning.fabric.utilities.rank_zero", "lightning.pytorch.utilities.rank_zero")
_LAUNCHERS = "start stages/train.py with torchrun or srun as docs/scale.md shows"


def resolve_settings(settings: TrainParams) -> TrainParams:
    """The settings with what `auto` means on this machine, and for the processes that a launcher started."""
    device = choose_device(settings.device)
    gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    if launch := find_launch():
        devices, nodes = launch.devices, launch.nodes
    else:
        devices, nodes = (gpus or 1) if settings.devices == "auto" else settings.devices, 1
    for name, asked, number in (("devices", settings.devices, devices), ("num_nodes", settings.num_nodes, nodes)):
        if asked not in ("auto", number):
            raise UserError(f"train.{name} is {asked}, but the processes were started for {number}", _LAUNCHERS)
    if gpus and devices > gpus:
        raise UserError(
            f"training on {devices} devices a node, but PyTorch finds {gpus} here", "set train.devices: auto"
        )
    update = {
        "device": "gpu" if device.type == "cuda" else "cpu",
        "precision": choose_precision(settings.precision, device),
        "devices": devices,
        "num_nodes": nodes,
        "strategy": settings.strategy if devices * nodes > 1 else "ddp",
    }
    return settings.model_copy(update=update)


def open_fabric(settings: TrainParams) -> Fabric:
    """Fabric as resolved settings want it. It knows the rank of this process and their number."""
    if settings.device == "gpu":
        torch.backends.cudnn.benchmark_limit = _ALGORITHMS
    launch = find_launch()
    processes = int(settings.devices) * int(settings.num_nodes)
    if processes > 1 and not launch:
        raise UserError(f"train.devices is {processes}, but this process was started alone", _LAUNCHERS)
    several = launch is not None and processes > 1
    kind = _ShardedStrategy if settings.strategy == "fsdp" else DDPStrategy
    # Fabric's own search takes a Slurm job for a launcher even where srun started nothing.
    environment = launch.environment if launch and several else LightningEnvironment()
    with _quiet():
        fabric = Fabric(
            accelerator=settings.device,
            devices=settings.devices,
            num_nodes=int(settings.num_nodes),
            strategy=kind(timeout=TIME_LIMIT, broadcast_buffers=False) if several else "auto",
            plugins=[environment],
            precision="bf16-mixed" if settings.precision == "bf16" else "32-true",
        )
        if several:
            fabric.launch()
    return fabric


class _ShardedStrategy(DDPStrategy):
    """The processes of DDP, for a network whose parts exchange their gradients themselves."""

    def setup_module(self, module: nn.Module) -> Any:
        """The module as it is."""
        return module


def set_up(fabric: Fabric, module: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
    """The module and its optimiser as Fabric runs them: on its device, in its precision, across its processes."""
    with _quiet():
        prepared: tuple[nn.Module, Optimizer] = fabric.setup(module, optimizer)
    return prepared


@contextmanager
def explained_failures(batch_size: int) -> Iterator[None]:
    """Turn an exhausted GPU and a lost process into UserErrors."""
    with _explained_memory(batch_size), _explained_processes():
        yield


@contextmanager
def _explained_memory(batch_size: int) -> Iterator[None]:
    """Turn an exhausted GPU into a UserError that names a batch size to try."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise UserError(
            f"the GPU's memory is too small for train.batch_size {batch_size}", f"try {max(1, batch_size // 2)}"
        ) from None


@contextmanager
def _explained_processes() -> Iterator[None]:
    """Wait for the other processes of a training at its end; where one of them is lost before, raise a UserError."""
    try:
        yield
        if distributed.is_initialized():
            with suppress(RuntimeError):  # where another has ended and taken its connections along
                distributed.barrier()
    except RuntimeError as error:
        text = " ".join(str(error).split())
        if not (isinstance(error, distributed.DistError) or "gloo" in text or "pair closure" in text):
            raise  # gloo does not always say its name
        silent = "timed out" in text.lower() or "timeout" in text.lower()
        lost = f"gave no answer within {TIME_LIMIT}" if silent else "has gone"
        raise UserError(
            f"{socket.gethostname()}: another process of this training {lost} ({text[:300]})",
            "see the messages of the others; the same command goes on after the last finished epoch",
        ) from None


def check_processes(fabric: Fabric, batch: int, task: str) -> None:
    """UserError in every process where a batch has not a film for each, or where one has another task than the first.

    `task` names the params, films, code and weights of this process.
    """
    processes = fabric.world_size
    if batch < processes:
        raise UserError(
            f"batches of {batch} films leave some of {processes} processes without any", "take fewer devices"
        )
    differs = torch.tensor(int(fabric.broadcast(task) != task), device=fabric.device)
    if others := int(add_up(fabric, differs)):
        counts = f"{others} of {processes} processes have other params, films, code or weights than the first"
        raise UserError(counts, "give every node the same checkout and data")


def add_up(fabric: Fabric, tensor: Tensor) -> Tensor:
    """The sum of a tensor over all processes."""
    total = fabric.all_reduce(tensor, reduce_op="sum")
    assert isinstance(total, Tensor)  # Fabric takes collections of them too
    return total


def share_weights(model: nn.Module) -> None:
    """Give every process the weights of the first: another processor may draw others from the same seed."""
    for tensor in model.state_dict().values():
        distributed.broadcast(tensor, 0)


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
