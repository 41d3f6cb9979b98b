"""A real archive to test against: Orthanc, where it is installed."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

PLUGINS = Path("/usr/share/orthanc/plugins")
PROGRAM = shutil.which("Orthanc")


class Orthanc:
    """One that runs, with its DICOM and HTTP ports; `peer` is the port of the listener that it may send to."""

    def __init__(self, folder: Path) -> None:
        self.port, self.web, self.peer = (_free_port() for _ in range(3))
        settings = {
            "StorageDirectory": str(folder / "store"),
            "IndexDirectory": str(folder / "store"),
            "DicomPort": self.port,
            "HttpPort": self.web,
            "DicomAet": "ORTHANC",
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowStore": True,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomModalities": {"pulmo": ["PULMO", "127.0.0.1", self.peer]},
            "Plugins": [str(PLUGINS)] if PLUGINS.is_dir() else [],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))
        self.process = subprocess.Popen(
            [str(PROGRAM), str(folder / "orthanc.json")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    @property
    def has_web(self) -> bool:
        """True where its DICOMweb plugin is installed."""
        return any("DicomWeb" in path.name for path in PLUGINS.glob("*"))

    @property
    def address(self) -> str:
        return f"ORTHANC@127.0.0.1:{self.port}"

    @property
    def studies(self) -> str:
        return f"http://127.0.0.1:{self.web}/dicom-web/studies"

    def get(self, path: str) -> Any:
        with urlopen(f"http://127.0.0.1:{self.web}{path}", timeout=10) as answer:
            return json.load(answer)

    def post(self, path: str, content: bytes) -> Any:
        with urlopen(Request(f"http://127.0.0.1:{self.web}{path}", content), timeout=30) as answer:
            return json.load(answer)

    def add(self, content: bytes) -> str:
        """Store a film, and send it to the listener. The identifier of its study."""
        stored = self.post("/instances", content)
        self.post("/modalities/pulmo/store", str(stored["ID"]).encode())
        return str(stored["ParentStudy"])

    def list_instances(self, study: str) -> list[Any]:
        """Its instances as Orthanc reads them."""
        instances = self.get(f"/studies/{study}/instances")
        return [self.get(f"/instances/{instance['ID']}/simplified-tags") for instance in instances]


@contextmanager
def running(folder: Path) -> Iterator[Orthanc]:
    """An Orthanc that has started."""
    archive = Orthanc(folder)
    try:
        for _ in range(200):
            try:
                archive.get("/system")
                break
            except (URLError, OSError):
                time.sleep(0.1)
        else:
            raise AssertionError("Orthanc did not start")
        yield archive
    finally:
        archive.process.terminate()
        archive.process.wait(20)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
