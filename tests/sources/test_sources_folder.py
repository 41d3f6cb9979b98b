"""Films of one's own: layouts that are understood, and what everything else gets."""

import errno
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

import hubs
import numpy as np
import pytest
from PIL import Image
from small_project import run_stage, write_params

from pulmo.base.errors import UserError
from pulmo.base.files import whole_folder
from pulmo.images.manifest import describe_films
from pulmo.sources import SOURCES, folder, phantom
from pulmo.sources.common import layout
from pulmo.sources.folder import fetch

FILM = hubs.jpeg()


NO_FILMS = (".txt", ".csv", ".db", ".gz")


def build(root: Path, *names: str) -> Path:
    """A folder with these files, every one of them a film with bytes of its own, but for notes and the like."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"no film" if name.endswith(NO_FILMS) else hubs.jpeg(number))
    return root


def packed(source: Path, suffix: str) -> Path:
    """The folder as an archive beside it, the folder itself being its only top member."""
    archive = source.with_name(f"{source.name}{suffix}")
    if suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as opened:
            for path in sorted(source.rglob("*")):
                opened.write(path, path.relative_to(source.parent).as_posix())
    else:
        with tarfile.open(archive, "w:gz" if suffix == ".tar.gz" else "w") as opened:
            opened.add(source, source.name)
    return archive


def listed(films):
    return {(film.path, film.label, film.source_split) for film in films}


LAYOUTS = {
    # files, and what they become below data/raw
    "split/class": (
        ["train/NORMAL/a.jpeg", "val/PNEUMONIA/a.jpeg", "test/NORMAL/b.png"],
        ["train/NORMAL/a.jpeg", "val/PNEUMONIA/a.jpeg", "test/NORMAL/b.png"],
    ),
    "class": (["NORMAL/a.jpeg", "PNEUMONIA/a.jpeg"], ["NORMAL/a.jpeg", "PNEUMONIA/a.jpeg"]),
    "any case": (
        ["Train/normal/a.JPG", "TEST/Pneumonia/b.DCM"],
        ["train/NORMAL/a.JPG", "test/PNEUMONIA/b.DCM"],
    ),
    "other names of val": (
        ["train/NORMAL/a.jpg", "valid/NORMAL/a.jpg", "validation/NORMAL/b.jpg"],
        ["train/NORMAL/a.jpg", "val/NORMAL/a.jpg", "val/NORMAL/b.jpg"],
    ),
    "wrapped": (["export/chest_xray/train/NORMAL/a.tiff"], ["train/NORMAL/a.tiff"]),
    "wrapped in a folder named like a split": (["test/train/NORMAL/a.bmp"], ["train/NORMAL/a.bmp"]),
    "folders below the class": (
        ["NORMAL/ward 1/7/a.webp", "NORMAL/ward 2/7/a.webp", "NORMAL/a.webp"],
        ["NORMAL/ward 1/7/a.webp", "NORMAL/ward 2/7/a.webp", "NORMAL/a.webp"],
    ),
    "unicode": (["PNEUMONIA/größe 胸部.png", "NORMAL/e\u0301.png"], ["PNEUMONIA/größe 胸部.png", "NORMAL/é.png"]),
    "second copy and hidden files": (
        [
            "chest_xray/train/NORMAL/a.jpeg",
            "chest_xray/test/PNEUMONIA/b.jpeg",
            "chest_xray/chest_xray/train/NORMAL/a.jpeg",
            "chest_xray/chest_xray/test/PNEUMONIA/b.jpeg",
            "chest_xray/__MACOSX/train/NORMAL/._a.jpeg",
            "chest_xray/__MACOSX/train/NORMAL/a.jpeg",
            "chest_xray/train/NORMAL/._a.jpeg",
            "chest_xray/train/.hidden/NORMAL/c.jpeg",
            "chest_xray/train/.DS_Store",
        ],
        ["train/NORMAL/a.jpeg", "test/PNEUMONIA/b.jpeg"],
    ),
    "other files": (["NORMAL/a.jpeg", "NORMAL/Thumbs.db", "README.txt", "PNEUMONIA/list.csv"], ["NORMAL/a.jpeg"]),
}


@pytest.mark.parametrize("suffix", ["", ".zip", ".tar", ".tar.gz"])
@pytest.mark.parametrize(("files", "expected"), LAYOUTS.values(), ids=LAYOUTS)
def test_layouts(tmp_path, files, expected, suffix):
    path = build(tmp_path / "films", *files)
    if suffix:
        path = packed(path, suffix)
    raw = tmp_path / "raw"
    raw.mkdir()
    films, origin = fetch(raw, path)
    split = {name: name.split("/")[0] if name[0].islower() else "" for name in expected}
    assert listed(films) == {(name, "NORMAL" if "NORMAL" in name else "PNEUMONIA", split[name]) for name in expected}
    content = hubs.content_of(raw)
    assert set(content) == set(expected)
    assert set(content.values()) <= {hubs.jpeg(number) for number in range(len(files))}
    assert content[expected[0]] == hubs.jpeg(0)
    assert origin["name"] == path.name
    assert ("sha256" in origin) == bool(suffix)


def test_what_is_left_out_is_counted(tmp_path, capsys):
    path = build(
        tmp_path / "films", "train/NORMAL/a.jpeg", "x/train/NORMAL/a.jpeg", "cover.png", "a.txt", "train/b.csv"
    )
    fetch(tmp_path, path)
    said = capsys.readouterr().out
    assert f"2 images outside the split and class folders of {path} are left out" in said
    assert f"2 files of {path} that are no images are left out" in said


def test_no_progress_bar_where_nobody_looks(tmp_path, capfd):
    path = build(tmp_path / "films", "NORMAL/a.jpeg")
    for number, source in enumerate((path, packed(path, ".zip"))):
        (tmp_path / f"raw{number}").mkdir()
        describe_films(tmp_path / f"raw{number}", fetch(tmp_path / f"raw{number}", source)[0])
    phantom.fetch(tmp_path / "drawn", 60, 1)
    assert capfd.readouterr().err == ""


def test_films_of_ones_own_are_copied_never_linked(tmp_path):
    path = build(tmp_path / "films", "NORMAL/a.jpeg")
    (tmp_path / "raw").mkdir()
    fetch(tmp_path / "raw", path)
    assert not (tmp_path / "raw/NORMAL/a.jpeg").samefile(path / "NORMAL/a.jpeg")


def test_linked_folders_are_followed_but_not_in_circles(tmp_path):
    elsewhere = build(tmp_path / "elsewhere", "b.jpeg")
    path = build(tmp_path / "films", "NORMAL/a.jpeg", "PNEUMONIA/a.jpeg")
    (path / "PNEUMONIA" / "more").symlink_to(elsewhere)
    (path / "PNEUMONIA" / "circle").symlink_to(path)
    (path / "NORMAL" / "c.jpeg").symlink_to(elsewhere / "b.jpeg")
    (tmp_path / "raw").mkdir()
    fetch(tmp_path / "raw", path, follow_links=True)
    assert set(hubs.content_of(tmp_path / "raw")) == {
        "NORMAL/a.jpeg", "NORMAL/c.jpeg", "PNEUMONIA/a.jpeg", "PNEUMONIA/more/b.jpeg"
    }  # fmt: skip
    assert not (tmp_path / "raw/NORMAL/c.jpeg").is_symlink()


BAD_LAYOUTS = {
    "empty folder": ([], "holds no image"),
    "no images": (["NORMAL/a.txt", "NORMAL/b.dcm.gz"], "holds no image"),
    "hidden images alone": (["NORMAL/._a.jpeg", "__MACOSX/NORMAL/a.jpeg"], "holds no image"),
    "no folders": (["a.jpeg"], "no film is in a NORMAL or PNEUMONIA folder, a.jpeg for one"),
    "other classes alone": (
        ["COVID/a.jpeg", "healthy/b.jpeg"],
        "no film is in a NORMAL or PNEUMONIA folder, COVID/a.jpeg for one",
    ),
    "another class too": (["NORMAL/a.jpeg", "COVID/b.jpeg"], "cannot tell split and class of COVID/b.jpeg"),
    "another class in a split": (
        ["train/NORMAL/a.jpeg", "train/COVID/b.jpeg"],
        "cannot tell split and class of train/C",
    ),
    "a film beside the classes": (
        ["train/NORMAL/a.jpeg", "train/b.jpeg"],
        "cannot tell split and class of train/b.jpeg",
    ),
    "another split": (["train/NORMAL/a.jpeg", "holdout/NORMAL/b.jpeg"], "cannot tell split and class of holdout/"),
    "two sets": (["one/NORMAL/a.jpeg", "two/NORMAL/a.jpeg"], "holds several sets of films, one and two"),
    "splits and classes": (["train/NORMAL/a.jpeg", "NORMAL/b.jpeg"], "split folders and class folders side by side"),
    "class/split": (["NORMAL/train/a.jpeg"], "lies in a folder train below its class folder"),
    "class in a class": (["NORMAL/PNEUMONIA/a.jpeg"], "lies in a folder pneumonia below its class folder"),
    "same name after all": (["Normal/a.jpeg", "NORMAL/a.jpeg"], "would both become data/raw/NORMAL/a.jpeg"),
    "valid and val": (["val/NORMAL/a.jpeg", "valid/NORMAL/a.jpeg"], "would both become data/raw/val/NORMAL/a.jpeg"),
    "two spellings of an accent": (["NORMAL/é.png", "NORMAL/e\u0301.png"], "would both become data/raw/NORMAL/é.png"),
    "backslash in a name": (["NORMAL/a\\b.png"], "backslash"),
    "line break in a name": (["NORMAL/a\nb.png"], "control character"),
}


def refused(path: Path, raw: Path, labels: Path | None = None, **settings: object) -> str:
    """The line that a fetch ends with, and its hint behind it; nothing is left behind."""
    with pytest.raises(UserError) as caught, whole_folder(raw) as temporary:
        fetch(temporary, path, labels, **settings)
    assert not raw.exists()
    assert not list(raw.parent.glob(f".{raw.name}.*"))
    assert "\n" not in caught.value.message + caught.value.hint
    assert caught.value.hint
    return str(caught.value)


@pytest.mark.parametrize(("files", "says"), BAD_LAYOUTS.values(), ids=BAD_LAYOUTS)
def test_layouts_that_cannot_be_told(tmp_path, files, says):
    path = build(tmp_path / "films", *files)
    path.mkdir(exist_ok=True)
    line = refused(path, tmp_path / "raw")
    assert says in line
    assert str(path) in line or "data/raw" in line


def test_paths_that_are_no_source(tmp_path):
    assert "missing not found\n\nhint: correct data.folder.path" in refused(tmp_path / "missing", tmp_path / "raw")
    for name in ("films.rar", "film.jpeg", "films.7z"):
        (tmp_path / name).write_bytes(FILM)
        line = refused(tmp_path / name, tmp_path / "raw")
        assert f"{tmp_path / name} is neither a folder nor an archive (.zip, .tar" in line


@pytest.mark.parametrize("written", ["~/films", "$HOME/films", "${HOME}/films", "films"])
def test_path_of_ones_own_is_expanded(tmp_path, monkeypatch, written):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    (tmp_path / "labels.csv").write_text("path,label\nNORMAL/a.jpeg,NORMAL\n")
    build(tmp_path / "films", "NORMAL/a.jpeg")
    labels = written.replace("films", "labels.csv")
    write_params(tmp_path, {"data": {"source": "folder", "folder": {"path": written, "labels": labels}}})
    run_stage("download", tmp_path)
    assert (tmp_path / "data/raw/NORMAL/a.jpeg").exists()


@pytest.mark.parametrize(
    "where", ["data/raw", "data/raw/mine/films.zip", "link/mine", "$UNSET/films", "~no-such-user/films"]
)
def test_path_in_what_dvc_empties_or_that_is_not_there(tmp_path, monkeypatch, where):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    build(tmp_path / "data/raw/mine", "NORMAL/a.jpeg")
    (tmp_path / "link").symlink_to(tmp_path / "data/raw")
    write_params(tmp_path, {"data": {"source": "folder", "folder": {"path": where}}})
    with pytest.raises(SystemExit) as end:
        run_stage("download", tmp_path)
    if where.startswith(("$", "~")):
        line = f"{tmp_path / where} not found; correct data.folder.path in params.yaml (relative to the project's root)"
    else:
        line = f"data.folder.path: {tmp_path / where} lies in data/raw, which DVC empties before the stage runs; name "
    assert str(end.value.code).replace("\n\nhint: ", "; ").startswith(f"error: {line}")


def test_broken_links_and_pipes(tmp_path):
    path = build(tmp_path / "films", "NORMAL/a.jpeg")
    (path / "NORMAL" / "b.jpeg").symlink_to(tmp_path / "gone.jpeg")
    assert f"{path / 'NORMAL/b.jpeg'} is a broken link" in refused(path, tmp_path / "raw")
    (path / "NORMAL" / "b.jpeg").unlink()
    os.mkfifo(path / "NORMAL" / "b.jpeg")
    assert "no regular file" in refused(path, tmp_path / "raw")


def test_folder_that_cannot_be_read_is_not_passed_over(tmp_path):
    with pytest.raises(FileNotFoundError):
        layout.list_folder(tmp_path / "gone")


def test_name_that_is_not_unicode(tmp_path):
    path = build(tmp_path / "films", "NORMAL/a.jpeg")
    try:
        (path / "NORMAL" / os.fsdecode(b"\xff.jpeg")).write_bytes(FILM)
    except OSError:
        pytest.skip("this disk takes no such names")
    assert "not Unicode" in refused(path, tmp_path / "raw")


CSV_FILES = ["images/1.jpeg", "images/2.jpeg", "images/3.dcm", "readme.txt"]


@pytest.fixture
def own(tmp_path):
    return build(tmp_path / "films", *CSV_FILES)


def write(tmp_path: Path, text: str | bytes) -> Path:
    table = tmp_path / "labels.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    return table


@pytest.mark.parametrize(
    "text",
    [
        "path,label\nimages/1.jpeg,NORMAL\nimages/2.jpeg,PNEUMONIA\nimages/3.dcm,NORMAL\n",
        "\ufeffLabel, PATH \r\n normal ,./images/1.jpeg\r\nPneumonia,images\\2.jpeg\r\n\r\nNORMAL,images/3.dcm",
        'path,label\n"images/1.jpeg",NORMAL\nimages/2.jpeg,PNEUMONIA\nimages/3.dcm,NORMAL\n,\n',
    ],
    ids=["plain", "byte order mark, case, blanks, backslashes, line ends", "quotes, empty line"],
)
@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_labels_from_a_csv(tmp_path, own, text, suffix):
    path = own
    if suffix:
        path = packed(own, suffix)
        text = text.replace("./images", "images").replace("images", "films/images")
    (tmp_path / "raw").mkdir()
    films, _ = fetch(tmp_path / "raw", path, write(tmp_path, text))
    top = "films/" if suffix else ""
    assert listed(films) == {
        (f"{top}images/1.jpeg", "NORMAL", ""),
        (f"{top}images/2.jpeg", "PNEUMONIA", ""),
        (f"{top}images/3.dcm", "NORMAL", ""),
    }
    assert set(hubs.content_of(tmp_path / "raw")) == {film.path for film in films}


def test_csv_with_patients_and_splits(tmp_path, own):
    text = "path,label,patient,split\nimages/1.jpeg,NORMAL,p 1,train\nimages/2.jpeg,PNEUMONIA,p 1,Valid\n"
    (tmp_path / "raw").mkdir()
    films, _ = fetch(tmp_path / "raw", own, write(tmp_path, text + "images/3.dcm,NORMAL,p2,test\n"))
    assert [(film.patient, film.source_split) for film in films] == [("p 1", "train"), ("p 1", "val"), ("p2", "test")]
    table = describe_films(tmp_path / "raw", films, workers=1)
    assert list(table.patient) == ["csv-1", "csv-1", "csv-2"]
    assert set(table.patient_from) == {"csv"}
    assert list(table.subtype) == ["normal", "unknown", "normal"]


def test_csv_leaves_splits_to_the_folders_and_names_films_without_a_suffix(tmp_path):
    path = build(tmp_path / "films", "train/NORMAL/a.jpeg", "test/x/IM0001")
    text = "path,label\ntrain/NORMAL/a.jpeg,PNEUMONIA\ntest/x/IM0001,NORMAL\n"
    (tmp_path / "raw").mkdir()
    films, _ = fetch(tmp_path / "raw", path, write(tmp_path, text))
    assert listed(films) == {("train/NORMAL/a.jpeg", "PNEUMONIA", "train"), ("test/x/IM0001", "NORMAL", "test")}


GOOD = "images/1.jpeg,NORMAL\nimages/2.jpeg,NORMAL\n"
BAD_CSVS = {
    "empty": ("", "it must name the columns path,label"),
    "header alone": ("path,label\n", "names no film"),
    "no header": (GOOD, "it must name the columns"),
    "missing column": ("path,patient\nimages/1.jpeg,1\n", "the first line is 'path,patient'"),
    "column twice": ("path,label,label\nimages/1.jpeg,NORMAL,NORMAL\n", "the first line is 'path,label,label'"),
    "too few values": (f"path,label\n{GOOD}images/3.dcm\n", "line 4: 1 values for 2 columns"),
    "spreadsheet": ("PK\x03\x04 workbook", "labels.csv is a spreadsheet, no CSV\n\nhint: save it as CSV UTF-8"),
    "too many values": (f"path,label\n{GOOD}images/3.dcm,NORMAL,\n", "line 4: 3 values for 2 columns"),
    "missing file": (
        f"path,label\n{GOOD}images/9.jpeg,NORMAL\n",
        "line 4: there is no file 'images/9.jpeg'\n\nhint: correct the path or remove the line; the source "
        "holds for example 'images/1.jpeg'",
    ),
    "file without a line": (f"path,label\n{GOOD}", "has no line for images/3.dcm\n\nhint: add lines or remove"),
    "files without a line": ("path,label\nimages/3.dcm,NORMAL\n", "no line for images/1.jpeg and 1 more images"),
    "unknown label": ("path,label\nimages/1.jpeg,COVID\n", "line 2: label 'COVID' is neither NORMAL nor PNEUMONIA"),
    "empty label": ("path,label\nimages/1.jpeg,\n", "line 2: label '' is neither"),
    "number as label": ("path,label\nimages/1.jpeg,1\n", "line 2: label '1' is neither"),
    "path twice": (f"path,label\n{GOOD}./images/1.jpeg,NORMAL\n", "line 4: 'images/1.jpeg' is already named in line 2"),
    "path outside": ("path,label\n../secret.jpeg,NORMAL\n", "line 2: '../secret.jpeg' leaves the source's folder"),
    "absolute path": ("path,label\n/etc/passwd,NORMAL\n", "line 2: '/etc/passwd' leaves the source's folder"),
    "drive letter": (
        "path,label\nC:\\films\\1.jpeg,NORMAL\n",
        "line 2: 'C:\\\\films\\\\1.jpeg' leaves the source's folder",
    ),
    "empty path": (f"path,label\n{GOOD},NORMAL\n", "line 4: there is no file"),
    "unknown split": ("path,label,split\nimages/1.jpeg,NORMAL,holdout\n", "line 2: split 'holdout' is neither"),
    "split for some": (
        "path,label,split\nimages/1.jpeg,NORMAL,train\nimages/2.jpeg,NORMAL,\nimages/3.dcm,NORMAL,test\n",
        "images/2.jpeg has no split while others have",
    ),
    "patient for some": (
        "path,label,patient,split\nimages/1.jpeg,NORMAL,1,train\nimages/2.jpeg,NORMAL,,train\nimages/3.dcm,NORMAL,2,test\n",
        "images/2.jpeg has no patient while others have",
    ),
    "latin-1": ("path,label\ngrö.jpeg,NORMAL\n".encode("latin-1"), "is not UTF-8 text"),
    "line break in a path": (f'path,label\n{GOOD}"images/\n3.dcm",NORMAL\n', "there is no file 'images/\\n3.dcm'"),
    "unclosed quote": ('path,label\n"images/1.jpeg,NORMAL\n', "is not a readable CSV"),
}


@pytest.mark.parametrize(("text", "says"), BAD_CSVS.values(), ids=BAD_CSVS)
def test_csvs_that_do_not_fit(tmp_path, own, text, says):
    table = write(tmp_path, text)
    line = refused(own, tmp_path / "raw", table)
    assert says in line
    assert str(table) in line


def test_split_folder_for_some_films_alone(tmp_path):
    path = build(tmp_path / "films", "images/1.jpeg", "images/2.jpeg", "test/3.jpeg")
    line = refused(path, tmp_path / "raw", write(tmp_path, f"path,label\n{GOOD}test/3.jpeg,NORMAL\n"))
    assert "images/1.jpeg has no split while others have" in line


def test_names_and_folders_without_end_are_refused_at_once(tmp_path):
    path = build(tmp_path / "films", "NORMAL/a.jpeg", "PNEUMONIA/b.jpeg", f"NORMAL/{'d/' * 60}c.jpeg")
    assert "NORMAL/d/d is more than 50 folders deep" in refused(path, tmp_path / "raw")
    for name, says in {
        f"NORMAL/{'d/' * 2000}c.jpeg": "lies more than 50 folders deep",
        f"NORMAL/{'x' * 300}.jpeg": "has a name of more than 255 bytes, or 1,000 with its folders",
        f"NORMAL/{'é' * 200}.jpeg": "has a name of more than 255 bytes, or 1,000 with its folders",
    }.items():
        with zipfile.ZipFile(tmp_path / "films.zip", "w") as archive:
            archive.writestr(name, hubs.jpeg(0))
        line = refused(tmp_path / "films.zip", tmp_path / "raw")
        assert says in line
        assert len(line) < 600


def test_a_film_larger_than_any_is_refused_before_it_is_read(tmp_path):
    path = build(tmp_path / "films", "NORMAL/a.jpeg", "PNEUMONIA/b.jpeg")
    with (path / "NORMAL/c.jpeg").open("wb") as sparse:
        sparse.truncate(2**43)
    assert "NORMAL/c.jpeg holds more than 512 MB, which no film does" in refused(path, tmp_path / "raw")


def test_csv_that_is_not_there(tmp_path, own):
    assert "labels.csv not found\n\nhint: correct data.folder.labels" in refused(
        own, tmp_path / "raw", tmp_path / "labels.csv"
    )


def test_disk_without_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    path = build(tmp_path / "films", "NORMAL/a.jpeg")
    usage = layout.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(layout.shutil, "disk_usage", lambda _: usage._replace(free=10))
    line = refused(path, tmp_path / "raw")
    assert "the films need 0.0 GB" in line
    assert "0.0 GB free" in line


DISKS = {
    "full": errno.ENOSPC,
    "over quota": errno.EDQUOT,
    "read-only": errno.EROFS,
    "not mine": errno.EACCES,
    "failing": errno.EIO,
}


@pytest.mark.parametrize("suffix", ["", ".zip"])
@pytest.mark.parametrize("code", DISKS.values(), ids=DISKS)
def test_failing_disk_stays_an_os_error_and_leaves_nothing(tmp_path, monkeypatch, code, suffix):
    def fail(*_):
        raise OSError(code, os.strerror(code), "film")

    path = build(tmp_path / "films", "NORMAL/a.jpeg")
    monkeypatch.setattr(folder.shutil, "copyfileobj" if suffix else "copyfile", fail)
    raw = tmp_path / "raw"
    with pytest.raises(OSError, match=os.strerror(code)) as caught, whole_folder(raw) as temporary:
        fetch(temporary, packed(path, suffix) if suffix else path)
    assert caught.value.errno == code
    assert not raw.exists()
    assert not list(tmp_path.glob(".raw.*"))


def test_really_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    try:
        path = build(tmp_path / "films", *(f"NORMAL/{number}.jpeg" for number in range(40)))
        used = sum(file.stat().st_size for file in path.rglob("*.jpeg"))
        assert used < 64_000, "fits by its bytes, but not by the blocks that files take"
        with pytest.raises(OSError, match="No space left"), whole_folder(disk / "raw") as temporary:
            fetch(temporary, path)
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_sources_by_name(tmp_path):
    assert set(SOURCES) == {"phantom", "kaggle", "huggingface", "folder"}
    path = build(tmp_path / "films", "NORMAL/a.jpeg")
    films, origin = SOURCES["folder"](tmp_path, path=path, labels=None)
    assert listed(films) == {("NORMAL/a.jpeg", "NORMAL", "")}
    assert origin["source"] == "folder"


def test_phantom_by_name(tmp_path, monkeypatch):
    films, origin = SOURCES["phantom"](tmp_path / "drawn", films=60, seed=3)
    assert {film.path for film in films} == {path for patient in phantom.plan(60, 3) for path in patient.films}
    assert origin == {"source": "phantom", "films": "60", "seed": "3"}


def test_described_films(tmp_path):
    path = tmp_path / "films"
    for name in ("train/NORMAL/1.png", "train/PNEUMONIA/1.png", "test/PNEUMONIA/person7_bacteria_2.png"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((5, 7), len(name), np.uint8)).save(path / name)
    (path / "test/PNEUMONIA/broken.png").write_bytes(b"no image")
    (tmp_path / "raw").mkdir()
    films, _ = fetch(tmp_path / "raw", path)
    table = describe_films(tmp_path / "raw", films, workers=2)
    assert list(table.path) == sorted(film.path for film in films)
    assert list(table.width) == [0, 7, 7, 7]
    assert list(table.subtype) == ["unknown", "bacterial", "normal", "unknown"]
    patients = dict(zip(table.path, table.patient, strict=True))
    assert patients["train/NORMAL/1.png"] != patients["train/PNEUMONIA/1.png"], "one name, but not one child"
    assert patients["test/PNEUMONIA/person7_bacteria_2.png"] == "bacteria-7"


@pytest.mark.real
def test_the_real_films(shared, tmp_path):
    films, origin = fetch(tmp_path, shared / "xrays" / "originals.zip")
    assert origin == {
        "source": "folder",
        "name": "originals.zip",
        "sha256": "390281b3f1b3320324105d5b4b8f2f8e23a123a6f37c56c62d35659780285c05",
    }
    table = describe_films(tmp_path, films)
    assert table.groupby("label").size().to_dict() == {"NORMAL": 36, "PNEUMONIA": 104}
    assert set(table["mode"]) == {"L", "RGB"}
    assert (table.width > 224).all()
    assert set(table.source_split) == {"train"}
