"""The server in several processes of a Ray cluster, started by `pulmo serve --ray` or by deploy/rayservice.yaml."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from pulmo.base.errors import UserError
from pulmo.base.params import Positive, Section

if TYPE_CHECKING:
    from fastapi import FastAPI


class Replicas(Section):
    """The settings of replicas, which are the `args` of an application in Ray's own files."""

    fewest: Positive = 1
    most: Positive = 1
    package: str = ""  # folder of the model, on every node; without it the champion of MLflow's store
    names: list[str] = Field(default_factory=list)  # host names that the server goes by, beside localhost and addresses
    bf16: bool = False  # as `pulmo serve --bf16`
    log: str = ""  # file for a line of JSON for each answer, on each node


def build(settings: Replicas) -> Any:
    """The application for Ray Serve, with the token in PULMO_TOKEN; UserError without one, for others can ask too."""
    if not (token := os.environ.get("PULMO_TOKEN", "")):
        raise UserError("replicas on a cluster need a token", "set PULMO_TOKEN on every node")
    return make_application(settings, token, "")


def make_application(settings: Replicas, token: str, folder: str) -> Any:
    """The application for Ray Serve; its replicas work in `folder`, where it is not empty."""
    from pulmo.answering.replicas import make_replicas

    return make_replicas(lambda: make_replica(settings, token, folder), settings.fewest, settings.most)


def make_replica(settings: Replicas, token: str, folder: str) -> "FastAPI":
    """The app of one replica."""
    from pulmo.answering.follow import Follower
    from pulmo.answering.log import AnswerLog
    from pulmo.answering.replicas import assigned_cores
    from pulmo.answering.server import make_app
    from pulmo.cli.serve import find_served

    if folder:
        os.chdir(folder)
    package = Path(settings.package) if settings.package else None
    log = AnswerLog(Path(settings.log)) if settings.log else None
    follower = Follower(lambda: find_served(package), bf16=settings.bf16)  # each core takes a batch of its own
    return make_app(follower, token, names=frozenset(settings.names), log=log, cores=assigned_cores())
