"""The model behind a page and a REST interface. Nothing uploaded is kept, written to disk or logged."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from pulmo.answering import open_inference
from pulmo.answering.admission import Admission, Limits, broken_off, problem_response, refuse
from pulmo.answering.follow import Follower
from pulmo.answering.log import AnswerLog
from pulmo.answering.openapi import PREDICT
from pulmo.answering.service import Service, Upload, Wishes
from pulmo.answering.uploads import read_uploads

_PAGE = Path(__file__).parent / "page" / "index.html"
_DESCRIPTION = "NORMAL or PNEUMONIA from a chest X-ray, and how far to trust it. Not a medical device."
_HEATMAP = (
    "add each film with its heat map, as base64 of a PNG; null where /v1/model says heatmap: false, for a network that "
    "does not end in pooling and one linear layer takes seconds for one: `pulmo predict --heatmap` draws it"
)


async def _read_films(request: Request) -> list[Upload]:
    return await read_uploads(request, request.app.state.limits)


def _predict(
    request: Request,
    films: Annotated[list[Upload], Depends(_read_films)],
    heatmap: Annotated[bool, Query(description=_HEATMAP)] = False,
    film: Annotated[bool, Query(description="add each film itself, as base64 of a PNG")] = False,
    anyway: Annotated[bool, Query(description="answer, and mark, films that are refused otherwise")] = False,
    dicom: Annotated[bool, Query(description="add a DICOM report and picture of each DICOM film, as base64")] = False,
) -> JSONResponse:
    """Answer films: for each, in their order, an `answer` or a `problem`. Not a medical device."""
    if dicom and not find_spec("highdicom"):
        raise HTTPException(501, "this server makes no DICOM: it was installed without pulmo[dicom]")
    service: Service = request.app.state.service
    results = service.answer(films, Wishes(anyway, film, heatmap, dicom))
    return JSONResponse({"films": results, "not_a_medical_device": True})


def _model(request: Request) -> dict[str, Any]:
    """The model that answers now, and the limits of a request."""
    predictor, limits = request.app.state.service.source.current(), request.app.state.limits
    info = predictor.info
    return {
        "model": asdict(predictor.model),
        "arch": info.arch,
        "size": info.size,
        "bf16": predictor.bf16,
        "threshold": info.threshold,
        "heatmap": predictor.network.has_heat,
        "unsure": [info.locked["abstention"][end] for end in ("low", "high")],
        "refuses": predictor.familiarity is not None,
        "test": {key: info.metrics.get("estimates", {}).get(key) for key in ("auroc", "sensitivity", "specificity")},
        "data_sha256": info.data_sha256,
        "git_revision": info.git_revision,
        "limits": {"films": limits.films, "bytes": limits.request_bytes},
    }


def _healthz() -> dict[str, str]:
    """The process lives."""
    return {"status": "alive"}


def _readyz(request: Request) -> dict[str, str]:
    """A model answers; `warning` where it is not the one that should."""
    warning = request.app.state.service.source.warning
    return {"status": "warning", "warning": warning} if warning else {"status": "ready"}


def _metrics(request: Request) -> PlainTextResponse:
    """Counts and times, as Prometheus reads them."""
    return PlainTextResponse(request.app.state.service.metrics.text())


def make_app(
    source: Follower,
    token: str = "",
    limits: Limits | None = None,
    names: frozenset[str] = frozenset(),
    log: AnswerLog | None = None,
    cores: int = 0,
) -> FastAPI:
    """The page and the REST interface.

    `token`, where it is not empty, must come with each request about films. `names`: host names that the server goes
    by, beside localhost and addresses. `log` gets a line an answer. `cores`: how many it uses, 0 = all.
    """
    limits = limits or Limits()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        source.start()
        yield
        source.stop()

    app = FastAPI(title="Pulmo", description=_DESCRIPTION, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service, app.state.limits = Service(source, log, cores), limits
    page = _PAGE.read_text(encoding="utf-8")
    app.add_middleware(Admission, token=token, names=names, limits=limits, headers=_security_headers(page))
    app.get("/", include_in_schema=False)(lambda: HTMLResponse(page))
    app.get("/healthz")(_healthz)
    app.get("/readyz")(_readyz)
    app.get("/metrics", response_class=PlainTextResponse)(_metrics)
    app.get("/v1/model")(_model)
    app.post("/v1/predict", openapi_extra=PREDICT)(_predict)
    app.include_router(open_inference.router)
    app.add_exception_handler(HTTPException, refuse)
    app.add_exception_handler(RequestValidationError, _tell_invalid)
    app.add_exception_handler(ClientDisconnect, broken_off)
    app.add_exception_handler(Exception, lambda *_: problem_response(500, "the server failed; its operator sees why"))
    return app


def _security_headers(page: str) -> dict[str, str]:
    """The page may run its own script, use its own style, and talk to its own server; nothing else."""
    policy = {
        "default-src": "'none'",
        "script-src": _hash_part(page, "script"),
        "style-src": _hash_part(page, "style"),
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


def _hash_part(page: str, tag: str) -> str:
    """The content of a page's only element of this kind, as a policy names it."""
    content = page.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
    return f"'sha256-{base64.b64encode(sha256(content.encode()).digest()).decode()}'"


def _tell_invalid(_: Request, error: Any) -> JSONResponse:
    reasons = [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()]
    return problem_response(422, "; ".join(reasons))
