"""A locked model on films that the pipeline has never seen: the same report, with the threshold it already has."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from pulmo.base.errors import UserError
from pulmo.base.files import whole_folder, write_csv, write_json
from pulmo.evaluation.report import report_split
from pulmo.films.labels import SPLITS
from pulmo.images.decode import read_image
from pulmo.images.film import ImageError
from pulmo.images.manifest import describe_films
from pulmo.metrics.calibration import Temperature
from pulmo.metrics.decisions import Abstention, OperatingPoint
from pulmo.metrics.estimates import estimate_difference
from pulmo.metrics.locked import Locked
from pulmo.model.classifier import Classifier
from pulmo.reporting import figures
from pulmo.reporting.card import write_external_report
from pulmo.sources import fetch_source


def evaluate_folder(
    classifier: Classifier, films: Path, labels: Path | None, folder: Path, resamples: int = 2000, seed: int = 42
) -> dict[str, Any]:
    """Score the labelled films of a folder or archive (as source `folder` takes them) and write report.html,
    report.md, evaluation.json, predictions.csv and plots/ into `folder`, in place of an earlier report; a folder that
    holds anything else is refused.

    Returns the report of `evaluation.report_split`, with `known` as `recognise` returns it and `change`: estimates of
    each metric less that on the model's own test films, where the package holds those. A film that cannot be decoded
    is a UserError that names it.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / "report.md").is_file():
        raise UserError(
            f"{folder} holds more than an earlier report, which this one would replace", "name another --out"
        )
    kept = classifier.info.locked
    if not kept:
        raise UserError("the package has no locked threshold", "use models/package, which `dvc repro` writes")
    locked = Locked(
        Temperature(**kept["temperature"]), OperatingPoint(**kept["operating_point"]), Abstention(**kept["abstention"])
    )
    with tempfile.TemporaryDirectory() as temporary, whole_folder(folder) as out:
        raw = Path(temporary)
        listed, provenance = fetch_source("folder", {"path": films, "labels": labels}, raw)
        table = describe_films(raw, listed)
        info = classifier.info

        def read(path: str) -> np.ndarray:
            try:
                return read_image(raw / path, info.size, info.fit)
            except ImageError as error:
                raise UserError(f"{films}: {path}: {error.message}", f"{error.hint}, or remove this film") from None

        images = np.stack([read(path) for path in tqdm(table.path, unit="film", disable=None)])
        table = table.assign(
            row=range(len(table)),
            split="external",
            label=(table.label == info.classes[1]).astype(int),
            logit=classifier.score(images, precision="fp32").astype(float),
        )
        probability, called = locked.decide(table.logit.to_numpy())
        table = table.assign(prob_pneumonia=probability, called=called.astype(int))
        report = report_split(table, locked, resamples, seed)
        report["known"] = recognise(table.pixel_sha256, classifier.films)
        own = info.metrics.get("estimates", {})  # earlier packages have none
        report["change"] = {name: estimate_difference(own[name], report["metrics"][name]) for name in own}
        (out / "plots").mkdir()
        figures.draw_splits({"external": report}, locked.operating_point.threshold, out / "plots")
        figures.draw_films(table, images, locked.operating_point.threshold, out / "plots", seed)
        columns = ["path", "split", "patient", "label", "subtype", "logit", "prob_pneumonia", "called"]
        write_csv(out / "predictions.csv", table[columns])
        write_json(out / "evaluation.json", {"locked": kept, "source": provenance, "external": report})
        write_external_report(
            report,
            info.model_dump(mode="json"),
            provenance,
            films=films.name,
            resamples=resamples,
            command=f"pulmo evaluate --films {films}" + (f" --labels {labels}" if labels else ""),
            folder=out,
        )
    return report


def recognise(pixels: pd.Series, known: Mapping[str, str]) -> dict[str, Any]:
    """How many films, given by the hash of their pixels, are among those `known` to the model: {films: by split, or
    None where the package does not tell; text: one line that says so}."""
    if not known:
        text = "The package does not list the films that the model was made with, so these may be among them."
        return {"films": None, "text": text}
    found = pixels.map(known).value_counts()
    films = {split: int(found.get(split, 0)) for split in SPLITS}
    if count := sum(films.values()):
        of = ", ".join(f"{films[split]} {split}" for split in SPLITS if films[split])
        text = f"Warning: {count} of {len(pixels)} films are the model's own ({of}); for them this is no external test."
    else:
        text = "None of these films is, pixel for pixel, one that the model was trained, validated or tested on."
    return {"films": films, "text": text}
