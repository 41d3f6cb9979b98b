"""Films as people have them: odd names, masks beside them, other archives, and the CSVs of published sets."""

import gzip
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import hubs
import numpy as np
import pytest
from PIL import Image
from small_project import ROOT
from test_sources_folder import build, listed, refused

from pulmo.base.errors import UserError
from pulmo.base.files import write_csv
from pulmo.films.contents import is_film, is_mask
from pulmo.films.rows.table import read_films
from pulmo.images.manifest import describe_films
from pulmo.sources.common.labels import read_label
from pulmo.sources.folder import fetch

CASES = ROOT.parent / "shared/cases/make_cases.py"
DICOM = bytes(128) + b"DICM" + b"\2\0\0\0UL\4\0\0\0\0\0"


def fetched(tmp_path: Path, path: Path, labels: str | bytes | None = None, **settings: object) -> set:
    """What a source lists; its CSV is written first."""
    raw = tmp_path / "raw"
    raw.mkdir()
    table = None
    if labels is not None:
        table = tmp_path / "labels.csv"
        table.write_bytes(labels if isinstance(labels, bytes) else labels.encode())
    films = fetch(raw, path, table, **settings)[0]
    assert {film.path for film in films} == set(hubs.content_of(raw))
    return listed(films)


@pytest.mark.parametrize(
    ("name", "head", "expected"),
    [
        ("IM000001", DICOM, True),
        ("1.2.840.113619.2", DICOM, True),
        ("x.ima", b"\2\0\0\0UL\4\0\xb8\0\0\0", True),
        ("bare", b"\x08\0\5\0CS\n\0ISO_IR 100", True),
        ("bare", b"\x08\0\5\0\n\0\0\0ISO_IR 100", True),
        ("bare", b"\0\x08\0\5CS\0\nISO_IR 100", True),
        ("scan", hubs.jpeg(), True),
        ("scan.tmp", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", True),
        ("scan", b"II*\0\x08\0\0\0", True),
        ("scan", b"MM\0+\0\x08\0\0", True),
        ("scan", b"RIFF\x24\0\0\0WEBPVP8 ", True),
        ("scan", b"BM\x36\x10\0\0\0\0\0\0\x36\4\0\0\x28\0\0\0\x40\0\0\0", True),
        ("broken.png", b"", True),
        ("broken.JFIF", b"<html>", True),
        ("Icon\r", b"", False),
        ("Thumbs.db", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", False),
        ("desktop.ini", b"[.ShellClassInfo]\r\n", False),
        ("notes", b"BMI of the children: see the table, which is long enough", False),
        ("notes.txt", b"II. Findings", False),
        ("clip.webm", b"RIFF\x24\0\0\0WAVEfmt ", False),
        ("favicon.ico", b"\0\0\1\0\1\0\x10\x10\0\0\1\0\x20\0", False),
        ("DICOMDIR", DICOM + b"UI\x1a\x001.2.840.10008.1.3.10\0", False),
        ("report.dcm", DICOM + b"UI\x1e\x001.2.840.10008.5.1.4.1.1.88.11\0", False),
        ("state.dcm", DICOM + b"UI\x1e\x001.2.840.10008.5.1.4.1.1.11.1\0", False),
        ("mask.dcm", DICOM + b"UI\x1e\x001.2.840.10008.5.1.4.1.1.66.4\0", False),
        ("plan.dcm", DICOM + b"UI\x1e\x001.2.840.10008.5.1.4.1.1.481.3\0", False),
        ("image.dcm", DICOM + b"UI\x1e\x001.2.840.10008.5.1.4.1.1.481.1\0", True),
        ("film.dcm", DICOM + b"UI\x1a\x001.2.840.10008.5.1.4.1.1.1.1\0", True),
    ],
)
def test_a_film_is_told_by_its_content(name, head, expected):
    assert is_film(name, head) == expected


@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_what_is_no_film_never_refuses_a_folder(tmp_path, capsys, suffix):
    path = build(tmp_path / "films", "NORMAL/a", "NORMAL/b.jfif", "PNEUMONIA/1.2.3")
    for name in ("Icon\r", "NORMAL/Icon\r", "NORMAL/notes", "Thumbs.db", "PNEUMONIA/desktop.ini", ".DS_Store"):
        (path / name).write_bytes(b"")
    if suffix:
        archive = tmp_path / "films.zip"
        with zipfile.ZipFile(archive, "w") as opened:
            for file in sorted(path.rglob("*")):
                opened.write(file, file.relative_to(path).as_posix())
        path = archive
    else:
        (path / "gone").symlink_to(tmp_path / "nowhere")
        os.mkfifo(path / "pipe")
    assert {film[0] for film in fetched(tmp_path, path)} == {"NORMAL/a", "NORMAL/b.jfif", "PNEUMONIA/1.2.3"}
    assert f"5 files of {path} that are no images are left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Normal/masks/1.png", True),
        ("Normal/lung masks/1.png", True),
        ("leftMask/1.png", True),
        ("NORMAL/1_mask.png", True),
        ("NORMAL/CHNCXR_0001_0_mask.png", True),
        ("NORMAL/1-Mask-02.png", True),
        ("NORMAL/mask_1.png", True),
        ("NORMAL/lungmask/1.png", True),
        ("NORMAL/Segmentation/1.png", True),
        ("NORMAL/unmasked/1.png", False),
        ("NORMAL/masked_1.png", False),
        ("NORMAL/Damask-1.png", False),
        ("NORMAL/images/1.png", False),
        ("NORMAL/1_seg.png", True),
        ("NORMAL/segregation_1.png", False),
        ("Lung Segmentation Data/Train/Normal/images/1.png", False),
        ("Lung Segmentation Data/Train/Normal/lung masks/1.png", True),
        ("Infection Segmentation/Train/infection masks/images/1.png", True),
    ],
)
def test_names_of_masks(name, expected):
    assert is_mask(name) == expected


