"""Whose film it is: who is believed, what counts as one patient, and what is said where nobody tells."""

import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from pydicom.uid import generate_uid
from small_project import ROOT, run_stage, write_params

from pulmo.base.files import read_json
from pulmo.base.params import SplitParams
from pulmo.dataset.splits import describe_leakage, leakage_text, split_films
from pulmo.films.names import read_published
from pulmo.films.patients import Evidence, tell_patients
from pulmo.films.rows.table import Listed
from pulmo.images.inspect import inspect_file
from pulmo.images.manifest import describe_films
from pulmo.sources.folder import fetch

CASES = ROOT.parent / "shared/cases/make_cases.py"
NOBODY = ("", "")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("NORMAL/00000013_005.png", ("nih-00000013", "published")),
        ("test/NORMAL/00030805_000_png.rf.5f5b1d.jpg", ("nih-00030805", "published")),
        ("NORMAL/20200131_005.png", NOBODY),
        ("NORMAL/00000013_05.png", NOBODY),
        ("NORMAL/0013_005.png", NOBODY),
        ("CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg", ("chexpert-00001", "published")),
        ("PNEUMONIA/patient00001_study2_view1_lateral.jpg", ("chexpert-00001", "published")),
        ("NORMAL/patient00001.png", NOBODY),
        (
            "files/p10/p10000032/s50414267/02aa804e-bde0afdd-112c0b34-7bc16630-4e384014.dcm",
            ("mimic-10000032", "published"),
        ),
        ("NORMAL/p10000032_s50414267_02aa804e.jpg", ("mimic-10000032", "published")),
        ("NORMAL/p10/s5/1.jpg", NOBODY),
        ("NORMAL/MIDRC-RICORD-1C-419639-000082-41077-0.png", ("ricord-419639-000082", "published")),
        ("NORMAL/MIDRC-RICORD-1C-SITE2-000265-99793-1.png", ("ricord-SITE2-000265", "published")),
        ("test/NORMAL/NORMAL-1049278-0001.jpeg", ("kermany-1049278", "published")),  # as first published
        ("train/PNEUMONIA/BACTERIA-30629-0003_jpeg.rf.1f2e.jpg", ("kermany-30629", "published")),
        ("NORMAL/normal-1049278-0001.jpeg", NOBODY),
        ("images/id_05c32a26-1bd9/Study_12.3/Series_4/image-5.png", ("brax-05c32a26-1bd9", "published")),
        ("NORMAL/sub-S03044_ses-E06160_run-1_bp-chest_vp-ap_cr.png", ("bids-S03044", "published")),
        ("sub-S03044/ses-E06160/mod-rx/sub-S03044_ses-E06160_run-1_cr.png", ("bids-S03044", "published")),
        ("NORMAL/CXR1000_IM-0003-1001.png", ("openi-1000", "published")),
        ("NORMAL/1000_IM-0003-2001.dcm.png", ("openi-1000", "published")),
        ("NLMCXR_png/CXR1_1_IM-0001-3001.png", ("openi-1", "published")),
        (
            "NORMAL/216840111366964012959786098432011033083840143_00-176-115.png",
            ("padchest-216840111366964012959786098432011033083840143", "study"),
        ),
        (
            "20536686640136348236148679891455886468_k6ga29.png",
            ("padchest-20536686640136348236148679891455886468", "study"),
        ),
        ("NORMAL/0004cfab-14fd-4e49-80ba-63a80b6bddd6.dcm", NOBODY),  # RSNA
        ("NORMAL/50a418190bc3fb1ef1633bf9678929b3.dicom", NOBODY),  # VinDr
        ("Normal/images/Normal-12.png", NOBODY),  # COVID-19 Radiography Database
        ("PNEUMONIA/Viral Pneumonia-12.png", NOBODY),
    ],
)
def test_names_of_published_sets(path, expected):
    assert read_published(path) == expected


def tell(*films: Evidence) -> list[tuple[str, str]]:
    return tell_patients(films)[0]


