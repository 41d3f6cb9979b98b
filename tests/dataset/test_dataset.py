import numpy as np
import pandas as pd
import pytest

from pulmo.base.errors import UserError
from pulmo.dataset.rows import describe_films, hash_data, open_images, read_rows


@pytest.fixture
def tables(tmp_path):
    paths = ["a/3.jpeg", "a/1.jpeg", "a/2.jpeg", "b/9.jpeg"]
    splits = pd.DataFrame(
        {
            "path": paths,
            "split": ["train", "train", "val", "train"],
            "label": ["PNEUMONIA", "NORMAL", "NORMAL", "PNEUMONIA"],
            "subtype": ["viral", "normal", "normal", "NA"],
            "patient": ["3", "01", "2", "9"],
        }
    )
    index = pd.DataFrame({"row": [0, 1, 2], "path": sorted(paths)[:3]})
    splits.to_csv(tmp_path / "splits.csv", index=False)
    index.to_csv(tmp_path / "index.csv", index=False)
    return tmp_path / "splits.csv", tmp_path / "index.csv"


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
    told = describe_films(images, train)
    assert {key: told[key] for key in ("films", "patients", "pneumonia")} == {"films": 2, "patients": 2, "pneumonia": 1}
    assert len(told["digest"]) == 16
    images[1] = 9  # the film of another split
    assert describe_films(images, train) == told
    assert describe_films(images, train.assign(patient="3"))["digest"] != told["digest"]
    images[2] = 9
    assert describe_films(images, train)["digest"] != told["digest"]
