from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from film_files import ODD, dicom, encode
from PIL import Image

from pulmo.base.errors import UserError
from pulmo.base.files import sha256_file, write_csv
from pulmo.films.names import read_name
from pulmo.films.rows.table import Film, Listed, read_films, to_table
from pulmo.images.manifest import describe_films, facts_store


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("person12_bacteria_46.jpeg", ("bacteria-12", "bacterial")),
        ("train/PNEUMONIA/person12_virus_46.jpeg", ("virus-12", "viral")),
        ("person447_virus_921_1.jpeg", ("virus-447", "viral")),
        ("IM-0115-0001.jpeg", ("IM-115", "normal")),
        ("IM-0125-0001-0002.jpeg", ("IM-125", "normal")),
        ("NORMAL2-IM-0115-0001.jpeg", ("NORMAL2-IM-115", "normal")),
        ("person1_bacteria_1_jpeg.rf.5f5b1d8a0c.jpg", ("bacteria-1", "bacterial")),
        ("NORMAL2-IM-0001-0001_jpeg.rf.AbC0.jpg", ("NORMAL2-IM-1", "normal")),
        ("scan_jpeg.jpg", ("scan_jpeg", "unknown")),
        ("a/b/patient.07.png", ("a/b/patient.07", "unknown")),
        ("a/1.2.840.113619.7", ("a/1.2.840.113619.7", "unknown")),
        ("_jpeg.rf.5f5b1d8a0c.jpg", ("_jpeg", "unknown")),
    ],
)
def test_file_names_tell_patient_and_subtype(name, expected):
    assert read_name(name) == expected


def test_one_number_of_two_types_is_two_children():
    assert read_name("person12_bacteria_46.jpeg")[0] != read_name("person12_virus_47.jpeg")[0]
    assert read_name("IM-0115-0001.jpeg")[0] != read_name("NORMAL2-IM-0115-0001.jpeg")[0]


def test_table_is_measured_and_survives_the_disk(tmp_path):
    pixels = np.arange(35, dtype=np.uint8).reshape(5, 7)
    Image.fromarray(pixels).save(tmp_path / "person1_virus_6.png")
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "other.png")
    (tmp_path / "broken.jpeg").write_bytes(b"no image")
    listed = [
        Listed("person1_virus_6.png", "PNEUMONIA", "train"),
        Listed("other.png", "NORMAL", "test", patient="NA"),
        Listed("broken.jpeg", "PNEUMONIA"),
    ]
    films = describe_films(tmp_path, listed, workers=2)
    assert films.path.tolist() == ["broken.jpeg", "other.png", "person1_virus_6.png"]
    assert films.patient_from.tolist() == ["", "csv", "name"]
    broken, other, virus = films.to_dict("records")
    assert (broken["width"], broken["pixel_sha256"], broken["subtype"]) == (0, "", "unknown")
    assert (virus["width"], virus["height"], virus["mode"], virus["patient"]) == (7, 5, "L", "virus-1")
    assert virus["sha256"] == sha256_file(tmp_path / "person1_virus_6.png")
    assert other["mode"] == "RGB"
    assert other["subtype"] == "normal"
    assert other["pixel_sha256"] == virus["pixel_sha256"], "equal channels hold the same gray pixels"
    films.loc[0, "patient"] = "NA"
    write_csv(tmp_path / "films.csv", films)
    assert read_films(tmp_path / "films.csv").equals(films), "the patient NA is a name, not a missing value"


