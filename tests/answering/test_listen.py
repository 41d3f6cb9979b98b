"""The listener against pynetdicom's own C-STORE provider and a STOW-RS service: nothing is lost, nothing is doubled."""

import io
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hospital_films import PIXELS, hospital_film
from listening import ROOM, Source, listening
from pacs import Archive, WebArchive, send_films, wait_for
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)
from report_reading import numbers, texts
from small_package import make_package
from starlette.testclient import TestClient
from typer.testing import CliRunner

from pulmo import Predictor, cli
from pulmo.answering.dicom import scp
from pulmo.answering.dicom.listener import Listener
from pulmo.answering.dicom.send import Unreachable
from pulmo.answering.dicom.spool import REPLY_BYTES, Spool
from pulmo.answering.dicom.stow import make_stow_app
from pulmo.base.errors import UserError


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    return make_package(tmp_path_factory.mktemp("model") / "package")


@pytest.fixture(scope="module")
def source(package) -> Source:
    return Source(package)


def uid(content: bytes) -> str:
    return str(pydicom.dcmread(io.BytesIO(content)).SOPInstanceUID)


def test_a_film_that_arrives_is_answered_and_its_report_and_picture_are_sent(source, tmp_path) -> None:
    film = hospital_film()
    with Archive() as archive, listening(source, tmp_path / "spool", archive.address) as rig:
        assert send_films(rig.port, [film]) == [0]
        wait_for(lambda: len(archive.datasets) == 2)
        wait_for(rig.is_idle)
    report, picture = archive.datasets
    assert (report.Modality, picture.Modality) == ("SR", "OT")
    assert archive.reported == [uid(film)]
    assert report.StudyInstanceUID == picture.StudyInstanceUID == pydicom.dcmread(io.BytesIO(film)).StudyInstanceUID
    assert rig.spool.size == 0
    assert not list((tmp_path / "spool").rglob("*.dcm"))


def test_films_in_every_transfer_syntax_get_the_same_answer(source, tmp_path) -> None:
    syntaxes = (ImplicitVRLittleEndian, ExplicitVRBigEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless)
    films = [hospital_film(), *(hospital_film(syntax=syntax) for syntax in syntaxes)]
    with Archive([ImplicitVRLittleEndian]) as archive, listening(source, tmp_path, archive.address) as rig:
        assert send_films(rig.port, films) == [0] * len(films)
        wait_for(lambda: len(archive.datasets) == 2 * len(films))
    assert archive.reported == [uid(film) for film in films]
    certainties = [numbers(made)["111012"][0] for made in archive.datasets if made.Modality == "SR"]
    assert len(certainties) == len(films)
    assert np.ptp(certainties) < 0.01


def test_only_films_are_answered_and_no_picture_of_our_own(source, tmp_path) -> None:
    with Archive() as archive, listening(source, tmp_path, archive.address) as rig:
        first = hospital_film(SOPClassUID=DigitalXRayImageStorageForPresentation, Modality="DX")
        assert send_films(rig.port, [first]) == [0]
        wait_for(lambda: len(archive.datasets) == 2)
        replies = [rewritten(made) for made in archive.datasets]
        assert send_films(rig.port, [hospital_film(SOPClassUID=CTImageStorage, Modality="CT"), replies[0]]) == [
            None,
            None,
        ]
        slices = hospital_film(SOPClassUID=SecondaryCaptureImageStorage, Modality="CT")
        assert send_films(rig.port, [replies[1], slices]) == [0, 0]
        last = hospital_film()
        assert send_films(rig.port, [last]) == [0]
        wait_for(lambda: len(archive.datasets) == 4)
    assert archive.reported == [uid(first), uid(last)]


