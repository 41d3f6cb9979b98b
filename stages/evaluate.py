"""Stage evaluate: the trained package on val and test -> models/package (threshold locked) and the reports."""

from dataclasses import replace

import pandas as pd

from pulmo.base import paths
from pulmo.base.files import read_json, whole_folder, write_csv, write_json
from pulmo.base.params import load_params
from pulmo.base.process import run_stage, take_seconds
from pulmo.dataset.rows import describe_films, open_images, read_rows
from pulmo.evaluation.inspection import inspect_model, sample_films, score_films, score_renderings
from pulmo.evaluation.report import evaluate_predictions, headline, known_films
from pulmo.films.table import read_films
from pulmo.metrics.estimates import estimate_text, probability_text
from pulmo.model.classifier import load_classifier
from pulmo.model.weights import to_arrays
from pulmo.package.storage import save_package
from pulmo.reporting import figures
from pulmo.reporting.card import write_card
from pulmo.tracking.runs import evaluate_run

COLUMNS = ["path", "split", "patient", "label", "subtype", "logit", "prob_pneumonia", "called"]


def main() -> None:
    every = load_params(paths.PARAMS)
    params = every.evaluate
    images, history, leakage = open_images(paths.IMAGES), pd.read_csv(paths.HISTORY), read_json(paths.LEAKAGE)
    trained, trained_in = load_classifier(paths.TRAINED), read_json(paths.MLFLOW_RUN)
    info = trained.info.model_copy(update={"tta_views": params.tta_views})
    trained, epochs = replace(trained, info=info), history.to_dict("records")
    splits = pd.read_csv(paths.SPLITS, dtype=str, keep_default_na=False)
    index = pd.read_csv(paths.INDEX, dtype={"path": str}, keep_default_na=False)
    tables = (read_films(paths.FILMS), splits, index)
    train, val, test = (read_rows(paths.SPLITS, paths.INDEX, split) for split in ("train", "val", "test"))
    films = pd.concat([val, test], ignore_index=True).merge(tables[0][["path", "width", "height", "mode"]], on="path")
    datasets = {split.split.iloc[0]: describe_films(images, split) for split in (train, val, test)}
    tags, resampling = {"data_sha256": info.data_sha256}, {"resamples": params.bootstrap, "seed": params.seed}
    with evaluate_run(paths.project_root(), trained_in, every.model_dump(by_alias=True), tags, epochs) as run:
        films = score_films(trained, films, images, params.batch_size)
        rendered = score_renderings(trained, val, images, params.batch_size, params.rendered_films, params.seed)
        report, locked = evaluate_predictions(
            films,
            rendered,
            policy=params.operating_point,
            **params.model_dump(include={"min_sensitivity", "threshold", "target_error"}),
            **resampling,
        )
        probability, called = locked.decide(films.logit.to_numpy())
        films = films.assign(prob_pneumonia=probability, called=called.astype(int))
        threshold = locked.operating_point.threshold
        print(f"{len(films)} films scored, threshold {probability_text(threshold)} locked on validation")
        with whole_folder(paths.PLOTS) as folder:
            asked = params.model_dump(include={"robustness_films", "explain_films", "batch_size"})
            report |= inspect_model(trained, locked, films, tables, images, folder, **asked, **resampling)
            test = films[films.split == "test"]
            samples = sample_films(train, images, info.training["augment"], params.seed)
            figures.draw_all(report, history, leakage, test, samples, images, folder, params.seed)
        with whole_folder(paths.CURVES) as folder:
            figures.write_plot_tables(report, films, leakage, folder)
        decided = {"threshold": threshold, "temperature": locked.temperature.value, "locked": report["locked"]}
        info = info.model_copy(
            update=decided | {"metrics": headline(report) | {"estimates": report["test"]["metrics"]}}
        )
        known = known_films(tables[0], splits)
        info = save_package(paths.PACKAGE, to_arrays(trained.network), info, known)
        write_csv(paths.PREDICTIONS, films[COLUMNS])
        write_json(paths.EVALUATION, report)
        source, card = read_json(paths.SOURCE)["source"], info.model_dump(mode="json")
        command = f"git checkout {info.git_revision} && dvc repro"
        write_card(report, card, epochs, leakage, source, params.bootstrap, command, paths.REPORTS)
        write_json(paths.METRICS, headline(report))
        files = (paths.PLOTS, paths.EVALUATION, paths.PREDICTIONS, paths.LEAKAGE, paths.CARD, paths.CARD_HTML)
        example = images[val.row.iloc[0]]
        run.log_results(headline(report), report, datasets, paths.PACKAGE, example, files, take_seconds())
    print(f"test AUROC {estimate_text(report['test']['metrics']['auroc'])}  ->  {paths.EVALUATION}, {paths.CARD_HTML}")


if __name__ == "__main__":
    run_stage(main)
