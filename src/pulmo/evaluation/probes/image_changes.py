"""Ten changes of the image that leave the diagnosis alone, at five severities each.

They change preprocessed films, uint8 (S, S). Where one has two directions (turn left or right, widen or
narrow), each film keeps the one it drew through all severities. Polarity knows no half-way: its severity is the share
of films that arrive inverted, as when software ignores the tag that says so.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

Change = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]  # one film (S, S), strength, its dice


@dataclass(frozen=True)
class ImageChange:
    """One kind of change, with the strengths of its five severities and what they are measured in."""

    name: str
    unit: str
    strengths: tuple[float, float, float, float, float]
    apply: Change


def change_films(images: np.ndarray, change: ImageChange, strength: float, seed: int) -> np.ndarray:
    """Every film (N, S, S) changed with `strength`; its dice are thrown anew, alike for every strength."""
    dice = np.random.default_rng(seed).spawn(len(images))
    return np.stack([change.apply(image, strength, own) for image, own in zip(images, dice, strict=True)])


def _jpeg(image: np.ndarray, quality: float, dice: np.random.Generator) -> np.ndarray:
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    decoded = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)
    assert decoded is not None
    return decoded


def _blur(image: np.ndarray, sigma: float, dice: np.random.Generator) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)


def _noise(image: np.ndarray, spread: float, dice: np.random.Generator) -> np.ndarray:
    return to_gray(image + spread * dice.standard_normal(image.shape, dtype=np.float32))


def _gamma(image: np.ndarray, ratio: float, dice: np.random.Generator) -> np.ndarray:
    table = 255 * (np.arange(256) / 255) ** _either(ratio, dice)
    return cv2.LUT(image, to_gray(table))


def _contrast(image: np.ndarray, factor: float, dice: np.random.Generator) -> np.ndarray:
    middle = float(image.mean())
    return to_gray(middle + factor * (image.astype(np.float32) - middle))


def _rotate(image: np.ndarray, degrees: float, dice: np.random.Generator) -> np.ndarray:
    middle = (len(image) - 1) / 2
    turn = cv2.getRotationMatrix2D((middle, middle), degrees if dice.random() < 0.5 else -degrees, 1)
    return _warp(image, turn)


def _crop(image: np.ndarray, lost: float, dice: np.random.Generator) -> np.ndarray:
    size = len(image)
    side = max(1, round(size * (1 - lost)))
    top, left = (int(share * (size - side + 1)) for share in dice.random(2))
    return cv2.resize(image[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_LINEAR)


def _aspect(image: np.ndarray, ratio: float, dice: np.random.Generator) -> np.ndarray:
    factor, middle = _either(ratio, dice), (len(image) - 1) / 2
    return _warp(image, np.array([[factor, 0, middle * (1 - factor)], [0, 1, 0]]))


def _resolution(image: np.ndarray, share: float, dice: np.random.Generator) -> np.ndarray:
    size = len(image)
    side = max(1, round(size * share))
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR)


def _invert(image: np.ndarray, strength: float, dice: np.random.Generator) -> np.ndarray:
    return 255 - image


def _warp(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return cv2.warpAffine(image, matrix, image.shape[::-1], flags=cv2.INTER_LINEAR, borderValue=0)


def _either(ratio: float, dice: np.random.Generator) -> float:
    return ratio if dice.random() < 0.5 else 1 / ratio


def to_gray(values: np.ndarray) -> np.ndarray:
    """Gray levels, uint8, of any values."""
    gray: np.ndarray = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return gray


POLARITY = ImageChange("polarity", "share of films inverted, the others untouched", (0.2, 0.4, 0.6, 0.8, 1.0), _invert)
CHANGES = (
    ImageChange("JPEG quality", "quality", (80, 60, 40, 20, 10), _jpeg),
    ImageChange("blur", "sigma in pixels", (0.5, 1, 1.5, 2, 3), _blur),
    ImageChange("noise", "standard deviation in gray levels of 255", (2, 5, 10, 15, 25), _noise),
    ImageChange("gamma", "exponent, or 1 over it", (1.1, 1.25, 1.5, 1.75, 2), _gamma),
    ImageChange("contrast", "factor about the film's mean", (0.85, 0.7, 0.55, 0.4, 0.25), _contrast),
    ImageChange("rotation", "degrees to either side, corners black", (2, 5, 10, 15, 20), _rotate),
    ImageChange("crop", "share of the side lost, anywhere", (0.05, 0.1, 0.15, 0.2, 0.3), _crop),
    ImageChange("aspect", "widened, or narrowed between black bars", (1.05, 1.1, 1.2, 1.3, 1.5), _aspect),
    ImageChange("resolution", "share of the pixels along a side", (0.75, 0.5, 0.35, 0.25, 0.15), _resolution),
    POLARITY,
)
