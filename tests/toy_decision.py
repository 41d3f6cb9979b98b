"""A decision that was locked by hand."""

from pulmo.metrics.calibration import Temperature
from pulmo.metrics.decisions import Abstention, OperatingPoint
from pulmo.metrics.locked import Locked


def cut_at(threshold: float) -> Locked:
    """Probabilities as they come, cut at `threshold`, every film answered."""
    return Locked(
        Temperature(1.0),
        OperatingPoint("fixed", threshold, threshold, threshold),
        Abstention(0.02, threshold, threshold, reached=True),
    )
