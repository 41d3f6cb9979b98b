"""The results of a model among some of the films, such as those of one subtype, beside all others."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from pulmo.metrics.bootstrap import bootstrap, check_films
from pulmo.metrics.discrimination import NEEDS, measure_auroc, rates
from pulmo.metrics.estimates import Estimate, estimate_difference, estimate_proportion
from pulmo.metrics.ranking import Flags


@dataclass(frozen=True)
class Subgroup:
    """The results of the model among some of the films."""

    name: str
    films: int
    patients: int
    pneumonia: int
    sensitivity: Estimate
    specificity: Estimate
    auroc: Estimate
    gap: dict[str, Estimate]  # sensitivity and specificity, less those of all other films
    against: str  # the films that its AUROC tells it from


def evaluate_subgroups(
    labels: ArrayLike,
    scores: ArrayLike,
    decisions: ArrayLike,
    groups: ArrayLike,
    masks: Mapping[str, ArrayLike],
    resamples: int = 2000,
    seed: int = 0,
) -> list[Subgroup]:
    """Sensitivity, specificity and AUROC within each named mask, however few its films.

    The AUROC of a subgroup of one class (all bacterial, say) is against every film of the other class; `against` says.
    `gap` has sensitivity and specificity less those of all other films.
    """
    label, score, patient = check_films(labels, scores, groups)
    decided = np.asarray(decisions, dtype=bool)

    def decide(part: Flags) -> dict[str, Estimate]:
        about = {"sensitivity": part & label, "specificity": part & ~label}
        if not part.any():
            return dict.fromkeys(about, Estimate(None, None, None, 0, 0))
        values, replicates = bootstrap(rates(label[part], decided[part]), label[part], patient[part], resamples, seed)
        shares = {key: estimate_proportion(float(values[key]), replicates[key], patient[about[key]]) for key in about}
        return {key: share if about[key].any() else replace(share, note=NEEDS[key]) for key, share in shares.items()}

    rows: list[Subgroup] = []
    for name, chosen in masks.items():
        mask = np.asarray(chosen, dtype=bool)
        if not mask.any():
            raise ValueError(f"subgroup {name} holds no film")
        classes = np.unique(label[mask])
        own, others = decide(mask), decide(~mask)
        wide = mask if len(classes) == 2 else mask | (label != classes[0])
        rows.append(
            Subgroup(
                name=name,
                films=int(mask.sum()),
                patients=len(np.unique(patient[mask])),
                pneumonia=int(label[mask].sum()),
                **own,
                auroc=measure_auroc(label[wide], score[wide], patient[wide], resamples, seed),
                gap={name: estimate_difference(others[name], own[name]) for name in others},
                against="its own films" if len(classes) == 2 else f"all {'NORMAL' if classes[0] else 'PNEUMONIA'}",
            )
        )
    return rows
