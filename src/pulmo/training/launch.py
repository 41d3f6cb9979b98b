"""The processes of a training on several devices: started by torchrun or Slurm, or here by torchrun."""

import os
import sys
from dataclasses import dataclass

from lightning.fabric.plugins.environments import ClusterEnvironment, SLURMEnvironment, TorchElasticEnvironment

from pulmo.base.errors import UserError
from pulmo.base.params import TrainParams

_OWN_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"  # torchrun's name for a table of addresses of its own for each start


@dataclass(frozen=True)
class Launch:
    """The processes that torchrun or srun started for one training, this one among them."""

    environment: ClusterEnvironment
    devices: int  # processes on each node, one a device
    nodes: int


def find_launch() -> Launch | None:
    """The launch that this process belongs to, from the variables of torchrun or srun; None where it runs alone."""
    variables = os.environ
    if TorchElasticEnvironment.detect():
        if int(variables.get("TORCHELASTIC_MAX_RESTARTS", 0)) and variables.get(_OWN_STORE) != "1":
            # Processes that start again would look for the dead ones at their old addresses.
            raise UserError(
                "torchrun is to start processes again, but keeps old addresses", f"set {_OWN_STORE}=1 for it"
            )
        environment: ClusterEnvironment = TorchElasticEnvironment()
        devices, processes = int(variables["LOCAL_WORLD_SIZE"]), int(variables["WORLD_SIZE"])
    elif "SLURM_STEP_ID" in variables and int(variables.get("SLURM_NTASKS", 1)) > 1:  # a batch script has no step
        if "SLURM_NTASKS_PER_NODE" not in variables:
            raise UserError("srun does not say how many tasks run on each node", "start it with --ntasks-per-node")
        environment = SLURMEnvironment(auto_requeue=False)
        devices, processes = int(variables["SLURM_NTASKS_PER_NODE"]), int(variables["SLURM_NTASKS"])
    else:
        return None
    if processes % devices:
        counts = f"{processes} processes were started, {devices} of them on this node"
        raise UserError(counts, "start equally many on every node")
    return Launch(environment, devices, processes // devices)


def is_first_process() -> bool:
    """True in the one process of a training that writes, and where there is only one."""
    launch = find_launch()
    return launch is None or launch.environment.global_rank() == 0


def start_processes(settings: TrainParams) -> None:
    """Have torchrun take this process over and run its program once for each of several devices of this machine.

    Returns where resolved settings want one device, or where a launcher has already started the processes.
    """
    if settings.devices == 1 or find_launch():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={settings.devices}"]
    os.execv(sys.executable, [sys.executable, *torchrun, *sys.argv])
