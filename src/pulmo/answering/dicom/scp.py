"""The C-STORE side of a listener, on pynetdicom."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, _config, evt
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from pulmo.answering.dicom.receive import FILM_CLASSES, MOST_BYTES, take
from pulmo.answering.dicom.spool import Spool

ASSOCIATIONS = 8  # at once; each may hold one film in memory
_PDU = 2**17  # bytes that a sender puts into one message
_VERIFICATION = "1.2.840.10008.1.1"  # C-ECHO
_SECONDS = 30  # that a silent sender keeps its association


def start_scp(spool: Spool, address: tuple[str, int], ae_title: str, callers: Sequence[str]) -> Any:
    """A running server that keeps films in `spool`; its `shutdown` ends it. `callers`: AE titles that may send; anybody
    may where it is empty.

    OSError where the address cannot be had.
    """
    _config.LOG_HANDLER_LEVEL = "none"
    ae = AE(ae_title)
    ae.maximum_associations, ae.maximum_pdu_size = ASSOCIATIONS, _PDU
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = _SECONDS
    ae.require_calling_aet = list(callers)
    for sop_class in (*FILM_CLASSES, _VERIFICATION):
        ae.add_supported_context(sop_class, ALL_TRANSFER_SYNTAXES)
    handlers: list[Any] = [(evt.EVT_C_STORE, _store, [spool])]
    server = ae.make_server(
        address, evt_handlers=handlers, server_class=ThreadedAssociationServer, request_handler=_BoundedHandler
    )
    ae._servers.append(server)  # as AE.start_server does, which takes no handler of one's own
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def _store(event: Any, spool: Spool) -> int:
    event.assoc.dul.socket.received = 0
    return int(take(spool, event.encoded_dataset()))


class _BoundedHandler(RequestHandler):
    """Ends an association that sends more than a film may have, or announces it in one message."""

    def _create_association(self) -> Any:
        association = super()._create_association()
        connection: Any = association.dul.socket  # a socket of pynetdicom, which has no limit of its own
        connection.received, connection.recv = 0, _bounded(connection, connection.recv)
        return association


def _bounded(connection: Any, receive: Callable[[int], bytearray]) -> Callable[[int], bytearray]:
    def recv(size: int) -> bytearray:
        connection.received += size
        if size > 2 * _PDU or connection.received > MOST_BYTES:
            raise OSError("more bytes than a film may have")
        return receive(size)

    return recv
