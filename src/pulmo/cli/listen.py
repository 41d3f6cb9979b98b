"""The command that answers films as they arrive from modalities and archives."""

import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pulmo.base.errors import UserError
from pulmo.cli.answers import require_library
from pulmo.cli.serve import bind, find_package, is_loopback

if TYPE_CHECKING:
    from pulmo.answering.dicom.receive import Receiver

_GIGABYTE = 2**30


def listen(
    to: Annotated[
        list[str],
        typer.Option(help="where replies go: AE@host:port, or https://host/dicom-web/studies; may be repeated"),
    ],
    package: Annotated[
        Path | None, typer.Option(help="folder of the model (without it: the champion, else models/package)")
    ] = None,
    host: Annotated[str, typer.Option(help="address to listen at; any but this machine's own needs --from")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="for C-STORE")] = 11112,
    ae_title: Annotated[str, typer.Option("--ae-title", help="the name that this side goes by")] = "PULMO",
    callers: Annotated[
        list[str] | None, typer.Option("--from", help="AE title that may send films; may be repeated")
    ] = None,
    http_port: Annotated[int | None, typer.Option(min=0, max=65535, help="also take STOW-RS at this port")] = None,
    token: Annotated[
        str, typer.Option(envvar="PULMO_TOKEN", show_default=False, help="what each STOW-RS request must bear")
    ] = "",
    spool: Annotated[Path, typer.Option(help="folder for films and replies that wait")] = Path("pulmo-spool"),
    limit_gb: Annotated[float, typer.Option(min=0.1, help="what that folder may take, in GB")] = 4.0,
) -> None:
    """Answer films that arrive by C-STORE or STOW-RS, and send a report and a picture of each. Not a medical device.

    A film is kept on disk until its replies are, and a reply until its destination has it, so that nothing is lost when
    a destination is down or this process is killed. When the folder is full, senders are told to try again.
    """
    _check(host, ae_title, callers or [], http_port, token)
    from pulmo.answering.dicom.listener import Listener
    from pulmo.answering.dicom.receive import Receiver
    from pulmo.answering.dicom.scp import start_scp
    from pulmo.answering.dicom.send import parse_destination
    from pulmo.answering.dicom.spool import Spool
    from pulmo.answering.follow import Follower

    destinations = [parse_destination(text, ae_title) for text in dict.fromkeys(to)]
    follower = Follower(lambda: find_package(package))
    waiting = Spool(spool, int(limit_gb * _GIGABYTE), [destination.queue for destination in destinations])
    for queue in waiting.list_strays():
        print(f"warning: {spool / 'outbox' / queue} holds replies for a place that --to no longer names")
    receiver = Receiver(waiting)
    with ExitStack() as stack:
        stack.callback(waiting.close)
        listener = Listener(waiting, follower, destinations)
        stack.callback(listener.stop)
        try:
            server = start_scp(receiver, (host, port), ae_title, callers or [])
        except OSError as error:
            raise UserError(
                f"cannot listen at {host}, port {port}: {error.strerror}", "--host and --port name another"
            ) from None
        stack.callback(server.shutdown)
        address = f"C-STORE: {ae_title}@{host}:{server.server_address[1]}"
        if http_port is not None:
            address += f", STOW-RS: {_start_stow(receiver, host, http_port, token)}"
        follower.start()
        stack.callback(follower.stop)
        listener.start()
        model = follower.current().model
        print(f"answers: {model.name}, version {model.version}")
        print(f"{address}\nCtrl-C ends it", flush=True)
        _wait()


def _check(host: str, ae_title: str, callers: Sequence[str], http_port: int | None, token: str) -> None:
    for library in ("highdicom", "pynetdicom"):
        require_library(library, "dicom")
    for library in ("uvicorn", "starlette") if http_port is not None else ():
        require_library(library, "serve")
    for title in (ae_title, *callers):
        if not 0 < len(title.strip()) <= 16 or not title.isascii() or "\\" in title:
            raise UserError(f"{title!r} is no AE title", "it has 1 to 16 letters of ASCII")
    if not is_loopback(host) and not callers:
        raise UserError(f"--host {host}: any machine could send films", "name who may, with --from AE")
    if not is_loopback(host) and http_port is not None and not token:
        raise UserError(f"--host {host}: other machines could send without a token", "set PULMO_TOKEN, or give --token")


def _start_stow(receiver: "Receiver", host: str, port: int, token: str) -> str:
    from pulmo.answering.dicom.stow import make_stow_app
    from pulmo.answering.listening import make_server

    socket = bind(host, port)
    server = make_server(make_stow_app(receiver, token))
    threading.Thread(target=server.run, args=([socket],), daemon=True).start()
    return f"http://{host}:{socket.getsockname()[1]}/studies"


def _wait() -> None:
    """Until this process is told to end."""
    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told.set())
    told.wait()
    print("ends; what waits is sent at the next start", file=sys.stderr, flush=True)