def test_masks_are_left_out_and_counted(tmp_path, capsys):
    path = build(
        tmp_path / "films",
        *(f"{of}/{kind}/{n}.png" for of in ("Normal", "Pneumonia") for kind in ("images", "masks") for n in (1, 2)),
    )
    assert {film[0] for film in fetched(tmp_path, path)} == {
        f"{label}/images/{n}.png" for label in ("NORMAL", "PNEUMONIA") for n in (1, 2)
    }
    assert f"4 masks in {path} are left out, Normal/masks/1.png for one" in capsys.readouterr().out


def test_a_folder_around_all_films_may_be_called_after_masks(tmp_path):
    path = build(
        tmp_path / "films", "with masks/NORMAL/1.png", "with masks/PNEUMONIA/1.png", "with masks/NORMAL/mask/1.png"
    )
    assert {film[0] for film in fetched(tmp_path, path)} == {"NORMAL/1.png", "PNEUMONIA/1.png"}


@pytest.mark.parametrize("suffix", [".png", ".jpeg"])
def test_pictures_of_two_values_are_flagged(tmp_path, capsys, suffix):
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    ramp = np.clip(255 * (1.2 - np.hypot(x, y)), 0, 255).astype(np.uint8)
    pictures = {
        "film": ramp,
        "two": np.where(ramp > 128, 255, 0).astype(np.uint8),
        "gray": np.full((64, 64), 99, np.uint8),
    }
    for name, pixels in pictures.items():
        (tmp_path / "films/NORMAL").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "films/NORMAL" / f"{name}{suffix}")
    (tmp_path / "raw").mkdir()
    describe_films(tmp_path / "raw", fetch(tmp_path / "raw", tmp_path / "films")[0])
    said = capsys.readouterr().out
    assert f"1 of 3 films show two gray values alone, as masks do, NORMAL/two{suffix} for one" in said


