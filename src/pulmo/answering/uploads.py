"""The films in the body of a multipart request, held in memory alone."""

import sys

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from pulmo.answering.admission import Limits
from pulmo.answering.service import Upload

_NAME = 255  # characters of a film's name that come back


class _InMemory(MultiPartParser):
    spool_max_size = sys.maxsize  # Starlette writes larger files to disk


async def read_uploads(request: Request, limits: Limits) -> list[Upload]:
    """The films of a request; HTTPException where there are none, or more than are allowed."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise HTTPException(415, "send films as multipart/form-data, each as a field `films`")
    parser = _InMemory(request.headers, request.stream(), max_files=limits.films, max_fields=0)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise HTTPException(413, f"a request may have {limits.films} films") from None
        raise HTTPException(400, "the body is no multipart/form-data with films alone") from None
    parts = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
    if not parts:
        raise HTTPException(400, "the request has no film; send each as a field `films`")
    return [Upload((part.filename or "film")[:_NAME], await part.read()) for part in parts]
