"""Stage evaluate: the trained package on val and test -> models/package (decision locked) and the reports."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import pandas as pd

from pulmo.base import paths
from pulmo.base.files import read_json, write_csv, write_json
from pulmo.base.params_file import load_params
from pulmo.base.process import run_stage
from pulmo.evaluation.novelty import mark_unlike
from pulmo.evaluation.pictures import draw_pictures
from pulmo.evaluation.probes.probe import Subject, read_data
from pulmo.evaluation.probes.renderings import score_renderings
from pulmo.evaluation.probing import run_probes, score_films
from pulmo.evaluation.report import (
    PREDICTED,
    decide_films,
    describe_package,
    evaluate_predictions,
    headline,
    known_films,
)
from pulmo.films.rows.labels import SPLITS
from pulmo.films.rows.processed import open_images, read_rows, summarise_splits
from pulmo.metrics.bootstrap import Resampling
from pulmo.metrics.estimates import estimate_text, probability_text
from pulmo.metrics.locked import LockingRules
from pulmo.model.classifier import load_classifier, view_films
from pulmo.model.device import choose_device, shared_cores
from pulmo.model.export import export_checked
from pulmo.model.weights import to_arrays
from pulmo.package.storage import save_package
from pulmo.reporting.card import in_short, write_card
from pulmo.reporting.origin import gather_facts
from pulmo.tracking.runs import evaluate_run

FILES = (paths.PLOTS, paths.EVALUATION, paths.PREDICTIONS, paths.LEAKAGE, paths.CARD, paths.CARD_HTML)


def main() -> None:
    params = load_params(paths.PARAMS)
    asked, record = params.evaluate, params.model_dump(by_alias=True)
    rules = LockingRules(asked.operating_point, asked.min_sensitivity, asked.threshold, asked.target_error)
    train, val, test = (read_rows(paths.SPLITS, paths.INDEX, split) for split in SPLITS)
    data = read_data(paths.FILMS, paths.SPLITS, paths.INDEX, open_images(paths.IMAGES))
    history, leakage = pd.read_csv(paths.HISTORY), read_json(paths.LEAKAGE)
    trained = view_films(load_classifier(paths.TRAINED), asked.tta_views)
    epochs = cast("list[dict[str, float]]", history.to_dict("records"))
    tags = {"data_sha256": trained.info.data_sha256}
    started = evaluate_run(paths.project_root(), read_json(paths.MLFLOW_RUN), record, tags, epochs)
    with shared_cores(choose_device()), started as run:
        package = paths.TRAINED if params.preprocess.engine == "ray" else None
        films = score_films(trained, (val, test), data, asked.batch_size, package)
        rendered = score_renderings(trained, val, data.images, asked.batch_size, asked.rendered_films, asked.seed)
        report = evaluate_predictions(films, rendered, rules, Resampling(asked.bootstrap, asked.seed))
        films = decide_films(films, report.locked)
        threshold = probability_text(report.locked.threshold)
        print(f"{len(films)} films scored, threshold {threshold} locked on validation")
        network = export_checked(trained, films[films.split == "val"], data.images, report.locked)
        films, familiarity = mark_unlike(films, train, data.images, network)
        subject = Subject(trained, report.locked, data, films, rendered, asked)
        report = replace(report, sections=run_probes(subject))
        draw_pictures(report, subject, train, history, leakage, paths.PLOTS, paths.CURVES)
        info, known = describe_package(trained.info, report), known_films(data.films, data.splits)
        info = save_package(paths.PACKAGE, to_arrays(trained.network), info, known, network, familiarity)
        write_csv(paths.PREDICTIONS, films[PREDICTED])
        write_json(paths.EVALUATION, report.to_json())
        facts = gather_facts(Path.cwd(), info, record, asked.bootstrap, run.name)
        write_card(report, facts, epochs, leakage, read_json(paths.SOURCE)["source"], paths.REPORTS)
        write_json(paths.METRICS, headline(report.to_json()))
        datasets, example = summarise_splits(data.images, train, val, test), data.images[val.row.iloc[0]]
        summary = in_short(paths.CARD.read_text(encoding="utf-8"))
        run.log_results(headline(report.to_json()), summary, datasets, paths.PACKAGE, example, FILES)
    print(f"test AUROC {estimate_text(report.test.metrics['auroc'])}  ->  {paths.EVALUATION}, {paths.CARD_HTML}")


if __name__ == "__main__":
    run_stage(main)
