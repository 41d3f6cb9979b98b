"""Stage download: the films of `data.source` -> data/raw, data/source.json and data/films.csv."""

from pulmo.base import paths
from pulmo.base.files import whole_folder, write_csv, write_json
from pulmo.base.params_file import load_params
from pulmo.base.process import run_stage
from pulmo.films.remote import source_folder
from pulmo.films.rows.table import KNOWN_PATIENT
from pulmo.images.description import Keeping, describe_and_keep
from pulmo.sources import SOURCES


def main() -> None:
    params = load_params(paths.PARAMS)
    data, size, fit, store_gb = params.data, params.preprocess.size, params.preprocess.fit, params.preprocess.store_gb
    settings = getattr(data, data.source).model_dump()
    if data.source == "folder":
        settings["path"] = source_folder(settings["path"], "data.folder.path")
        labels = settings["labels"]
        settings["labels"] = paths.own_films(labels, "data.folder.labels") if labels else None
    paths.FILMS.unlink(missing_ok=True)
    keeping = Keeping(paths.film_store(), store_gb, size, fit, decoded=bool(settings.get("in_place")))
    with whole_folder(paths.RAW) as raw:
        listed, provenance = SOURCES[data.source](raw, **settings)
        films = describe_and_keep(raw, listed, keeping, params.preprocess.engine)
    write_json(paths.SOURCE, provenance)
    write_csv(paths.FILMS, films)
    patients = films.patient[films.patient_from.isin(KNOWN_PATIENT)].nunique()
    print(f"{len(films)} films of {patients} known patients from {data.source}  ->  {paths.FILMS}")
    print(films.groupby(["source_split", "subtype"]).size().unstack(fill_value=0).to_string())


if __name__ == "__main__":
    run_stage(main)