def rewritten(dataset: Any) -> bytes:
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def test_a_refused_and_an_unreadable_film_have_a_report_that_says_why(source, tmp_path) -> None:
    films = [hospital_film(BodyPartExamined="KNEE"), hospital_film(np.zeros((64, 64), np.uint8))]
    with Archive() as archive, listening(source, tmp_path, archive.address) as rig:
        assert send_films(rig.port, films) == [0, 0]
        wait_for(lambda: len(archive.reported) == 2 and rig.is_idle())
    said = [" ".join(texts(made)) for made in archive.datasets if made.Modality == "SR"]
    assert "KNEE" in said[0]
    assert "carries no picture" in said[1]
    assert [made.Modality for made in archive.datasets] == ["SR", "OT", "SR"]


def test_replies_wait_for_a_destination_that_is_down_and_arrive_in_order(source, tmp_path) -> None:
    films = [hospital_film() for _ in range(4)]
    with Archive() as down, Archive() as up:
        down.stop()
        with listening(source, tmp_path, down.address, up.address) as rig:
            assert send_films(rig.port, films) == [0] * 4
            wait_for(lambda: len(up.datasets) == 8)
            wait_for(lambda: rig.count_waiting() == 8)
            down.start()
            wait_for(rig.is_idle, 90)
        expected = [uid(film) for film in films]
        assert [list(dict.fromkeys(archive.reported)) for archive in (down, up)] == [expected, expected]
        pictures = [str(made.SOPInstanceUID) for made in down.datasets if made.Modality == "OT"]
        assert list(dict.fromkeys(pictures)) == [str(made.SOPInstanceUID) for made in up.datasets[1::2]]


def test_a_busy_destination_is_asked_again_and_what_it_turns_down_is_kept_aside(source, tmp_path) -> None:
    films = [hospital_film() for _ in range(2)]
    with Archive() as archive, listening(source, tmp_path, archive.address) as rig:
        archive.status = 0xA700
        assert send_films(rig.port, films[:1]) == [0]
        wait_for(lambda: rig.count_waiting() == 2)
        time.sleep(0.5)
        assert rig.count_waiting() == 2
        archive.status = 0xC000
        wait_for(rig.is_idle)
        archive.status = 0
        assert send_films(rig.port, films[1:]) == [0]
        wait_for(lambda: len(archive.datasets) == 2)
    assert archive.reported == [uid(films[1])]
    aside = sorted((tmp_path / "failed").iterdir())
    assert [pydicom.dcmread(path).Modality for path in aside] == ["SR", "OT"]


def test_a_full_spool_sends_the_sender_away_until_there_is_room(source, tmp_path) -> None:
    films = [hospital_film() for _ in range(3)]
    with Archive() as archive:
        archive.stop()
        limit = int(2.5 * REPLY_BYTES)
        with listening(source, tmp_path, archive.address, limit=limit) as rig:
            statuses = []
            while 0xA700 not in statuses:
                statuses += send_films(rig.port, [films[len(statuses) % 3]])
                assert rig.spool.size <= limit
                assert len(statuses) < 1000
            archive.start()
            wait_for(rig.is_idle)
            assert send_films(rig.port, [films[0]]) == [0]
            wait_for(rig.is_idle)
    assert len(archive.reported) == len(statuses)


def test_a_film_that_breaks_the_program_is_kept_aside_and_the_next_is_answered(source, tmp_path, monkeypatch) -> None:
    films = [hospital_film() for _ in range(2)]
    from pulmo.answering.dicom import listener

    real = listener.make_reply

    def break_once(predictor: Predictor, content: bytes, *rest: Any) -> Any:
        if uid(content) == uid(films[0]):
            raise RuntimeError("a bug")
        return real(predictor, content, *rest)

    monkeypatch.setattr(listener, "make_reply", break_once)
    with Archive() as archive, listening(source, tmp_path, archive.address) as rig:
        (tmp_path / "failed").rmdir()  # as whoever looked into it may do
        assert send_films(rig.port, films) == [0, 0]
        wait_for(lambda: len(archive.datasets) == 2)
    assert archive.reported == [uid(films[1])]
    assert [uid(path.read_bytes()) for path in (tmp_path / "failed").iterdir()] == [uid(films[0])]


