"""Stage preprocess: data/raw -> data/processed (images.npy, index.csv, rejected.csv, harmony.json)."""

from pulmo.base import paths
from pulmo.base.params_file import load_params
from pulmo.base.process import run_stage
from pulmo.dataset.harmonising import harmonise_films
from pulmo.dataset.preprocessing import process_films
from pulmo.films.places import refuse_changed
from pulmo.films.rows.table import read_films, read_splits
from pulmo.images.film_store import FilmStore


def main() -> None:
    params = load_params(paths.PARAMS).preprocess
    films, splits = read_films(paths.FILMS), read_splits(paths.SPLITS)
    refuse_changed(paths.RAW, films)
    train = set(splits.path[splits["split"] == "train"])
    paths.HARMONY.unlink(missing_ok=True)
    with FilmStore(params.size, params.fit, paths.film_store(), params.store_gb) as store:
        done = process_films(
            paths.RAW, films, store, params.workers, params.max_rejected, paths.IMAGES.parent, params.engine
        )
    harmonise_films(paths.IMAGES, paths.INDEX, train, params.harmonise, paths.HARMONY)
    for path, reason in done.rejected:
        print(f"rejected {path}: {reason}")
    for path, note in done.noted:
        print(f"note: {path}: {note}")
    if done.stored:
        print(f"{done.stored} of the films were decoded before")
    print(
        f"{done.films} films of {params.size} x {params.size} pixels, {len(done.rejected)} rejected  ->  {paths.IMAGES}"
    )


if __name__ == "__main__":
    run_stage(main)
