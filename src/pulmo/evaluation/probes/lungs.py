"""Roughly where the lungs lie on a frontal chest film, without any training."""

from functools import cache

import cv2
import numpy as np

HOW = "two lung-shaped outlines, alike for every film, moved and scaled to where they fit its blurred gray values best"
_SIDE = 64  # the film is reduced to this side
_OUTLINE = np.array(  # one lung: from the midline outwards in halves of the width, downwards in heights
    [
        (0.20, 0.10),
        (0.30, 0.02),
        (0.45, 0.02),
        (0.62, 0.14),
        (0.78, 0.40),
        (0.88, 0.75),
        (0.90, 1.00),
        (0.72, 0.90),
        (0.45, 0.84),
        (0.26, 0.84),
        (0.22, 0.50),
    ]
)


def find_lungs(image: np.ndarray) -> np.ndarray:
    """Lung mask, bool (S, S), of an upright frontal film uint8 (S, S), whether the lungs are clear or opaque.

    Among pairs of outlines 36 to 60 of 64 wide and 32 to 60 high, the one whose dark shape correlates best with the
    film after histogram equalisation; larger and more central pairs are preferred, which two constants weigh. Tried
    by eye on 80 children's films: right on about nine in ten, too wide or too short on the others.
    """
    small = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    small = cv2.equalizeHist(cv2.GaussianBlur(small, (0, 0), 1.5)).astype(np.float32)
    best, mask = -np.inf, np.zeros((_SIDE, _SIDE), np.uint8)
    for pair in _pairs():
        height, width = pair.shape
        fit = cv2.matchTemplate(small, 1 - pair.astype(np.float32), cv2.TM_CCOEFF_NORMED)
        off_centre = np.abs(np.arange(fit.shape[1]) + width / 2 - _SIDE / 2) / _SIDE
        fit = (fit - off_centre) * (width * height / _SIDE**2) ** 0.65
        top, left = np.unravel_index(fit.argmax(), fit.shape)
        if fit[top, left] > best:
            best = fit[top, left]
            mask[:] = 0
            mask[top : top + height, left : left + width] = pair
    return cv2.resize(mask, image.shape[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)


@cache
def _pairs() -> list[np.ndarray]:
    return [_draw_pair(width, height) for width in range(36, 61, 4) for height in range(32, 61, 4)]


def _draw_pair(width: int, height: int) -> np.ndarray:
    pair = np.zeros((height, width), np.uint8)
    for side in (-1, 1):
        points = np.array([width / 2, 0]) + _OUTLINE * [side * width / 2, 0.92 * height]
        cv2.fillPoly(pair, [np.rint(points * 16).astype(np.int32)], 1, shift=4)
    return pair
