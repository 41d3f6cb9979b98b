"""From the stored values of a DICOM film to gray as a viewer shows them: modality, then VOI, then inversion, once.

All steps work on the different values that a film holds, not on its pixels (DICOM PS3.3 C.11). A step whose attributes
cannot be used, or leave no picture, is passed over for the next, and a note says so.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pulmo.images.film import Gray, ImageError
from pulmo.images.gray import is_picture, scale
from pulmo.images.tables import Unusable, read_items, read_numbers, read_table, read_word

Values = NDArray[np.float64]
_TABLE_SPAN = 2**16
_BAND = 2**22  # pixels at a time, because NumPy makes eight bytes of every index
_POOR_BITS = 2.0  # of information in a pixel: a picture of four gray levels


class Levels(NamedTuple):
    """The different stored values of a film, and how many pixels of the film proper hold each."""

    values: NDArray[np.int64]
    counts: NDArray[np.int64]


def show(stored: NDArray[Any], film: Any) -> tuple[Gray, str]:
    """Gray pixels of a film's stored integers, and a note where display attributes could not be used."""
    levels, places = _find_levels(stored)
    padding = _find_padding(levels.values, stored.dtype.kind == "i", film)
    levels = levels._replace(counts=np.where(padding, 0, levels.counts))
    if not levels.counts.any():
        raise ImageError("the DICOM file holds nothing but padding", "store the film anew, with its pixels")
    notes: list[str] = []
    values = _apply_modality(levels, film, notes)
    gray = _apply_voi(values, levels, film, notes)
    zero = -128 if film.PixelRepresentation else 0
    bytes_alone = film.BitsStored == 8 and zero <= levels.values[0] and levels.values[-1] < zero + 256
    plain = gray is None and bytes_alone and np.array_equal(values, levels.values)
    if gray is None:
        gray = (levels.values - zero).astype(np.uint8) if plain else _stretch(values, levels.counts)
        notes += ["stretched instead"] if notes and not plain else []
    histogram = _histogram(gray, levels.counts)
    # MONOCHROME1 that also asks for the inverse asks for one thing twice
    if (
        "MONOCHROME1" in str(film.PhotometricInterpretation)
        or str(film.get("PresentationLUTShape")).upper() == "INVERSE"
    ):
        gray = np.asarray(~gray)
    gray[padding] = 0
    shown = _take(gray, places)
    if not plain and not is_picture(shown, histogram):
        shown[:] = 0
    return shown, "; ".join(notes)


def _find_levels(stored: NDArray[Any]) -> tuple[Levels, NDArray[Any]]:
    """The levels of a film, and each pixel's place among them."""
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    low, high = int(stored.min()), int(stored.max())
    if high - low >= _TABLE_SPAN:
        values, places, counts = np.unique(stored, return_inverse=True, return_counts=True)
        return Levels(values.astype(np.int64), counts), places.reshape(stored.shape)
    unsigned = stored.view(f"u{stored.dtype.itemsize}")
    # a difference that wraps is the right one without its sign
    places = unsigned - unsigned.dtype.type(low % 2 ** (8 * unsigned.itemsize)) if low else unsigned
    places = places.astype(np.uint16) if places.itemsize > 2 else places
    counts = np.zeros(high - low + 1, np.int64)
    for band in _bands(places):
        counts += np.bincount(band, minlength=len(counts))
    return Levels(np.arange(low, high + 1), counts), places


def _bands(pixels: NDArray[Any]) -> Iterator[NDArray[Any]]:
    flat = pixels.reshape(-1)
    return (flat[start : start + _BAND] for start in range(0, flat.size, _BAND))


def _take(table: Gray, places: NDArray[Any]) -> Gray:
    gray = np.empty(places.shape, np.uint8)
    for band, out in zip(_bands(places), _bands(gray), strict=True):
        np.take(table, band, out=out)
    return gray


