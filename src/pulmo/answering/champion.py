"""The registered model that answers, found without MLflow, whose import takes longer than an answer.

The store is read at every call, so that an alias which anybody moved, by `pulmo promote` or on MLflow's page, counts at
once: a sqlite file by SQL, a server by its REST interface.
"""

import base64
import json
import os
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlencode, urlsplit
from urllib.request import Request, urlopen

from pulmo.base import paths
from pulmo.base.addresses import hide_secrets, show_address
from pulmo.base.errors import UserError

CHAMPION = "models:/pulmo@champion"
_URI = re.compile(r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<version>\d+))")
_LOOK = "`pulmo doctor` looks at the store"
_SECONDS = 10  # that a server has to answer
_BY_ALIAS = "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ?"
_VERSION = "SELECT run_id, COALESCE(storage_location, source) FROM model_versions WHERE name = ? AND version = ?"
_EXPERIMENT = "SELECT value FROM model_version_tags WHERE name = ? AND version = ? AND key = 'experiment'"
_LOGGED = "SELECT artifact_location FROM logged_models WHERE model_id = ?"


@dataclass(frozen=True)
class Place:
    """A model's package on this disk."""

    folder: Path
    name: str  # of its experiment, or of the folder
    version: str  # in the registry; empty where it is not registered


@dataclass(frozen=True)
class _Registered:
    version: str
    run_id: str | None  # None where it was registered without a run
    source: str
    experiment: str


class NotAtHand(UserError):
    """The model lies where only MLflow can fetch it from."""


def find_model(uri: str = CHAMPION) -> Place:
    """The package of a registered model, as models:/NAME@ALIAS or models:/NAME/VERSION. UserError where there is none.

    NotAtHand where it is not on this disk and was not copied to .champion yet.
    """
    place = find_registered(uri)
    if place is None:
        raise UserError(
            f"{uri} is not in the store", "`pulmo promote EXP` makes a champion, `pulmo history` lists them"
        )
    return place


def find_registered(uri: str = CHAMPION) -> Place | None:
    """`find_model`, but None where the store does not know the model, or there is no store."""
    asked = _URI.fullmatch(uri)
    if not asked:
        raise UserError(f"{uri} is no address of a registered model", f"write it like {CHAMPION} or models:/pulmo/3")
    root = paths.project_root()
    store = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}"
    if store.startswith("sqlite:///"):
        file = Path(store.removeprefix("sqlite:///"))
        registered = _read_sqlite(file, asked["name"], asked["alias"], asked["version"])
    elif store.startswith(("http://", "https://")):
        registered = _ask_server(store, asked["name"], asked["alias"], asked["version"])
    else:
        raise NotAtHand(f"only MLflow can read the store at {urlsplit(store).scheme}://", "name the model's folder")
    if registered is None:
        return None
    return Place(_find_package(registered, root), registered.experiment, registered.version)


def _find_package(registered: _Registered, root: Path) -> Path:
    local = registered.source.startswith(("file:", "/"))
    if local:
        folder = Path(unquote(urlsplit(registered.source).path))
    elif registered.run_id:
        folder = root / ".champion" / registered.run_id
    else:
        raise UserError(
            f"version {registered.version} belongs to no run, so nothing tells its copy from others",
            "`pulmo promote EXP` registers the model of a run",
        )
    if cards := sorted(folder.rglob("model.json")):
        return cards[0].parent
    if local:
        raise UserError(f"the model at {folder} cannot be had: it holds no package", _LOOK)
    raise NotAtHand(f"version {registered.version} is not on this disk yet", "`pulmo predict` copies the champion once")


def _read_sqlite(file: Path, name: str, alias: str | None, version: str | None) -> _Registered | None:
    if not file.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=_SECONDS)) as connection:
            if alias:
                row = connection.execute(_BY_ALIAS, (name, alias)).fetchone()
                version = row and str(row[0])
            row = connection.execute(_VERSION, (name, version)).fetchone() if version else None
            if row is None:
                return None
            run_id, source = row
            if source.startswith("models:/m-"):
                source = (connection.execute(_LOGGED, (source.removeprefix("models:/"),)).fetchone() or [source])[0]
            experiment = connection.execute(_EXPERIMENT, (name, version)).fetchone()
    except sqlite3.Error as error:
        raise UserError(f"the MLflow store {file} cannot be read: {error}", _LOOK) from None
    return _Registered(str(version), run_id, source, experiment[0] if experiment else f"version {version}")


def _ask_server(store: str, name: str, alias: str | None, version: str | None) -> _Registered | None:
    if alias:
        content = _get(store, "registered-models/alias", name=name, alias=alias)
    else:
        content = _get(store, "model-versions/get", name=name, version=str(version))
    if content is None:
        return None
    entry = content["model_version"]
    tags = {tag["key"]: tag["value"] for tag in entry.get("tags", [])}
    number = str(entry["version"])
    return _Registered(number, entry.get("run_id"), entry["source"], tags.get("experiment", f"version {number}"))


def _get(store: str, method: str, **query: str) -> Any:
    """A server's answer; None where it knows no such thing."""
    try:
        place = urlsplit(store)
        address = place._replace(netloc=place.netloc.rpartition("@")[2]).geturl().rstrip("/")
        request = Request(f"{address}/api/2.0/mlflow/{method}?{urlencode(query)}", headers=_credentials(place))
        with urlopen(request, timeout=_SECONDS) as answer:
            return json.load(answer)
    except HTTPError as error:
        if error.code == 404:
            return None
        reason = f"{error.code} {error.reason}"
    except (OSError, ValueError, HTTPException) as error:
        reason = str(getattr(error, "reason", error))
    raise UserError(
        f"the MLflow server at {show_address(store)} does not answer: {hide_secrets(reason, store)}",
        "start it, correct MLFLOW_TRACKING_URI, or unset it",
    )


def _credentials(place: Any) -> dict[str, str]:
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    user = os.environ.get("MLFLOW_TRACKING_USERNAME") or unquote(place.username or "")
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD") or unquote(place.password or "")
    if not user:
        return {}
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}