def test_identifiers_become_numbers_in_the_order_of_the_films():
    films = [
        Evidence("a", csv="Miller"),
        Evidence("b", csv="Jones"),
        Evidence("c", csv="Miller"),
        Evidence("d", "", "9"),
    ]
    assert tell(*films) == [("csv-1", "csv"), ("csv-2", "csv"), ("csv-1", "csv"), ("dicom-1", "dicom")]


def test_a_study_groups_its_films_and_takes_the_patient_that_one_of_them_names():
    films = [
        Evidence("a", study="1.2"),
        Evidence("b", study="1.2"),
        Evidence("c", study="1.3"),
        Evidence("d", "", "p", "1.3"),
    ]
    assert tell(*films) == [("study-1", "study"), ("study-1", "study"), ("dicom-1", "dicom"), ("dicom-1", "dicom")]


def test_what_the_csv_says_of_one_film_holds_for_the_others_of_its_patient_id_and_study():
    films = [
        Evidence("a", csv="Miller", dicom="9"),
        Evidence("b", dicom="9", study="1.2"),
        Evidence("c", study="1.2"),
        Evidence("d", dicom="8"),
    ]
    assert tell(*films) == [("csv-1", "csv")] * 3 + [("dicom-2", "dicom")]


def test_a_study_outweighs_the_names_that_viewers_give():
    films = [Evidence("NORMAL/IM-0001-0001.dcm", study="1.2"), Evidence("NORMAL/IM-0002-0001.dcm", study="1.2")]
    assert tell(*films) == [("study-1", "study")] * 2
    assert tell(Evidence("NORMAL/IM-0001-0001.jpeg")) == [("IM-1", "name")]


def test_a_patient_id_outweighs_a_published_name_and_the_csv_both():
    assert tell(Evidence("00000013_005.png", "", "9")) == [("dicom-1", "dicom")]
    assert tell(Evidence("00000013_005.png", "x", "9")) == [("csv-1", "csv")]


@pytest.mark.parametrize(
    ("shared", "alone", "used"),
    [(40, 0, False), (30, 10, False), (10, 10, False), (9, 11, True), (9, 0, True), (4, 1, True)],
)
@pytest.mark.parametrize("kind", ["csv", "dicom", "study"])
def test_an_identifier_of_half_the_films_names_nobody(kind, shared, alone, used):
    films = [Evidence(f"a{number}", **{kind: "whatever"}) for number in range(shared)]
    films += [Evidence(f"b{number}", **{kind: str(number)}) for number in range(alone)]
    told, notes = tell_patients([*films, Evidence("without")])
    assert (told[0] == told[1]) == used
    assert (told[0][1] == kind) == used
    assert all(teller == kind for _, teller in told[shared:-1])
    assert bool(notes) != used
    if notes:
        assert f"stands on {shared} of {shared + alone} films" in notes[0]
        assert "column patient of a CSV (data.folder.labels)" in notes[0]


def test_rsnas_patient_id_is_the_name_of_the_film(tmp_path):
    name = "0004cfab-14fd-4e49-80ba-63a80b6bddd6"
    write_dicom(tmp_path / f"{name}.dcm", PatientID=name, StudyInstanceUID="1.2.3")
    assert inspect_file(tmp_path / f"{name}.dcm").patient == ""
    write_dicom(tmp_path / f"{name}.dcm", PatientID="4711", StudyInstanceUID="1.2.3")
    facts = inspect_file(tmp_path / f"{name}.dcm")
    assert facts.patient
    assert facts.study == "1.2.3"


