"""Stage split: data/films.csv -> data/splits.csv and reports/leakage.json."""

from pulmo.base import paths
from pulmo.base.files import write_csv, write_json
from pulmo.base.params_file import load_params
from pulmo.base.process import run_stage
from pulmo.dataset.splits import describe_leakage, leakage_text, split_films
from pulmo.films.rows.table import read_films


def main() -> None:
    params = load_params(paths.PARAMS).split
    films = read_films(paths.FILMS)
    splits = split_films(films, params)
    leakage = describe_leakage(films, splits, params.seed)
    write_json(paths.LEAKAGE, leakage)
    write_csv(paths.SPLITS, splits)
    for name, part in leakage["splits"].items():
        labels = ", ".join(f"{count} {label}" for label, count in part["labels"].items())
        print(f"{name:5} {part['films']:5} films of {part['patients']:5} patients: {labels}")
    if unknown := leakage["films_of_unknown_patients"]:
        print(
            f"warning: {unknown} of {len(splits)} films tell no patient, so one may stand on two sides; name patients "
            "in the column patient of a CSV (data.folder.labels)"
        )
    if blind := leakage["films_not_compared"]:
        print(f"warning: {blind} films could not be compared, because they cannot be decoded")
    print(f"{leakage_text(leakage)}  ->  {paths.SPLITS}, {paths.LEAKAGE}")


if __name__ == "__main__":
    run_stage(main)
