"""Archives to test against: pynetdicom's own C-STORE provider, a STOW-RS service that records, and a sender."""

import io
import threading
import time
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import pydicom
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, StoragePresentationContexts, evt

from pulmo.answering.dicom.send import settle


class Archive:
    """A C-STORE provider that records what it gets; `status` answers each object, and may be changed at any time."""

    def __init__(self, syntaxes: Iterable[str] = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)) -> None:
        self.datasets: list[Any] = []
        self.status = 0
        self._syntaxes = list(syntaxes)
        self._server: Any = None
        self.port = 0
        self.start()

    def start(self) -> None:
        ae = AE("ARCHIVE")
        for context in StoragePresentationContexts:
            ae.add_supported_context(context.abstract_syntax, self._syntaxes)
        self._server = ae.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )
        self.port = self._server.server_address[1]

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
        self._server = None

    def _store(self, event: Any) -> int:
        if self.status >> 12 in (0, 0xB):
            self.datasets.append(pydicom.dcmread(io.BytesIO(event.encoded_dataset())))
        return self.status

    @property
    def address(self) -> str:
        return f"ARCHIVE@127.0.0.1:{self.port}"

    @property
    def reported(self) -> list[str]:
        """SOPInstanceUIDs of the films that reports refer to, in the order of the reports."""
        evidence = [
            made.CurrentRequestedProcedureEvidenceSequence[0] for made in self.datasets if made.Modality == "SR"
        ]
        items = [item.ReferencedSeriesSequence[0].ReferencedSOPSequence[0] for item in evidence]
        return [str(item.ReferencedSOPInstanceUID) for item in items]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class WebArchive:
    """A STOW-RS service that records what it gets; `status` and `body` answer each request."""

    def __init__(self) -> None:
        archive = self
        self.requests: list[tuple[str, Any, bytes]] = []
        self.status, self.body = 200, b"{}"

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                archive.requests.append((self.path, self.headers, content))
                self.send_response(archive.status)
                self.send_header("Content-Length", str(len(archive.body)))
                self.end_headers()
                self.wfile.write(archive.body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.port = self._server.server_address[1]

    @property
    def datasets(self) -> list[Any]:
        parts = [content.partition(b"\r\n\r\n")[2].rpartition(b"\r\n--")[0] for _, _, content in self.requests]
        return [pydicom.dcmread(io.BytesIO(part)) for part in parts]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def send_films(port: int, contents: Iterable[bytes], title: str = "MODALITY") -> list[int | None]:
    """Send DICOM files by C-STORE, each as it is encoded. Their statuses; None where no answer came or no presentation
    context was accepted."""
    datasets = [pydicom.dcmread(io.BytesIO(content)) for content in contents]
    ae = AE(title)
    for sop_class, syntax in {(film.SOPClassUID, film.file_meta.TransferSyntaxUID) for film in datasets}:
        ae.add_requested_context(sop_class, syntax)
    association = ae.associate("127.0.0.1", port)
    if not association.is_established:
        return [None] * len(datasets)
    statuses: list[int | None] = []
    for film in datasets:
        settle(association)
        try:
            statuses.append(association.send_c_store(film).get("Status"))
        except (ValueError, RuntimeError):
            statuses.append(None)
    association.release()
    return statuses


def wait_for(condition: Callable[[], Any], seconds: float = 30) -> None:
    """Until the condition holds; AssertionError after so many seconds."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.02)
