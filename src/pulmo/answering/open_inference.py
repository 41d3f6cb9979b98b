"""The Open Inference Protocol, version 2, by which KServe and its clients ask any model: films in, answers out.

Input `film` (BYTES) holds contents of image or DICOM files: base64 in JSON, or raw bytes after it (the extension for
binary tensors). Outputs (BYTES), a text each film: `label`, empty where there is none, and `answer`, the JSON that
`POST /v1/predict` gives for it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from pulmo.answering.admission import Limits
from pulmo.answering.served import decode_content
from pulmo.answering.service import Service, Upload, Wishes

MODEL = "pulmo"
INPUT, OUTPUTS = "film", ("label", "answer")
HEADER = "Inference-Header-Content-Length"  # bytes of the JSON, where binary tensors follow it
_LENGTH = 4  # bytes that tell how long an element of a binary tensor is, least significant first
_VALUES = 10_000  # of a request's JSON; Python keeps each in up to twenty times the bytes of its text
_NAME = 255  # characters of a request's name that come back
_KINDS = {"datatype": "BYTES", "shape": [-1]}

router = APIRouter(prefix="/v2")


@dataclass(frozen=True)
class _Asked:
    films: Sequence[Upload]
    outputs: Mapping[str, bool]  # name: True where it is to come as binary tensor
    anyway: bool
    id: str


@router.get("")
def _server() -> dict[str, Any]:
    """The server and what it speaks."""
    return {"name": "pulmo", "version": "2", "extensions": ["binary_tensor_data"]}


@router.get("/health/live")
def _live() -> dict[str, bool]:
    """The process lives."""
    return {"live": True}


@router.get("/health/ready")
def _ready() -> dict[str, bool]:
    """A model answers."""
    return {"ready": True}


@router.get(f"/models/{MODEL}")
def _model(request: Request) -> dict[str, Any]:
    """The model's name, version, inputs and outputs."""
    service: Service = request.app.state.service
    return {
        "name": MODEL,
        "versions": [service.source.current().model.version],
        "platform": "pulmo_onnx",
        "inputs": [{"name": INPUT, **_KINDS}],
        "outputs": [{"name": name, **_KINDS} for name in OUTPUTS],
    }


@router.get(f"/models/{MODEL}/ready")
def _model_ready() -> dict[str, Any]:
    """The model answers."""
    return {"name": MODEL, "ready": True}


async def _read_body(request: Request) -> bytes:
    return await request.body()


@router.post(f"/models/{MODEL}/infer", response_model=None)
def _infer(request: Request, body: Annotated[bytes, Depends(_read_body)]) -> Response:
    """Answer films; `parameters.anyway` answers those that are refused as well. Not a medical device."""
    service: Service = request.app.state.service
    asked = _read_request(body, request.headers.get(HEADER), request.app.state.limits)
    predictor = service.source.current()
    results = service.answer(asked.films, Wishes(anyway=asked.anyway), predictor)
    texts = {
        "label": [result.get("answer", {}).get("label") or "" for result in results],
        "answer": [json.dumps(result, ensure_ascii=False) for result in results],
    }
    head = {"model_name": MODEL, "model_version": predictor.model.version, "id": asked.id}
    return _respond(head, {name: (texts[name], binary) for name, binary in asked.outputs.items()})


def _respond(head: dict[str, Any], outputs: Mapping[str, tuple[list[str], bool]]) -> Response:
    described, tail = [], b""
    for name, (texts, binary) in outputs.items():
        tensor: dict[str, Any] = {"name": name, "datatype": "BYTES", "shape": [len(texts)]}
        if binary:
            packed = b"".join(len(text).to_bytes(_LENGTH, "little") + text for text in map(str.encode, texts))
            tensor["parameters"], tail = {"binary_data_size": len(packed)}, tail + packed
        else:
            tensor["data"] = texts
        described.append(tensor)
    content = {**head, "outputs": described}
    if not tail:
        return JSONResponse(content)
    start = json.dumps(content).encode()
    return Response(start + tail, media_type="application/octet-stream", headers={HEADER: str(len(start))})


def _read_request(body: bytes, header: str | None, limits: Limits) -> _Asked:
    """The films and wishes of a request; HTTPException where it is not one."""
    try:
        length = len(body) if header is None else int(header)
        content, tail = _read_json(body[:length] if 0 <= length <= len(body) else b""), body[max(0, length) :]
        (tensor,) = content["inputs"]
        if tensor["name"] != INPUT or tensor["datatype"] != "BYTES":
            raise ValueError
        size = tensor.get("parameters", {}).get("binary_data_size")
        elements = _unpack(tail, size) if size is not None else _flatten(tensor["data"])
        contents = list(islice(elements, limits.films + 1))
        if len(contents) > limits.films:
            raise HTTPException(413, f"a request may have {limits.films} films")
        if not contents or tensor["shape"] not in ([len(contents)], [len(contents), 1]):
            raise ValueError
        outputs, anyway = _read_outputs(content), content.get("parameters", {}).get("anyway", False)
        films = [Upload(f"film {place}", decode_content(film)) for place, film in enumerate(contents, start=1)]
        return _Asked(films, outputs, bool(anyway), _read_id(content))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise HTTPException(
            400, f"the body is no request of the Open Inference Protocol with `{INPUT}`, BYTES"
        ) from None


def _read_json(text: bytes) -> dict[str, Any]:
    if sum(map(text.count, (b",", b"[", b"{"))) > _VALUES:
        raise ValueError
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError
    return content


def _read_outputs(content: Mapping[str, Any]) -> dict[str, bool]:
    """The outputs that are asked for, all where none is named, and whether each is to come as binary tensor."""
    binary = bool(content.get("parameters", {}).get("binary_data_output", False))
    named = content.get("outputs") or [{"name": name} for name in OUTPUTS]
    outputs = {item["name"]: bool(item.get("parameters", {}).get("binary_data", binary)) for item in named}
    if not outputs.keys() <= set(OUTPUTS):
        raise ValueError
    return outputs


def _read_id(content: Mapping[str, Any]) -> str:
    """The name that the client gave its request."""
    name = content.get("id", "")
    return name[:_NAME].encode(errors="replace").decode() if isinstance(name, str) else ""


def _flatten(data: Any) -> Iterator[str]:
    """The texts of a tensor, whose rows may be lists of their own."""
    if not isinstance(data, list):
        raise ValueError
    for item in data:
        if isinstance(item, str):
            yield item
        else:
            yield from _flatten(item)


def _unpack(tail: bytes, size: int) -> Iterator[bytes]:
    """The elements of a binary tensor, which is all that follows the JSON."""
    if size != len(tail):
        raise ValueError
    place = 0
    while place < size:
        start = place + _LENGTH
        place = start + int.from_bytes(tail[place:start], "little")
        if place > size:
            raise ValueError
        yield tail[start:place]
