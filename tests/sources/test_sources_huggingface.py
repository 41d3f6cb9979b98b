"""Hugging Face's source, through the real client, against a server on the loopback."""

import hashlib
import io
import zipfile

import hubs
import pytest

from pulmo.sources import huggingface
from pulmo.sources.huggingface import COUNTS

ZIPS = ("data/train.zip", "data/valid.zip", "data/test.zip")


@pytest.fixture(scope="module")
def hub_and_client(tmp_path_factory):
    with hubs.served(hubs.HuggingFaceAnswers) as server:
        environment = {"HF_ENDPOINT": f"http://127.0.0.1:{server.port}"}
        client = hubs.Client(tmp_path_factory.mktemp("home"), environment)
        yield server, client
        client.close()


@pytest.fixture
def hub(hub_and_client):
    server, _ = hub_and_client
    server.spoilt.clear()
    server.__dict__.update(
        files=hubs.roboflow_zips(hubs.films()), statuses=[], cuts=[], log=[], expands=True, commit=hubs.COMMIT
    )
    return server


@pytest.fixture
def fetch(hub_and_client, hub, tmp_path, request):
    # the client's cache is fixed when it starts; a repository per test keeps tests apart
    own = "hospital/" + hashlib.md5(request.node.name.encode()).hexdigest()

    def fetch(repo=own, revision=hubs.COMMIT[:7], **environment):
        settings = {"repo": repo, "revision": revision}
        return hub_and_client[1].fetch("huggingface", settings, tmp_path / "raw", **environment)

    return fetch


def plain(content):
    """Files by split, class and the first half of their name."""
    return {name.split("_jpeg.rf.")[0]: data for name, data in content.items()}


def expected():
    return {name.removesuffix(".jpeg"): data for name, data in hubs.films().items()}


def train_members():
    with zipfile.ZipFile(io.BytesIO(hubs.roboflow_zips(hubs.films())["data/train.zip"])) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("revision", [hubs.COMMIT, hubs.COMMIT[:7], "main"])
def test_complete_download(fetch, hub, tmp_path, revision):
    answer = fetch(revision=revision)
    content = hubs.content_of(tmp_path / "raw")
    assert plain(content) == expected()
    assert all("_jpeg.rf." in name and name.endswith(".jpg") for name in content), "names stay as they are"
    assert {tuple(film) for film in answer["listed"]} == {
        (name, name.split("/")[1], name.split("/")[0]) for name in content
    }
    sums = {f"sha256 of {name}": hashlib.sha256(hub.files[name]).hexdigest() for name in ZIPS}
    assert answer["origin"].pop("repo").startswith("hospital/")
    assert answer["origin"] == {"source": "huggingface", "revision": revision, "commit": hubs.COMMIT} | sums


def test_all_zips_come_from_the_commit_that_the_first_came_from(fetch, hub):
    fetch(revision="main")
    asked = [path.split("/resolve/")[1] for method, path, _ in hub.log if method == "HEAD"]
    assert asked == ["main/data/train.zip", f"{hubs.COMMIT}/data/valid.zip", f"{hubs.COMMIT}/data/test.zip"]


def test_short_hash_on_a_hub_that_does_not_expand_it(fetch, hub, tmp_path):
    hub.expands = False
    assert fetch()["origin"]["commit"] == hubs.COMMIT
    assert plain(hubs.content_of(tmp_path / "raw")) == expected()


def test_the_cache_serves_a_second_fetch_while_the_hub_is_down(fetch, hub):
    first = fetch()
    hub.statuses = [503] * 20
    assert fetch() == first


def test_the_token_stays_with_the_hub(fetch, hub):
    fetch(HF_TOKEN="hf_secret")
    fetch(HF_TOKEN="")
    told = {path.split("/")[1]: headers.get("authorization") for _, path, headers in hub.log[:6]}
    assert told == {"datasets": "Bearer hf_secret", "storage": None}


def test_interrupted_download_goes_on_by_itself(fetch, hub, tmp_path):
    hub.files["data/train.zip"] = hubs.zipped({".filler": bytes(25 << 20)} | train_members())
    hub.cuts = [11 << 20, 10 << 20]
    assert len(fetch()["listed"]) == 12
    assert hub.ranges_asked() == [f"bytes={10 << 20}-", f"bytes={20 << 20}-"], "whole chunks are kept"
    assert plain(hubs.content_of(tmp_path / "raw")) == expected()


def test_download_that_keeps_breaking_off_restarts_cleanly(fetch, hub, tmp_path):
    hub.cuts = [500, *[0] * 6]
    answer = fetch()
    assert "Hugging Face" in answer["error"]
    assert "no connection, or it broke off" in answer["error"]
    assert not (tmp_path / "raw").exists()
    assert len(fetch()["listed"]) == 12
    assert plain(hubs.content_of(tmp_path / "raw")) == expected()


