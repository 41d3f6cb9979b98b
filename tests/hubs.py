"""Kaggle and Hugging Face on the loopback: servers that speak the hubs' protocols to the unmodified client libraries.

A test scripts what goes wrong (`statuses`, `cuts`) and reads what was asked (`log`). The clients run in a process of
their own, because they read their environment when they are imported.
"""

import base64
import hashlib
import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
COMMIT = "15439bd" + "0123456789abcdef" * 2 + "f"
KAGGLE = "paultimothymooney/chest-xray-pneumonia"
ROBOFLOW = "keremberke/chest-xray-classification"


def jpeg(shade: int = 0, side: int = 8) -> bytes:
    """A tiny film; every shade has bytes of its own."""
    content = io.BytesIO()
    Image.new("L", (side, side), shade % 256).save(content, "JPEG")
    return content.getvalue()


def films(count: int = 2) -> dict[str, bytes]:
    """A dataset in split/class/name layout with names in the real grammar, `count` films per class and split."""
    names = {"NORMAL": "IM-{0:04}-0001.jpeg", "PNEUMONIA": "person{0}_virus_{0}.jpeg"}
    found = {}
    for split in ("train", "val", "test"):
        for label, name in names.items():
            for _ in range(count):
                found[f"{split}/{label}/{name.format(len(found) + 1)}"] = jpeg(len(found))
    return found


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """The files as a zip, in the order given."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def kaggle_tree(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files as Kaggle's archive holds them: below chest_xray, all of them twice, among what macOS leaves behind."""
    tree = {f"chest_xray/{name}": data for name, data in files.items()}
    tree |= {f"chest_xray/chest_xray/{name}": data for name, data in files.items()}
    for name in files:
        folder, _, base = name.rpartition("/")
        tree[f"chest_xray/__MACOSX/{folder}/._{base}"] = b"\0\5\x16\7"
    return tree | {"chest_xray/.DS_Store": b"\0", "chest_xray/chest_xray/train/.DS_Store": b"\0"}


