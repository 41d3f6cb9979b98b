"""The device and the precision that this machine computes fastest with."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from pulmo.base.cores import taking_turns
from pulmo.base.errors import UserError


def choose_device(device: str = "auto") -> torch.device:
    """`auto` takes the GPU where there is one; UserError for `gpu` where there is none."""
    if device == "gpu" and not torch.cuda.is_available():
        raise UserError("train.device: gpu, but PyTorch finds no CUDA GPU", "set train.device: auto")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def choose_precision(precision: str, device: torch.device) -> str:
    """fp32 or bf16; `auto` takes bf16 only where the hardware computes it faster.

    Emulated it is slower than fp32, and so it is by AVX-512 of an Intel processor (a matrix product takes twice the
    time), whose fast way is AMX, which many virtual machines hide.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        avx512 = torch.cpu._is_avx512_bf16_supported() and "GenuineIntel" not in _read_cpu()
        fast = torch.cpu._is_amx_tile_supported() or avx512
    return "bf16" if fast else "fp32"


@contextmanager
def shared_cores(device: torch.device) -> Iterator[None]:
    """Take turns on the cores of this machine with other trainings and evaluations, where this one computes on them."""
    # The processes of one training wait for each other at each step, so they must compute at once.
    several = any(int(os.environ.get(name) or 1) > 1 for name in ("WORLD_SIZE", "SLURM_NTASKS"))
    if device.type != "cpu" or several:
        yield
    else:
        with taking_turns(torch.get_num_threads()):
            yield


def _read_cpu() -> str:
    file = Path("/proc/cpuinfo")
    return file.read_text() if file.exists() else ""
