"""From C-STORE to the report in the archive: `pulmo listen` between a sender and Orthanc, or pynetdicom's own provider.

Run from the project's root after `dvc repro`: `python bench/dicom.py [PACKAGE FOLDER_OF_FILMS]`. About half a minute.
"""

import io
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import cv2
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, StoragePresentationContexts, evt

from pulmo import Predictor
from pulmo.answering.dicom.header import make_uid
from pulmo.answering.dicom.send import settle
from pulmo.base import paths

FILMS = 20
SHAPE = (2048, 1792)  # pixels of 12 bits, as a detector gives them
LISTEN = [sys.executable, "-c", "import sys; sys.argv[0] = 'pulmo'; from pulmo.cli import main; main()", "listen"]
Arrived = Callable[[str], bool]  # True where the instance of that UID is stored


def main() -> None:
    """Print the seconds from sending a film to its report stored, the share of decoding and answering, and films a
    second when all are sent at once."""
    package, folder = (Path(text) for text in sys.argv[1:3]) if sys.argv[1:] else (paths.PACKAGE, paths.RAW / "test")
    predictor = Predictor.load(package)
    pictures = sorted(path for path in folder.rglob("*") if path.is_file())[: 2 * FILMS]
    films = [make_film(path, number) for number, path in enumerate(pictures)]
    began = time.perf_counter()
    for film in films[:FILMS]:
        predictor.predict(film)
    alone = (time.perf_counter() - began) / FILMS
    with (
        tempfile.TemporaryDirectory() as place,
        run_archive(Path(place)) as (name, address, arrived),
        run_listener(package, Path(place), address) as port,
    ):
        model = predictor.model
        reports = [make_uid(str(read(film).SOPInstanceUID), model.sha256, model.version, "report") for film in films]
        seconds = []
        for film, report in zip(films[:FILMS], reports, strict=False):
            began = time.perf_counter()
            send(port, [film])
            wait(partial(arrived, report))
            seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
        send(port, films[FILMS:])
        wait(partial(arrived, reports[-1]))
        together = time.perf_counter() - began
    print(f"{name}: C-STORE to report stored, {FILMS} films of {SHAPE[0]} x {SHAPE[1]} pixels, one after the other")
    print(f"median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s, first {seconds[0]:.2f} s")
    print(f"median / decoding and answering alone ({alone:.2f} s): {statistics.median(seconds) / alone:.2f}")
    print(f"all at once: {FILMS / together:.1f} films a second")


def make_film(picture: Path, number: int) -> bytes:
    """A picture as the DICOM file of a detector."""
    gray = cv2.resize(cv2.imread(str(picture), cv2.IMREAD_GRAYSCALE), SHAPE[::-1], interpolation=cv2.INTER_CUBIC)
    pixels = gray.astype("<u2") * 16
    film = FileDataset("", {}, file_meta=FileMetaDataset(), preamble=bytes(128))
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.SOPClassUID, film.SOPInstanceUID = ComputedRadiographyImageStorage, generate_uid()
    film.StudyInstanceUID, film.SeriesInstanceUID = generate_uid(), generate_uid()
    film.PatientID, film.PatientName, film.Modality = f"{number}", "Bench^Film", "CR"
    film.Rows, film.Columns = SHAPE
    film.WindowCenter, film.WindowWidth = 2048, 4096
    film.SamplesPerPixel, film.PhotometricInterpretation = 1, "MONOCHROME2"
    film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 16, 12, 11, 0
    film.PixelData = pixels.tobytes()
    file = io.BytesIO()
    film.save_as(file, enforce_file_format=True)
    return file.getvalue()


def read(content: bytes) -> Any:
    return pydicom.dcmread(io.BytesIO(content))


def send(port: int, films: list[bytes]) -> None:
    ae = AE("BENCH")
    ae.add_requested_context(ComputedRadiographyImageStorage, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", port)
    for film in films:
        settle(association)
        status = association.send_c_store(read(film)).Status
        if status:
            raise RuntimeError(f"the listener answered {status:#06x}")
    association.release()


def wait(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 120
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError("no report within two minutes")
        time.sleep(0.005)


@contextmanager
def run_listener(package: Path, folder: Path, address: str) -> Iterator[int]:
    options = ["--package", str(package), "--at", "PULMO@127.0.0.1:0", "--to", address]
    options += ["--spool", str(folder / "spool")]
    process = subprocess.Popen([*LISTEN, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout
        line = next(line for line in process.stdout if line.startswith("C-STORE: "))
        yield int(line.rpartition(":")[2])
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def run_archive(folder: Path) -> Iterator[tuple[str, str, Arrived]]:
    """Its name, its address and a way to ask it."""
    program = shutil.which("Orthanc")
    if not program:
        with run_provider() as found:
            yield found
        return
    ports = [free_port(), free_port()]
    settings = {
        "StorageDirectory": str(folder / "store"),
        "IndexDirectory": str(folder / "store"),
        "DicomPort": ports[0],
        "HttpPort": ports[1],
        "DicomAlwaysAllowStore": True,
        "AuthenticationEnabled": False,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    process = subprocess.Popen(
        [program, str(folder / "orthanc.json")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ
    )
    web = f"http://127.0.0.1:{ports[1]}"
    try:
        wait(lambda: is_up(ports[1]))
        yield "Orthanc", f"ORTHANC@127.0.0.1:{ports[0]}", lambda uid: has_instance(web, uid)
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def run_provider() -> Iterator[tuple[str, str, Arrived]]:
    """pynetdicom's own provider, where Orthanc is not installed."""
    stored, lock = set[str](), threading.Lock()

    def store(event: Any) -> int:
        with lock:
            stored.add(str(event.request.AffectedSOPInstanceUID))
        return 0

    ae = AE("ARCHIVE")
    ae.supported_contexts = StoragePresentationContexts
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    yield "pynetdicom (no Orthanc here)", f"ARCHIVE@127.0.0.1:{server.server_address[1]}", stored.__contains__
    server.shutdown()


def has_instance(web: str, uid: str) -> bool:
    with urlopen(Request(f"{web}/tools/lookup", uid.encode()), timeout=10) as answer:
        return bool(json.load(answer))


def is_up(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    main()
