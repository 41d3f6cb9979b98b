"""Reports and pictures in DICOM: what they say, in whose study, and whether other programs can read them."""

import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from highdicom.sr import EnhancedSR
from hospital_films import HEADER, PIXELS, SERIES, STUDY, hospital_film
from PIL import Image
from report_reading import judgements, numbers, texts
from small_package import make_package
from typer.testing import CliRunner

from pulmo import Predictor, cli
from pulmo.answering.answer import Answer
from pulmo.answering.dicom.header import NotDicom
from pulmo.answering.dicom.reply import Reply, make_reply

SHARED = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID")
SHARED += ("AccessionNumber", "ReferringPhysicianName", "StudyDescription", "StudyInstanceUID", "SpecificCharacterSet")


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    return make_package(tmp_path_factory.mktemp("model") / "package")


@pytest.fixture(scope="module")
def predictor(package) -> Predictor:
    return Predictor.load_folder(package, "faster", "3")


def ask(predictor: Predictor, content: bytes) -> tuple[Answer, Reply]:
    film = predictor.read(content)
    answer = predictor.answer([film])[0]
    return answer, make_reply(predictor, content, film, answer)


def read(content: bytes | None) -> Any:
    assert content
    return pydicom.dcmread(io.BytesIO(content))


def test_a_report_says_all_that_the_answer_does(predictor) -> None:
    answer, reply = ask(predictor, hospital_film())
    report = read(reply.report)
    assert EnhancedSR.from_dataset(report).content
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    found = numbers(report)
    assert found["111012"] == pytest.approx([100 * answer.prob_pneumonia])
    assert found["OBCS_0000058"] == pytest.approx([90, 5, 10])  # the value, and how far its interval reaches each way
    assert found["OBCS_0000059"] == pytest.approx([90, 5, 10])
    said = "\n".join(texts(report))
    for part in (answer.model.sha256, "faster", "threshold 0.5 ", "version 3", "pulmo 0.", "Not a medical device"):
        assert part in said
    assert "sensitivity 0.900 (0.800-0.950)" in said
    assert report.Manufacturer == "Pulmo"
    assert report.DeviceSerialNumber == answer.model.sha256


@pytest.mark.parametrize(
    ("probability", "expected"), [(0.9, "Present"), (0.1, "Absent"), (0.5, "Undetermined")], ids=str
)
def test_the_finding_is_coded(predictor, monkeypatch, probability, expected) -> None:
    monkeypatch.setattr(
        predictor.network, "score_and_read", lambda films: (np.log([probability / (1 - probability)]) / 2, [])
    )
    answer, reply = ask(predictor, hospital_film())
    assert answer.prob_pneumonia == pytest.approx(probability)
    assert judgements(read(reply.report))["Pneumonia"] == expected
    assert any("Leave it to a person" in text for text in texts(read(reply.report))) == (expected == "Undetermined")


def test_report_and_picture_lie_in_the_study_of_the_film(predictor) -> None:
    content = hospital_film()
    film, (_, reply) = read(content), ask(predictor, content)
    report, picture = read(reply.report), read(reply.picture)
    for made in (report, picture):
        assert [made.get(name) for name in SHARED] == [film.get(name) for name in SHARED]
        assert made.SeriesInstanceUID != SERIES
        assert made.SOPInstanceUID != film.SOPInstanceUID
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0]
    assert evidence.StudyInstanceUID == STUDY
    assert evidence.ReferencedSeriesSequence[0].SeriesInstanceUID == SERIES
    referenced = evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert (referenced.ReferencedSOPClassUID, referenced.ReferencedSOPInstanceUID) == (
        film.SOPClassUID,
        film.SOPInstanceUID,
    )
    assert picture.SourceImageSequence[0].ReferencedSOPInstanceUID == film.SOPInstanceUID
    assert report.SeriesInstanceUID != picture.SeriesInstanceUID


def test_a_film_has_the_same_report_each_time_and_another_model_makes_another(predictor, tmp_path) -> None:
    content = hospital_film()
    other = Predictor.load_folder(make_package(tmp_path / "package", arch="resnet18"))
    first, again, others = (read(ask(asked, content)[1].report) for asked in (predictor, predictor, other))
    assert first.SOPInstanceUID == again.SOPInstanceUID
    assert first.SOPInstanceUID != others.SOPInstanceUID


def test_the_picture_shows_the_film_coloured_where_the_answer_comes_from_above_the_words(predictor) -> None:
    _, reply = ask(predictor, hospital_film(np.kron(PIXELS, np.ones((8, 8), np.uint8))))
    picture = read(reply.picture)
    pixels = picture.pixel_array.astype(int)
    assert (picture.PhotometricInterpretation, pixels.shape[1:]) == ("RGB", (640, 3))
    film, band = pixels[:768], pixels[768:]
    coloured = np.ptp(film, axis=2) > 30
    assert 0.02 < coloured.mean() < 0.98
    assert np.ptp(band, axis=2).max() == 0, "the words are gray"
    assert (band > 200).any()


def test_a_refused_film_has_a_report_that_says_why_and_no_number(predictor) -> None:
    answer, reply = ask(predictor, hospital_film(BodyPartExamined="KNEE"))
    assert answer.refusal
    report = read(reply.report)
    assert any("body part KNEE" in text for text in texts(report))
    assert numbers(report) == {}
    assert judgements(report)["Pneumonia"] == "Undetermined"
    assert "No algorithms succeeded" in judgements(report)["CAD Processing and Findings Summary"]
    assert np.ptp(read(reply.picture).pixel_array.astype(int), axis=2).max() == 0, "no heat map"


