"""Kaggle's source, through the real client, against a server on the loopback."""

import zipfile

import hubs
import pytest

from pulmo.sources import kaggle
from pulmo.sources.common.layout import Placed
from pulmo.sources.kaggle import COUNTS

MIRROR = "hospital/films/versions/2"  # any handle but the published one: no counts are known of it
OFFICIAL = f"{hubs.KAGGLE}/versions/2"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    client = hubs.Client(tmp_path_factory.mktemp("home"), {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "no_proxy": ""})
    yield client
    client.close()


@pytest.fixture
def hub():
    with hubs.served(hubs.KaggleAnswers) as server:
        server.files["archive"] = hubs.zipped(hubs.kaggle_tree(hubs.films()))
        yield server


@pytest.fixture
def fetch(client, hub, tmp_path):
    def fetch(handle=MIRROR, **environment):
        settings = {"http_proxy": f"http://127.0.0.1:{hub.port}", "KAGGLEHUB_CACHE": str(tmp_path / "cache")}
        return client.fetch("kaggle", {"handle": handle}, tmp_path / "raw", **(settings | environment))

    return fetch


def test_complete_download(fetch, hub, tmp_path):
    answer = fetch()
    assert hubs.content_of(tmp_path / "raw") == hubs.films()
    assert sorted(answer["listed"]) == [[path, path.split("/")[1], path.split("/")[0]] for path in sorted(hubs.films())]
    assert answer["origin"] == {"source": "kaggle", "handle": MIRROR, "version": "2"}
    cached = tmp_path / "cache/datasets/hospital/films/versions/2/chest_xray/test/NORMAL/IM-0009-0001.jpeg"
    assert cached.samefile(tmp_path / "raw/test/NORMAL/IM-0009-0001.jpeg"), "a hard link, not a second copy on the disk"


def test_the_newest_version_is_recorded_when_none_is_asked_for(fetch):
    assert fetch("hospital/films")["origin"] == {"source": "kaggle", "handle": "hospital/films", "version": "2"}


def test_the_cache_serves_a_second_fetch_without_the_network(fetch, hub):
    first = fetch()
    hub.log.clear()
    assert fetch() == first
    assert hub.log == []


def test_films_are_copied_where_links_are_impossible(monkeypatch, tmp_path):
    def refuse(source, target):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(kaggle.os, "link", refuse)
    (tmp_path / "a.jpeg").write_bytes(b"film")
    kaggle._place(tmp_path, Placed("a.jpeg", "train", "NORMAL", "a.jpeg"), tmp_path / "raw")
    assert hubs.content_of(tmp_path / "raw") == {"train/NORMAL/a.jpeg": b"film"}


def test_a_film_is_never_written_into_another(tmp_path):
    for name in ("a.jpeg", "b.jpeg"):
        (tmp_path / name).write_bytes(name.encode())
    kaggle._place(tmp_path, Placed("a.jpeg", "train", "NORMAL", "a.jpeg"), tmp_path / "raw")
    with pytest.raises(FileExistsError):
        kaggle._place(tmp_path, Placed("b.jpeg", "train", "NORMAL", "a.jpeg"), tmp_path / "raw")
    assert (tmp_path / "a.jpeg").read_bytes() == b"a.jpeg"


def test_full_disk_is_not_called_a_lost_connection(monkeypatch, tmp_path):
    def fill(handle):
        raise OSError(28, "No space left on device", "2.archive")

    monkeypatch.setattr("kagglehub.dataset_download", fill)
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    with pytest.raises(OSError, match="No space left") as caught:
        kaggle.fetch(tmp_path, MIRROR)
    assert caught.value.errno == 28


@pytest.mark.parametrize("checksums", [True, False])
def test_interrupted_download_resumes(fetch, hub, tmp_path, checksums):
    hub.checksums = checksums
    hub.files["archive"] = hubs.zipped({"chest_xray/notes.pdf": bytes(3 << 20)} | hubs.kaggle_tree(hubs.films()))
    hub.cuts = [5 << 19]
    answer = fetch()
    assert "Kaggle, dataset hospital/films/versions/2: no connection, or it broke off" in answer["error"]
    assert not (tmp_path / "raw").exists()
    assert len(fetch()["listed"]) == 12
    assert hub.ranges_asked() == [f"bytes={2 << 20}-"], "what the client had written to the disk, in whole chunks"
    assert hubs.content_of(tmp_path / "raw") == hubs.films()


def test_interrupted_download_restarts_where_ranges_are_not_served(fetch, hub, tmp_path):
    hub.ranges = False
    hub.cuts = [1000]
    assert "run `dvc repro` again" in fetch()["error"]
    assert len(fetch()["listed"]) == 12
    assert hubs.content_of(tmp_path / "raw") == hubs.films()


def test_killed_in_the_middle_of_a_download(hub, tmp_path, fetch):
    hub.cuts = [2000]
    hub.stall.set()
    doomed = hubs.Client(tmp_path / "home", {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "no_proxy": ""})
    cache = tmp_path / "cache"
    proxy = f"http://127.0.0.1:{hub.port}"
    doomed.ask("kaggle", {"handle": MIRROR}, tmp_path / "raw", http_proxy=proxy, KAGGLEHUB_CACHE=str(cache))
    partial = cache / "datasets/hospital/films/2.archive"
    while not partial.exists():
        assert doomed.process.poll() is None
    doomed.process.kill()
    doomed.process.wait()
    hub.stall.clear()
    assert len(fetch()["listed"]) == 12
    assert hubs.content_of(tmp_path / "raw") == hubs.films()


