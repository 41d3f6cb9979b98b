"""MLflow's model registry: which run's model answers for the project, and who was champion before it."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pulmo.base.addresses import hide_secrets, show_address
from pulmo.base.errors import UserError
from pulmo.base.places import own_place
from pulmo.tracking.runs import EVALUATED, EXPERIMENT_TAG
from pulmo.tracking.store import DESCRIPTION, Store, load_mlflow, quote
from pulmo.tracking.turns import UNDER_WAY, own_turn
from pulmo.tracking.upkeep import REPLACED, find_evaluations

MODEL, CHAMPION = "pulmo", "champion"  # the name and the alias: models:/pulmo@champion
ABOUT = "NORMAL or PNEUMONIA from one chest X-ray. Not a medical device."


@dataclass(frozen=True)
class Candidate:
    """An evaluated run and the model in it."""

    run_id: str
    name: str  # of the experiment
    source: str  # URI of the model's files in the store
    model_id: str
    description: str = ""  # of the run


@dataclass(frozen=True)
class Version:
    """A registered model; numbers count from 1, and each version is a promotion."""

    number: int
    run_id: str
    source: str
    created: datetime
    tags: Mapping[str, str]
    is_champion: bool

    @property
    def name(self) -> str:
        """The experiment; a version that was registered by other means has none."""
        return self.tags.get("experiment", f"version {self.number}")


def find_candidate(store: Store, experiment: str) -> Candidate:
    """The last evaluated run of an experiment, given by its name or by the run's id; no run of one it replaced."""
    runs = store.find_runs(f"attributes.run_name = {quote(experiment)} and tags.`{EVALUATED}` = 'true'")
    run = next((run for run in runs if REPLACED not in run.data.tags), None) or store.find_run(experiment)
    if run is None or EVALUATED not in run.data.tags:
        raise UserError(
            f"no evaluated run of {experiment!r} in {show_address(store.uri)}",
            "where `dvc exp show` lists it, as it does a colleague's, `pulmo sync` makes its run",
        )
    if run.outputs is None or not run.outputs.model_outputs:
        name = run.data.tags.get(EXPERIMENT_TAG)
        cure = (
            f"dvc exp apply {shlex.quote(name)} && dvc exp run -f -s evaluate" if name else "dvc repro -f -s evaluate"
        )
        raise UserError(f"the run of {experiment!r} holds no model", f"`{cure}` makes one that does")
    return _read_candidate(store, run)


def find_evaluated(store: Store, evaluation: str) -> Candidate | None:
    """The last run that left this text as reports/evaluation.json, and has a model."""
    run = next((run for run in find_evaluations(store, evaluation) if run.outputs and run.outputs.model_outputs), None)
    return _read_candidate(store, run) if run else None


def _read_candidate(store: Store, run: Any) -> Candidate:
    try:
        model = store.client.get_logged_model(run.outputs.model_outputs[-1].model_id)
    except load_mlflow().exceptions.MlflowException as error:
        name, reason = run.info.run_name, hide_secrets(" ".join(str(error).split()), store.uri)
        raise UserError(f"the model of {name!r} is no longer in the store ({reason})", "promote another run") from None
    description = run.data.tags.get(DESCRIPTION, "")
    return Candidate(run.info.run_id, run.info.run_name, model.artifact_location, model.model_id, description)


def read_versions(store: Store) -> list[Version]:
    """Every version of the registered model, oldest first, less those that are not yet or were never champion."""
    try:
        champion = store.client.get_registered_model(MODEL).aliases.get(CHAMPION)
    except load_mlflow().exceptions.MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return []
        raise
    versions = [
        Version(
            number=int(entry.version),
            run_id=entry.run_id,
            source=entry.source,
            created=datetime.fromtimestamp(entry.creation_timestamp / 1000, UTC),
            tags={key: text for key, text in entry.tags.items() if key != UNDER_WAY},
            is_champion=str(entry.version) == str(champion),
        )
        for entry in store.client.search_model_versions(f"name = '{MODEL}'")
        if UNDER_WAY not in entry.tags or str(entry.version) == str(champion)
    ]
    return sorted(versions, key=lambda version: version.number)


def read_champion(store: Store) -> Version | None:
    """The version that bears the alias `champion`."""
    return next((version for version in read_versions(store) if version.is_champion), None)


def register(store: Store, candidate: Candidate, tags: Mapping[str, str], replaced: Version | None) -> int:
    """Register the candidate's model and move the alias to it; returns the number of its version.

    UserError, with nothing changed, where `replaced` is no longer the champion.
    """
    mlflow, client = load_mlflow(), store.client
    try:
        client.create_registered_model(MODEL, description=ABOUT)
    except mlflow.exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # Not as models:/<id>: MLflow resolves that in the store that is set globally, which need not be this client's.
    version = client.create_model_version(
        MODEL,
        candidate.source,
        run_id=candidate.run_id,
        tags={**tags, UNDER_WAY: "true"},
        description=candidate.description,
        model_id=candidate.model_id,
    )
    with own_turn(client, MODEL, version):
        if read_champion(store) != replaced:
            raise UserError("the champion changed while this model was compared with it", "promote again")
        if replaced:  # whose own promotion may have been killed at its last line
            client.delete_model_version_tag(MODEL, str(replaced.number), UNDER_WAY)
        client.set_registered_model_alias(MODEL, CHAMPION, version.version)
    if (client.get_registered_model(MODEL).description or ABOUT).startswith(ABOUT):  # else somebody's own words
        text = f"{ABOUT}\n\nPromoted last: version {version.version}, {candidate.name}. {candidate.description}"
        client.update_registered_model(MODEL, description=text)
    return int(version.version)


def fetch_package(store: Store, model: Candidate | Version) -> Path:
    """Folder of the package inside a model: in the store where that is on this disk, else copied to .champion/ once."""
    source, copy = model.source, store.root / ".champion" / model.run_id
    download = load_mlflow().artifacts.download_artifacts
    try:
        if source.startswith(("file:", "/")):
            folder = Path(download(artifact_uri=source, tracking_uri=store.uri))
        else:
            folder = copy
            if not copy.exists():
                with own_place(copy) as part:
                    download(artifact_uri=source, dst_path=str(part), tracking_uri=store.uri)
                    try:
                        part.replace(copy)
                    except OSError:
                        if not copy.exists():  # else another process was faster
                            raise
    except Exception as error:  # every kind of store has errors of its own
        reason = hide_secrets(hide_secrets(" ".join(str(error).split()), store.uri), source)[:200]
        raise UserError(
            f"the model at {show_address(source)} cannot be had ({reason})", "`pulmo doctor` looks at the store"
        ) from None
    card = next(iter(sorted(folder.rglob("model.json"))), None)
    if card is None:
        raise UserError(f"{show_address(source)} holds no model package", "promote another experiment")
    return card.parent
