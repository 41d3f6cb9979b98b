"""Films whose stored values stand for colours of a palette (PALETTE COLOR)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulmo.images.film import ImageError
from pulmo.images.gray import scale
from pulmo.images.tables import Unusable, read_table

_CHANNELS = ("Red", "Green", "Blue")
_BYTE, _WORD = 255.0, 65535.0
_MOST_COLOURS = 2**16


def apply_palette(stored: NDArray[Any], film: Any) -> NDArray[np.uint8]:
    """Red, green and blue of 8 bits (height, width, 3) for each stored value."""
    if "SegmentedRedPaletteColorLookupTableData" in film and "RedPaletteColorLookupTableData" not in film:
        from pydicom.pixels.processing import apply_color_lut

        colours = apply_color_lut(stored, film)[..., :3]
        return colours if colours.dtype == np.uint8 else scale(colours, 0, _WORD)
    low, high = int(stored.min()), int(stored.max())
    if high - low >= _MOST_COLOURS:
        raise ImageError("the palette of the DICOM film cannot have so many colours", "store the film in gray")
    values = np.arange(low, high + 1, dtype=float)
    try:
        tables = [read_table(film, values, f"{name}PaletteColorLookupTable") for name in _CHANNELS]
    except Unusable as error:
        raise ImageError(f"the palette of the DICOM film cannot be used: {error}", "store the film in gray") from None
    # writers put entries of 8 bits into words, and say 16
    top = _BYTE if max(table.entries.max() for table in tables) <= _BYTE else _WORD
    colours = np.stack([scale(table.look_up(values), 0, top) for table in tables], axis=1)
    return colours[stored.astype(np.int64) - low]
