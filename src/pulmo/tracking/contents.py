"""The content of a run, and how it is written."""

import hashlib
import json
import time
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pulmo.tracking.logged_models import log_model
from pulmo.tracking.outbox import Outbox
from pulmo.tracking.store import DESCRIPTION, EPOCH, load_mlflow


class Run:
    """An open run; every method writes to the store at once, so that `mlflow ui` shows a run that is under way.

    With an `outbox`, as stages have it, a store that fails is no error, and what it did not take is written later.
    """

    def __init__(self, client: Any, run_id: str, name: str, outbox: Outbox | None = None) -> None:
        self.client = client
        self.run_id = run_id
        self.name = name
        self.tags: dict[str, str] = {}  # those that this process wrote or found
        self.epochs = 0  # the last one whose numbers were written
        self._outbox = outbox

    def write(self, write: Callable[[], None]) -> None:
        """Do what writes to the store, now or once it can be used."""
        if self._outbox:
            self._outbox.put(write)
        else:
            write()

    def log_epoch(self, row: Mapping[str, float]) -> None:
        """One row of the history: every number but `epoch` becomes a point of its curve, epoch/NAME, at that epoch.

        A resumed training tells its earlier epochs again; those that the run holds are left out.
        """
        epoch = int(row["epoch"])
        names = sorted(row, key=lambda key: key != "val_auroc")  # first what a comparison of runs opens on
        curves = {f"{EPOCH}{key}": row[key] for key in names if key != "epoch"}
        write = self._writes_metrics(curves, epoch, {})

        def write_once() -> None:
            if epoch > self.epochs:
                write()
                self.epochs = epoch

        self.write(write_once)

    def log_metrics(self, metrics: Mapping[str, float | None], about: Mapping[str, str] | None = None) -> None:
        """Numbers under the names given, in one call to the store; None (undefined) is left out.

        `about` may name what they tell of: model_id, dataset_name, dataset_digest; it is read when they are written.
        """
        self.write(self._writes_metrics(metrics, 0, about or {}))

    def _writes_metrics(
        self, metrics: Mapping[str, float | None], step: int, about: Mapping[str, str]
    ) -> Callable[[], None]:
        metric, stamp = load_mlflow().entities.Metric, int(time.time() * 1000)  # that of the measurement

        def write() -> None:
            points = [
                metric(key, float(value), stamp, step, run_id=self.run_id, **about)
                for key, value in metrics.items()
                if value is not None
            ]
            self.client.log_batch(self.run_id, metrics=points)

        return write

    def log_datasets(self, datasets: Mapping[str, Mapping[str, Any]]) -> None:
        """The films of each split, as `films.rows.processed.summarise_films` tells them: a `digest` and counts."""
        mlflow = load_mlflow()
        inputs = [
            mlflow.entities.DatasetInput(
                mlflow.entities.Dataset(
                    name=split,
                    digest=facts["digest"],
                    source_type="local",
                    source=json.dumps({"uri": "data/splits.csv"}),
                    profile=json.dumps({key: value for key, value in facts.items() if key != "digest"}),
                ),
                [mlflow.entities.InputTag("mlflow.data.context", split)],
            )
            for split, facts in datasets.items()
        ]

        def write() -> None:
            try:
                self.client.log_inputs(self.run_id, inputs)
            except mlflow.exceptions.MlflowException:
                # Another experiment wrote the same films between MLflow's look for them and its write; now they are
                # there.
                self.client.log_inputs(self.run_id, inputs)

        self.write(write)

    def log_results(
        self,
        headline: Mapping[str, Mapping[str, float]],
        summary: str,
        datasets: Mapping[str, Mapping[str, Any]],
        package: Path,
        film: np.ndarray,
        files: Iterable[Path],
    ) -> None:
        """All that evaluate found: the `headline` numbers, whose intervals stand in the reports, a `summary` in words,
        the datasets, files and folders, and the `package` as model with a `film` (gray, uint8) as example."""
        self.describe(summary)
        self.log_datasets(datasets)
        for file in files:
            self.log_path(file)
            if file.suffix in (".json", ".csv"):
                self.tag_hash(file.stem, file.read_bytes())
        model: dict[str, str] = {}  # its id, once the store has it
        self.write(lambda: model.update(model_id=log_model(self.client, self.run_id, package, film)))
        for split, names in headline.items():
            values = {f"{split}.{name}": value for name, value in names.items()}
            dataset = {"dataset_name": split, "dataset_digest": datasets[split]["digest"]}
            self.log_metrics(values, about=ChainMap(model, dataset))

    def describe(self, summary: str) -> None:
        """The words under which MLflow's page shows the run, with a link to its card."""

        def write() -> None:
            page = f"#/experiments/{self.client.get_run(self.run_id).info.experiment_id}/runs/{self.run_id}"
            card = f"{page}/artifacts/model_card.html?workflowType=machine_learning"  # else the page of GenAI opens
            text = f"{summary}\n\n[The whole model card]({card})"
            self.client.set_tag(self.run_id, DESCRIPTION, text)

        self.write(write)

    @property
    def record(self) -> dict[str, Any]:
        """The facts that a later stage must know of the run in which the training was."""
        environment = {key: value for key, value in self.tags.items() if key.startswith("env.")}
        return {"run_id": self.run_id, "name": self.name, "environment": environment}

    def log_path(self, path: Path) -> None:
        """A file, or a folder with all it holds, as artifact."""
        if path.is_dir():
            self.write(lambda: self.client.log_artifacts(self.run_id, str(path), path.name))
        else:
            self.write(lambda: self.client.log_artifact(self.run_id, str(path)))

    def tag_hash(self, report: str, content: bytes) -> None:
        """Tag the SHA-256 of a report: by it `promote` sees what was changed since, and by evaluation_sha256 it
        finds the run of what a commit evaluated."""
        self.set_tags({f"{report}_sha256": hashlib.sha256(content).hexdigest()})

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Tags that people filter and sort by."""
        texts = {key: str(value) for key, value in tags.items()}
        self.tags |= texts
        entities = [load_mlflow().entities.RunTag(key, text) for key, text in texts.items()]
        self.write(lambda: self.client.log_batch(self.run_id, tags=entities))

    def end(self, status: str) -> None:
        """End the run, FINISHED, FAILED or KILLED."""
        stamp = int(time.time() * 1000)
        self.write(lambda: self.client.set_terminated(self.run_id, status, stamp))
        if self._outbox:
            self._outbox.finish(self.name, again=status == "FINISHED")