def legacy_zip(path: Path, names: Sequence[bytes]) -> Path:
    """A zip with names in the bytes given, none of them declared to be Unicode."""
    fillers = {chr(ord("A") + number) * len(name): name for number, name in enumerate(names)}
    content = hubs.zipped({filler: hubs.jpeg(number) for number, filler in enumerate(fillers)})
    for filler, name in fillers.items():
        content = content.replace(filler.encode(), name)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        ("cp437", ("größe.png", "é.png")),
        ("cp850", ("ÁÐõ größe.png", "ñandú_Ê.png")),
        ("cp1252", ("größe.png", "naïve…å.png")),
        ("cp932", ("胸部表.png", "肺炎ソ.png")),
        ("gbk", ("正常胸片.png", "肺炎病人.png")),
        ("cp866", ("снимок.png", "лёгкие.png")),
        ("cp1251", ("снимок.png", "лёгкие.png")),
        ("cp1253", ("εικόνα.png", "πνεύμονας.png")),
        ("cp1254", ("göğüs.png", "akciğer_şüphe.png")),
        ("cp852", ("žluť.png", "hruď.png")),
        ("cp1256", ("صورة.png", "رئة.png")),
        ("koi8_r", ("снимок.png", "лёгкие.png")),
        ("euc_jp", ("胸部.png", "肺炎.png")),
        ("utf-8", ("größe.png", "胸部.png")),
    ],
)
def test_names_in_legacy_encodings_match_the_csv(tmp_path, encoding, names):
    folder = "images\\" if encoding == "cp437" else "images/"
    archive = legacy_zip(tmp_path / "films.zip", [(folder + name).encode(encoding) for name in names])
    labels = f"path,label\nimages/{names[0]},NORMAL\nimages/{names[1]},PNEUMONIA\n"
    assert fetched(tmp_path, archive, labels) == {
        (f"images/{names[0]}", "NORMAL", ""),
        (f"images/{names[1]}", "PNEUMONIA", ""),
    }


def test_names_of_a_tar_in_a_legacy_encoding_match_the_csv(tmp_path):
    archive = tmp_path / "films.tar.gz"
    with tarfile.open(archive, "w:gz", encoding="cp932", format=tarfile.GNU_FORMAT) as opened:
        for number, name in enumerate(("x/胸部表.png", "x/肺炎ソ.png")):
            info = tarfile.TarInfo(name)
            info.size = len(hubs.jpeg(number))
            opened.addfile(info, io.BytesIO(hubs.jpeg(number)))
    labels = "path,label\nx/胸部表.png,NORMAL\nx/肺炎ソ.png,PNEUMONIA\n"
    assert {film[0] for film in fetched(tmp_path, archive, labels)} == {"x/胸部表.png", "x/肺炎ソ.png"}
    assert "has a backslash" in refused(archive, tmp_path / "again")


def test_backslashes_in_a_zip_are_folders(tmp_path):
    archive = legacy_zip(tmp_path / "films.zip", [b"x\\NORMAL\\a.jpeg", b"x\\PNEUMONIA\\b.jpeg"])
    assert fetched(tmp_path, archive) == {("NORMAL/a.jpeg", "NORMAL", ""), ("PNEUMONIA/b.jpeg", "PNEUMONIA", "")}


@pytest.mark.parametrize("encoding", ["cp932", "gbk"])
def test_half_a_letter_is_no_folder(tmp_path, encoding):
    name = {"cp932": "表", "gbk": "淺"}[encoding].encode(encoding)
    assert name.endswith(b"\\")
    archive = legacy_zip(tmp_path / "films.zip", [b"NORMAL/" + name + b".png", b"PNEUMONIA/1.png"])
    assert "has a backslash" in refused(archive, tmp_path / "raw")


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    outside = build(tmp_path / "outside", "secret.jpeg", "more/film.jpeg")
    path = build(tmp_path / "films", "NORMAL/a.jpeg", "PNEUMONIA/b.jpeg")
    (path / "NORMAL/inside.jpeg").symlink_to(path / "NORMAL/a.jpeg")
    (path / "note.txt").symlink_to(tmp_path / "nothing")
    link = path / "NORMAL/out.jpeg"
    for target in (outside / "secret.jpeg", outside):
        link.symlink_to(target)
        line = refused(path, tmp_path / "raw")
        assert f"{link} is a link that leads out of {path}" in line
        assert "data.folder.follow_links: true" in line
        link.unlink()
    link.symlink_to(outside / "secret.jpeg")
    assert len(fetched(tmp_path, path, follow_links=True)) == 4


