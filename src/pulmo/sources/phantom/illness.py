"""Effects of pneumonia on the phantom's lungs: a bacterial lobe full of fluid, or the spread-out haze of a virus."""

import numpy as np

from pulmo.sources.phantom.anatomy import Frame
from pulmo.sources.phantom.drawing import Array, Dice, bump, ramp

# Side (-1 = the child's right), middle (x beside the midline, y as a share of the lung's height), upper and lower
# fissure likewise; -1 and 3 lie outside the lung.
LOBES = (
    (-1, 0.50, 0.32, -1.0, 0.52),  # right upper
    (-1, 0.36, 0.78, 0.54, 3.0),  # right middle: touches the heart
    (-1, 0.62, 0.95, -1.0, 3.0),  # right lower: touches the diaphragm
    (1, 0.48, 0.38, -1.0, 0.62),  # left upper
    (1, 0.55, 0.78, 0.5, 3.0),  # lingula: touches the heart
    (1, 0.45, 1.00, 0.6, 3.0),  # left lower: behind the heart
)


def consolidate(frame: Frame, bronchi: Array, severity: float, dice: Dice) -> Array:
    """Share of the air that fluid replaces in a bacterial pneumonia: one lobe, bounded by its fissures.

    The larger airways stay open and show as dark branches; where the lobe touches heart or diaphragm their outline
    is lost, because nothing dark is left beside them.
    """
    side, x, y, upper, lower = LOBES[dice.below(len(LOBES))]
    size = dice.bell(0.34 + 0.3 * severity, 0.06)
    x, y = x + dice.bell(0, 0.12), (y + dice.bell(0, 0.1)) * frame.height
    across, down = (side * frame.x - x) / size, (frame.y - y) / (size * dice.between(0.8, 1.2))
    edge = np.sqrt(across * across + down * down) + 0.8 * (dice.cloud(frame.shape, 24) - 0.5)
    level = frame.v + dice.bell(0.1, 0.15) * frame.far
    inside = ramp((level - upper) / 0.03) * ramp((lower - level) / 0.03) * (side * frame.x > -0.1)
    patchy = 0.85 + 0.5 * (dice.cloud(frame.shape, 10) - 0.5)
    filled: Array = (0.35 + 0.6 * severity) * ramp((1.15 - edge) / 0.5) * inside * patchy * (1 - 0.6 * bronchi)
    return filled


def inflame(frame: Frame, cuffs: Array, severity: float, dice: Dice) -> tuple[Array, Array]:
    """Share of the air that haze replaces in a viral pneumonia of both lungs, and the streaks along the airways."""
    across, down = (frame.far - 0.38) / 0.45, (frame.y - 0.62 * frame.height) / (0.5 * frame.height)
    near = bump(np.sqrt(across * across + down * down))
    haze = (0.35 + 0.65 * near) * (0.4 + 0.4 * dice.cloud(frame.shape, 40) + 0.4 * dice.cloud(frame.shape, 14))
    return (0.15 + 0.45 * severity) * haze, (0.13 + 0.5 * severity) * (0.3 + 0.7 * near) * cuffs
