"""The STOW-RS side of a listener."""

import itertools
import re
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pulmo.answering.admission import Admission, Limits, broken_off, refuse
from pulmo.answering.dicom.header import NotDicom, read_film_header
from pulmo.answering.dicom.receive import MOST_BYTES, Outcome, take
from pulmo.answering.dicom.spool import Spool

LIMITS = Limits(films=100, request_bytes=MOST_BYTES, all_bytes=3 * MOST_BYTES, requests=8)
_BOUNDARY = re.compile(r'multipart/related\s*;.*?\bboundary="?([^";,]{1,70})"?', re.IGNORECASE)
_CLASS, _INSTANCE = "00081150", "00081155"  # ReferencedSOPClassUID, ReferencedSOPInstanceUID


def make_stow_app(spool: Spool, token: str = "", host: str = "") -> Starlette:
    """`POST /studies` and `POST /studies/UID`, as a DICOMweb service has them; films are kept in `spool`.

    `host`: the name that senders may know this machine by, beside its addresses.
    """

    async def store(request: Request) -> Response:
        parts = _split(request.headers.get("content-type", ""), await request.body())
        return await run_in_threadpool(_store, spool, parts)

    routes = [Route(path, store, methods=["POST"]) for path in ("/studies", "/studies/{study}")]
    app = Starlette(routes=routes, exception_handlers={HTTPException: refuse, ClientDisconnect: broken_off})
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
    app.add_middleware(Admission, token=token, names=frozenset({host}) - {""}, limits=LIMITS, headers=headers)
    return app


def _split(kind: str, body: bytes) -> list[bytes]:
    """The DICOM files of a request."""
    match = _BOUNDARY.match(kind.strip())
    if not match:
        raise HTTPException(415, 'send DICOM files as multipart/related; type="application/dicom"; boundary=...')
    fence = b"--" + match[1].encode("latin-1")
    places = [place.start() for place in re.finditer(rb"(?:^|\r\n)" + re.escape(fence) + rb"(?=\r\n|--)", body)]
    if len(places) > LIMITS.films + 1:
        raise HTTPException(413, f"a request may have {LIMITS.films} films")
    parts = []
    for start, end in itertools.pairwise(places):
        head, blank, content = body[start:end].partition(b"\r\n\r\n")
        if not blank or b"application/dicom" not in head.lower():
            raise HTTPException(415, "each part must be an application/dicom file")
        parts.append(content)
    if not parts:
        raise HTTPException(400, "the body holds no DICOM file")
    return parts


def _store(spool: Spool, parts: list[bytes]) -> Response:
    """Take the files, and say of each what became of it (DICOM PS3.18, 10.5.3)."""
    outcomes = [take(spool, content) for content in parts]
    stored, failed = [], []
    for content, outcome in zip(parts, outcomes, strict=True):
        item = _name(content)
        if outcome is Outcome.TAKEN:
            stored.append(item)
        else:
            failed.append(item | {"00081197": {"vr": "US", "Value": [int(outcome)]}})
    answer = {tag: {"vr": "SQ", "Value": items} for tag, items in (("00081198", failed), ("00081199", stored)) if items}
    status = 200 if not failed else 202 if stored else 503 if Outcome.NO_ROOM in outcomes else 409
    return JSONResponse(answer, status, media_type="application/dicom+json")


def _name(content: bytes) -> dict[str, Any]:
    try:
        header = read_film_header(content)
    except NotDicom:
        return {}
    uids = ((_CLASS, header.sop_class), (_INSTANCE, header.sop_instance))
    return {tag: {"vr": "UI", "Value": [uid]} for tag, uid in uids}
