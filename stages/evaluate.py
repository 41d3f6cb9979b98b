"""Stage evaluate: the trained package on val and test -> models/package (decision locked) and the reports."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pandas as pd

from pulmo.base import paths
from pulmo.base.files import read_json, whole_folder, write_csv, write_json
from pulmo.base.params import load_params
from pulmo.base.process import run_stage
from pulmo.dataset.rows import describe_films, open_images, read_rows
from pulmo.evaluation.familiarity import mark_unlike
from pulmo.evaluation.inspection import run_probes, sample_films, score_films, view_films
from pulmo.evaluation.probes.probe import Subject, read_data
from pulmo.evaluation.probes.renderings import score_renderings
from pulmo.evaluation.report import (
    PREDICTED,
    decide_films,
    describe_package,
    evaluate_predictions,
    headline,
    known_films,
)
from pulmo.films.labels import SPLITS
from pulmo.metrics.bootstrap import Resampling
from pulmo.metrics.estimates import estimate_text, probability_text
from pulmo.metrics.locked import LockingRules
from pulmo.model.classifier import load_classifier
from pulmo.model.export import export_checked
from pulmo.model.weights import to_arrays
from pulmo.package.storage import save_package
from pulmo.reporting import figures
from pulmo.reporting.card import Facts, write_card
from pulmo.reporting.origin import reproduce_command
from pulmo.tracking.runs import evaluate_run

FILES = (paths.PLOTS, paths.EVALUATION, paths.PREDICTIONS, paths.LEAKAGE, paths.CARD, paths.CARD_HTML)


def main() -> None:
    params = load_params(paths.PARAMS)
    asked = params.evaluate
    rules = LockingRules(asked.operating_point, asked.min_sensitivity, asked.threshold, asked.target_error)
    resampling = Resampling(asked.bootstrap, asked.seed)
    train, val, test = (read_rows(paths.SPLITS, paths.INDEX, split) for split in SPLITS)
    data = read_data(paths.FILMS, paths.SPLITS, paths.INDEX, open_images(paths.IMAGES))
    history, leakage = pd.read_csv(paths.HISTORY), read_json(paths.LEAKAGE)
    trained = view_films(load_classifier(paths.TRAINED), asked.tta_views)
    tags = {"data_sha256": trained.info.data_sha256}
    epochs, record = history.to_dict("records"), params.model_dump(by_alias=True)
    with evaluate_run(paths.project_root(), read_json(paths.MLFLOW_RUN), record, tags, epochs) as run:
        films = score_films(trained, (val, test), data, asked.batch_size)
        rendered = score_renderings(trained, val, data.images, asked.batch_size, asked.rendered_films, asked.seed)
        report = evaluate_predictions(films, rendered, rules, resampling)
        films = decide_films(films, report.locked)
        threshold = probability_text(report.locked.threshold)
        print(f"{len(films)} films scored, threshold {threshold} locked on validation")
        network = export_checked(trained, films[films.split == "val"], data.images, report.locked)
        films, familiarity = mark_unlike(films, train, data.images, network)
        subject = Subject(trained, report.locked, data, films, rendered, asked)
        report = replace(report, sections=run_probes(subject))
        with whole_folder(paths.PLOTS) as folder:
            figures.draw_report(report, folder)
            figures.draw_training(history, folder)
            figures.draw_data(leakage, folder)
            figures.draw_samples(sample_films(train, data.images, trained.info.training["augment"], asked.seed), folder)
            figures.draw_predictions(subject.test, data.images, report.locked, folder, asked.seed)
        with whole_folder(paths.CURVES) as folder:
            figures.write_plot_tables(report, films, leakage, folder)
        info = describe_package(trained.info, report)
        known = known_films(data.films, data.splits)
        info = save_package(paths.PACKAGE, to_arrays(trained.network), info, known, network, familiarity)
        write_csv(paths.PREDICTIONS, films[PREDICTED])
        write_json(paths.EVALUATION, report.to_json())
        command = reproduce_command(Path.cwd(), info.git_revision, record)
        today = f"{datetime.now():%Y-%m-%d}"
        facts = Facts(info.model_dump(mode="json"), asked.bootstrap, command, run.name, today)
        write_card(report, facts, epochs, leakage, read_json(paths.SOURCE)["source"], paths.REPORTS)
        write_json(paths.METRICS, headline(report.to_json()))
        datasets = {
            name: describe_films(data.images, rows) for name, rows in zip(SPLITS, (train, val, test), strict=True)
        }
        example = data.images[val.row.iloc[0]]
        run.log_results(headline(report.to_json()), report.to_json(), datasets, paths.PACKAGE, example, FILES)
    print(f"test AUROC {estimate_text(report.test.metrics['auroc'])}  ->  {paths.EVALUATION}, {paths.CARD_HTML}")


if __name__ == "__main__":
    run_stage(main)
