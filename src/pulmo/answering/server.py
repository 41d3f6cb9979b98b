"""The model behind a page and a REST interface. Nothing uploaded is kept, written to disk or logged."""

import base64
import io
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from threading import Semaphore
from typing import Annotated, Any

import numpy as np
from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from PIL import Image
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from pulmo.answering.answer import Answer
from pulmo.answering.follow import PredictorSource
from pulmo.answering.gate import PROBLEM, Gate, Limits, to_problem
from pulmo.answering.heatmap import draw_heat, scale_heat, spread_heat
from pulmo.answering.metrics import Metrics
from pulmo.answering.openapi import PREDICT
from pulmo.answering.predictor import Predictor, read_fitted
from pulmo.answering.words import decision_text, worth_text
from pulmo.base.errors import UserError
from pulmo.base.process import usable_cores
from pulmo.images.decode import decode_gray
from pulmo.images.film import FittedFilm
from pulmo.images.limits import MemoryShortage

PAGE = Path(__file__).parent / "page" / "index.html"
SIDE = 1600  # pixels of the longest side of pictures that are sent
_NAME = 255  # characters of a film's name that come back
Film = tuple[str, bytes]  # its name and content


class _InMemory(MultiPartParser):
    spool_max_size = sys.maxsize  # Starlette writes larger files to disk


async def _read_films(request: Request) -> list[Film]:
    """The films of a request."""
    limits: Limits = request.app.state.limits
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
    return [((part.filename or "film")[:_NAME], await part.read()) for part in parts]


def _predict(
    request: Request,
    films: Annotated[list[Film], Depends(_read_films)],
    heatmap: Annotated[bool, Query(description="add each film with its heat map, as base64 of a PNG")] = False,
    film: Annotated[bool, Query(description="add each film itself, as base64 of a PNG")] = False,
    anyway: Annotated[bool, Query(description="answer, and mark, films that are refused otherwise")] = False,
) -> dict[str, Any]:
    """Answer films: for each, in their order, an `answer` or a `problem`. Not a medical device."""
    metrics: Metrics = request.app.state.metrics
    with metrics.timed(), request.app.state.turns:
        results = _answer(request.app.state.source.current(), films, heatmap, film, anyway)
    metrics.count(results)
    return {"films": results, "not_a_medical_device": True}


def _answer(predictor: Predictor, films: list[Film], heatmap: bool, film: bool, anyway: bool) -> list[dict[str, Any]]:
    fitted = [_fit(predictor, content) for _, content in films]
    answers = iter(predictor.answer([item for item in fitted if isinstance(item, FittedFilm)], anyway))
    results: list[dict[str, Any]] = []
    for (name, content), item in zip(films, fitted, strict=True):
        if not isinstance(item, FittedFilm):
            results.append({"film": name, "problem": item})
            continue
        answer = next(answers)
        pictures = _draw(predictor, content, item, answer, heatmap, film)
        said = {"decision": decision_text(answer), "worth": worth_text(answer)}
        results.append({"film": name, **said, "answer": answer.to_dict(), **pictures})
    return results


def _fit(predictor: Predictor, content: bytes) -> FittedFilm | dict[str, Any]:
    """A film as the network sees it, or the problem with it."""
    try:
        return read_fitted(content, predictor.info.size, predictor.info.fit)
    except MemoryShortage as error:
        return to_problem(503, error.message)
    except UserError as error:
        return to_problem(422, error.message)


def _draw(
    predictor: Predictor, content: bytes, fitted: FittedFilm, answer: Answer, heatmap: bool, film: bool
) -> dict[str, str | None]:
    if not heatmap and not film:
        return {}
    picture = Image.fromarray(decode_gray(content))
    picture.thumbnail((SIDE, SIDE))
    drawn: dict[str, str | None] = {}
    if film:
        png = io.BytesIO()
        picture.save(png, "PNG", compress_level=1)
        drawn["film_png"] = base64.b64encode(png.getvalue()).decode()
    if heatmap:
        heat = predictor.network.explain(fitted.pixels[None]) if answer.label else None
        if heat is None or answer.label is None:
            return drawn | {"heatmap_png": None}
        scaled = scale_heat(heat[0], answer.label)
        spread = spread_heat(scaled, *picture.size, predictor.info.size, predictor.info.fit)
        drawn["heatmap_png"] = base64.b64encode(draw_heat(np.asarray(picture), spread)).decode()
    return drawn