class DownForDays:
    """A destination that takes the first reply at the 1,101st try."""

    name = queue = "down"

    def __init__(self) -> None:
        self.tries = 0
        self.contents: list[bytes] = []

    def send(self, content: bytes) -> None:
        self.tries += 1
        if self.tries <= 1100:
            raise Unreachable("no association")
        self.contents.append(content)

    def rest(self) -> None:
        pass


def test_a_destination_may_be_down_for_days(source, tmp_path) -> None:
    spool, down = Spool(tmp_path, ROOM, ["down"]), DownForDays()
    spool.add_film(b"film")
    film = spool.wait_film(0)
    assert film
    spool.put_replies(film, [b"report"])
    listener = Listener(spool, source, [down], longest_wait=1e-6)
    listener.start()
    wait_for(lambda: down.contents)
    listener.stop()
    assert (down.tries, down.contents) == (1101, [b"report"])


def test_a_disk_that_fails_for_a_moment_stops_no_reply(source, tmp_path, monkeypatch) -> None:
    remove, failures = Spool.remove, []

    def fail_once(spool: Spool, path: Path) -> None:
        if path.parent.name != "inbox" and not failures:
            failures.append(path)
            raise OSError(5, "Input/output error")
        remove(spool, path)

    monkeypatch.setattr(Spool, "remove", fail_once)
    films = [hospital_film() for _ in range(2)]
    with Archive() as archive, listening(source, tmp_path, archive.address) as rig:
        assert send_films(rig.port, films) == [0, 0]
        wait_for(lambda: failures and rig.is_idle())
    assert list(dict.fromkeys(archive.reported)) == [uid(film) for film in films]


def test_only_named_callers_may_send(source, tmp_path) -> None:
    with Archive() as archive, listening(source, tmp_path, archive.address, callers=("MODALITY",)) as rig:
        assert send_films(rig.port, [hospital_film()], "STRANGER") == [None]
        assert send_films(rig.port, [hospital_film()], "MODALITY") == [0]