BAD = {
    # what happens: (statuses, cuts, environment, what the one line says)
    "wrong credentials": ([401], {"KAGGLE_API_TOKEN": "wrong"}, ["HTTP 401", "KAGGLE_API_TOKEN", "data.kaggle.handle"]),
    "forbidden": ([403], {}, ["HTTP 403", "public datasets need no credentials", "data.kaggle.handle"]),
    "missing dataset": ([404], {}, ["not found (HTTP 404)", "correct data.kaggle.handle in params.yaml"]),
    "too many requests": ([429], {}, ["HTTP 429", "in some minutes"]),
    "hub in trouble": ([503], {}, ["HTTP 503", "later", "data.source: folder"]),
    "no network": (
        [],
        {"http_proxy": "http://127.0.0.1:9"},
        ["no connection", "data.source: folder", "data.folder.path"],
    ),
}


@pytest.mark.parametrize(("statuses", "environment", "says"), BAD.values(), ids=BAD)
def test_one_line_that_says_what_to_do(fetch, hub, tmp_path, statuses, environment, says):
    hub.statuses = statuses
    answer = fetch(**environment)
    assert answer["kind"] == "UserError"
    assert "\n" not in answer["error"]
    assert "hospital/films/versions/2" in answer["error"]
    for words in says:
        assert words in answer["error"]
    assert not (tmp_path / "raw").exists()
    if "http_proxy" not in environment:
        assert len(fetch(KAGGLE_API_TOKEN="")["listed"]) == 12, "the next attempt is not spoilt by this one"


def test_credentials_file_that_is_no_json(fetch, tmp_path):
    (tmp_path / "kaggle.json").write_text("{")
    answer = fetch(KAGGLE_CONFIG_DIR=str(tmp_path))
    fetch(KAGGLE_CONFIG_DIR="")
    assert "Invalid Kaggle credentials file" in answer["error"]
    assert str(tmp_path / "kaggle.json") in answer["error"]


@pytest.mark.parametrize("damage", ["bad checksum", "html", "bad crc", "cut short"])
def test_damaged_archive_is_deleted_and_fetched_anew(fetch, hub, tmp_path, damage):
    whole = hub.files["archive"]
    if damage == "bad checksum":
        hub.cuts = [1000]  # what is resumed from belongs to another file
        assert "error" in fetch()
        partial = tmp_path / "cache/datasets/hospital/films/2.archive"
        partial.write_bytes(b"x" * 1000)
    else:
        hub.checksums = False
        spoilt = whole.replace(hubs.jpeg(3), hubs.jpeg(3)[:-9] + b"\0\0\0\0\0\0\0\0\0")
        hub.files["archive"] = {"html": b"<html>log in</html>", "bad crc": spoilt, "cut short": whole[:-300]}[damage]
    answer = fetch()
    assert "damaged or no archive and was deleted" in answer["error"]
    assert "\n" not in answer["error"]
    assert not (tmp_path / "raw").exists()
    hub.files["archive"] = whole
    assert len(fetch()["listed"]) == 12
    assert hubs.content_of(tmp_path / "raw") == hubs.films()


@pytest.mark.slow
def test_counts_of_the_published_dataset(fetch, hub, tmp_path):
    hub.files["archive"] = hubs.zipped(hubs.many((f"chest_xray/{name}", count) for name, count in COUNTS.items()))
    answer = fetch(OFFICIAL)
    assert len(answer["listed"]) == 5216 + 16 + 624
    assert [film[2] for film in answer["listed"]].count("train") == 5216


def test_counts_that_differ_are_named(fetch, hub, tmp_path):
    counts = {"train/NORMAL": 2, "train/PNEUMONIA": 3, "val/NORMAL": 8, "val/PNEUMONIA": 9}
    hub.files["archive"] = hubs.zipped(hubs.kaggle_tree(hubs.many(counts.items())))
    answer = fetch(OFFICIAL)
    assert "train/NORMAL: expected 1,341, found 2; train/PNEUMONIA: expected 3,875, found 3; val/PN" in answer["error"]
    assert "val/PNEUMONIA: expected 8, found 9; test/NORMAL: expected 234, found 0; test/PNEUMONIA" in answer["error"]
    assert "val/NORMAL" not in answer["error"]
    assert f"delete {tmp_path / 'cache'}" in answer["error"]
    assert not (tmp_path / "raw").exists()


@pytest.mark.real
@pytest.mark.slow
def test_the_real_films_in_kaggles_tree(fetch, hub, shared, tmp_path):
    with zipfile.ZipFile(shared / "xrays" / "kermany224.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpeg")]
        real = {name.removeprefix("chest_xray/"): archive.read(name) for name in names}
    hub.files["archive"] = hubs.zipped(hubs.kaggle_tree(real))
    hub.cuts = [30_000_000]
    assert "no connection, or it broke off" in fetch(OFFICIAL)["error"]
    answer = fetch(OFFICIAL)
    assert len(answer["listed"]) == 5856
    assert hub.ranges_asked() == [f"bytes={28 << 20}-"]
    assert hubs.content_of(tmp_path / "raw") == real
