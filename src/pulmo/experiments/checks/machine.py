"""Checks of the machine: what it computes with, and its disk."""

import shutil

from pulmo.base.process import usable_cores
from pulmo.experiments.checks.finding import Finding, State
from pulmo.experiments.project import Project

_GIB = 2**30
_NEEDED, _ENOUGH = 1, 5  # GiB: the phantom run, the real films with cache and a few experiments


def check_compute(project: Project) -> Finding:
    """The device and the precision that `device: auto` and `precision: auto` choose."""
    import torch

    from pulmo.model.device import choose_device, choose_precision

    device = choose_device("auto")
    name = torch.cuda.get_device_name(0) if device.type == "cuda" else f"CPU, {usable_cores()} cores"
    text = f"{name}, trains in {choose_precision('auto', device)}"
    if device.type == "cpu" and shutil.which("nvidia-smi"):
        cure = "nvidia-smi; pip install a torch built for that driver (https://pytorch.org)"
        return Finding("warning", f"{text}; there is an NVIDIA driver, but torch {torch.__version__} sees no GPU", cure)
    return Finding("ok", text)


def check_disk(project: Project) -> Finding:
    """Room for data, cache and runs."""
    free = shutil.disk_usage(project.root).free / _GIB
    state: State = "ok" if free >= _ENOUGH else "warning" if free >= _NEEDED else "error"
    cure = "" if state == "ok" else "dvc gc --workspace --all-experiments, or free space"
    return Finding(state, f"{free:.1f} GiB free", cure)