def _find_padding(values: NDArray[np.int64], signed: bool, film: Any) -> NDArray[np.bool_]:
    """Which stored values are no part of the film but fill up its rectangle: they are black, however it is shown."""
    limits = [read_word(film, name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if limits[0] is None:
        return np.zeros(values.shape, bool)
    # 16 bits that not every writer declares with the sign that the pixels have
    ends = np.array([limit for limit in limits if limit is not None], np.uint16)
    ends = ends.view(np.int16) if signed else ends
    padding: NDArray[np.bool_] = (values >= ends.min()) & (values <= ends.max())
    return padding


def _apply_modality(levels: Levels, film: Any, notes: list[str]) -> Values:
    """The values that the stored ones stand for: by the first usable lookup table, else rescaled, else as they are."""
    stored = levels.values.astype(float)
    steps: list[Callable[[], Values]] = [
        partial(_look_up, item, stored, levels.counts) for item in read_items(film, "ModalityLUTSequence")
    ]
    steps.append(partial(_rescale, stored, film))
    for step in steps:
        try:
            values: Values = step()
            seen = values[levels.counts > 0]
            if seen.min() == seen.max() and np.count_nonzero(levels.counts) > 1:
                raise Unusable("the modality transformation makes all pixels alike")
            return values
        except Unusable as reason:
            notes.append(str(reason))
    return stored


def _look_up(item: Any, values: Values, counts: NDArray[np.int64]) -> Values:
    return read_table(item, values[counts > 0]).look_up(values)


def _rescale(stored: Values, film: Any) -> Values:
    slopes, intercepts = read_numbers(film, "RescaleSlope"), read_numbers(film, "RescaleIntercept")
    if slopes is None and intercepts is None:
        return stored
    slope = 1.0 if slopes is None else slopes[0]
    intercept = 0.0 if intercepts is None else intercepts[0]
    if not (np.isfinite([slope, intercept]).all() and slope):
        raise Unusable("RescaleSlope and RescaleIntercept are unusable")
    return stored * slope + intercept


def _apply_voi(values: Values, levels: Levels, film: Any, notes: list[str]) -> Gray | None:
    """Gray levels by the first VOI lookup table or window that can be used and leaves a picture; None without any."""
    steps: list[Callable[[], Gray]] = [
        partial(_show_table, item, values, levels.counts) for item in read_items(film, "VOILUTSequence")
    ]
    centers, widths = read_numbers(film, "WindowCenter"), read_numbers(film, "WindowWidth")
    if centers is not None and widths is not None:
        name = str(film.get("VOILUTFunction") or "LINEAR").strip().upper()
        steps += [partial(_window, values, *pair, name) for pair in zip(centers, widths, strict=False)]
    for step in steps:
        try:
            gray = step()
            _require_picture(gray, values, levels.counts)
            return gray
        except Unusable as reason:
            notes.append(str(reason))
    return None


def _show_table(item: Any, values: Values, counts: NDArray[np.int64]) -> Gray:
    table = read_table(item, values[counts > 0])
    return scale(table.look_up(values), float(table.entries.min()), float(table.entries.max()))


def _window(values: Values, center: float, width: float, function: str) -> Gray:
    """DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    least = 1.0 if function == "LINEAR" else np.nextafter(0, 1)
    if not (np.isfinite([center, width]).all() and width >= least):
        raise Unusable(f"a window of center {center:g} and width {width:g} is unusable")
    if function == "LINEAR":
        shown = (values - (center - 0.5)) / (width - 1) + 0.5 if width > 1 else values > center - 0.5
    elif function == "LINEAR_EXACT":
        shown = (values - center) / width + 0.5
    elif function == "SIGMOID":
        with np.errstate(over="ignore"):
            shown = 1 / (1 + np.exp(-4 * (values - center) / width))
    else:
        raise Unusable(f"VOILUTFunction {function[:20]!r} is unknown")
    return scale(shown, 0, 1)


def _require_picture(gray: Gray, values: Values, counts: NDArray[np.int64]) -> None:
    """A film of which a window shows hardly any gray level, while stretching shows many, was not meant to be so."""
    shown = _information(gray, counts)
    if shown < _POOR_BITS and 2 * shown < _information(_stretch(values, counts), counts):
        raise Unusable("the VOI transformation leaves hardly any gray levels")


def _information(gray: Gray, counts: NDArray[np.int64]) -> float:
    """Entropy of the gray levels, in bits a pixel."""
    shares = _histogram(gray, counts) / counts.sum()
    shares = shares[shares > 0]
    return float(-(shares * np.log2(shares)).sum())


def _histogram(gray: Gray, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.bincount(gray, weights=counts, minlength=256).astype(np.int64)


def _stretch(values: Values, counts: NDArray[np.int64]) -> Gray:
    """As `gray.stretch`, of values that occur `counts` times."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(counts[order])
    ends = []
    for share in (0.001, 0.999):
        place = share * (below[-1] - 1)
        lower, upper = (values[order[np.searchsorted(below, np.floor(place) + step, "right")]] for step in (0, 1))
        ends.append(float(lower + (upper - lower) * (place - np.floor(place))))
    return scale(values, *ends)
