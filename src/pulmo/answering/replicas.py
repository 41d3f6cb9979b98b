"""The app of `pulmo serve` in several processes of a Ray cluster: as many as the requests need, behind one address.

Each replica is the whole app. It scores together what comes to it together, and looks for the champion by itself. One
that dies is replaced. The requests that it was answering fail, and may be sent again.
"""

import logging
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pulmo.answering.admission import Limits
from pulmo.base.errors import UserError
from pulmo.package.inference import BATCH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import FastAPI

NAME = "pulmo"
TARGET = BATCH  # requests under way at a replica: with more of them another one starts
MOST = 2 * BATCH  # likewise: with so many a replica gets no other
WAITING = Limits().requests  # that find no replica free; any more are told to come again
CORES = 1  # a replica, where Ray's own files name no other `num_cpus` for it


def make_replicas(make: Callable[[], "FastAPI"], fewest: int, most: int) -> Any:
    """The application for Ray Serve: from `fewest` to `most` replicas, each with the app that the function `make` gives
    it; Ray takes no other callable."""
    from ray import serve

    deployment = serve.deployment(
        serve.ingress(make)(),
        name=NAME,
        autoscaling_config={"min_replicas": fewest, "max_replicas": most, "target_ongoing_requests": TARGET},
        max_ongoing_requests=MOST,
        max_queued_requests=WAITING,
        ray_actor_options={"num_cpus": CORES},
    )
    return deployment.bind()


def assigned_cores() -> int:
    """The cores that Ray has set aside for this process, but at least one."""
    from ray import get_runtime_context

    return max(1, int(get_runtime_context().get_assigned_resources().get("CPU", 0)))


@contextmanager
def serving(replicas: Any, host: str, port: int) -> "Iterator[None]":
    """Answer requests at this address of the head node while the block runs, in a cluster that was joined before.

    UserError where no replica comes to answer.
    """
    from ray import serve
    from ray.exceptions import RayError

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    quiet = {"log_level": "ERROR", "enable_access_log": False}
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port}, logging_config=quiet)
        serve.run(replicas, name=NAME, logging_config=quiet)
    except (RayError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"Ray Serve does not start: {reason}", "its logs are on the nodes, in logs/serve") from error
    try:
        yield
    finally:
        serve.delete(NAME)