PUBLISHED = {
    "NIH": (
        [
            "images_001/images/00000001_000.png",
            "images_002/images/00000002_000.png",
            "images_002/images/00000003_001.png",
        ],
        "Image Index,Finding Labels,Follow-up #,Patient ID,OriginalImage[Width,Height],"
        "OriginalImagePixelSpacing[x,y],\n"
        "00000001_000.png,Cardiomegaly|Emphysema,0,1,2682,2749,0.143,0.143,\n"
        "00000002_000.png,No Finding,0,2,2894,2729,0.143,0.143,\n"
        "00000003_001.png,Infiltration|Pneumonia,1,3,2500,2048,0.168,0.168,\n"
        "00000004_000.png,No Finding,0,4,2500,2048,0.168,0.168,\n",
        {"path": "Image Index", "label": "Finding Labels", "patient": "Patient ID"},
        {"No Finding": "NORMAL"},
        {"images_002/images/00000002_000.png": "NORMAL", "images_002/images/00000003_001.png": "PNEUMONIA"},
        "1 rows of another label, 1 rows without film, 1 films without row",
    ),
    "RSNA": (
        ["stage_2_train_images/0004cfab.dcm", "stage_2_train_images/00436515.dcm"],
        "patientId,x,y,width,height,Target\n0004cfab,,,,,0\n00436515,264,152,213,379,1\n00436515,562,152,256,453,1\n",
        {"path": "patientId", "label": "Target", "patient": "patientId"},
        {0: "NORMAL", 1: "PNEUMONIA"},
        {"stage_2_train_images/0004cfab.dcm": "NORMAL", "stage_2_train_images/00436515.dcm": "PNEUMONIA"},
        "",
    ),
    "covid-chestxray-dataset": (
        ["images/a-1.jpeg", "images/b.png", "images/c.png"],
        "patientid,offset,finding,view,filename,doi,notes\n"
        '1,0,Pneumonia/Viral/COVID-19,PA,a-1.jpeg,10.1056,"one, two\nlines"\n'
        "2,,No Finding,PA,b.png,,\n3,,Tuberculosis,AP,c.png,,\n",
        {"path": "filename", "label": "finding", "patient": "PatientID"},
        {"No Finding": "NORMAL", "Pneumonia/Viral": "PNEUMONIA"},
        {"images/a-1.jpeg": "PNEUMONIA", "images/b.png": "NORMAL"},
        "1 rows of another label, 1 films without row",
    ),
    "COVIDx": (
        ["train/8ab3-1.png", "train/MIDRC-RICORD-1C-SITE2-000265-99793-1.png", "test/COVID(147).png"],
        "3 8ab3-1.png normal rsna\nSITE2-000265 MIDRC-RICORD-1C-SITE2-000265-99793-1.png COVID-19 ricord\n"
        "COVID_147 COVID(147).png COVID-19 sirm\n",
        {"patient": 1, "path": 2, "label": 3},
        {"COVID-19": "PNEUMONIA"},
        {
            "train/8ab3-1.png": "NORMAL",
            "train/MIDRC-RICORD-1C-SITE2-000265-99793-1.png": "PNEUMONIA",
            "test/COVID(147).png": "PNEUMONIA",
        },
        "",
    ),
    "PadChest, converted": (
        ["images/2168_00-088.jpg", "images/2168_00-089.jpg", "images/2169_01-001.jpg"],
        ",ImageID,PatientID,Labels\n0,2168_00-088.png,7,\"['normal']\"\n"
        "1,2168_00-089.png,7,\"['normal', ' pneumonia']\"\n"
        "2,2169_01-001.png,8,\"['scoliosis', 'normal']\"\n",
        {"path": "ImageID", "label": "Labels", "patient": "PatientID"},
        {},
        {"images/2168_00-088.jpg": "NORMAL", "images/2168_00-089.jpg": "PNEUMONIA"},
        "1 rows of another label, 1 films without row",
    ),
    "Actualmed": (
        ["images/CR.1.2.840.20200313.1003.png", "images/CR.1.2.840.20200317.1003.png"],
        "patientid,finding,imagename\n"
        "ANON196,,CR.1.2.840.20200313.1003.png\nANON56,No finding,CR.1.2.840.20200317.1003.png\n",
        {"path": "imagename", "label": "finding", "patient": "patientid"},
        {"No Finding": "NORMAL"},
        {"images/CR.1.2.840.20200317.1003.png": "NORMAL"},
        "1 rows of another label, 1 films without row",
    ),
    "CheXpert": (
        ["train/patient00001/study1/view1_frontal.jpg", "train/patient00002/study1/view1_frontal.jpg"],
        "Path,Sex,No Finding,Pneumonia\nCheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,F,1.0,\n"
        "CheXpert-v1.0-small/train/patient00002/study1/view1_frontal.jpg,F,,1.0\n",
        {"path": "Path", "label": "Pneumonia"},
        {"1": "PNEUMONIA"},
        {"train/patient00002/study1/view1_frontal.jpg": "PNEUMONIA"},
        "1 rows of another label, 1 films without row",
    ),
}


