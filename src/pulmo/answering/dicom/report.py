"""An answer as a structured report of TID 1500 in the film's own study."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import PurePath
from typing import Any

import highdicom.sr as sr
from highdicom.sr import RelationshipTypeValues
from pydicom.sr.coding import Code

from pulmo.answering.answer import Answer, ModelId
from pulmo.answering.dicom import codes
from pulmo.answering.dicom.header import MAKER, FilmHeader, make_uid, put_elements
from pulmo.answering.output import threshold_text
from pulmo.answering.words import decision_text
from pulmo.metrics.estimates import ValueInInterval, probability_text

SERIES = 9901  # far from the numbers that machines give
_LONGEST = 300  # letters of a problem that are told
NOT_A_DEVICE = "Not a medical device. For research."


@dataclass(frozen=True)
class Verdict:
    """All that a report and its picture say of a film."""

    answer: Answer | None  # None where the film could not be decoded
    problem: str  # why it could not
    model: ModelId

    @property
    def model_name(self) -> str:
        """The model's name without the folders of this machine, and without letters that a film's own set may lack."""
        return to_ascii(PurePath(self.model.name).name or "model")

    def sentences(self) -> list[str]:
        """All that is said about the film, for people; the last line is that of `software`."""
        answer = self.answer
        if answer is None:
            texts = [f"No answer: {self.problem[:_LONGEST]}"]
        elif answer.prob_pneumonia is None:
            texts = [f"No answer: {decision_text(answer)}"]
        else:
            probability = f"Probability of pneumonia {probability_text(answer.prob_pneumonia)}, calibrated"
            texts = [decision_text(answer), probability, threshold_text(answer), answer.note]
        return [to_ascii(text) for text in (*texts, NOT_A_DEVICE, self.software()) if text]

    def software(self) -> str:
        """The model and the program that spoke, in a line."""
        model = f"model {self.model_name}, version {to_ascii(self.model.version)}"
        return f"{MAKER} {version('pulmo')}, {model}, weights {self.model.sha256[:12]}"


class _Report(sr.EnhancedSR):
    def copy_patient_and_study_information(self, dataset: Any) -> None:
        """Nothing: what the film has is put in as it stands, which highdicom would check and refuse."""


def to_ascii(text: str) -> str:
    """A text that can be written in every character set."""
    return text.replace("–", "-").encode("ascii", "replace").decode()


def make_report(film: FilmHeader, verdict: Verdict) -> Any:
    """The report as a DICOM data set."""
    instance = make_uid(film.sop_instance, verdict.model.sha256, verdict.model.version, "report")
    content = sr.MeasurementReport(
        observation_context=_make_context(verdict),
        procedure_reported=codes.RADIOGRAPHY,
        imaging_measurements=[_make_group(film, verdict, make_uid(instance, "finding"))],
    )
    report = _Report(
        evidence=[film.evidence()],
        content=content,
        series_instance_uid=make_uid(instance, "series"),
        series_number=SERIES,
        sop_instance_uid=instance,
        instance_number=1,
        is_complete=True,
        series_description=f"{MAKER} report",
        coding_schemes=codes.list_schemes(),
        **describe_equipment(verdict),
    )
    put_elements(report, film.shared)
    return report


def describe_equipment(verdict: Verdict) -> dict[str, Any]:
    """The attributes that say which program made an object, as highdicom takes them."""
    versions = [version("pulmo"), f"model version {to_ascii(verdict.model.version)}"[:64]]
    return {
        "manufacturer": MAKER,
        "manufacturer_model_name": verdict.model_name[:64],
        "software_versions": versions,
        "device_serial_number": verdict.model.sha256[:64],
    }


def _make_context(verdict: Verdict) -> Any:
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=make_uid(verdict.model.sha256, version("pulmo")),
        name=MAKER,
        manufacturer_name=MAKER,
        model_name=verdict.model_name,
        serial_number=verdict.model.sha256,
    )
    observer = sr.ObserverContext(sr.CodedConcept.from_code(codes.DEVICE), device)
    return sr.ObservationContext(observer_device_context=observer)


def _make_group(film: FilmHeader, verdict: Verdict, uid: str) -> Any:
    answer = verdict.answer
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid, "Pneumonia on this film"),
        finding_type=codes.PNEUMONIA,
        finding_sites=[sr.FindingSite(codes.LUNG)],
        algorithm_id=_identify(verdict),
        measurements=_list_measurements(answer),
        qualitative_evaluations=[
            sr.QualitativeEvaluation(codes.PNEUMONIA, _judge(answer)),
            sr.QualitativeEvaluation(codes.SUMMARY, _summarize(answer)),
        ],
        source_images=[sr.SourceImageForMeasurementGroup(film.sop_class, film.sop_instance)],
    )
    for text in verdict.sentences():
        comment = sr.TextContentItem(codes.COMMENT, text, RelationshipTypeValues.CONTAINS)
        group[0].ContentSequence.append(comment)
    return group


def _identify(verdict: Verdict) -> Any:
    parameters = [f"weights sha256 {verdict.model.sha256}", f"software pulmo {version('pulmo')}"]
    if verdict.answer and verdict.answer.label:
        parameters.append(f"threshold {verdict.answer.threshold!r} of the calibrated probability")
    return sr.AlgorithmIdentification(
        verdict.model_name, to_ascii(verdict.model.version) or "unknown", parameters, manufacturer=MAKER
    )


def _judge(answer: Answer | None) -> Code:
    if answer is None or answer.unsure or answer.refusal:
        return codes.UNDETERMINED
    return codes.PRESENT if answer.label == "PNEUMONIA" else codes.ABSENT


def _summarize(answer: Answer | None) -> Code:
    if answer is None or answer.label is None:
        return codes.NO_SUCCESS
    return codes.WITH_FINDINGS if answer.label == "PNEUMONIA" else codes.WITHOUT_FINDINGS


def _list_measurements(answer: Answer | None) -> list[Any]:
    if answer is None or answer.prob_pneumonia is None:
        return []
    rates = ((codes.SENSITIVITY, answer.sensitivity), (codes.SPECIFICITY, answer.specificity))
    return [
        sr.Measurement(codes.CERTAINTY, _to_percent(answer.prob_pneumonia), codes.PERCENT),
        *(
            sr.Measurement(name, _to_percent(rate.value), codes.PERCENT, properties=_bound(rate))
            for name, rate in rates
            if rate.value is not None
        ),
    ]


def _bound(rate: ValueInInterval) -> Any:
    """The 95% interval, as how far it reaches above and below the value."""
    properties, kind = sr.MeasurementProperties(), RelationshipTypeValues.HAS_PROPERTIES
    if rate.value is None or rate.low is None or rate.high is None:
        return properties
    for name, reach in ((codes.UPPER_RANGE, rate.high - rate.value), (codes.LOWER_RANGE, rate.value - rate.low)):
        properties.append(sr.NumContentItem(name, _to_percent(reach), codes.PERCENT, relationship_type=kind))
    return properties


def _to_percent(share: float) -> float:
    """With as many digits as a decimal string of DICOM holds."""
    return round(100 * share, 6)
