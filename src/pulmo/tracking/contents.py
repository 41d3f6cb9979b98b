"""The content of a run, and how it is written."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pulmo.tracking.logged_models import log_model
from pulmo.tracking.store import load_mlflow


class Run:
    """An open run; every method writes to the store at once, so that `mlflow ui` shows a run that is under way."""

    def __init__(self, client: Any, run_id: str, name: str) -> None:
        self.client = client
        self.run_id = run_id
        self.name = name
        self.epochs = 0  # the last one whose numbers the store holds

    def log_epoch(self, row: Mapping[str, float]) -> None:
        """One row of the history: every number but `epoch` becomes a point of its curve at that epoch.

        A resumed training tells its earlier epochs again; those that the run holds are left out.
        """
        if (epoch := int(row["epoch"])) > self.epochs:
            self.log_metrics({key: value for key, value in row.items() if key != "epoch"}, step=epoch)
            self.epochs = epoch

    def log_metrics(self, metrics: Mapping[str, float | None], step: int = 0, **about: str) -> None:
        """Numbers under the names given, in one call to the store; None (undefined) is left out.

        `about` may name what they tell of: model_id, dataset_name, dataset_digest.
        """
        mlflow = load_mlflow()
        stamp = mlflow.utils.time.get_current_time_millis()
        points = [
            mlflow.entities.Metric(key, float(value), stamp, step, run_id=self.run_id, **about)
            for key, value in metrics.items()
            if value is not None
        ]
        self.client.log_batch(self.run_id, metrics=points)

    def log_datasets(self, datasets: Mapping[str, Mapping[str, Any]]) -> None:
        """The films of each split, as `dataset.rows.summarise_films` tells them: a `digest` and counts."""
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
        try:
            self.client.log_inputs(self.run_id, inputs)
        except mlflow.exceptions.MlflowException:
            # Another experiment wrote the same films between MLflow's look for them and its write; now they are there.
            self.client.log_inputs(self.run_id, inputs)

    def log_results(
        self,
        headline: Mapping[str, Mapping[str, float]],
        report: Mapping[str, Any],
        datasets: Mapping[str, Mapping[str, Any]],
        package: Path,
        film: np.ndarray,
        files: Iterable[Path],
    ) -> None:
        """All that evaluate found: the `headline` numbers with the bounds that the `report` gives them, the datasets,
        files and folders, and the `package` as model with a `film` (gray, uint8) as example."""
        self.log_datasets(datasets)
        for file in files:
            self.log_path(file)
            if file.suffix in (".json", ".csv"):
                self.tag_hash(file.stem, file.read_bytes())
        model = log_model(self.client, self.run_id, package, film)
        for split, names in headline.items():
            found = {name: report[split]["metrics"][name] for name in names}
            values = {f"{split}.{name}": estimate["value"] for name, estimate in found.items()}
            bounds = {f"{split}.{name}.{end}": found[name][end] for name in names for end in ("low", "high")}
            about = {"dataset_name": split, "dataset_digest": datasets[split]["digest"]}
            self.log_metrics(values | bounds, model_id=model, **about)

    @property
    def record(self) -> dict[str, Any]:
        """The facts that a later stage must know of the run in which the training was."""
        tags = self.client.get_run(self.run_id).data.tags
        environment = {key: value for key, value in tags.items() if key.startswith("env.")}
        return {"run_id": self.run_id, "name": self.name, "environment": environment}

    def log_path(self, path: Path, folder: str | None = None) -> None:
        """A file, or a folder with all it holds, as artifact."""
        if path.is_dir():
            self.client.log_artifacts(self.run_id, str(path), folder or path.name)
        else:
            self.client.log_artifact(self.run_id, str(path), folder)

    def tag_hash(self, report: str, content: bytes) -> None:
        """Tag the SHA-256 of a report: by it `promote` sees what was changed since, and by evaluation_sha256 it
        finds the run of what a commit evaluated."""
        self.set_tags({f"{report}_sha256": hashlib.sha256(content).hexdigest()})

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Tags that people filter and sort by."""
        for key, value in tags.items():
            self.client.set_tag(self.run_id, key, str(value))
