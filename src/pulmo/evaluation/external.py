"""A locked model on films that the pipeline has never seen: the same report, with the threshold it already has."""

import shlex
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from pulmo.base.errors import UserError
from pulmo.base.files import whole_folder, write_csv, write_json
from pulmo.evaluation.novelty import measure_films
from pulmo.evaluation.report import PREDICTED, decide_films, report_split
from pulmo.films.places import check_unchanged, find_films
from pulmo.films.remote import FilmFile
from pulmo.films.rows.labels import SPLITS
from pulmo.films.rows.table import CSV_PREFIX, Listed
from pulmo.images.decode import read_film
from pulmo.images.film import FittedFilm, ImageError
from pulmo.images.manifest import describe_films
from pulmo.metrics.bootstrap import Resampling
from pulmo.metrics.decisions import evaluate_abstention
from pulmo.metrics.estimates import Estimate, estimate_difference
from pulmo.metrics.locked import Locked, read_locked
from pulmo.model.classifier import Classifier, load_classifier
from pulmo.package.inference import Network
from pulmo.package.info import PackageInfo
from pulmo.package.storage import read_familiarity, read_onnx
from pulmo.reporting import figures
from pulmo.reporting.card import Facts, write_external_report
from pulmo.reporting.report import ExternalReport, Known
from pulmo.sources import folder as own_folder

_WRITTEN = {"report.md", "report.html", "evaluation.json", "predictions.csv", "plots"}


def evaluate_folder(package: Path, source: Mapping[str, Any], folder: Path, resampling: Resampling) -> ExternalReport:
    """Score the labelled films of a folder or archive by the model of a package and write report.html, report.md,
    evaluation.json, predictions.csv and plots/ into `folder`, in place of an earlier report; a folder that holds
    anything else is refused. A film that cannot be decoded is a UserError that names it.

    `source` are the arguments of source `folder`, `path` above all.
    """
    _check_replaceable(folder)
    classifier = load_classifier(package)
    locked = read_locked(classifier.info.locked)
    films: Path = source["path"]
    with tempfile.TemporaryDirectory() as temporary, whole_folder(folder) as out:
        raw = Path(temporary)
        source = {**source, "in_place": films.is_dir()}
        listed, provenance = own_folder.fetch(raw, **source)
        table, images = _read_films(raw, listed, classifier.info, films)
        table = table.assign(refused=_find_refusals(table.refused, images, package, classifier.info))
        table = decide_films(table.assign(logit=classifier.score(images, precision="fp32").astype(float)), locked)
        report = report_external(table, classifier, locked, resampling)
        plots = out / "plots"
        plots.mkdir()
        figures.draw_splits({"external": report.split}, locked.threshold, plots)
        figures.draw_predictions(table, images, locked, plots, resampling.seed)
        others = [name for name in table.columns if name.startswith(CSV_PREFIX)]
        write_csv(out / "predictions.csv", table[[*PREDICTED, "refused", *others]])
        content = {"locked": locked.to_json(), "source": provenance, "external": report.to_json()}
        write_json(out / "evaluation.json", content)
        info, today = classifier.info.model_dump(mode="json"), f"{datetime.now():%Y-%m-%d}"
        facts = Facts(info, resampling.resamples, _command(source), date=today)
        write_external_report(report, facts, provenance, films.name, out)
    return report


def _check_replaceable(folder: Path) -> None:
    """UserError where a folder holds anything but an earlier report."""
    present = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if others := sorted(present - (_WRITTEN if "report.md" in present else set())):
        raise UserError(
            f"{folder} holds more than an earlier report, which this one would replace: {', '.join(others[:3])}",
            "name another --out",
        )


def _command(source: Mapping[str, Any]) -> str:
    words = ["pulmo", "evaluate", "--films", str(source["path"])]
    words += ["--labels", str(source["labels"])] if source.get("labels") else []
    for option, pairs in (("--column", "columns"), ("--label-value", "label_values")):
        words += [word for key, value in source.get(pairs, {}).items() for word in (option, f"{key}={value}")]
    return shlex.join([*words, *(["--partial"] if source.get("partial") else [])])


def _read_films(raw: Path, listed: Sequence[Listed], info: PackageInfo, films: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """The table of the films (label 0 or 1, row of the images, refused: why the file is no chest film) and their
    pixels, uint8 (N, S, S)."""
    table = describe_films(raw, listed)

    def read(path: str, file: FilmFile, sha256: str) -> FittedFilm:
        content = file.read_bytes()
        check_unchanged(file, content, sha256)
        try:
            return read_film(content, info.size, info.fit)
        except ImageError as error:
            raise UserError(f"{films}: {path}: {error.message}", f"{error.hint}, or remove this film") from None

    files = zip(table.path, find_films(raw, table.path), table.sha256, strict=True)
    fitted = [read(*each) for each in tqdm(files, total=len(table), unit="film", disable=None)]
    label = (table.label == info.classes[1]).astype(int)
    refused = [f"no chest film: {film.not_chest}" if film.not_chest else "" for film in fitted]
    table = table.assign(row=range(len(table)), split="external", label=label, refused=refused)
    return table, np.stack([info.harmony.apply(film.pixels) for film in fitted])


def _find_refusals(no_chest: pd.Series, images: np.ndarray, package: Path, info: PackageInfo) -> pd.Series:
    """Why the model refuses each film when it is asked about it; empty where it does not."""
    familiarity = read_familiarity(package, info)
    if familiarity is None:
        return no_chest
    network = Network(read_onnx(package)[1])
    distances = measure_films(familiarity, network, images, range(len(images)))
    return no_chest.mask((no_chest == "") & familiarity.is_beyond(distances), "unlike")


def report_external(
    table: pd.DataFrame, classifier: Classifier, locked: Locked, resampling: Resampling
) -> ExternalReport:
    """The report on films that are scored, beside what the model's package says of its own test films."""
    split = report_split(table, locked, resampling)
    refused = (table.refused != "").to_numpy()
    relied = ~refused & locked.is_sure(table.prob_pneumonia.to_numpy())
    label, called, patient = (table[name].to_numpy() for name in ("label", "called", "patient"))
    share = evaluate_abstention(label, called, refused, patient, *resampling)["coverage"]
    answers = evaluate_abstention(label, called, relied, patient, *resampling)
    estimates = classifier.info.metrics.get("estimates", {})  # earlier packages have none
    own = {name: Estimate(**estimate) for name, estimate in estimates.items()}
    change = {name: estimate_difference(own[name], split.metrics[name]) for name in own}
    known = recognise(table.pixel_sha256, classifier.films)
    return ExternalReport(split, known, share, answers, own, change)


def recognise(pixels: pd.Series, known: Mapping[str, str]) -> Known:
    """The number of films, given by the hash of their pixels, that are among those `known` to the model."""
    if not known:
        text = "The package does not list the films that the model was made with, so these may be among them."
        return Known(None, text)
    counts = pixels.map(known).value_counts()
    films = {split: int(counts.get(split, 0)) for split in SPLITS}
    if count := sum(films.values()):
        of = ", ".join(f"{films[split]} {split}" for split in SPLITS if films[split])
        text = f"Warning: {count} of {len(pixels)} films are the model's own ({of}); for them this is no external test."
    else:
        text = "None of these films is, pixel for pixel, one that the model was trained, validated or tested on."
    return Known(films, text)