def _model(request: Request) -> dict[str, Any]:
    """The model that answers now, and the limits of a request."""
    predictor, limits = request.app.state.source.current(), request.app.state.limits
    info = predictor.info
    return {
        "model": {"name": predictor.model.name, "version": predictor.model.version, "sha256": predictor.model.sha256},
        "arch": info.arch,
        "size": info.size,
        "threshold": info.threshold,
        "heatmap": predictor.network.has_heat,
        "test": {key: info.metrics.get("estimates", {}).get(key) for key in ("auroc", "sensitivity", "specificity")},
        "limits": {"films": limits.films, "bytes": limits.request_bytes},
    }


def _healthz() -> dict[str, str]:
    """The process lives."""
    return {"status": "alive"}


def _readyz(request: Request) -> dict[str, str]:
    """A model answers; `warning` where it is not the one that should."""
    warning = request.app.state.source.warning
    return {"status": "warning", "warning": warning} if warning else {"status": "ready"}


def _metrics(request: Request) -> PlainTextResponse:
    """Counts and times, as Prometheus reads them."""
    return PlainTextResponse(request.app.state.metrics.text())


def make_app(
    source: PredictorSource, token: str = "", limits: Limits | None = None, names: frozenset[str] = frozenset()
) -> FastAPI:
    """The page and the REST interface.

    `token`, where it is not empty, must come with each request about films. `names`: host names that the server goes
    by, beside localhost and addresses.
    """
    limits = limits or Limits()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        source.start()
        yield
        source.stop()

    app = FastAPI(title="Pulmo", description=_DESCRIPTION, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.source, app.state.limits, app.state.metrics = source, limits, Metrics(source)
    app.state.turns = Semaphore(usable_cores())  # more at once only get in each other's way, and take memory
    page = PAGE.read_text(encoding="utf-8")
    app.add_middleware(Gate, token=token, names=names, limits=limits, headers=_security_headers(page))
    app.get("/", include_in_schema=False)(lambda: HTMLResponse(page))
    app.get("/healthz")(_healthz)
    app.get("/readyz")(_readyz)
    app.get("/metrics", response_class=PlainTextResponse)(_metrics)
    app.get("/v1/model")(_model)
    app.post("/v1/predict", openapi_extra=PREDICT)(_predict)
    app.add_exception_handler(HTTPException, _tell_refusal)
    app.add_exception_handler(RequestValidationError, _tell_invalid)
    app.add_exception_handler(ClientDisconnect, lambda *_: _problem(400, "the request broke off"))
    app.add_exception_handler(Exception, lambda *_: _problem(500, "the server failed; its operator sees why"))
    return app


_DESCRIPTION = "NORMAL or PNEUMONIA from a chest X-ray, and how far to trust it. Not a medical device."


def _security_headers(page: str) -> dict[str, str]:
    """The page may run its own script, use its own style, and talk to its own server; nothing else."""
    hashes = {
        tag: base64.b64encode(sha256(re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[0].encode()).digest())
        for tag in ("script", "style")
    }
    policy = {
        "default-src": "'none'",
        "script-src": f"'sha256-{hashes['script'].decode()}'",
        "style-src": f"'sha256-{hashes['style'].decode()}'",
        "img-src": "data:",
        "connect-src": "'self'",
        **dict.fromkeys(("base-uri", "form-action", "frame-ancestors"), "'none'"),
    }
    return {
        "Content-Security-Policy": "; ".join(f"{key} {value}" for key, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-store",
    }


def _problem(status: int, detail: str) -> JSONResponse:
    return JSONResponse(to_problem(status, detail), status, media_type=PROBLEM)


def _tell_refusal(_: Request, refusal: Any) -> JSONResponse:
    return _problem(refusal.status_code, refusal.detail)


def _tell_invalid(_: Request, error: Any) -> JSONResponse:
    reasons = [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()]
    return _problem(422, "; ".join(reasons))
