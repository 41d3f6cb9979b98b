"""The division of films into train, val and test, in which, by default, no patient stands on two sides."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pulmo.base.errors import UserError
from pulmo.base.params import SplitParams
from pulmo.films.rows.labels import LABELS, SPLITS
from pulmo.films.rows.table import SPLIT_COLUMNS, UNKNOWN_PATIENT

COLUMNS = list(SPLIT_COLUMNS)
TELLERS = {  # of films.rows.table.PATIENT_FROM
    "csv": "as the CSV names them",
    "name": "by the file name (pneumonia: type and number; NORMAL: series and number, which groups films but does not "
    "prove one patient)",
    "published": "by the file name, in the grammar of a published set",
    "dicom": "by DICOM's PatientID",
    "study": "unknown, films of one study together",
    "": "unknown, each film its own patient",
}


def merge_duplicates(films: pd.DataFrame) -> pd.Series:
    """Group of each film: films of one patient, and all patients that share a pixel-identical film, are one group.

    Connected components over the patient key and the pixel hash; a film that could not be decoded has no hash and is
    joined by its patient key alone.
    """
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = key = parent[parent[key]]
        return key

    for patient, pixels in zip(films.patient, films.pixel_sha256, strict=True):
        if pixels:
            first, second = sorted((root(f"patient {patient}"), root(f"pixels {pixels}")))
            parent[second] = first
    return pd.Series([root(f"patient {patient}") for patient in films.patient], index=films.index, name="group")


def split_films(films: pd.DataFrame, params: SplitParams) -> pd.DataFrame:
    """Assign every film that is used to train, val or test; the meaning of each param stands in params.yaml.

    Grouped carving keeps patients and exact duplicates together and stratifies by subtype; `group_by="image"` draws
    single films (stratified) and so repeats the leak of the published protocols. Returns columns COLUMNS, sorted by
    path. Raises UserError when a split would lack a class, or a patient of the source stands in two splits.
    """
    films = films.assign(group=merge_duplicates(films))
    if params.drop_duplicates:
        films = films[(films.pixel_sha256 == "") | ~films.pixel_sha256.duplicated()]
    rng = np.random.default_rng(params.seed)
    grouped = params.group_by == "patient"

    if params.from_ == "all":
        test = _carve(films, params.test_fraction, grouped, rng)
        rest = films.drop(test.index)
        val_share = params.val_fraction / (1 - params.test_fraction)
    else:
        _require_source_splits(films, params.val)
        test = films[films.source_split == "test"]
        rest = films.drop(test.index)
        val_share = params.val_fraction
    rest = _balanced(rest, params.train_films, rng, "split.train_films") if params.val == "carve" else rest
    test = _balanced(test, params.test_films, rng, "split.test_films")
    held_out = _carve(rest, val_share, grouped, rng) if params.val == "carve" else rest[rest.source_split == "val"]
    train = rest.drop(held_out.index)
    if params.val == "source":
        train = _balanced(train, params.train_films, rng, "split.train_films")

    parts = [part.assign(split=name) for name, part in zip(SPLITS, (train, held_out, test), strict=True)]
    table = pd.concat(parts).sort_values("path", ignore_index=True)
    _check(table, grouped and params.from_ == "all")
    if grouped:
        _refuse_leaks(table)
    return table[COLUMNS]


def describe_leakage(films: pd.DataFrame, splits: pd.DataFrame, seed: int = 42) -> dict[str, Any]:
    """A report of what crosses the splits, what they hold, and what drawing single films for val would have leaked."""
    table = splits.merge(films[["path", "pixel_sha256", "patient_from"]], on="path", validate="one_to_one")
    table["group"] = merge_duplicates(table)
    hashed = table[table.pixel_sha256 != ""]
    conflicting = hashed.groupby("pixel_sha256").label.transform("nunique") > 1
    pool = table[table.split != "test"]
    share = float((pool.split == "val").mean())
    drawn = _carve(pool, share, False, np.random.default_rng(seed))
    left = set(pool.drop(drawn.index).group)
    leaking = drawn.group.isin(left)
    pneumonia = drawn.label == LABELS[1]
    unknown = table.patient_from.isin(UNKNOWN_PATIENT)
    return {
        "patients_across_splits": _crossing(table, "patient"),
        "exact_duplicates_across_splits": _crossing(hashed, "pixel_sha256"),
        "label_conflicts": sorted(hashed.path[conflicting]),
        "exact_duplicates_within_splits": int(hashed.duplicated(["split", "pixel_sha256"]).sum()),
        "splits": {
            name: {
                "films": len(part),
                "patients": int(part.patient.nunique()),
                "labels": part.label.value_counts().sort_index().to_dict(),
                "subtypes": part.subtype.value_counts().sort_index().to_dict(),
            }
            for name, part in table.groupby("split")
        },
        "films_unused": len(films) - len(table),
        "films_not_compared": len(table) - len(hashed),
        "patients_known": int(table.patient[~unknown].nunique()),
        "films_of_unknown_patients": int(unknown.sum()),
        "image_level_split_would_leak": {
            "held_out_films": len(drawn),
            "share_with_patient_in_train": float(leaking.mean()),
            "share_of_pneumonia_with_patient_in_train": float(leaking[pneumonia].mean()) if pneumonia.any() else None,
        },
        "patient_keys": "; ".join(
            f"{how}: {count:,} films" for key, how in TELLERS.items() if (count := (table.patient_from == key).sum())
        ),
    }


def leakage_text(leakage: Mapping[str, Any]) -> str:
    """One line with the number of patients that stand in two splits. It claims nothing of patients that are unknown."""
    crossing, known, unknown = (
        leakage[key] for key in ("patients_across_splits", "patients_known", "films_of_unknown_patients")
    )
    shown = f"{len(crossing)} of {known:,} known" if known else "0 known"
    return f"patients across splits: {shown}" + (f", {unknown:,} films of unknown patients" if unknown else "")


def _carve(films: pd.DataFrame, fraction: float, grouped: bool, rng: np.random.Generator) -> pd.DataFrame:
    """Draw about `fraction` of the films, per subtype; whole groups where `grouped`.

    Groups are visited in random order, and one is taken where that brings its stratum closer to the target than leaving
    it out; so a group of thirty films cannot overshoot a small stratum. What a subtype misses, the next of its class
    makes up for: single films give exactly the share of each class.
    """
    keys = films.group if grouped else pd.Series(films.index.astype(str), index=films.index)
    strata = films.groupby(keys)[["label", "subtype"]].min()
    sizes = keys.value_counts().sort_index()
    taken: list[str] = []
    for _, of_label in strata.groupby("label"):
        missing = 0.0
        for _, of_subtype in of_label.groupby("subtype"):
            part = sizes[of_subtype.index]
            missing += fraction * part.sum()
            for key in rng.permutation(part.index.to_numpy()):
                if part[key] <= 2 * missing:
                    taken.append(key)
                    missing -= part[key]
    return films[keys.isin(taken)]


def _balanced(films: pd.DataFrame, count: int, rng: np.random.Generator, key: str) -> pd.DataFrame:
    if not count:
        return films
    if count % len(LABELS):
        raise UserError(f"{key}: {count} films cannot be balanced between two classes", "use an even number")
    parts = []
    for label in LABELS:
        part = films[films.label == label]
        if len(part) < count // 2:
            raise UserError(
                f"{key}: {count} asks for {count // 2} {label} films, but there are {len(part)}", f"lower {key}"
            )
        parts.append(part.loc[np.sort(rng.choice(part.index.to_numpy(), count // 2, replace=False))])
    return pd.concat(parts).sort_index()


def _require_source_splits(films: pd.DataFrame, val: str) -> None:
    for name in ("train", "test", "val") if val == "source" else ("train", "test"):
        if not (films.source_split == name).any():
            carve = " or split.val: carve" if name == "val" else ""
            raise UserError(
                f"the source has no {name} films of its own",
                f"set split.from: all{carve} in params.yaml, or for one experiment -S split.from=all",
            )


def _check(table: pd.DataFrame, carved_test: bool) -> None:
    cures = {"train": "lower split.val_fraction or ", "val": "raise split.val_fraction or "}
    cures["test"] = "raise split.test_fraction or " if carved_test else ""
    for name in SPLITS:
        part = table[table.split == name]
        for label in LABELS:
            if not (part.label == label).any():
                raise UserError(
                    f"split {name} would hold no {label} film ({len(part)} films in all, "
                    f"and {table.patient.nunique()} patients in all splits)",
                    f"{cures[name]}add films to the source",
                )


def _crossing(table: pd.DataFrame, column: str) -> list[str]:
    return sorted(str(key) for key, count in table.groupby(column).split.nunique().items() if count > 1)


def _refuse_leaks(table: pd.DataFrame) -> None:
    if crossing := _crossing(table, "group"):
        names = ", ".join(crossing[:5])
        raise UserError(
            f"{len(crossing)} patients or exact duplicates stand in two of the source's splits ({names})",
            "use split.from: all to split anew by patient, or split.group_by: image to accept the leak "
            "and have it reported",
        )