def test_more_than_a_film_may_have_ends_the_association_and_not_the_listener(source, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(scp, "MOST_BYTES", 2**20)
    with Archive() as archive, listening(source, tmp_path, archive.address) as rig:
        large = hospital_film(np.tile(PIXELS, (20, 20)))
        assert len(large) > 2**20
        assert send_films(rig.port, [large]) == [None]
        with socket.create_connection(("127.0.0.1", rig.port), 5) as hostile:
            hostile.sendall(struct.pack(">BBL", 1, 0, 2**32 - 1) + bytes(1000))
            hostile.settimeout(5)
            assert hostile.recv(1000) == b""
        assert send_films(rig.port, [hospital_film()]) == [0]
        wait_for(lambda: len(archive.datasets) == 2)


def body(*contents: bytes, kind: bytes = b"application/dicom") -> dict[str, Any]:
    fence = b"fence-of-parts"
    parts = b"".join(b"--" + fence + b"\r\nContent-Type: " + kind + b"\r\n\r\n" + part + b"\r\n" for part in contents)
    kind_of_all = f'multipart/related; type="application/dicom"; boundary={fence.decode()}'
    return {"content": parts + b"--" + fence + b"--\r\n", "headers": {"content-type": kind_of_all}}


def test_stow_takes_films_and_says_what_became_of_each(source, tmp_path) -> None:
    with WebArchive() as archive:
        with listening(source, tmp_path, f"http://ada:s3cret@127.0.0.1:{archive.port}/dicom-web/studies") as rig:
            web = TestClient(make_stow_app(rig.spool), "http://127.0.0.1")
            films = [hospital_film(), hospital_film(BodyPartExamined="KNEE")]
            done = web.post("/studies", **body(*films))
            assert done.status_code == 200
            stored = done.json()["00081199"]["Value"]
            assert [item["00081155"]["Value"][0] for item in stored] == [uid(film) for film in films]
            mixed = web.post(
                "/studies/1.2.3", **body(hospital_film(), hospital_film(SOPClassUID=CTImageStorage), b"no")
            )
            assert mixed.status_code == 202
            failed = mixed.json()["00081198"]["Value"]
            assert [item["00081197"]["Value"][0] for item in failed] == [0x0122, 0xA900]
            assert web.post("/studies", **body(b"no")).status_code == 409
            wait_for(lambda: len(archive.requests) == 6)
        assert {path for path, _, _ in archive.requests} == {"/dicom-web/studies"}
        assert {headers["Authorization"] for _, headers, _ in archive.requests} == {"Basic YWRhOnMzY3JldA=="}
        assert [made.Modality for made in archive.datasets] == ["SR", "OT"] * 3


def test_stow_refuses_what_is_no_request_for_it(source, tmp_path, monkeypatch) -> None:
    spool = Spool(tmp_path, REPLY_BYTES, ["one"])
    assert TestClient(make_stow_app(spool, "secret"), "http://gate.example").post("/studies").status_code == 421
    named = TestClient(make_stow_app(spool, "secret", "gate.example"), "http://gate.example")
    assert named.post("/studies").status_code == 401
    web = TestClient(make_stow_app(spool, "secret"), "http://127.0.0.1")
    allowed = {"authorization": "Bearer secret"}
    assert web.post("/studies", **body(hospital_film())).status_code == 401

    def post(**request: Any) -> int:
        return web.post("/studies", **request | {"headers": request.get("headers", {}) | allowed}).status_code

    assert post(**body(hospital_film())) == 503, "there is no room"
    assert post(content=hospital_film(), headers={"content-type": "application/dicom"}) == 415
    assert post(**body(hospital_film(), kind=b"image/png")) == 415
    assert post(**body()) == 400
    assert post(**body(*[b"no"] * 101)) == 413
    assert web.get("/studies", headers=allowed).status_code == 405
    assert spool.size == 0


@pytest.mark.parametrize(
    ("status", "answer", "kept"),
    [
        (409, b'{"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [43264]}}]}}', "failed"),
        (409, b'{"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [42752]}}]}}', "outbox"),
        (413, b"<html>", "failed"),
        (503, b"", "outbox"),
        (401, b"", "outbox"),
        (302, b"", "outbox"),
    ],
)
def test_a_stow_service_that_fails_keeps_no_reply_from_us(source, tmp_path, status, answer, kept) -> None:
    with WebArchive() as archive:
        archive.status, archive.body = status, answer
        with listening(source, tmp_path, f"http://127.0.0.1:{archive.port}/studies") as rig:
            assert send_films(rig.port, [hospital_film()]) == [0]
            wait_for(lambda: len(archive.requests) >= 2)
            wait_for(lambda: len(list((tmp_path / kept).rglob("*.dcm"))) == 2)
            if kept == "outbox":
                archive.status, archive.body = 200, b"{}"
                wait_for(rig.is_idle)


def test_a_spool_has_one_listener(tmp_path) -> None:
    spool = tmp_path / "spool"
    first = Spool(spool, ROOM, ["one"])
    assert spool.stat().st_mode & 0o077 == 0, "nobody else looks into it"
    with pytest.raises(UserError, match="another listener uses"):
        Spool(spool, ROOM, ["one"])
    first.add_film(b"film")
    first.close()
    part = spool / "inbox" / ".000000000002.dcm.0a1b2c3d.part"
    part.mkdir()
    (part / "000000000002.dcm").write_bytes(b"half a film")
    again = Spool(spool, ROOM, ["other"])
    assert again.size == 4
    assert again.add_film(b"next") == 2
    film = again.wait_film(0)
    assert film
    assert film.read_bytes() == b"film"
    again.put_replies(film, [b"report", b"picture"])
    again.close()
    assert Spool(spool, ROOM, ["one"]).list_strays() == ["other"]


def test_a_spool_leaves_alone_what_others_keep_in_its_folder(tmp_path) -> None:
    own, download = tmp_path / "films/000000000007.dcm", tmp_path / ".film.part"
    own.parent.mkdir()
    own.write_bytes(b"somebody's")
    download.mkdir()
    spool = Spool(tmp_path, ROOM, ["one"])
    assert download.exists()
    assert (spool.size, spool.add_film(b"film")) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--to", "nowhere"], "--to nowhere names no place"),
        (["--to", "A@host:99999999"], "names no place"),
        (["--to", "http://[host/studies"], "names no place"),
        (["--to", "A@host:1", "--at", "LONGER-THAN-16-LETTERS@127.0.0.1:1"], "names no place"),
        (["--to", "A@host:1", "--at", "PULMO@0.0.0.0:1"], "any machine could send films"),
        (["--to", "A@host:1", "--at", "PULMO@0.0.0.0:1", "--from", "CR1", "--http-port", "0"], "without a token"),
        (["--to", "A@host:1", "--from", "LONGER-THAN-16-LETTERS"], "no AE title"),
    ],
)
def test_a_listener_that_would_be_unsafe_or_of_no_use_does_not_start(arguments, reason, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=reason):
        CliRunner().invoke(cli.app, ["listen", *arguments], catch_exceptions=False)


