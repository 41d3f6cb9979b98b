"""The command that puts the model behind a page and a REST interface."""

import ipaddress
import os
import signal
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pulmo.base.addresses import join_host
from pulmo.base.errors import UserError
from pulmo.base.process import compute_alone
from pulmo.cli.answers import Package, find_place, require

if TYPE_CHECKING:
    from pulmo.answering.answer import ModelId
    from pulmo.answering.champion import Place
    from pulmo.cli.replicas import Replicas

_PATIENCE = "60"  # seconds for Ray's proxy to start, for which a busy machine needs more than the usual 5


def serve(
    package: Package = None,
    host: Annotated[str, typer.Option(help="address to listen at; any but this machine's own needs a token")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    token: Annotated[
        str, typer.Option(envvar="PULMO_TOKEN", show_default=False, help="what each request about films must bear")
    ] = "",
    name: Annotated[list[str] | None, typer.Option(help="host name that the server goes by; may be repeated")] = None,
    log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="add a line of JSON for each answer, without names or pictures")
    ] = None,
    bf16: Annotated[
        bool,
        typer.Option(
            "--bf16",
            help="answer clear films in bf16, with OpenVINO, about 1.5 times as many with AMX; decisions stay",
        ),
    ] = False,
    replicas: Annotated[
        str, typer.Option("--ray", metavar="FEWEST:MOST", help="answer in so many processes of a Ray cluster, as 1:4")
    ] = "",
) -> None:
    """Answer films in a web page, by REST and by the Open Inference Protocol. Not a medical device.

    Nothing uploaded is kept or written to disk. The model follows the champion while it serves. With --ray there are
    as many replicas as the requests need, in the cluster at RAY_ADDRESS or in one of this machine.
    """
    if not token and not is_loopback(host):
        raise UserError(
            f"--host {host}: other machines could ask without a token",
            "set PULMO_TOKEN, or give --token, or listen at 127.0.0.1",
        )
    compute_alone()
    require("serve", "fastapi", "prometheus_client", "python_multipart", "uvicorn")
    if bf16:
        require("openvino", "openvino")
    names = name or []
    if replicas:
        _serve_replicas(_read_replicas(replicas, package, bf16, names, log), token, host, port)
    else:
        _serve_here(package, bf16, token, names, log, host, port)


def _serve_here(
    package: Path | None, bf16: bool, token: str, names: list[str], log: Path | None, host: str, port: int
) -> None:
    from pulmo.answering.follow import Follower
    from pulmo.answering.listening import make_server
    from pulmo.answering.log import AnswerLog
    from pulmo.answering.server import make_app

    answer_log = AnswerLog(log) if log else None
    listener = bind(host, port)
    follower = Follower(lambda: find_served(package), bf16=bf16)
    app = make_app(follower, token, names=frozenset(names), log=answer_log)
    _announce(follower.current().model, host, listener.getsockname()[1])
    make_server(app).run([listener])


def _read_replicas(text: str, package: Path | None, bf16: bool, names: list[str], log: Path | None) -> "Replicas":
    """The settings of replicas, from a text such as 1:4; UserError where it is none."""
    from pulmo.cli.replicas import Replicas

    fewest, _, most = text.partition(":")
    if not (fewest.isdecimal() and most.isdecimal() and 0 < int(fewest) <= int(most)):
        raise UserError(f"--ray {text}: no numbers of replicas", "write the fewest and the most, as 1:4")
    folder, file = (str(path.absolute()) if path else "" for path in (package, log))
    return Replicas(fewest=int(fewest), most=int(most), package=folder, names=names, bf16=bf16, log=file)


def _serve_replicas(settings: "Replicas", token: str, host: str, port: int) -> None:
    require("ray", "ray")
    from pulmo.answering.predictor import Predictor
    from pulmo.answering.replicas import CORES, serving
    from pulmo.base.cluster import join_cluster
    from pulmo.cli.replicas import make_application

    with bind(host, port) as listener:  # Ray would look for the next free port
        port = listener.getsockname()[1]
    place = find_served(Path(settings.package) if settings.package else None)
    model = Predictor.load_folder(place.folder, place.name, place.version).model
    application = make_application(settings, token, str(Path.cwd()))
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", _PATIENCE)
    with join_cluster(settings.most, CORES), serving(application, host, port):
        _announce(model, host, port)
        wait_for_end()


def wait_for_end() -> None:
    """Wait until this process is told to end."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()


def _announce(model: "ModelId", host: str, port: int) -> None:
    print(f"serves: {model.name}, version {model.version}")
    print(f"page and REST: http://{join_host(host, port)}\nCtrl-C ends it", flush=True)


def bind(host: str, port: int, hint: str = "--host and --port name another") -> socket.socket:
    """A listening socket; UserError, with the hint, where the address cannot be had."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise UserError(f"cannot listen at {host}, port {port}: {reason}", hint) from None


def find_served(package: Path | None) -> "Place":
    """The model that answers, under a name that tells clients nothing of this machine's folders."""
    place = find_place(package)
    return place if place.version else replace(place, name=place.folder.resolve().name)


def is_loopback(host: str) -> bool:
    """True for addresses that only this machine reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
