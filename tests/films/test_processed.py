import numpy as np
import pandas as pd
import pytest

from pulmo.base.errors import UserError
from pulmo.films.rows.processed import hash_data, open_images, read_rows, summarise_films


@pytest.fixture
def tables(tmp_path):
    paths = ["a/3.jpeg", "a/1.jpeg", "a/2.jpeg", "b/9.jpeg"]
    splits = pd.DataFrame(
        {
            "path": paths,
            "split": ["train", "train", "val", "train"],
            "label": ["PNEUMONIA", "NORMAL", "NORMAL", "PNEUMONIA"],
            "subtype": ["viral", "normal", "normal", "unknown"],
            "patient": ["3", "01", "2", "NA"],
        }
    )
    index = pd.DataFrame({"row": [0, 1, 2], "path": sorted(paths)[:3]})
    splits.to_csv(tmp_path / "splits.csv", index=False)
    index.to_csv(tmp_path / "index.csv", index=False)
    (tmp_path / "rejected.csv").write_text("path,reason\nb/9.jpeg,the file is empty\n")
    np.save(tmp_path / "images.npy", np.zeros((3, 8, 8), np.uint8))
    return tmp_path / "splits.csv", tmp_path / "index.csv"


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("splits.csv", ",PNEUMONIA,viral", ",PNEUMONIQ,viral", "splits.csv, line 2: label PNEUMONIQ cannot be"),
        ("splits.csv", "a/1.jpeg,train", "a/1.jpeg,training", "splits.csv, line 3: split training cannot be"),
        ("splits.csv", "a/1.jpeg", "a/3.jpeg", "splits.csv, line 3: path a/3.jpeg cannot be"),
        ("splits.csv", "a/1.jpeg", "../1.jpeg", "splits.csv, line 3: path ../1.jpeg cannot be"),
        ("splits.csv", "viral", "vital", "splits.csv, line 2: subtype vital cannot be"),
        ("splits.csv", ",NA", ",", "splits.csv, line 5: patient  cannot be"),
        ("splits.csv", "subtype", "type", "splits.csv is missing, damaged or of another version"),
        ("index.csv", "2,a/3.jpeg\n", "", "index.csv lists 2 films, but images.npy holds 3"),
        ("index.csv", "2,a", "7,a", "index.csv, line 4: row 7 cannot be"),
        ("index.csv", "2,a", "1,a", "index.csv, line 4: row 1 cannot be"),
        ("index.csv", "2,a", "2.5,a", "index.csv is missing, damaged or of another version"),
        ("index.csv", "a/3.jpeg", "a/2.jpeg", "index.csv, line 4: path a/2.jpeg cannot be"),
        ("index.csv", "a/3.jpeg", "a/4.jpeg", "index.csv has no row for a/3.jpeg, which was not rejected either"),
        (
            "rejected.csv",
            "b/9.jpeg,the file is empty\n",
            "",
            "index.csv has no row for b/9.jpeg, which was not rejected",
        ),
        ("rejected.csv", "reason", "why", "rejected.csv is missing, damaged or of another version"),
    ],
)
def test_tables_are_not_believed(tables, tmp_path, file, old, new, message):
    content = (tmp_path / file).read_text()
    assert old in content
    (tmp_path / file).write_text(content.replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        read_rows(*tables, "train")
    assert caught.value.message.startswith(str(tmp_path / message))
    assert caught.value.hint.startswith("run `dvc repro ")


def test_an_array_of_fewer_films_than_the_index_is_refused(tables, tmp_path):
    np.save(tmp_path / "images.npy", np.zeros((2, 8, 8), np.uint8))
    with pytest.raises(UserError, match=r"lists 3 films, but images\.npy holds 2"):
        read_rows(*tables, "val")


def test_rows_lead_to_the_films_of_the_split(tables):
    train = read_rows(*tables, "train")
    assert train.path.tolist() == ["a/1.jpeg", "a/3.jpeg"]  # b/9.jpeg was rejected and has no row
    assert train.row.tolist() == [0, 2]
    assert train.target.tolist() == [0, 1]
    assert train.patient.tolist() == ["01", "3"]
    assert read_rows(*tables, "val").row.tolist() == [1]


def test_a_split_without_films_is_an_error(tables):
    with pytest.raises(UserError, match=r"splits\.csv has no film in split test"):
        read_rows(*tables, "test")


def test_images_are_memory_mapped(tmp_path):
    array = np.arange(2 * 8 * 8, dtype=np.uint8).reshape(2, 8, 8)
    np.save(tmp_path / "images.npy", array)
    images = open_images(tmp_path / "images.npy")
    assert isinstance(images, np.memmap)
    assert np.array_equal(images, array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not found"),
        (b"", "not a whole NumPy array"),
        (b"not an array at all", "not a whole NumPy array"),
        (np.zeros((2, 8, 8)), "holds float64"),
        (np.zeros((2, 8, 9), dtype=np.uint8), r"instead of uint8 \(films, size, size\)"),
        (np.zeros(8, dtype=np.uint8), r"holds uint8 \(8,\)"),
        (np.array([{}]), "not a whole NumPy array"),
    ],
)
def test_a_bad_array_is_one_line_that_names_the_file(tmp_path, content, message):
    file = tmp_path / "images.npy"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        np.save(file, content, allow_pickle=True)
    with pytest.raises(UserError, match=rf"images\.npy.*{message}"):
        open_images(file)


def test_a_truncated_array_is_refused(tmp_path):
    file = tmp_path / "images.npy"
    np.save(file, np.zeros((4, 8, 8), dtype=np.uint8))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="not a whole NumPy array"):
        open_images(file)


def test_the_hash_follows_contents_and_order(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("1")
    second.write_text("2")
    known = hash_data(first, second)
    assert known == hash_data(first, second)
    assert known != hash_data(second, first)
    second.write_text("3")
    assert known != hash_data(first, second)


def test_films_are_told_apart_by_pixels_labels_and_patients(tables):
    images, train = np.zeros((3, 4, 4), np.uint8), read_rows(*tables, "train")
    told = summarise_films(images, train)
    assert {key: told[key] for key in ("films", "patients", "pneumonia")} == {"films": 2, "patients": 2, "pneumonia": 1}
    assert len(told["digest"]) == 16
    images[1] = 9  # the film of another split
    assert summarise_films(images, train) == told
    assert summarise_films(images, train.assign(patient="3"))["digest"] != told["digest"]
    images[2] = 9
    assert summarise_films(images, train)["digest"] != told["digest"]
