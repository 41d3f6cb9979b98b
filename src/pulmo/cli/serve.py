"""The command that puts the model behind a page and a REST interface."""

import ipaddress
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pulmo.base.errors import UserError
from pulmo.cli.answers import find_place, require_library

if TYPE_CHECKING:
    from pulmo.answering.champion import Place


def serve(
    package: Annotated[
        Path | None, typer.Option(help="folder of the model (without it: the champion, else models/package)")
    ] = None,
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
) -> None:
    """Answer films in a web page, by REST and by the Open Inference Protocol. Not a medical device.

    Nothing uploaded is kept or written to disk. The model follows the champion while it serves.
    """
    if not token and not is_loopback(host):
        raise UserError(
            f"--host {host}: other machines could ask without a token",
            "set PULMO_TOKEN, or give --token, or listen at 127.0.0.1",
        )
    for library in ("fastapi", "prometheus_client", "python_multipart", "uvicorn"):
        require_library(library, "serve")
    from pulmo.answering.follow import Follower
    from pulmo.answering.listening import make_server
    from pulmo.answering.log import AnswerLog
    from pulmo.answering.server import make_app

    answer_log = AnswerLog(log) if log else None
    listener = bind(host, port)
    follower = Follower(lambda: find_package(package))
    app = make_app(follower, token, names=frozenset(name or []), log=answer_log)
    model = follower.current().model
    print(f"serves: {model.name}, version {model.version}")
    address = f"{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    print(f"page and REST: http://{address}\nCtrl-C ends it", flush=True)
    make_server(app).run([listener])


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; UserError where the address cannot be had."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise UserError(f"cannot listen at {host}, port {port}: {reason}", "--host and --port name another") from None


def find_package(package: Path | None) -> "Place":
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
