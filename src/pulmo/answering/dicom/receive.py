"""The decision about each object that arrives: a film to answer, nothing of ours, or too much."""

from enum import IntEnum

from pulmo.answering.dicom.header import MAKER, NotDicom, read_film_header
from pulmo.answering.dicom.spool import Spool
from pulmo.base.process import tell
from pulmo.images.subject import is_plain_film

MOST_BYTES = 160 * 2**20  # of one film: 64 million pixels of 16 bits, and a header
# Computed radiography; digital X-ray for presentation; radiofluoroscopy; secondary captures, with one frame or several
FILM_CLASSES = tuple(f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("1", "1.1", "12.2", "7", "7.1", "7.2", "7.3", "7.4"))


class Outcome(IntEnum):
    """What became of an object, as DICOM's status and failure reason."""

    TAKEN = 0x0000
    UNKNOWN_CLASS = 0x0122
    NO_ROOM = 0xA700
    NO_FILM = 0xA900  # without the UIDs of one
    TOO_LARGE = 0xC000


def take(spool: Spool, content: bytes) -> Outcome:
    """Take a DICOM file: keep it to be answered, or pass over what is no plain film, and our own pictures."""
    if len(content) > MOST_BYTES:
        return Outcome.TOO_LARGE
    try:
        header = read_film_header(content)
    except NotDicom as error:
        tell(f"not taken: {error.message}")
        return Outcome.NO_FILM
    if header.sop_class not in FILM_CLASSES:
        return Outcome.UNKNOWN_CLASS
    if header.maker == MAKER:
        tell("passed over: a picture of our own")
        return Outcome.TAKEN
    if not is_plain_film(header.modality):
        tell("passed over: no plain X-ray film by its modality")
        return Outcome.TAKEN
    try:
        number = spool.add_film(content)
    except OSError as error:
        tell(f"not taken: {error.strerror or error}")
        return Outcome.NO_ROOM
    if number is None:
        tell("not taken: the spool is full, the sender has to try again")
        return Outcome.NO_ROOM
    tell(f"film {number}: taken")
    return Outcome.TAKEN