@pytest.mark.parametrize(("files", "table", "columns", "values", "expected", "said"), PUBLISHED.values(), ids=PUBLISHED)
def test_csvs_as_published(tmp_path, capsys, files, table, columns, values, expected, said):
    path = build(tmp_path / "films", *files)
    settings = {"columns": columns, "label_values": values}
    films = fetched(tmp_path, path, table, partial=bool(said), **settings)
    assert {film[0]: film[1] for film in films} == expected
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("left out by labels.csv: ")]
    assert told == ([f"left out by labels.csv: {said}"] if said else [])
    if said:
        line = refused(path, tmp_path / "again", tmp_path / "labels.csv", **settings)
        assert "data.folder.partial: true" in line


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("NORMAL", "NORMAL"),
        ("1", "PNEUMONIA"),
        ("1.0", "PNEUMONIA"),
        ("-1", ""),
        ("0|1", "PNEUMONIA"),
        ("0|x", ""),
        ("No finding", "NORMAL"),
        ("Pneumonia/Fungal/Pneumocystis", "PNEUMONIA"),
        ("Pneumonia/Aspiration", "NORMAL"),
        ("", ""),
        ("nan", ""),
        ("['No Finding']", "NORMAL"),
        ("['No Finding', 'scoliosis']", ""),
        ("Atelectasis; Pneumonia", "PNEUMONIA"),
    ],
)
def test_meanings_of_labels(value, expected):
    meanings = {0: "NORMAL", "1": "PNEUMONIA", "No Finding": "NORMAL", "Pneumonia/Aspiration": "NORMAL"}
    assert read_label(value, meanings) == expected


def test_other_columns_are_kept_with_the_films(tmp_path):
    path = build(tmp_path / "films", "a.png", "b.png", "c.png")
    table = tmp_path / "labels.csv"
    table.write_text(
        "Age,path,Sex,label,x,\n045Y,a.png,F,NORMAL,,\n,b.png,,PNEUMONIA,1,\n,b.png,,PNEUMONIA,2,\n=1+1,c.png,F,NORMAL,,\n"
    )
    (tmp_path / "raw").mkdir()
    films = describe_films(tmp_path / "raw", fetch(tmp_path / "raw", path, table)[0])
    assert films[["csv.age", "csv.sex", "csv.x"]].values.tolist() == [
        ["045Y", "F", ""],
        ["", "", "1|2"],
        ["=1+1", "F", ""],
    ]
    write_csv(tmp_path / "films.csv", films)
    assert read_films(tmp_path / "films.csv").equals(films), "text stays text"
    write_csv(tmp_path / "films.csv", films.rename(columns={"csv.x": "x"}))
    with pytest.raises(UserError, match="of another version"):
        read_films(tmp_path / "films.csv")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": 1}, "the first line has 3 values, of which 'label' is none"),
        ({"path": 1, "label": 4}, "the first line has 3 values, of which '4' is none"),
        ({"path": 1, "label": 2, "patient": "who"}, "of which 'who' is none"),
        ({}, "data.folder.columns other names for them, or numbers where the table has no header"),
    ],
)
def test_a_table_without_header_needs_numbers(tmp_path, columns, message):
    path, table = build(tmp_path / "films", "a.png"), tmp_path / "labels.txt"
    table.write_text("a.png NORMAL rsna\n")
    assert message in refused(path, tmp_path / "raw", table, columns=columns)


MEANINGS = {"COVID": "PNEUMONIA", "Viral Pneumonia": "PNEUMONIA", "0": "NORMAL", 1: "PNEUMONIA"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["COVID/images/1.png", "Normal/images/1.png", "Viral Pneumonia/images/1.png", "COVID/masks/1.png"],
            ["PNEUMONIA/COVID/images/1.png", "NORMAL/images/1.png", "PNEUMONIA/Viral Pneumonia/images/1.png"],
        ),
        (["x/train/0/a.png", "x/test/1/a.png"], ["train/NORMAL/0/a.png", "test/PNEUMONIA/1/a.png"]),
        (["PNEUMONIA/covid/1.png", "NORMAL/1.png"], ["PNEUMONIA/covid/1.png", "NORMAL/1.png"]),
    ],
)
def test_class_folders_of_other_names(tmp_path, names, expected):
    path = build(tmp_path / "films", *names)
    assert {film[0] for film in fetched(tmp_path, path, label_values=MEANINGS)} == set(expected)