def test_a_csv_that_repeats_the_random_name_of_a_film_tells_no_patient(tmp_path):
    names = ["0004cfab-14fd-4e49-80ba-63a80b6bddd6", "films/00436515-870c-4b36-a041-de91049b9ab4", "P7"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_dicom(tmp_path / name)
    listed = [Listed(name, "NORMAL", patient=Path(name).name) for name in names]
    assert describe_films(tmp_path, listed).patient_from.tolist() == ["", "csv", ""]


def write_dicom(path: Path, **tags: str) -> None:
    import numpy as np
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    film = FileDataset("", {}, file_meta=FileMetaDataset(), preamble=bytes(128))
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.SOPClassUID, film.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", generate_uid()
    film.PhotometricInterpretation, film.SamplesPerPixel, film.PixelRepresentation = "MONOCHROME2", 1, 0
    film.Rows, film.Columns, film.BitsAllocated, film.BitsStored, film.HighBit = 16, 16, 16, 12, 11
    film.PixelData = (
        np.random.default_rng(zlib.crc32(str(path).encode())).integers(0, 4096, (16, 16), np.uint16).tobytes()
    )
    for name, value in tags.items():
        setattr(film, name, value)
    film.save_as(path, enforce_file_format=True)


def studies(folder: Path, patient: str) -> None:
    """20 normal and 20 pneumonic studies of two views each, as programs that wipe the PatientID leave them."""
    for label in ("NORMAL", "PNEUMONIA"):
        (folder / label).mkdir(parents=True)
        for number in range(20):
            study = generate_uid()
            for view in ("PA", "LATERAL"):
                path = folder / label / f"{number}_{view}_{label}.dcm"
                write_dicom(path, PatientID=patient, StudyInstanceUID=study, ViewPosition=view)


@pytest.mark.parametrize("patient", ["", "REDACTED BY ACME 3.1"])
def test_no_study_stands_in_two_splits_and_nothing_is_claimed_of_patients(tmp_path, monkeypatch, capsys, patient):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    studies(tmp_path / "films", patient)
    folder = {"data": {"source": "folder", "folder": {"path": "films"}}, "split": {"from": "all"}}
    write_params(tmp_path, folder)
    run_stage("download", tmp_path)
    said = capsys.readouterr().out
    assert ("one PatientID stands on 80 of 80 films" in said) == bool(patient)
    run_stage("split", tmp_path)
    said = capsys.readouterr().out
    assert "patients across splits: 0 known, 80 films of unknown patients" in said
    leakage = read_json(tmp_path / "reports/leakage.json")
    assert (leakage["patients_known"], leakage["films_of_unknown_patients"]) == (0, 80)
    assert leakage["patient_keys"] == "unknown, films of one study together: 80 films"
    lines = (tmp_path / "data/splits.csv").read_text().splitlines()[1:]
    splits = {}
    for line in lines:
        path, split = line.split(",")[:2]
        splits.setdefault(path.replace("PA", "LATERAL", 1) if "_PA_" in path else path, set()).add(split)
    assert len(splits) == 40
    assert all(len(of) == 1 for of in splits.values())
    assert patient not in (tmp_path / "data/films.csv").read_text() or not patient


def test_what_is_known_of_patients_in_words():
    leakage = {"patients_across_splits": [], "patients_known": 1200, "films_of_unknown_patients": 0}
    assert leakage_text(leakage) == "patients across splits: 0 of 1,200 known"
    assert leakage_text(leakage | {"films_of_unknown_patients": 7}).endswith("1,200 known, 7 films of unknown patients")


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    if not CASES.exists():
        pytest.skip("the cases are not beside the project")
    folder = tmp_path_factory.mktemp("cases") / "out"
    subprocess.run([sys.executable, CASES, folder], check=True)
    return folder


def described(folder: Path, raw: Path):
    raw.mkdir()
    return describe_films(raw, fetch(raw, folder)[0])


def test_cases_of_patients(cases, tmp_path, capsys):
    for name, unknown in (("one-study", 80), ("follow-ups", 0), ("one-wiped-id", 40)):
        films = described(cases / name, tmp_path / name)
        splits = split_films(films, SplitParams(from_="all"))
        leakage = describe_leakage(films, splits)
        assert leakage["patients_across_splits"] == []
        assert leakage["films_of_unknown_patients"] == unknown
        table = splits.merge(films[["path"]])
        patient = table.path.str.extract(r"^(.*)_(?:PA|LATERAL)\.dcm$" if name == "one-study" else r"/(\d+)[_.]")[0]
        if name != "one-wiped-id":
            assert table.groupby(patient).split.nunique().max() == 1
    assert "one PatientID stands on 40 of 40 films" in capsys.readouterr().out
