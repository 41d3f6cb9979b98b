"""Stage evaluate: the trained package on val and test -> models/package (threshold locked) and the reports."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pulmo import figures, paths, tracking
from pulmo.card import write_card
from pulmo.dataset import open_images, read_rows
from pulmo.evaluation import Locked, evaluate_predictions, headline
from pulmo.explain import explain_films
from pulmo.files import read_json, whole_folder, write_csv, write_json
from pulmo.manifest import read_films
from pulmo.model import predict_logits
from pulmo.package import Package, load_package, save_package
from pulmo.params import EvaluateParams, load_params
from pulmo.robustness import measure_robustness
from pulmo.shortcuts import measure_shortcuts
from pulmo.stage import run_stage

COLUMNS = ["path", "split", "patient", "label", "subtype", "logit", "prob_pneumonia", "called"]


def main() -> None:
    every = load_params(paths.PARAMS)
    params = every.evaluate
    images, history = open_images(paths.IMAGES), pd.read_csv(paths.HISTORY)
    leakage = read_json(paths.LEAKAGE)
    trained, trained_in = load_package(paths.TRAINED), read_json(paths.MLFLOW_RUN)["run_id"]
    films = pd.concat([read_rows(paths.SPLITS, paths.INDEX, split) for split in ("val", "test")], ignore_index=True)
    films = films.merge(read_films(paths.FILMS)[["path", "width", "height", "mode"]], on="path")
    films = films.assign(label=films.target, logit=score(trained, images[films.row], params.batch_size))
    with tracking.evaluate_run(
        paths.project_root(),
        trained_in,
        every.model_dump(by_alias=True),
        {"data_sha256": trained.info.data_sha256},
        history.to_dict("records"),
    ) as run:
        report, locked = evaluate_predictions(
            films,
            policy=params.operating_point,
            min_sensitivity=params.min_sensitivity,
            threshold=params.threshold,
            target_error=params.target_error,
            resamples=params.bootstrap,
            seed=params.seed,
        )
        probability, called = locked.decide(films.logit.to_numpy())
        films = films.assign(prob_pneumonia=probability, called=called.astype(int))
        print(f"{len(films)} films scored, threshold {locked.operating_point.threshold:.3f} locked on validation")
        with whole_folder(paths.PLOTS) as folder:
            look_closer(report, films, images, trained, locked, params, folder)
            figures.draw_report(report, history, folder)
            figures.draw_films(
                films[films.split == "test"], images, locked.operating_point.threshold, folder, params.seed
            )
            figures.draw_data(leakage, folder)
        with whole_folder(paths.CURVES) as folder:
            figures.write_plot_tables(report, films, leakage, folder)
        info = trained.info.model_copy(
            update={
                "threshold": locked.operating_point.threshold,
                "temperature": locked.temperature.value,
                "locked": report["locked"],
                "metrics": headline(report),
            }
        )
        info = save_package(paths.PACKAGE, trained.model.state_dict(), info)
        write_card(
            report,
            info.model_dump(mode="json"),
            history.to_dict("records"),
            leakage,
            source=read_json(paths.SOURCE)["source"],
            resamples=params.bootstrap,
            command=f"git checkout {info.git_revision} && dvc repro",
            folder=paths.REPORTS,
        )
        write_csv(paths.PREDICTIONS, films[COLUMNS])
        write_json(paths.EVALUATION, report)
        write_json(paths.METRICS, headline(report))
        run.log_metrics(tracking.flatten(headline(report)))
        for path in (paths.PLOTS, paths.PACKAGE, paths.EVALUATION, paths.PREDICTIONS, paths.CARD, paths.CARD_HTML):
            run.log_path(path)
    print(f"test AUROC {report['test']['metrics']['auroc']['value']}  ->  {paths.EVALUATION}, {paths.CARD_HTML}")


def score(package: Package, images: np.ndarray, batch_size: int, precision: str = "fp32") -> np.ndarray:
    info = package.info
    return predict_logits(package.model, images, batch_size, precision=precision, mean=info.mean, std=info.std).astype(
        float
    )


def look_closer(
    report: dict[str, Any],
    films: pd.DataFrame,
    images: np.ndarray,
    trained: Package,
    locked: Locked,
    params: EvaluateParams,
    folder: Path,
) -> None:
    test = films[films.split == "test"]
    threshold, about = locked.operating_point.threshold, {"resamples": params.bootstrap, "seed": params.seed}
    splits, index = (pd.read_csv(path, keep_default_na=False) for path in (paths.SPLITS, paths.INDEX))
    report["shortcuts"] = measure_shortcuts(read_films(paths.FILMS), splits, index, images, films, **about)
    if params.robustness_films:
        report["robustness"] = measure_robustness(
            lambda changed: locked.decide(score(trained, changed, params.batch_size, "auto"))[0],
            images[test.row],
            test.label,
            test.patient,
            threshold,
            params.robustness_films,
            **about,
        )
    if params.explain_films:
        report["explanation"] = explain_films(
            trained.model,
            images[test.row],
            test,
            threshold,
            folder / "explanation.png",
            params.explain_films,
            trained.info.mean,
            trained.info.std,
            **about,
        )


if __name__ == "__main__":
    run_stage(main)