def roboflow_zips(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files as Hugging Face's three zips hold them, under the names that Roboflow gives."""
    zips = {}
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        members = {}
        for name, data in files.items():
            if name.startswith(f"{split}/"):
                stem = name.removeprefix(f"{split}/").removesuffix(".jpeg")
                members[f"{stem}_jpeg.rf.{hashlib.md5(name.encode()).hexdigest()}.jpg"] = data
        zips[f"data/{folder}.zip"] = zipped(members)
    return zips


class Loopback(ThreadingHTTPServer):
    """A server on 127.0.0.1 with files to serve and faults to commit."""

    daemon_threads = True

    def __init__(self, handler: type["Answers"]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.files: dict[str, bytes] = {}
        self.spoilt: dict[str, bytes] = {}  # Hugging Face: what comes instead of a file
        self.statuses: list[int] = []  # answered to the next questions to the API instead of the truth
        self.cuts: list[int] = []  # the next downloads break off after so many bytes
        self.stall = threading.Event()  # set: a cut download hangs instead of breaking off
        self.log: list[tuple[str, str, dict[str, str]]] = []  # method, path, headers
        self.checksums = True  # Kaggle: send x-goog-hash
        self.ranges = True  # downloads can be resumed
        self.commit = COMMIT  # Hugging Face: the head of main
        self.expands = True  # Hugging Face: short hashes are understood
        self.repository = ""  # Hugging Face: the only one; empty where every name will do

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # clients hang up as they like
            raise

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def ranges_asked(self) -> list[str]:
        return [headers["range"] for _, _, headers in self.log if "range" in headers]


class Answers(BaseHTTPRequestHandler, ABC):
    """What the two hubs have in common: faults, and blobs that can be asked for in ranges."""

    protocol_version = "HTTP/1.1"
    server: Loopback

    def log_message(self, format: str, *arguments: object) -> None:
        self.server.log.append((self.command, self.path, {key.lower(): value for key, value in self.headers.items()}))

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.respond()

    def do_GET(self) -> None:
        self.respond()

    def do_HEAD(self) -> None:
        self.respond()

    @abstractmethod
    def respond(self) -> None:
        """Answer the request, as the hub does."""

    def answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_blob(self, content: bytes, headers: dict[str, str]) -> None:
        start = 0
        if self.server.ranges:
            headers = headers | {"Accept-Ranges": "bytes"}
            if asked := re.match(r"bytes=(\d+)-$", self.headers.get("Range", "")):
                start = int(asked[1])
                headers |= {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        if self.server.cuts:
            end = start + self.server.cuts.pop(0)
            self.answer(
                206 if start else 200, headers | {"Content-Length": str(len(content) - start)}, content[start:end]
            )
            self.wfile.flush()
            while self.server.stall.is_set():
                self.server.stall.wait(0.05)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self.answer(206 if start else 200, headers, content[start:])


class KaggleAnswers(Answers):
    """Kaggle's API and storage. The client reaches both through this server as its HTTP proxy."""

    def respond(self) -> None:
        if self.path.startswith("http://storage.test/"):
            content = self.server.files["archive"]
            digest = base64.b64encode(hashlib.md5(content).digest()).decode()
            checksum = {"x-goog-hash": f"crc32c=AAAAAA==,md5={digest}"} if self.server.checksums else {}
            self.send_blob(content, {"Content-Type": "application/zip"} | checksum)
            return
        service = self.path.rpartition("/")[2]
        if self.server.statuses:
            status = self.server.statuses.pop(0)
            message = json.dumps({"code": status, "message": "no"}).encode()
            self.answer(status, {"Content-Type": "application/json"}, message)
        elif service == "GetDataset":
            version = json.dumps({"currentVersionNumber": 2}).encode()
            self.answer(200, {"Content-Type": "application/json"}, version)
        else:
            assert service == "DownloadDataset"
            assert json.loads(self.body)["datasetVersionNumber"] == 2
            self.answer(302, {"Location": "http://storage.test/archive.zip?signature=1"})


class HuggingFaceAnswers(Answers):
    """Hugging Face's resolver, its list of commits, and the storage on another host name that it redirects to."""

    def respond(self) -> None:
        if found := re.match(r"/storage/(.+)", self.path):
            assert self.headers["Host"].startswith("localhost")
            self.send_blob(self.server.spoilt.get(found[1], self.server.files[found[1]]), {"ETag": '"storage"'})
            return
        found = re.match(r"/(?:datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        commit, only = self.server.commit, self.server.repository
        error = {401: "RepoNotFound", 403: "GatedRepo", 404: "RepoNotFound"}
        if self.server.statuses:
            status = self.server.statuses.pop(0)
            self.answer(status, {"X-Error-Code": error[status]} if status in error else {})
        elif self.path.startswith("/api/datasets/") and "/commits/" in self.path:
            head = {"id": commit, "authors": [{"user": "x"}], "date": "2023-01-18T00:00:00.000Z"}
            log = json.dumps([head | {"title": "", "message": ""}])
            self.answer(200, {"Content-Type": "application/json"}, log.encode())
        elif found and only and found[1] != only:
            self.answer(401, {"X-Error-Code": "RepoNotFound"})
        elif not found or found[2] not in (commit, "main", commit[:7] if self.server.expands else ""):
            self.answer(404, {"X-Error-Code": "RevisionNotFound"})
        elif found[3] not in self.server.files:
            self.answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        else:
            content = self.server.files[found[3]]
            headers = {
                "X-Repo-Commit": commit,
                "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Linked-Size": str(len(content)),
                "Location": f"http://localhost:{self.server.port}/storage/{found[3]}",
            }
            self.answer(302, headers)


@contextmanager
def served(handler: type[Answers]) -> Iterator[Loopback]:
    """A running server."""
    with Loopback(handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def lead_hugging_face_to(port: int, cache: Path, patch: pytest.MonkeyPatch) -> None:
    """Have the client library of this process ask a port of the loopback, with short waits between retries."""
    from huggingface_hub import constants

    address, wait = f"http://127.0.0.1:{port}", time.sleep
    patch.setattr(constants, "ENDPOINT", address)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}")
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(time, "sleep", lambda seconds: wait(min(seconds, 0.01)))
    patch.setenv("NO_PROXY", "127.0.0.1,localhost")


class Client:
    """A process that fetches from a source on demand, as the download stage does, with short waits between retries."""

    PROGRAM = """
import json, os, sys, time
wait = time.sleep
time.sleep = lambda seconds: wait(min(seconds, 0.01))
from pathlib import Path
from pulmo.base.errors import UserError
from pulmo.base.files import whole_folder
from pulmo.sources import SOURCES
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for line in sys.stdin:
    asked = json.loads(line)
    os.environ.update(asked["environment"])
    try:
        with whole_folder(Path(asked["raw"])) as folder:
            listed, origin = SOURCES[asked["source"]](folder, **asked["settings"])
        answer = {"listed": [[film.path, film.label, film.source_split] for film in listed], "origin": origin}
    except UserError as error:
        answer = {"error": f"{error.message}; {error.hint}", "kind": "UserError"}
    except OSError as error:
        answer = {"error": str(error), "kind": type(error).__name__}
    print(json.dumps(answer), file=answers, flush=True)
"""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        inherited = {name: value for name, value in os.environ.items() if not re.match("HF_|HUGGING|KAGGLE", name)}
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
            inherited.pop(name, None)
            inherited.pop(name.lower(), None)
        own = {"HOME": str(home), "HF_HOME": str(home / "hf"), "PYTHONPATH": str(ROOT / "src")}
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=inherited | own | environment,
        )
        self.chatter: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stderr
        self.chatter.extend(self.process.stderr)

    def ask(self, source: str, settings: dict[str, str], raw: Path, **environment: str) -> None:
        """Start a fetch without waiting for it."""
        assert self.process.stdin
        asked = {"source": source, "settings": settings, "raw": str(raw), "environment": environment}
        print(json.dumps(asked), file=self.process.stdin, flush=True)

    def fetch(self, source: str, settings: dict[str, str], raw: Path, **environment: str) -> dict:
        """Fetch, and return what came of it: listed and origin, or error and kind."""
        self.ask(source, settings, raw, **environment)
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "".join(self.chatter)
        return json.loads(line)

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(30)


def content_of(raw: Path) -> dict[str, bytes]:
    """Every file below a folder, by relative path."""
    return {path.relative_to(raw).as_posix(): path.read_bytes() for path in raw.rglob("*") if path.is_file()}


def many(counts: Iterable[tuple[str, int]]) -> dict[str, bytes]:
    """So many films per split/class folder, all with the same few bytes."""
    data = jpeg()
    return {f"{folder}/IM-{number:05}-0001.jpeg": data for folder, count in counts for number in range(count)}
