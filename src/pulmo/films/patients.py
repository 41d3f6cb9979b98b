"""Whose film it is: what a CSV, a DICOM header and a file name tell, weighed film by film and brought to one key each.

Keys made from identifiers are numbers in the order of the films, so that the film table gives nobody away.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pulmo.films.names import read_name, read_published, strip_layout
from pulmo.films.rows.table import KNOWN_PATIENT

FEWEST = 10  # identifiers of fewer films may well be of one patient


@dataclass(frozen=True)
class Evidence:
    """The evidence of whose film it is; a field stays empty where nothing tells it."""

    path: str  # relative to data/raw
    csv: str = ""  # column patient
    dicom: str = ""  # something that stands for the PatientID
    study: str = ""  # something that stands for the StudyInstanceUID


def tell_patients(films: Sequence[Evidence]) -> tuple[list[tuple[str, str]], list[str]]:
    """The patient key of each film and who tells it (films.rows.table.Film.patient_from), and what a user should know.

    In falling order: the CSV, a name of Kermany's pneumonias, PatientID, a name of another published set, the study, a
    name of Kermany's normals (which viewers give to exports as well). Films of one PatientID or study share what is
    known of one of them. A film of which nobody tells anything is its own patient.
    """
    csv, csv_notes = _trusted([film.csv for film in films], "value of the column patient")
    dicom, dicom_notes = _trusted([film.dicom for film in films], "PatientID")
    study, study_notes = _trusted([film.study for film in films], "StudyInstanceUID")
    numbers = _Numbers()
    trusted = [Evidence(film.path, *identifiers) for film, *identifiers in zip(films, csv, dicom, study, strict=True)]
    tellers = [_tell(film, numbers) for film in trusted]
    # What the CSV says of one film of a PatientID or study holds for its other films.
    tellers = _adopt([film.dicom for film in trusted], tellers, from_=("csv",), to=("dicom",))
    tellers = _adopt([film.study for film in trusted], tellers, from_=KNOWN_PATIENT, to=("study",))
    return tellers, csv_notes + dicom_notes + study_notes


def _adopt(
    links: Sequence[str], tellers: Sequence[tuple[str, str]], from_: Collection[str], to: Collection[str]
) -> list[tuple[str, str]]:
    """The patients, those told by `to` replaced by what `from_` tells of a film with the same link, if there is one."""
    known = {link: teller for link, teller in zip(links, tellers, strict=True) if link and teller[1] in from_}
    return [known.get(link, teller) if teller[1] in to else teller for link, teller in zip(links, tellers, strict=True)]


def _tell(film: Evidence, numbers: "_Numbers") -> tuple[str, str]:
    key, kind = read_name(film.path)
    if film.csv:
        return numbers.key("csv", film.csv), "csv"
    if kind in ("bacterial", "viral"):
        return key, "name"
    if film.dicom:
        return numbers.key("dicom", film.dicom), "dicom"
    published, teller = read_published(film.path)
    if teller == "published":
        return published, teller
    if film.study:
        return numbers.key("study", film.study), "study"
    if kind == "normal":
        return "/".join([*strip_layout(film.path), key]), "name"
    return (published, teller) if teller else (key, "")


class _Numbers:
    """Numbers for identifiers, from 1 in the order in which they appear, each kind by itself."""

    def __init__(self) -> None:
        self._seen: defaultdict[str, dict[str, int]] = defaultdict(dict)

    def key(self, kind: str, identifier: str) -> str:
        seen = self._seen[kind]
        return f"{kind}-{seen.setdefault(identifier, len(seen) + 1)}"


def _trusted(identifiers: Sequence[str], name: str) -> tuple[list[str], list[str]]:
    """The identifiers less those that stand on half of the films that carry one, or more; and what to say of them.

    One patient with half of ten films or more is less likely than a program that wiped the field, whatever it wrote.
    """
    counts = Counter(filter(None, identifiers))
    films = counts.total()
    if films < FEWEST:
        return list(identifiers), []
    shared = {identifier: count for identifier, count in counts.items() if 2 * count >= films}
    return ["" if identifier in shared else identifier for identifier in identifiers], [
        f"warning: one {name} stands on {count:,} of {films:,} films, so it tells nobody apart and is not used; name "
        "patients in the column patient of a CSV (data.folder.labels)"
        for count in shared.values()
    ]