LACKING: dict[str, dict[str, Any]] = {
    "no patient and no study": dict.fromkeys(HEADER, None) | {"Modality": "CR"},
    "blank": dict.fromkeys(HEADER, "") | {"Modality": "CR", "StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES},
    "no series": {"SeriesInstanceUID": None},
    "foreign letters": {
        "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
        "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    },
    "letters of no set": {"SpecificCharacterSet": None, "PatientName": "Muller^Jorg"},
}
SPOILT = {
    "date with points": (b"20200131", b"31.1.20 "),
    "sex of two letters": (b"\x10\0\x40\0CS\x02\0M ", b"\x10\0\x40\0CS\x02\0??"),
    "unknown letters": (b"ISO_IR 192", b"ISO_IR 999"),
    "letters of another set": ("Müller^J".encode(), b"M\xfcller^ J"),
    "date that is none": (b"20240229", b"20240230"),
    "time that is none": (b"101500", b"992500"),
}


@pytest.mark.parametrize("tags", LACKING.values(), ids=LACKING)
def test_what_a_film_lacks_is_blank_in_its_report(predictor, tags) -> None:
    content = hospital_film(**tags)
    film, (_, reply) = read(content), ask(predictor, content)
    for made in (read(reply.report), read(reply.picture)):
        for name in SHARED[:-3]:
            assert name in made
            assert str(made[name].value or "") == str(film.get(name) or "")
        assert made.StudyInstanceUID
    assert read(reply.report).CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].SeriesInstanceUID


@pytest.mark.parametrize("change", SPOILT.values(), ids=SPOILT)
def test_a_spoilt_header_costs_no_report(predictor, change) -> None:
    content = hospital_film()
    assert content.count(change[0]) >= 1
    spoilt = content.replace(*change)
    _, reply = ask(predictor, spoilt)
    for made in (read(reply.report), read(reply.picture)):
        film, names = read(spoilt), [name for name in SHARED if name != "StudyInstanceUID"]
        assert [made.get_item(name).value for name in names] == [film.get_item(name).value for name in names]
        assert (made.PatientID, made.StudyInstanceUID) == ("4711", STUDY)


def test_what_no_report_can_refer_to_is_told(predictor) -> None:
    nameless, file = read(hospital_film()), io.BytesIO()
    del nameless.SOPInstanceUID
    nameless.save_as(file)
    for content, reason in (
        (file.getvalue(), "no SOPInstanceUID"),
        (b"\x89PNG\r\n\x1a\n", "no DICOM file"),
        (b"", "no DICOM file"),
    ):
        with pytest.raises(NotDicom, match=reason):
            make_reply(predictor, content, None, None, "unread")


def test_a_damaged_header_gives_a_report_or_a_reason(predictor) -> None:
    content, dice = hospital_film(), np.random.default_rng(0)
    start = content.index(b"\x08\0\x05\0CS")
    sequence, item = b"\x08\0\x40\x11SQ\0\0" + b"\xff" * 4, b"\xfe\xff\0\xe0" + b"\xff" * 4
    nested = sequence + 5000 * (item + sequence)
    damaged = [content[:140], content[:start] + nested + content[start:]]
    for _ in range(150):
        spoilt = bytearray(content)
        for place in dice.integers(start, start + 700, 6):
            spoilt[place] = dice.integers(256)
        damaged.append(bytes(spoilt))
    made = 0
    for spoilt in damaged:
        try:
            made += bool(read(make_reply(predictor, spoilt, None, None, "unread").report).SOPInstanceUID)
        except NotDicom:
            continue
    assert made > 50


def predict(package: Path, *arguments: object, code: int = 0) -> Any:
    command = ["predict", "--package", str(package), *(str(argument) for argument in arguments)]
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == code, done.output
    return done


def test_the_command_writes_a_report_of_each_dicom_film(package, tmp_path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    (films / "1.2.840.1.dcm").write_bytes(hospital_film())
    (films / "knee.dcm").write_bytes(hospital_film(BodyPartExamined="KNEE"))
    (films / "cut.dcm").write_bytes(hospital_film()[:-2000])
    Image.fromarray(PIXELS).save(films / "film.png")
    done = predict(package, "--json", "--dicom-sr", tmp_path / "out", films, code=1)
    rows = {Path(row["film"]).name: row for row in map(json.loads, done.stdout.splitlines())}
    assert {name: row["dicom_sr"] is not None for name, row in rows.items()} == {
        "1.2.840.1.dcm": True,
        "cut.dcm": True,
        "film.png": False,
        "knee.dcm": True,
    }
    assert rows["film.png"]["label"]
    assert f"error: {films / 'film.png'}: no report: the film is no DICOM file" in done.stderr
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert made == [
        *("1.2.840.1-picture.dcm", "1.2.840.1-report.dcm", "cut-report.dcm"),
        *("knee-picture.dcm", "knee-report.dcm"),
    ]
    assert any(rows["cut.dcm"]["error"] in text for text in texts(pydicom.dcmread(rows["cut.dcm"]["dicom_sr"])))
    assert not predict(package, films / "film.png").stderr.count("no report")


@pytest.mark.parametrize("kind", ["answered", "refused", "header lacks most"])
def test_dicom3tools_finds_nothing_wrong(predictor, tmp_path, kind) -> None:
    if not shutil.which("dciodvfy"):
        pytest.skip("dicom3tools, whose dciodvfy checks DICOM files, is not installed")
    tags = {"answered": {}, "refused": {"BodyPartExamined": "KNEE"}, "header lacks most": LACKING["no series"]}[kind]
    _, reply = ask(predictor, hospital_film(**tags))
    for name, content in (("report", reply.report), ("picture", reply.picture)):
        assert content
        (tmp_path / name).write_bytes(content)
        done = subprocess.run(["dciodvfy", str(tmp_path / name)], capture_output=True, text=True)
        found = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]
        assert (found, done.returncode) == ([], 0)
