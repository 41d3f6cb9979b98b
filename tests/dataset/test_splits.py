import re

import numpy as np
import pandas as pd
import pytest
from small_project import run_stage, write_params

from pulmo.base.errors import UserError
from pulmo.base.files import read_json, write_csv
from pulmo.base.params import SplitParams
from pulmo.dataset import splits as splitting
from pulmo.dataset.splits import COLUMNS, describe_leakage, merge_duplicates
from pulmo.films.rows.table import Film


def split_films(films: pd.DataFrame, **params: object) -> pd.DataFrame:
    return splitting.split_films(films, SplitParams(**params))


def table(patients: int = 120, seed: int = 0) -> pd.DataFrame:
    """A film table like the real one: patients of one to thirty films, three subtypes, source splits by patient."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(patients):
        subtype = ("normal", "bacterial", "viral")[number % 3]
        split = "test" if number % 5 == 0 else "val" if number % 29 == 1 else "train"
        for seq in range(30 if number == 4 else int(rng.integers(1, 5))):
            rows.append(
                Film(
                    path=f"{split}/{number}_{seq}.jpeg",
                    label="NORMAL" if subtype == "normal" else "PNEUMONIA",
                    subtype=subtype,
                    patient=f"{subtype}-{number}",
                    patient_from="name",
                    source_split=split,
                    width=10,
                    height=10,
                    mode="L",
                    bytes=5,
                    sha256=f"{number}-{seq}",
                    pixel_sha256=f"{number}-{seq}",
                )
            )
    return pd.DataFrame(rows).sort_values("path", ignore_index=True)


def test_default_keeps_the_sources_test_set_and_no_patient_crosses():
    films = table()
    splits = split_films(films)
    assert list(splits.columns) == COLUMNS
    assert len(splits) == len(films)
    assert set(splits.path[splits.split == "test"]) == set(films.path[films.source_split == "test"])
    assert (splits.groupby("patient").split.nunique() == 1).all()
    assert not describe_leakage(films, splits)["patients_across_splits"]


def test_carved_val_has_the_asked_share_of_every_subtype():
    splits = split_films(table(600), val_fraction=0.2)
    pool = splits[splits.split != "test"]
    share = pool.groupby("subtype").split.apply(lambda split: (split == "val").mean())
    assert share.sub(0.2).abs().max() < 0.01


def test_same_seed_same_split_other_seed_other_split():
    films = table()
    assert split_films(films, seed=1).equals(split_films(films, seed=1))
    assert not split_films(films, seed=1).equals(split_films(films, seed=2))


def test_patients_that_share_a_film_are_one_group():
    films = table()
    films.loc[films.patient == "normal-3", "pixel_sha256"] = "same"
    films.loc[films.patient == "normal-6", "pixel_sha256"] = "same"
    group = merge_duplicates(films)
    assert group[films.patient == "normal-3"].iloc[0] == group[films.patient == "normal-6"].iloc[0]
    assert group.nunique() == films.patient.nunique() - 1
    for seed in range(10):
        splits = split_films(films, seed=seed).set_index("path").split
        of_group = splits[films.path[films.patient.isin(["normal-3", "normal-6"])]]
        assert of_group.nunique() == 1


def test_undecodable_films_are_not_duplicates_of_each_other():
    films = table()
    films.loc[:5, "pixel_sha256"] = ""
    assert merge_duplicates(films).nunique() == films.patient.nunique()
    assert len(split_films(films, drop_duplicates=True)) == len(films)


def test_image_level_split_leaks_and_the_report_says_so():
    films = table(300)
    splits = split_films(films, group_by="image", val_fraction=0.3)
    report = describe_leakage(films, splits)
    crossing = splits.groupby("patient").split.nunique()
    assert report["patients_across_splits"] == sorted(crossing.index[crossing > 1])
    assert len(report["patients_across_splits"]) > 20


def test_report_says_what_an_image_level_split_would_have_leaked():
    films = table(300)
    report = describe_leakage(films, split_films(films))["image_level_split_would_leak"]
    assert 0.5 < report["share_with_patient_in_train"] <= 1
    lonely = films.drop_duplicates("patient")
    report = describe_leakage(lonely, split_films(lonely))["image_level_split_would_leak"]
    assert report["share_with_patient_in_train"] == 0


def test_source_leak_is_an_error_when_grouping_by_patient():
    films = table()
    films.loc[films.path == films.path[films.source_split == "test"].iloc[0], "source_split"] = "train"
    leaking = films[films.patient == films.patient[films.source_split == "test"].mode()[0]]
    films.loc[leaking.index[:1], "source_split"] = "train"
    with pytest.raises(UserError, match=r"(?s)stand in two of the source's splits.*split\.from: all"):
        split_films(films)
    assert describe_leakage(films, split_films(films, group_by="image"))["patients_across_splits"]


def test_all_re_splits_by_the_given_fractions():
    films = table(600)
    splits = split_films(films, from_="all", group_by="image", val_fraction=0.2, test_fraction=0.1)
    shares = splits.split.value_counts(normalize=True)
    assert shares["test"] == pytest.approx(0.1, abs=0.002)
    assert shares["val"] == pytest.approx(0.2, abs=0.002)
    grouped = split_films(films, from_="all", val_fraction=0.2, test_fraction=0.1)
    assert (grouped.groupby("patient").split.nunique() == 1).all()


def test_balanced_subsets_with_part_of_them_held_out():
    splits = split_films(
        table(600), group_by="image", train_films=300, test_films=100, val_fraction=1 / 3, drop_duplicates=True
    )
    counts = splits.groupby(["split", "label"]).size()
    assert counts.to_dict() == {
        ("test", "NORMAL"): 50,
        ("test", "PNEUMONIA"): 50,
        ("train", "NORMAL"): 100,
        ("train", "PNEUMONIA"): 100,
        ("val", "NORMAL"): 50,
        ("val", "PNEUMONIA"): 50,
    }


def test_source_splits_as_they_are():
    films = table()
    splits = split_films(films, val="source").set_index("path").split
    assert (splits == films.set_index("path").source_split[splits.index]).all()
    small = split_films(films, val="source", train_films=20)
    assert (small.split == "train").sum() == 20
    assert (small.split == "val").sum() == (films.source_split == "val").sum()


def test_duplicates_are_dropped_only_on_demand():
    films = table()
    films.loc[films.patient == "normal-3", "pixel_sha256"] = "same"
    surplus = (films.patient == "normal-3").sum() - 1
    assert surplus > 0
    assert len(split_films(films)) == len(films)
    assert len(split_films(films, drop_duplicates=True)) == len(films) - surplus
    assert describe_leakage(films, split_films(films))["exact_duplicates_within_splits"] == surplus


def test_films_that_tell_no_patient_are_counted_and_warned_of(tmp_path, capsys):
    films = table()
    films.loc[films.index % 3 == 0, "patient_from"] = "dicom"
    films.loc[:6, "patient_from"] = ""
    report = describe_leakage(films, split_films(films))
    assert report["films_of_unknown_patients"] == 7
    told = dict(part.rsplit(": ", 1) for part in report["patient_keys"].split("; ")[1:])
    assert told["by DICOM's PatientID"] == f"{(films.patient_from == 'dicom').sum()} films"
    assert told["unknown, each film its own patient"] == "7 films"
    for unknown in (films, films.assign(patient_from="csv")):
        write_params(tmp_path)
        write_csv(tmp_path / "data/films.csv", unknown)
        run_stage("split", tmp_path)
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if "warning" in line]
    assert line.startswith(f"warning: 7 of {len(films)} films tell no patient")
    assert "column patient of a CSV (data.folder.labels)" in line
    told = read_json(tmp_path / "reports/leakage.json")
    assert told["films_of_unknown_patients"] == 0
    assert told["patient_keys"] == f"as the CSV names them: {len(films)} films"


def test_label_conflicts_are_reported():
    films = table()
    first, second = films.index[films.label == "NORMAL"][0], films.index[films.label == "PNEUMONIA"][0]
    films.loc[[first, second], "pixel_sha256"] = "same"
    films.loc[[first, second], "source_split"] = "train"
    report = describe_leakage(films, split_films(films, from_="all"))
    assert report["label_conflicts"] == sorted(films.path[[first, second]])


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (
            lambda films: films[films.source_split != "test"],
            {},
            "no test films of its own; set split.from: all in params.yaml, or .* -S split.from=all",
        ),
        (lambda films: films.assign(source_split=""), {}, "no train films of its own; set split.from: all"),
        (lambda films: films[films.source_split != "val"], {"val": "source"}, "no val films.*split.val: carve"),
        (lambda films: films, {"train_films": 301}, "split.train_films: 301 films cannot be balanced"),
        (lambda films: films, {"test_films": 5000}, "split.test_films: 5000 asks for 2500 NORMAL films, but there"),
        (lambda films: films[films.label == "NORMAL"], {}, "train would hold no PNEUMONIA .*lower split.val_fraction"),
        (
            lambda films: films.assign(patient="ward 3"),
            {"from_": "all"},
            "val would hold no .*0 films.* 1 patients in all",
        ),
        (lambda films: films, {"val_fraction": 0.001}, "split val would hold no .*raise split.val_fraction"),
    ],
)
def test_bad_input_is_one_clear_line(change, arguments, message):
    with pytest.raises(UserError) as caught:
        split_films(change(table(60)), **arguments)
    assert re.search(message, f"{caught.value.message}; {caught.value.hint}")
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_films_without_a_hash_are_counted_and_warned_of(tmp_path, capsys):
    films = table()
    films.loc[:3, "pixel_sha256"] = ""
    assert describe_leakage(films, split_films(films))["films_not_compared"] == 4
    write_params(tmp_path)
    write_csv(tmp_path / "data/films.csv", films.assign(patient_from="csv"))
    run_stage("split", tmp_path)
    assert "warning: 4 films could not be compared" in capsys.readouterr().out