@pytest.mark.parametrize("limit", ["nan", "inf", "0", "much"])
def test_a_spool_without_bound_is_a_mistake_of_usage(limit) -> None:
    assert CliRunner().invoke(cli.app, ["listen", "--to", "A@host:1", "--limit-gb", limit]).exit_code == 2


def test_a_port_in_use_is_told_with_the_option_that_names_another(package, tmp_path) -> None:
    options = [
        "--to",
        "A@127.0.0.1:1",
        "--package",
        str(package),
        "--spool",
        str(tmp_path),
        "--at",
        "PULMO@127.0.0.1:0",
    ]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(UserError, match=f"port {port}: Address already in use") as error:
            CliRunner().invoke(cli.app, ["listen", *options, "--http-port", port], catch_exceptions=False)
    assert error.value.hint == "--http-port names another"


def launch(package: Path, spool: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """A listener of its own, and the line in which it says where it listens."""
    code = "import sys; from pulmo.cli import main; sys.argv[0] = 'pulmo'; main()"
    command = [sys.executable, "-c", code, "listen", "--package", str(package), "--spool", str(spool), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    assert process.stdout
    for line in process.stdout:
        if line.startswith("C-STORE: "):
            return process, line.strip()
    raise AssertionError("the listener did not start")


def start(package: Path, spool: Path, to: str) -> tuple[subprocess.Popen[str], int]:
    process, line = launch(package, spool, "--at", "PULMO@127.0.0.1:0", "--to", to)
    return process, int(line.rpartition(":")[2])


def test_an_address_of_ipv6_is_printed_as_it_can_be_typed(package, tmp_path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    to = ("--to", "ARCHIVE@127.0.0.1:1", "--http-port", "0")
    process, line = launch(package, tmp_path, "--at", "PULMO@[::1]:0", *to)
    process.kill()
    process.wait()
    assert re.fullmatch(r"C-STORE: PULMO@\[::1\]:\d+, STOW-RS: http://\[::1\]:\d+/studies", line)


def test_nothing_is_lost_however_often_the_listener_is_killed(package, tmp_path) -> None:
    dice = np.random.default_rng(0)
    taken: list[str] = []
    with Archive() as archive:
        for _ in range(4):
            process, port = start(package, tmp_path / "spool", archive.address)
            ends = time.monotonic() + dice.uniform(0.05, 1.2)
            while time.monotonic() < ends:
                film = hospital_film()
                if send_films(port, [film]) == [0]:
                    taken.append(uid(film))
            process.send_signal(signal.SIGKILL)
            process.wait()
        process, port = start(package, tmp_path / "spool", archive.address)
        wait_for(lambda: not list((tmp_path / "spool").rglob("0*.dcm")), 60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert len(taken) >= 4
    order = list(dict.fromkeys(archive.reported))
    assert [film for film in order if film in taken] == taken, "each film once, in the order of arrival"
    pictures = {
        str(made.SourceImageSequence[0].ReferencedSOPInstanceUID) for made in archive.datasets if made.Modality == "OT"
    }
    assert pictures >= set(taken)