def test_folders_of_other_classes_are_left_out_if_asked(tmp_path, capsys):
    path = build(tmp_path / "films", "COVID/1.png", "Normal/1.png", "Lung_Opacity/1.png", "Lung_Opacity/2.png")
    line = refused(path, tmp_path / "raw", label_values=MEANINGS)
    assert "cannot tell split and class of Lung_Opacity/1.png" in line
    assert "data.folder.label_values" in line
    assert len(fetched(tmp_path, path, label_values=MEANINGS, partial=True)) == 2
    assert "2 images outside the split and class folders" in capsys.readouterr().out
    path = build(tmp_path / "nested", "NORMAL/covid/1.png", "PNEUMONIA/1.png")
    assert "in a folder covid below its class folder" in refused(path, tmp_path / "again", label_values=MEANINGS)


PLAIN = "path,label\nimages/1.jpeg,NORMAL\nimages/2.jpeg,PNEUMONIA\n"


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.replace(",", ";").encode(),
        PLAIN.replace(",", "\t").encode(),
        PLAIN.encode("utf-16"),
        PLAIN.replace(",", "\t").encode("utf-16-le"),
        PLAIN.encode("utf-8-sig").replace(b"\n", b"\r\n"),
        PLAIN.replace("\n", "\r").encode(),
        b"sep=;\r\n" + PLAIN.replace(",", ";").replace("\n", "\r\n").encode(),
        gzip.compress(PLAIN.encode()),
        PLAIN.replace(",", " ").encode(),
        PLAIN.replace(",", "   ").encode(),
        ("\n\n" + PLAIN).encode(),
        PLAIN.replace("\n", ";3,5;a\n").replace(",", ";").replace("label;3;5;a", "label;age;x;y").encode(),
    ],
    ids=[
        "semicolon",
        "tab",
        "utf-16",
        "utf-16 without mark",
        "bom, windows",
        "old mac",
        "sep=",
        "gzip",
        "blank",
        "blanks",
        "empty lines",
        "other columns",
    ],
)
def test_csvs_as_programs_write_them(tmp_path, content):
    path = build(tmp_path / "films", "images/1.jpeg", "images/2.jpeg")
    assert fetched(tmp_path, path, content) == {("images/1.jpeg", "NORMAL", ""), ("images/2.jpeg", "PNEUMONIA", "")}


def test_a_path_that_fits_two_films_is_refused_and_a_mask_is_none(tmp_path):
    path = build(tmp_path / "films", "a/1.png", "b/1.png", "a/2.png", "masks/2.png")
    table = tmp_path / "labels.csv"
    table.write_text("path,label\n1.png,NORMAL\n2.png,NORMAL\n")
    assert "line 2: '1.png' may be a/1.png or b/1.png" in refused(path, tmp_path / "raw", table)
    table.write_text("path,label\na/1.png,NORMAL\nb/1.png,NORMAL\n2.png,NORMAL\n")
    assert {film[0] for film in fetched(tmp_path, path, table.read_text())} == {"a/1.png", "b/1.png", "a/2.png"}


def test_columns_that_are_not_there(tmp_path):
    path = build(tmp_path / "films", "1.png")
    table = tmp_path / "labels.csv"
    table.write_text("path,label\n1.png,NORMAL\n")
    line = refused(path, tmp_path / "raw", table, columns={"patient": "Patient ID"})
    assert "data.folder.columns" in line
    assert "'patient id' is missing" in line


def test_cases_of_folders(tmp_path, capsys):
    if not CASES.exists():
        pytest.skip("the cases are not beside the project")
    subprocess.run([sys.executable, CASES, tmp_path / "cases"], check=True)
    for name, films in (("masks", 16), ("backslash-zip", 6), ("names-of-films", 10)):
        source, raw = tmp_path / "cases" / name, tmp_path / name
        raw.mkdir()
        source = source / "films.zip" if name == "backslash-zip" else source
        table = describe_films(raw, fetch(raw, source)[0])
        assert len(table) == films
        assert (table.width > 0).all()
    assert "16 masks in" in capsys.readouterr().out