def test_what_is_known_of_a_content_is_not_found_out_again(tmp_path):
    for number in range(4):
        Image.fromarray(np.full((5, 7), number, np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    listed = [Listed(f"{name}.png", "NORMAL") for name in (0, 1, 2, 3, "broken")]
    plain = describe_films(tmp_path, listed)
    with facts_store(tmp_path / "store", 0.1) as known:
        describe_films(tmp_path, listed[1:], known=known)
    again = describe_films(tmp_path, listed, known=facts_store(tmp_path / "store", 0.1))
    pd.testing.assert_frame_equal(again, plain)

    class Known(dict[bytes, bytes]):
        put = dict.__setitem__

        def __bool__(self) -> bool:
            return True

    known = Known()
    describe_films(tmp_path, listed[1:], known=known)
    known.update({key: content.replace(b"[7, 5,", b"[70, 50,") for key, content in known.items()})
    again = describe_films(tmp_path, listed, known=known)
    widths = dict(zip(again.path, again.width, strict=True))
    assert widths == {"0.png": 7, "1.png": 70, "2.png": 70, "3.png": 70, "broken.png": 0}
    Image.fromarray(np.full((5, 7), 9, np.uint8)).save(tmp_path / "broken.png")
    assert describe_films(tmp_path, listed, known=known).width.max() == 70
    assert len(known) == 5, "what cannot be read may be read another time"


@pytest.mark.parametrize(
    ("path", "header", "expected"),
    [
        ("NORMAL/a.dcm", "0f", ("dicom-1", "dicom")),
        ("test/PNEUMONIA/b/a.dcm", "0f", ("dicom-1", "dicom")),
        ("NORMAL/a.dcm", "", ("NORMAL/a", "")),
        ("NORMAL/1.2.840.7.1", "", ("NORMAL/1.2.840.7.1", "")),
        ("PNEUMONIA/person7_virus_1.dcm", "0f", ("virus-7", "name")),
        ("NORMAL/IM-0001-0001.dcm", "0f", ("dicom-1", "dicom")),
        ("train/NORMAL/IM-0001-0001.jpeg", "", ("IM-1", "name")),
        ("test/NORMAL/IM-0001-0002.jpeg", "", ("IM-1", "name")),
        ("Valid/normal/IM-0001-0002.jpeg", "", ("IM-1", "name")),
        ("NORMAL/alice/IM-0001-0001.jpeg", "", ("alice/IM-1", "name")),
        ("test/NORMAL/bob/IM-0001-0001.jpeg", "", ("bob/IM-1", "name")),
        ("PNEUMONIA/alice/person7_virus_1.jpeg", "", ("virus-7", "name")),
    ],
)
def test_who_tells_the_patient(path, header, expected, tmp_path):
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_bytes(dicom(ODD, PatientID=header) if header else encode(ODD, "PNG"))
    table = describe_films(tmp_path, [Listed(path, "NORMAL")], workers=1)
    assert (table.patient[0], table.patient_from[0]) == expected
    table = describe_films(tmp_path, [Listed(path, "NORMAL", patient="p")], workers=1)
    assert (table.patient[0], table.patient_from[0]) == ("csv-1", "csv")


def film(**values: object) -> Film:
    defaults = dict.fromkeys(Film.__annotations__, "") | {"path": "a.png", "label": "NORMAL"}
    return Film(**{**defaults, **values})


@pytest.mark.parametrize(
    ("films", "message"),
    [
        ([], "the source holds no image"),
        ([film(), film()], r"a\.png is listed twice"),
        ([film(label="COVID")], "label 'COVID' is neither NORMAL nor PNEUMONIA"),
    ],
)
def test_a_bad_table_is_refused(films, message):
    with pytest.raises(UserError, match=message):
        to_table(films)


@pytest.mark.parametrize("content", [None, "", "path,label\na.png,NORMAL\n", "path\n1,2\n3,4,5\n", "\xff"])
def test_no_film_table_is_one_line_that_names_it(content, tmp_path):
    if content is not None:
        (tmp_path / "films.csv").write_text(content, encoding="latin-1")
    with pytest.raises(
        UserError, match=r"films\.csv is missing, damaged or of another version\n\nhint: run `dvc repro downl"
    ):
        read_films(tmp_path / "films.csv")


def test_table_is_sorted_by_path():
    assert to_table([film(path="b.png"), film(path="a.png")]).path.tolist() == ["a.png", "b.png"]
    assert isinstance(to_table([film()]), pd.DataFrame)


GOOD = film(path="a.png", subtype="normal", patient="1", width=5, height=5, bytes=9)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("path", "b.png"),
        ("path", "../a.png"),
        ("path", "/etc/a.png"),
        ("path", "C:/a.png"),
        ("path", ""),
        ("label", "PNEUMONIQ"),
        ("subtype", "fungal"),
        ("patient", ""),
        ("patient_from", "guess"),
        ("source_split", "training"),
        ("width", -1),
        ("bytes", -7),
    ],
)
def test_a_value_that_no_film_has_is_named_with_its_line(column, value, tmp_path):
    films = pd.DataFrame([asdict(replace(GOOD, path="b.png")), asdict(replace(GOOD, **{column: value}))])
    write_csv(tmp_path / "films.csv", films)
    with pytest.raises(UserError, match=rf"films\.csv, line 3: {column} "):
        read_films(tmp_path / "films.csv")


def test_a_size_that_is_no_number_is_a_damaged_table(tmp_path):
    write_csv(tmp_path / "films.csv", pd.DataFrame([asdict(GOOD) | {"width": "wide"}]))
    with pytest.raises(UserError, match=r"films\.csv is missing, damaged"):
        read_films(tmp_path / "films.csv")
