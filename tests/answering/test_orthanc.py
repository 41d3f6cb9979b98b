"""The listener against a real archive: a film that Orthanc sends has its report and picture in Orthanc soon after."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hospital_films import PIXELS, STUDY, hospital_film
from listening import Source, listening
from orthanc import PROGRAM, Orthanc, running
from pacs import wait_for
from small_package import make_package

pytestmark = pytest.mark.skipif(
    not PROGRAM,
    reason="Orthanc is not installed (apt-get install orthanc); .ci/run does where it may, and pacs.py stands in",
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Iterator[Orthanc]:
    with running(tmp_path_factory.mktemp("orthanc")) as started:
        yield started


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Source:
    return Source(make_package(tmp_path_factory.mktemp("model") / "package"))


@pytest.mark.parametrize("way", ["C-STORE", "STOW-RS"])
def test_report_and_picture_of_a_film_are_in_its_study(
    archive: Orthanc, source: Source, tmp_path: Path, way: str
) -> None:
    if way == "STOW-RS" and not archive.has_web:
        pytest.skip("Orthanc's DICOMweb plugin is not installed")
    to = archive.address if way == "C-STORE" else archive.studies
    study = f"{STUDY}.{['C-STORE', 'STOW-RS'].index(way) + 1}"
    with listening(source, tmp_path, to, port=archive.peer) as rig:
        parent = archive.add(hospital_film(StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1"))
        began = time.monotonic()
        wait_for(lambda: len(archive.list_instances(parent)) == 3)
        assert time.monotonic() - began < 10
        wait_for(rig.is_idle)
    made = {tags["Modality"]: tags for tags in archive.list_instances(parent)}
    assert set(made) == {"CR", "SR", "OT"}
    assert {tags["StudyInstanceUID"] for tags in made.values()} == {study}
    assert {tags["PatientName"] for tags in made.values()} == {"Müller^Jörg"}
    group = made["SR"]["ContentSequence"][-1]["ContentSequence"][0]["ContentSequence"]
    names = [item["ConceptNameCodeSequence"][0]["CodeMeaning"] for item in group]
    assert {"Pneumonia", "Certainty of Finding", "Sensitivity", "Specificity", "Algorithm Version"} <= set(names)
    assert int(made["OT"]["Rows"]) > PIXELS.shape[0]
    assert made["OT"]["SourceImageSequence"][0]["ReferencedSOPInstanceUID"] == made["CR"]["SOPInstanceUID"]
