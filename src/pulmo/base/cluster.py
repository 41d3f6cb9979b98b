"""Tasks on a Ray cluster: many films at once on more cores than one machine has.

Whoever gives out the tasks runs on a node of the cluster, and every node has Pulmo installed and sees the same folders
at the same paths. A task that is lost with its process or its node is done again elsewhere.
"""

import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from pulmo.base.errors import UserError
from pulmo.base.process import usable_cores

Result = TypeVar("Result")

RETRIES = 3  # of a task whose process or node ended
_AHEAD = 2  # tasks under way for each that is being done, so that no core waits for the one who gives them out
_RECOUNT = 1.0  # seconds between two looks for nodes that joined or left
_PATIENCE = 10  # seconds for a connection
_OBJECTS = 200_000_000  # bytes of shared memory for what tasks return, where the cluster is started here


class Cluster:
    """A Ray cluster that this process has joined. Each of its tasks takes so many cores."""

    def __init__(self, ray: Any, cores: int) -> None:
        self._ray = ray
        self._cores = cores
        self._start = ray.remote(_run).options(num_cpus=cores, max_retries=RETRIES)
        self._places, self._counted = self._count_places(), time.monotonic()
        if cores > 1 and not self._places:
            hint = f"start nodes with more (`ray start --num-cpus={cores}`), or set OMP_NUM_THREADS to fewer here"
            raise UserError(f"no node of the cluster has {cores} cores, which a task takes", hint)

    def window(self) -> int:
        """The number of tasks that should be under way at once, which grows with the cluster."""
        if time.monotonic() - self._counted > _RECOUNT:
            self._places, self._counted = self._count_places(), time.monotonic()
        return _AHEAD * max(1, self._places)

    def submit(self, task: Callable[[], Result]) -> Callable[[], Result]:
        """Have a task done, and return a function that waits for its result. Task and result must be picklable."""
        return partial(self._wait, self._start.remote(task, Path.cwd()))

    def map(self, tasks: Iterable[Callable[[], Result]]) -> Iterator[Result]:
        """The results of tasks, in their order, few of which are under way at any time."""
        waiting: deque[Callable[[], Result]] = deque()
        for task in tasks:
            waiting.append(self.submit(task))
            if len(waiting) > self.window():
                yield waiting.popleft()()
        while waiting:
            yield waiting.popleft()()

    def _count_places(self) -> int:
        """The number of tasks that can be done at once."""
        nodes = (node["Resources"] for node in self._ray.nodes() if node["Alive"])
        return sum(int(resources.get("CPU", 0)) // self._cores for resources in nodes)

    def _wait(self, reference: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:
            raise error.cause from error
        except errors.RayError as error:
            reason = f"a task was lost {RETRIES + 1} times ({type(error).__name__}), most likely for want of memory"
            raise UserError(reason, "give each core more memory, or start the nodes with fewer (--num-cpus)") from error


@contextmanager
def join_cluster(workers: int = 0, cores: int = 1) -> Iterator[Cluster]:
    """The cluster at RAY_ADDRESS, or one of this machine with so many `workers` (0 = one per core) that ends with the
    block. Each task takes so many `cores`.

    UserError where Ray is not installed or the cluster cannot be joined.
    """
    if not find_spec("ray"):
        raise UserError("ray is not installed", "pip install 'pulmo[ray]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        yield Cluster(ray, cores)
        return
    _start(ray, (workers or usable_cores()) * cores)
    try:
        yield Cluster(ray, cores)
    finally:
        ray.shutdown()


def _start(ray: Any, cores: int) -> None:
    address = os.environ.get("RAY_ADDRESS")
    own = {} if address else {"num_cpus": cores, "object_store_memory": _OBJECTS, "include_dashboard": False}
    code = os.pathsep.join(str(Path(part).absolute()) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep))
    before = signal.getsignal(signal.SIGTERM)
    try:
        _check_reachable(address)
        ray.init(
            address or "local",
            runtime_env={"env_vars": {"PYTHONPATH": code}} if os.environ.get("PYTHONPATH") else None,
            logging_level="ERROR",
            log_to_driver=False,
            **own,
        )
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        cure = "start one with `ray start --head`, correct RAY_ADDRESS, or unset it for this machine alone"
        raise UserError(f"the Ray cluster at {address or 'this machine'} cannot be joined: {reason}", cure) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # which Ray has taken for itself


def _check_reachable(address: str | None) -> None:
    """OSError where nobody listens at host:port, for which Ray would wait minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()


def _run(task: Callable[[], Result], folder: Path) -> Result:
    """Do a task on a node, in the folder of the one who gave it out, for paths may be relative."""
    try:
        os.chdir(folder)
    except OSError:
        reason = f"the node {socket.gethostname()} does not see {folder}"
        raise UserError(reason, "mount it at the same path on every node of the cluster") from None
    return task()
