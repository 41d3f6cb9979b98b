"""An answer in words, and what the decision behind it is worth."""

from pulmo.answering.answer import Answer
from pulmo.metrics.estimates import ValueInInterval, probability_text


def decision_text(answer: Answer) -> str:
    """The decision as a person would say it."""
    refusal, probability = answer.refusal, answer.prob_pneumonia
    if probability is None:
        return refusal[0].upper() + refusal[1:]
    if refusal:
        return f"Called {answer.label} all the same: {refusal}"
    if answer.unsure:
        return f"Leave it to a person: {probability_text(probability)} is not sure enough"
    return f"Called {answer.label}"


def worth_text(answer: Answer) -> str:
    """The worth of the threshold, of 100 test films of each kind, with 95% intervals; empty where it is not known."""
    finds, spares = answer.sensitivity, answer.specificity
    if finds.value is None or spares.value is None:
        return ""
    calls = ValueInInterval(1 - spares.value, *(None if end is None else 1 - end for end in (spares.high, spares.low)))
    return (
        f"Measured on test films: of 100 with pneumonia it finds {_of_hundred(finds)}, "
        f"of 100 without it calls {_of_hundred(calls)} ill"
    )


def _of_hundred(rate: ValueInInterval) -> str:
    assert rate.value is not None
    between = "" if rate.low is None or rate.high is None else f" ({100 * rate.low:.0f} to {100 * rate.high:.0f})"
    return f"{100 * rate.value:.0f}{between}"
