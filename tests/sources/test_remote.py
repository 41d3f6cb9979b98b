"""Films in a bucket, read in place: against an S3 service on loopback."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from film_files import encode
from PIL import Image

from pulmo.base.errors import UserError
from pulmo.dataset import preprocessing
from pulmo.dataset.preprocessing import process_films
from pulmo.films.places import refuse_changed
from pulmo.films.remote import source_folder
from pulmo.images.film_store import FilmStore
from pulmo.images.manifest import describe_films
from pulmo.sources.folder import fetch

ADDRESS = "s3://films/hospital"
NAMES = [f"{split}/{label}/{number}.jpeg" for split in ("train", "test") for label in ("NORMAL", "PNEUMONIA")
         for number in range(6)]  # fmt: skip


def film(number: int) -> bytes:
    coarse = np.random.default_rng(number).integers(0, 256, (6, 6), dtype=np.uint8)
    return encode(Image.fromarray(coarse).resize((60, 50)), "JPEG")


@pytest.fixture(scope="module")
def service() -> Iterator[Any]:
    """A client of an S3 service with the bucket `films`, which the environment names as everybody's."""
    pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    server_of = pytest.importorskip("moto.server", reason="moto of the dev extra is not installed").ThreadedMotoServer
    import boto3
    from botocore.config import Config

    server = server_of("127.0.0.1", 0)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(key, "any")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        client = boto3.client(
            "s3", config=Config(retries={"total_max_attempts": 10}, read_timeout=300)
        )  # busy machines
        client.create_bucket(Bucket="films")
        yield client
    server.stop()


@pytest.fixture
def bucket(service: Any, tmp_path: Path) -> Any:
    """The client, with the same films in the bucket and in tmp_path/hospital, and what is no film beside them."""
    for number, name in enumerate((*NAMES, "train/NORMAL/._0.jpeg", "notes.txt")):
        content = film(number) if name in NAMES else b"text"
        service.put_object(Bucket="films", Key=f"hospital/{name}", Body=content)
        (tmp_path / "hospital" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "hospital" / name).write_bytes(content)
    (tmp_path / "raw").mkdir()
    (tmp_path / "copies").mkdir()
    return service


def describe(raw: Path) -> pd.DataFrame:
    return describe_films(raw, fetch(raw, source_folder(ADDRESS, "path"), in_place=True)[0])


def test_films_of_a_bucket_are_those_of_a_folder(bucket, tmp_path, monkeypatch):
    raw, copies = tmp_path / "raw", tmp_path / "copies"
    films = describe(raw)
    pd.testing.assert_frame_equal(films, describe_films(copies, fetch(copies, tmp_path / "hospital")[0]))
    refuse_changed(raw, films)
    monkeypatch.setattr(preprocessing, "FILMS_PER_WORKER", 10)
    for place in (raw, copies):
        assert process_films(place, films, FilmStore(32, "pad"), 2, 0, tmp_path / place.name / "out").films == 24
    arrays = [np.load(place / "out/images.npy") for place in (raw, copies)]
    np.testing.assert_array_equal(*arrays)


def test_a_film_that_changed_or_is_gone_is_named_by_its_address(bucket, tmp_path):
    films = describe(tmp_path / "raw")
    bucket.put_object(Bucket="films", Key=f"hospital/{NAMES[0]}", Body=film(99) + b"longer")
    bucket.delete_object(Bucket="films", Key=f"hospital/{NAMES[1]}")
    with pytest.raises(UserError) as caught:
        refuse_changed(tmp_path / "raw", films)
    assert f"{ADDRESS}/{NAMES[0]} has changed; {ADDRESS}/{NAMES[1]} is not there" in caught.value.message


@pytest.mark.parametrize(
    ("address", "in_place", "message"),
    [
        ("s3://films/nowhere", True, "s3://films/nowhere holds no image"),
        ("s3://no-such-bucket/x", True, "s3://no-such-bucket/x"),
        (ADDRESS, False, "hospital is read in place alone\n\nhint: set data.folder.in_place: true"),
        ("ftp://films/x", True, "data.folder.path: ftp://films/x is no address that can be read here"),
    ],
)
def test_a_wrong_address_is_one_clear_line(address, in_place, message, bucket, tmp_path):
    with pytest.raises((UserError, FileNotFoundError), match=message):
        fetch(tmp_path / "raw", source_folder(address, "data.folder.path"), in_place=in_place)


def test_a_service_that_refuses_or_does_not_answer_is_one_clear_line(bucket, tmp_path, monkeypatch):
    from pulmo.films import remote

    monkeypatch.setattr(remote, "_system", remote._make_system.__wrapped__.__get__(0))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(
        UserError, match=rf"{ADDRESS} cannot be read \(.*\n\nhint: check the address, the network, AWS_"
    ):
        describe(tmp_path / "raw")
