"""The command that answers films as they arrive from modalities and archives."""

import os
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pulmo.base.addresses import join_host
from pulmo.base.errors import UserError
from pulmo.base.process import compute_alone, tell
from pulmo.cli.answers import Package, require
from pulmo.cli.serve import bind, find_served, is_loopback, wait_for_end

if TYPE_CHECKING:
    from pulmo.answering.dicom.send import Entity
    from pulmo.answering.dicom.spool import Spool

_GIGABYTE = 2**30


def listen(
    to: Annotated[
        list[str],
        typer.Option(help="where replies go: AE@host:port, or https://host/dicom-web/studies; may be repeated"),
    ],
    at: Annotated[
        str, typer.Option(help="name and address of this side; an address of the network needs --from")
    ] = "PULMO@127.0.0.1:11112",
    package: Package = None,
    callers: Annotated[
        list[str] | None, typer.Option("--from", help="AE title that may send films; may be repeated")
    ] = None,
    http_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="take STOW-RS too; PULMO_TOKEN is what requests must bear")
    ] = None,
    spool: Annotated[Path, typer.Option(help="folder for films and replies that wait")] = Path("pulmo-spool"),
    limit_gb: Annotated[float, typer.Option(min=0.1, max=1e9, help="what that folder may take, in GB")] = 4.0,
) -> None:
    """Answer films that arrive by C-STORE or STOW-RS, and send a report and a picture of each. Not a medical device.

    A film is kept on disk until its replies are, and a reply until its destination has it, so that nothing is lost when
    a destination is down or this process is killed. When the folder is full, senders are told to try again.
    """
    compute_alone()
    require("dicom", "highdicom", "pynetdicom")
    if http_port is not None:
        require("serve", "uvicorn", "starlette")
    from pulmo.answering.dicom.listener import Listener
    from pulmo.answering.dicom.send import parse_destination, parse_entity
    from pulmo.answering.dicom.spool import Spool
    from pulmo.answering.follow import Follower

    side = parse_entity("--at", at)
    _check(side, callers or [], http_port is not None)
    destinations = [parse_destination(text, side.title) for text in dict.fromkeys(to)]
    follower = Follower(lambda: find_served(package))
    waiting = Spool(spool, int(limit_gb * _GIGABYTE), [destination.queue for destination in destinations])
    with ExitStack() as stack:
        stack.callback(waiting.close)
        for queue in waiting.list_strays():
            print(f"warning: {spool / 'outbox' / queue} holds replies for a place that --to no longer names")
        listener = Listener(waiting, follower, destinations)
        stack.callback(listener.stop)
        listener.start()
        follower.start()
        stack.callback(follower.stop)
        addresses = _open(waiting, side, callers or [], http_port, stack)
        model = follower.current().model
        print(f"answers: {model.name}, version {model.version}\n{addresses}\nCtrl-C ends it", flush=True)
        wait_for_end()
        tell("ends; what waits is sent at the next start")


def _check(side: "Entity", callers: Sequence[str], web: bool) -> None:
    for title in callers:
        if not 0 < len(title.strip()) <= 16 or not title.isascii() or "\\" in title:
            raise UserError(f"--from {title!r} is no AE title", "it has 1 to 16 letters of ASCII")
    if is_loopback(side.host):
        return
    if not callers:
        raise UserError(f"--at {side}: any machine could send films", "name who may, with --from AE")
    if web and not os.environ.get("PULMO_TOKEN"):
        raise UserError(f"--at {side}: other machines could send without a token", "set PULMO_TOKEN")


def _open(spool: "Spool", side: "Entity", callers: Sequence[str], http_port: int | None, stack: ExitStack) -> str:
    """Begin to take films; the addresses at which."""
    from pulmo.answering.dicom.scp import start_scp

    try:
        server = start_scp(spool, (side.host, side.port), side.title, callers)
    except OSError as error:
        raise UserError(f"cannot listen at {side}: {error.strerror}", "--at names another address") from None
    stack.callback(server.shutdown)
    addresses = f"C-STORE: {side._replace(port=server.server_address[1])}"
    if http_port is not None:
        addresses += f", STOW-RS: {_start_stow(spool, side.host, http_port)}"
    return addresses


def _start_stow(spool: "Spool", host: str, port: int) -> str:
    from pulmo.answering.dicom.stow import make_stow_app
    from pulmo.answering.listening import make_server

    socket = bind(host, port, "--http-port names another")
    server = make_server(make_stow_app(spool, os.environ.get("PULMO_TOKEN", ""), host))
    threading.Thread(target=server.run, args=([socket],), daemon=True).start()
    return f"http://{join_host(host, socket.getsockname()[1])}/studies"