BAD = {
    # what happens: (statuses, revision, what the one line says)
    "wrong credentials": ([401] * 9, "main", ["HTTP 401", "HF_TOKEN", "data.huggingface.repo"]),
    "gated": ([403] * 9, "main", ["HTTP 403", "accept the dataset's terms", "hf auth login"]),
    "missing dataset": ([404] * 9, "main", ["not found (HTTP 404)", "data.huggingface.repo"]),
    "missing revision": ([], "abcdef0", ["not found (HTTP 404)", "data.huggingface.revision"]),
    "missing branch": ([], "other", ["not found (HTTP 404)", "data.huggingface.revision"]),
    "too many requests": ([429] * 20, "main", ["HTTP 429", "in some minutes"]),
    "hub in trouble": ([503] * 20, "main", ["HTTP 503", "later", "data.source: folder"]),
}


@pytest.mark.parametrize(("statuses", "revision", "says"), BAD.values(), ids=BAD)
def test_one_line_that_says_what_to_do(fetch, hub, tmp_path, statuses, revision, says):
    hub.statuses = list(statuses)
    answer = fetch(revision=revision)
    assert answer["kind"] == "UserError"
    assert "\n" not in answer["error"]
    for words in says:
        assert words in answer["error"]
    assert not (tmp_path / "raw").exists()
    hub.statuses = []
    assert len(fetch()["listed"]) == 12, "the next attempt is not spoilt by this one"


def test_short_outage_is_waited_for(fetch, hub):
    hub.statuses = [503, 429, 503]
    assert len(fetch()["listed"]) == 12


def test_full_disk_is_not_called_a_lost_connection(monkeypatch, tmp_path):
    def fill(*_, **__):
        raise OSError(28, "No space left on device", "train.zip")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fill)
    with pytest.raises(OSError, match="No space left") as caught:
        huggingface.fetch(tmp_path, "hospital/films", "main")
    assert caught.value.errno == 28


def test_missing_zip(fetch, hub):
    del hub.files["data/valid.zip"]
    assert "not found (HTTP 404)" in fetch()["error"]


def test_no_network(tmp_path):
    client = hubs.Client(tmp_path / "home", {"HF_ENDPOINT": "http://127.0.0.1:9"})
    answer = client.fetch("huggingface", {"repo": "hospital/films", "revision": "main"}, tmp_path / "raw")
    client.close()
    assert answer["kind"] == "UserError"
    for words in ("no connection", "huggingface.co/datasets/hospital/films", "data.source: folder", "data.folder.path"):
        assert words in answer["error"]
    assert "\n" not in answer["error"]


def test_zip_spoilt_on_the_way_is_deleted_and_fetched_anew(fetch, hub):
    whole = hub.files["data/valid.zip"]
    hub.spoilt["data/valid.zip"] = whole.replace(hubs.jpeg(7), hubs.jpeg(7)[:-9] + bytes(9))
    assert "its copy in the cache was deleted" in fetch()["error"]
    hub.spoilt.clear()
    assert len(fetch()["listed"]) == 12


@pytest.mark.parametrize("damage", ["cut short", "html", "empty"])
def test_damaged_zip_is_deleted_and_fetched_anew(fetch, hub, tmp_path, damage):
    whole = hub.files["data/valid.zip"]
    hub.files["data/valid.zip"] = {"cut short": whole[:-30], "html": b"<html>log in</html>", "empty": b""}[damage]
    answer = fetch()
    assert "valid.zip is damaged or cut short" in answer["error"]
    assert "its copy in the cache was deleted; run `dvc repro` again" in answer["error"]
    assert "\n" not in answer["error"]
    hub.files["data/valid.zip"] = whole
    assert len(fetch()["listed"]) == 12
    assert plain(hubs.content_of(tmp_path / "raw")) == expected()


@pytest.mark.slow
def test_counts_of_the_published_dataset(fetch, hub):
    hub.files = hubs.roboflow_zips(hubs.many((f"{split}/NORMAL", count) for split, count in COUNTS.items()))
    answer = fetch(hubs.ROBOFLOW, revision="main")
    assert [film[2] for film in answer["listed"]].count("val") == 1165
    assert len(answer["listed"]) == 4077 + 1165 + 582


def test_counts_that_differ_are_named(fetch, hub, tmp_path):
    hub.commit = "f" * 40
    answer = fetch(hubs.ROBOFLOW, revision="main")
    assert (
        "train: expected 4,077, found 4; val: expected 1,165, found 4; test: expected 582, found 4" in answer["error"]
    )
    assert "data.huggingface.revision" in answer["error"]
    assert not (tmp_path / "raw").exists()


@pytest.mark.real
def test_real_films_keep_their_patients(fetch, hub, shared, tmp_path):
    from pulmo.films.rows.table import Listed
    from pulmo.images.manifest import describe_films

    with zipfile.ZipFile(shared / "xrays" / "kermany224.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpeg")]
        names = names[::60] + [name for name in names if "/val/" in name]
        real = {name.removeprefix("chest_xray/"): archive.read(name) for name in names}
    hub.files = hubs.roboflow_zips(real)
    listed = [Listed(*film) for film in fetch()["listed"]]
    table = describe_films(tmp_path / "raw", listed, workers=1)
    assert len(table) == len(real) > 90
    assert plain(hubs.content_of(tmp_path / "raw")) == {name.removesuffix(".jpeg"): data for name, data in real.items()}
    viral = table[table.path.str.contains("person.*_virus_")]
    assert set(viral.subtype) == {"viral"}
    assert viral.patient.str.fullmatch(r"virus-\d+").all()
    assert (table.width == 224).all()
