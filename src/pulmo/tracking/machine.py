"""The machine that a run is computed on: its versions and hardware, and how busy it is."""

import logging
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pulmo.tracking.contents import Run
from pulmo.tracking.store import load_mlflow

_LIBRARIES = ("torch", "torchvision", "lightning", "mlflow", "dvc", "numpy")
_SAMPLE_SECONDS = 5


def describe_machine() -> dict[str, str]:
    """Versions and hardware of this process, as values of tags named env.*."""
    import torch

    facts = {"python": platform.python_version(), **{name: _version(name) for name in _LIBRARIES}}
    facts |= {"platform": platform.platform(), "cpu": _cpu(), "cores": str(os.cpu_count())}
    facts["threads"] = str(torch.get_num_threads())  # another number gives other digits
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {f"env.{key}": value for key, value in (facts | {"gpu": ", ".join(gpus) or "none"}).items()}


@contextmanager
def watch_machine(run: Run) -> Iterator[None]:
    """Log what MLflow measures of CPU, memory, disk, network and GPU as system/* while the block runs.

    The first numbers, the means of the first epoch, follow that epoch: MLflow's comparison of runs opens on the metric
    that was written first.
    """
    monitor = _start_monitor(run)
    try:
        yield
    finally:
        if monitor:
            monitor.finish()


def _start_monitor(run: Run) -> Any | None:
    load_mlflow()
    # Its own words about a store that fails: the outbox has said it.
    logging.getLogger("mlflow.system_metrics").setLevel(logging.CRITICAL)
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    try:
        uri = run.client.tracking_uri
        monitor = SystemMetricsMonitor(run.run_id, _SAMPLE_SECONDS, resume_logging=True, tracking_uri=uri)
    except Exception as error:  # a machine that hides its counters, as containers do, may train all the same
        print(f"no system metrics: {error}")
        return None
    publish = monitor.publish_metrics
    monitor.publish_metrics = lambda metrics: publish(metrics) if run.epochs else None
    monitor.start()
    return monitor


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _cpu() -> str:
    file = Path("/proc/cpuinfo")
    name = re.search(r"model name\s*: (.*)", file.read_text()) if file.exists() else None
    return name[1] if name else platform.processor() or platform.machine()
