"""Stage download: the films of `data.source` -> data/raw, data/source.json and data/films.csv."""

from pulmo.base import paths
from pulmo.base.files import whole_folder, write_csv, write_json
from pulmo.base.params import load_params
from pulmo.base.process import run_stage
from pulmo.films.table import KNOWN_PATIENT
from pulmo.images.manifest import describe_films
from pulmo.sources import fetch_source


def main() -> None:
    params = load_params(paths.PARAMS).data
    settings = getattr(params, params.source).model_dump()
    if params.source == "folder":
        for key in ("path", "labels"):
            settings[key] = paths.own_films(settings[key], f"data.folder.{key}") if settings[key] else None
    paths.FILMS.unlink(missing_ok=True)
    with whole_folder(paths.RAW) as raw:
        listed, provenance = fetch_source(params.source, settings, raw)
        films = describe_films(raw, listed)
    write_json(paths.SOURCE, provenance)
    write_csv(paths.FILMS, films)
    patients = films.patient[films.patient_from.isin(KNOWN_PATIENT)].nunique()
    print(f"{len(films)} films of {patients} known patients from {params.source}  ->  {paths.FILMS}")
    print(films.groupby(["source_split", "subtype"]).size().unstack(fill_value=0).to_string())


if __name__ == "__main__":
    run_stage(main)
