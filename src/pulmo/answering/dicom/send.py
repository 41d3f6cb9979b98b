"""Destinations of reports and pictures: AE@host:port by C-STORE, or the address of a STOW-RS service."""

import base64
import hashlib
import io
import json
import re
import time
import uuid
from http.client import HTTPException
from typing import Any, NamedTuple, Protocol
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from pydicom import dcmread
from pydicom.uid import (
    UID,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE

from pulmo.base.addresses import hide_secrets, join_host, show_address
from pulmo.base.errors import UserError

_ENTITY = re.compile(r"(?P<title>[ -?A-\[\]-~]{1,16})@(?P<host>\[[0-9a-fA-F:.]+\]|[\w.-]+):(?P<port>\d{1,5})")
_SECONDS = 30  # that a destination has to answer
_REST = 0.01  # seconds in which a thread of pynetdicom comes to rest
_FAILED, _REASON = "00081198", "00081197"  # FailedSOPSequence, FailureReason
# HTTP's statuses that say that the object itself is not wanted
_TURNED_DOWN = (400, 406, 409, 413, 415, 422)
_ANSWER_BYTES = 2**20


class Unreachable(Exception):
    """The destination cannot take anything now; it is tried again."""


class TurnedDown(Exception):
    """The destination does not want this object, however often it is sent."""


class Destination(Protocol):
    """A place that gets reports and pictures."""

    name: str  # as it may be printed
    queue: str  # the name of its folder

    def send(self, content: bytes) -> None:
        """Send the content of a DICOM file. Raises Unreachable, TurnedDown."""

    def rest(self) -> None:
        """Let go of the connection until there is more to send."""


class Entity(NamedTuple):
    """A DICOM application by its AE title and address."""

    title: str
    host: str
    port: int

    def __str__(self) -> str:
        """As it is written on a command line."""
        return f"{self.title}@{join_host(self.host, self.port)}"


def parse_entity(option: str, text: str) -> Entity:
    """AE@host:port as an option of the command line has it. UserError where it is none."""
    parts = _ENTITY.fullmatch(text)
    if not parts or int(parts["port"]) >= 2**16:
        raise UserError(
            f"{option} {hide_secrets(text)} names no place", "write AE@host:port, with an AE title of 1 to 16 letters"
        )
    return Entity(parts["title"].strip(), parts["host"].strip("[]"), int(parts["port"]))


def parse_destination(text: str, ae_title: str) -> Destination:
    """The destination that a text names; `ae_title` is what this side calls itself. UserError where it names none."""
    try:
        is_web = text.startswith(("http://", "https://")) and urlsplit(text).hostname
    except ValueError:  # a bracket without its other one
        is_web = False
    return StowDestination(text) if is_web else StoreDestination(parse_entity("--to", text), ae_title)


class StoreDestination:
    """A C-STORE provider; one association carries all that waits."""

    def __init__(self, entity: Entity, ae_title: str) -> None:
        self.name = str(entity)
        self.queue = _name_queue(self.name, self.name)
        self._entity = entity
        self._ae = AE(ae_title)
        self._ae.connection_timeout = self._ae.acse_timeout = 10
        self._ae.dimse_timeout = self._ae.network_timeout = _SECONDS
        for sop_class in (EnhancedSRStorage, SecondaryCaptureImageStorage):
            self._ae.add_requested_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        self._association: Any = None

    def send(self, content: bytes) -> None:
        """Send the content of a DICOM file. Raises Unreachable, TurnedDown."""
        dataset = dcmread(io.BytesIO(content))
        if self._association is None or not self._association.is_established:
            self._association = self._ae.associate(self._entity.host, self._entity.port, ae_title=self._entity.title)
            if not self._association.is_established:
                raise Unreachable("no association")
        settle(self._association)
        try:
            status = self._association.send_c_store(dataset).get("Status")
        except ValueError:
            raise TurnedDown(f"it does not accept {UID(dataset.SOPClassUID).name}") from None
        except RuntimeError:  # the association broke since
            raise Unreachable("the association broke") from None
        if status is None:
            raise Unreachable("no answer")
        if status == 0x0124 or status >> 8 == 0xA7:  # not authorised, out of resources
            raise Unreachable(f"status {status:#06x}")
        if status not in (0, 0x0107, 0x0116) and status >> 12 != 0xB:  # success and warnings
            raise TurnedDown(f"status {status:#06x}")

    def rest(self) -> None:
        """Release the association."""
        if self._association is not None and self._association.is_established:
            self._association.release()
        self._association = None


def settle(association: Any) -> None:
    """Let the thread of an association come to rest before a request.

    In pynetdicom 3.0 that thread may otherwise take the answer to the request for itself, and who asked waits until the
    time is up.
    """
    if checkpoint := getattr(association, "_reactor_checkpoint", None):
        checkpoint.clear()
        time.sleep(_REST)


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """None: a report goes where it was told to go."""


class StowDestination:
    """A STOW-RS service."""

    def __init__(self, url: str) -> None:
        """`url`: of its studies, with user and password where it wants them."""
        place = urlsplit(url)
        self._url = place._replace(netloc=place.netloc.rpartition("@")[2]).geturl()
        self._secret = url
        self.name = show_address(url)
        self.queue = _name_queue(place.hostname or "", self._url)
        self._headers = {"Accept": "application/dicom+json"}
        if place.username:
            login = f"{unquote(place.username)}:{unquote(place.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
        self._opener = build_opener(_NoRedirect)

    def send(self, content: bytes) -> None:
        """Send the content of a DICOM file. Raises Unreachable, TurnedDown."""
        boundary = uuid.uuid4().hex
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        head, tail = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n", f"\r\n--{boundary}--\r\n"
        body = head.encode() + content + tail.encode()
        try:
            request = Request(self._url, body, self._headers | {"Content-Type": kind})
            with self._opener.open(request, timeout=_SECONDS) as response:
                _check(response.status, response.read(_ANSWER_BYTES))
        except HTTPError as error:
            with error:
                _check(error.code, error.read(_ANSWER_BYTES))
        except (OSError, ValueError, HTTPException) as error:
            raise Unreachable(hide_secrets(str(getattr(error, "reason", error)), self._secret)) from None

    def rest(self) -> None:
        """Nothing: each object has a connection of its own."""


def _check(status: int, body: bytes) -> None:
    try:
        failed = json.loads(body or b"{}").get(_FAILED, {}).get("Value", [])
        reason = int(failed[0][_REASON]["Value"][0]) if failed else 0
    except (ValueError, AttributeError, KeyError, IndexError, TypeError):  # no answer of STOW-RS
        reason = 0
    text = f"HTTP {status}" + (f", failure reason {reason:#06x}" if reason else "")
    if reason >> 8 == 0xA7 or not (status < 300 or status in _TURNED_DOWN):
        raise Unreachable(text)
    if reason or status >= 300:
        raise TurnedDown(text)


def _name_queue(shown: str, whole: str) -> str:
    """The name of a folder that no other destination has."""
    return f"{re.sub(r'[^A-Za-z0-9.@_-]', '_', shown)}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
