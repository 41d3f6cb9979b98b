"""Pulmo: chest X-ray classification (NORMAL or PNEUMONIA), from raw films to an answer with its uncertainty."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pulmo.answering.answer import Answer
    from pulmo.answering.predictor import Predictor

__all__ = ["Answer", "Predictor"]


def __getattr__(name: str) -> Any:
    """Import what answers only when it is asked for: each command and stage imports this package."""
    if name == "Predictor":
        from pulmo.answering.predictor import Predictor

        return Predictor
    if name == "Answer":
        from pulmo.answering.answer import Answer

        return Answer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
