"""Films that are read where they lie: listed, found, and named where they are no longer what they were."""

import os
import shutil
from pathlib import Path

import hubs
import pandas as pd
import pytest

from pulmo.base.errors import UserError
from pulmo.base.files import write_csv
from pulmo.films.places import LIST, find_films, list_changed, read_places, refuse_changed
from pulmo.films.rows.table import Film
from pulmo.images.manifest import describe_films
from pulmo.sources.folder import fetch

NAMES = ("NORMAL/a.jpeg", "NORMAL/deep/b.jpeg", "PNEUMONIA/c.jpeg", "PNEUMONIA/d.jpeg")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of four films."""
    for number, name in enumerate(NAMES):
        file = tmp_path / "own films" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(hubs.jpeg(number))
    return tmp_path / "own films"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def describe(raw: Path, own: Path) -> pd.DataFrame:
    return describe_films(raw, fetch(raw, own, in_place=True)[0], workers=1)


def test_the_table_is_that_of_copies_and_nothing_is_copied(own, raw, tmp_path):
    in_place = describe(raw, own)
    (tmp_path / "copies").mkdir()
    copied = describe_films(tmp_path / "copies", fetch(tmp_path / "copies", own)[0], workers=1)
    pd.testing.assert_frame_equal(in_place, copied)
    assert [file.name for file in raw.rglob("*")] == [LIST]
    assert find_films(raw, in_place.path) == [own / path for path in in_place.path]
    assert find_films(tmp_path / "copies", copied.path) == [tmp_path / "copies" / path for path in copied.path]
    places = read_places(raw)
    assert places[NAMES[0]].bytes == (own / NAMES[0]).stat().st_size
    assert places[NAMES[0]].modified == (own / NAMES[0]).stat().st_mtime_ns


def test_what_has_changed_or_is_gone_is_named(own, raw):
    films = describe(raw, own)
    refuse_changed(raw, films)
    (own / NAMES[0]).write_bytes(hubs.jpeg(9))
    (own / NAMES[2]).unlink()
    with pytest.raises(UserError) as caught:
        refuse_changed(raw, films)
    assert caught.value.message == (
        f"2 of 4 films are not as they were: {own / NAMES[0]} has changed; {own / NAMES[2]} is not there"
    )
    assert "dvc repro --force download" in caught.value.hint


def test_another_time_of_the_same_content_is_no_change(own, raw):
    films = describe(raw, own)
    os.utime(own / NAMES[0])
    assert list_changed(read_places(raw), films) == []
    spoiled = bytearray((own / NAMES[0]).read_bytes())
    spoiled[-1] ^= 1
    (own / NAMES[0]).write_bytes(spoiled)
    assert list_changed(read_places(raw), films) == [NAMES[0]]


def test_many_changed_films_are_counted(own, raw):
    for number in range(20):
        shutil.copy(own / NAMES[0], own / f"NORMAL/{number}.jpeg")
    films = describe(raw, own)
    shutil.rmtree(own / "NORMAL")
    with pytest.raises(UserError, match=r"22 of 24 films .*; and 12 more"):
        refuse_changed(raw, films)


def test_a_csv_and_names_as_people_have_them(own, raw, tmp_path):
    (own / "NORMAL/=cmd é.jpeg").write_bytes(hubs.jpeg(7))
    (tmp_path / "labels.csv").write_text("path,label\n=cmd é.jpeg,NORMAL\nc.jpeg,PNEUMONIA\n", encoding="utf-8")
    listed, _ = fetch(raw, own, tmp_path / "labels.csv", partial=True, in_place=True)
    assert find_films(raw, [film.path for film in listed]) == [own / "NORMAL/=cmd é.jpeg", own / "PNEUMONIA/c.jpeg"]


def test_an_archive_cannot_be_read_in_place(own, raw, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "films"), "zip", own)
    with pytest.raises(UserError, match=r"films\.zip is no folder.*\n\nhint: unpack it, or set data.folder.in_place"):
        fetch(raw, Path(archive), in_place=True)


def test_a_damaged_list_is_one_clear_line(own, raw):
    films = describe(raw, own)
    write_csv(raw / LIST, pd.DataFrame({"path": ["a"], "file": ["b"], "bytes": [1], "modified": [2]}))
    with pytest.raises(UserError, match=f"{LIST} does not list NORMAL/a.jpeg"):
        find_films(raw, films.path)
    (raw / LIST).write_text("path\n")
    with pytest.raises(UserError, match=f"{LIST} is missing, damaged or of another version"):
        find_films(raw, films.path)
    assert set(films.columns) == set(Film.__annotations__)
