"""The process that decodes foreign films: contents on its standard input, answers on its standard output."""

import importlib
import os
import pickle
import signal
import sys
import warnings

from pulmo.images.decode import decode_here
from pulmo.images.film import DecodedFilm, ImageError
from pulmo.images.guard import DICOM, receive, send
from pulmo.images.header import find_header
from pulmo.images.limits import MemoryShortage, is_short, lift_limits, limit_film

_Answer = tuple[tuple[int, int], bytes, tuple[object, ...]] | ImageError | MemoryShortage


def main() -> None:
    warnings.simplefilter("ignore")  # of decoders about what they then read or refuse
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    if sys.argv[1:] == [DICOM]:
        _import_pydicom()  # at once, so that the first film does not wait for it
    source = sys.stdin.buffer
    # Libraries that print would garble the answers, and a damaged film is no news
    answers = os.fdopen(os.dup(1), "wb")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    while True:
        try:
            content = receive(source)
        except EOFError:
            return
        if find_header(content) is not None:
            _import_pydicom()  # before the limits, which are for the film
        limit_film(len(content))
        answer = pickle.dumps(_answer(content))
        lift_limits()
        send(answers, answer)


def _import_pydicom() -> None:
    importlib.import_module("pydicom.filereader")


def _answer(content: bytes) -> _Answer:
    try:
        film: DecodedFilm = decode_here(content, None)
        return film.image.size, film.image.tobytes(), tuple(film[1:])
    except MemoryError:
        reason = "decoding takes more memory than any film of its size needs"
        return MemoryShortage(len(content) / 1e6) if is_short() else ImageError(reason)
    except (ImageError, MemoryShortage) as error:
        return error


if __name__ == "__main__":
    main()
