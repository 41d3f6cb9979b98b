"""Stage train: the films of data/processed and data/splits.csv -> models/trained and reports/history.csv."""

from pathlib import Path

from pulmo.base import paths
from pulmo.base.files import read_json, write_json
from pulmo.base.git import git_state
from pulmo.base.params_file import load_params
from pulmo.base.process import run_stage
from pulmo.films.rows.processed import hash_data, open_images, read_rows, summarise_splits
from pulmo.model.start import pin_weights
from pulmo.model.weights import names_file, to_arrays
from pulmo.package.harmony import read_harmony
from pulmo.package.info import PackageInfo
from pulmo.package.storage import save_package
from pulmo.tracking.runs import train_run
from pulmo.training import Films, fit, is_first_process, resolve_settings, resumable, start_processes


def main() -> None:
    params = load_params(paths.PARAMS)
    fitting = params.preprocess.fit
    asked = params.train.model_dump()
    weights = asked["weights"]
    weights = str(paths.from_root(weights)) if names_file(weights) else weights
    # What auto chose is part of the task, or a GPU would go on from a CPU's state.
    settings = resolve_settings(params.train).model_copy(update=pin_weights(asked["arch"], weights))
    start_processes(settings)
    images, harmony = open_images(paths.IMAGES), read_harmony(paths.HARMONY)
    tables = {split: read_rows(paths.SPLITS, paths.INDEX, split) for split in ("train", "val")}
    train, val = (Films(images, table["row"].to_numpy(), table["target"].to_numpy()) for table in tables.values())
    data_sha256 = hash_data(paths.IMAGES, paths.INDEX, paths.SPLITS)
    root, tags = paths.project_root(), {"data_sha256": data_sha256}
    with resumable(root / ".resume", settings.model_dump(), data_sha256, (train, val)) as folder:
        if not is_first_process():  # the first one alone writes
            fit(train, val, settings, resume=folder)
            return
        sizes = f"{len(train.rows)} films to train on, {len(val.rows)} to choose the epoch, {images.shape[1]} px"
        print(f"{sizes}, {settings.arch}")
        started = folder / paths.MLFLOW_RUN.name
        resumed = read_json(started)["run_id"] if started.exists() else None
        with train_run(root, params.model_dump(by_alias=True), tags, resumed) as run:
            write_json(started, run.record)
            run.log_datasets(summarise_splits(images, *tables.values()))
            fitted = fit(train, val, settings, resume=folder, history=paths.HISTORY, on_epoch=run.log_epoch)
            run.set_tags({"env.device": fitted.device, "env.precision": fitted.precision})
        info = PackageInfo(
            **fitted.start.describe(),
            head=asked["head"],
            size=images.shape[1],
            fit=fitting,
            harmony=harmony,
            training={
                **asked,
                "arch": settings.arch,
                "precision": fitted.precision,
                "device": fitted.device,
                "best": fitted.best,
            },
            data_sha256=data_sha256,
            git_revision=git_state(Path.cwd())[0],
        )
        save_package(paths.TRAINED, to_arrays(fitted.model), info)
        write_json(paths.MLFLOW_RUN, run.record)
    best = fitted.best
    print(f"best epoch {fitted.best_epoch}: validation AUROC {best['val_auroc']:.4f}, loss {best['val_loss']:.4f}")
    print(f"->  {paths.TRAINED}, {paths.HISTORY}")


if __name__ == "__main__":
    run_stage(main)
