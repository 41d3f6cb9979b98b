"""The choice of the champion: gates that every model must pass, then the present champion to be beaten on validation.

Nothing here looks at test: a number that decides which model is kept is no longer a fair estimate.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pulmo.base.errors import UserError
from pulmo.base.git import run_git
from pulmo.base.names import check_reference
from pulmo.base.params import PromoteParams
from pulmo.base.paths import EVALUATION
from pulmo.base.tables import align, render
from pulmo.experiments.dvc import WORKSPACE
from pulmo.experiments.project import Project
from pulmo.experiments.revisions import read_output
from pulmo.experiments.workspace import find_commit
from pulmo.metrics.comparison import compare_models, pair_predictions, read_predictions
from pulmo.metrics.estimates import Estimate, estimate_text
from pulmo.metrics.reliability import Chance
from pulmo.model.classifier import load_classifier
from pulmo.reporting.saved import RenderedCalibration, ShortcutOnVal, read_part
from pulmo.tracking import registry


@dataclass(frozen=True)
class Gate:
    """A bound that a value must keep; a value that is unknown (None) does not."""

    name: str
    value: float | None
    bound: float
    at_least: bool  # else at most
    note: str = ""  # why the bound is not that of params.yaml

    @property
    def passed(self) -> bool:
        if self.value is None:
            return False
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def format_gates(gates: Sequence[Gate], width: int = 100) -> str:
    """A row a gate: its result, its name, the value and the bound. Notes stand below."""
    rows = [
        [
            "passed" if gate.passed else "FAILED",
            gate.name,
            "unknown" if gate.value is None else f"{gate.value:.3f}",
            f"{'at least' if gate.at_least else 'at most'} {gate.bound:.3f}",
        ]
        for gate in gates
    ]
    return render([align(rows, right=(2,)), *(f"{gate.name}: {gate.note}" for gate in gates if gate.note)], width)


@dataclass(frozen=True)
class Verdict:
    """The case for and against a candidate; `difference`: AUROC on validation, candidate less champion."""

    gates: list[Gate]
    champion: registry.Version | None
    difference: Estimate | None = None
    obstacle: str = ""  # why there is a champion but no difference

    @property
    def objections(self) -> list[str]:
        """The reasons why it should not become champion; empty where it may."""
        against = [f"gate failed: {gate.name}" for gate in self.gates if not gate.passed]
        if self.obstacle:
            against.append(f"cannot be compared with the champion: {self.obstacle}")
        if self.champion and self.difference and (self.difference.low or 0) <= 0:
            against.append(f"does not beat {self.champion.name} on validation, AUROC {estimate_text(self.difference)}")
        return against


def check_gates(report: Mapping[str, Any], leakage: Mapping[str, Any] | None, bounds: PromoteParams) -> list[Gate]:
    """The gates, all on validation, from the contents of reports/evaluation.json and reports/leakage.json.

    The calibration error is that of re-rendered films, where there are any: the temperature is fitted on them. It may
    be as large as a perfectly calibrated model's would be by chance in so few films.
    """
    auroc = read_part(report, Estimate, "val", "metrics", "auroc")
    families = read_part(report, list[ShortcutOnVal], "shortcuts", "families")
    shortcuts = [family.val.value for family in families if family.val]
    best = max((value for value in shortcuts if value is not None), default=0.5)
    margin = None if auroc.value is None else auroc.value - best
    keys = ("patients_across_splits", "exact_duplicates_across_splits")
    leaks = None if leakage is None else float(sum(len(leakage[key]) for key in keys))
    return [
        Gate("AUROC, lower end of its 95% interval", auroc.low, bounds.min_auroc, at_least=True),
        Gate("AUROC beyond the best shortcut's", margin, bounds.min_shortcut_margin, at_least=True),
        _calibration_gate(report, bounds.max_ece),
        Gate("patients or identical films in two splits", leaks, bounds.max_leaks, at_least=False),
    ]


def _calibration_gate(report: Mapping[str, Any], max_ece: float) -> Gate:
    if "calibration_rendered" in report["val"]:
        rendered = read_part(report, RenderedCalibration, "val", "calibration_rendered")
        ece, films, name = rendered.ece, rendered.films, "calibration error (ECE), films re-rendered"
    else:
        ece = read_part(report, Chance, "val", "calibration", "after", "ece")
        films = read_part(report, int, "val", "films")
        name = "calibration error (ECE), films as they are"
    chance = ece.chance_high
    if chance <= max_ece:
        return Gate(name, ece.value, max_ece, at_least=False)
    note = f"at most {chance:.3f}, not {max_ece:.3f}: in {films} films a calibrated model has that by chance alone"
    return Gate(name, ece.value, chance, at_least=False, note=note)


def compare_on_validation(champion: pd.DataFrame, candidate: pd.DataFrame) -> Estimate:
    """AUROC of the candidate less the champion's, by the paired bootstrap over patients, from tables like
    reports/predictions.csv; UserError where they were validated on different films."""
    first, second = (table[table.split == "val"] for table in (champion, candidate))
    a, b = pair_predictions(first, second, "validation")
    report = compare_models(a.label, a.patient, (a.logit, b.logit), (a.called == 1, b.called == 1))
    return report.metrics["auroc"].difference


def find_candidate(project: Project, name: str) -> registry.Candidate:
    """The last evaluated run of an experiment, by its name or the run's id; of a commit or `workspace`, as `dvc repro`
    or `dvc exp apply` leaves it, the run of the evaluation that stands there. UserError where there is none."""
    check_reference(name)
    try:
        return registry.find_candidate(project.store, name)
    except UserError:
        # Two experiments may come to the same evaluation: one that has a name is never answered by another's run.
        if project.dvc.find_commits(name) or not (name == WORKSPACE or find_commit(project.root, name)):
            raise
    if candidate := registry.find_evaluated(project.store, read_output(project, EVALUATION, name)):
        return candidate
    raise UserError(
        f"no evaluated run of {name!r} is in the store: its results were restored, or made elsewhere",
        "`dvc repro -f -s evaluate` makes one of what stands in the workspace",
    )


def judge(project: Project, candidate: registry.Candidate, bounds: PromoteParams) -> Verdict:
    """Hold a candidate against the gates and the champion; changes nothing.

    UserError where its package is damaged, which no reason can force.
    """
    store = project.store
    champion = registry.read_champion(store)
    if champion and champion.run_id == candidate.run_id:
        raise UserError(
            f"{candidate.name} is champion already, as version {champion.number}",
            "promote another experiment, or leave it so",
        )
    load_classifier(registry.fetch_package(store, candidate))
    report = store.read_verified(candidate.run_id, "evaluation.json")
    if report is None:
        raise UserError(f"the run of {candidate.name} holds no evaluation.json", "run the experiment again")
    leakage = store.read_verified(candidate.run_id, "leakage.json")
    gates = check_gates(json.loads(report), json.loads(leakage) if leakage else None, bounds)
    if champion is None:
        return Verdict(gates, None)
    try:
        texts = [store.read_verified(run_id, "predictions.csv") for run_id in (champion.run_id, candidate.run_id)]
        tables = [read_predictions(text) for text in texts if text is not None]
        if len(tables) < 2:
            raise UserError("the predictions of one of them are no longer in the store", "run that experiment again")
        return Verdict(gates, champion, compare_on_validation(*tables))
    except UserError as error:
        return Verdict(gates, champion, obstacle=error.message)


def promote(project: Project, candidate: registry.Candidate, verdict: Verdict, reason: str = "") -> int:
    """Make the candidate champion and record why; returns its version.

    UserError where there are objections and no `reason` says why it becomes champion all the same.
    """
    objections = "; ".join(verdict.objections)
    if objections and not reason:
        raise UserError(f"{candidate.name} was not promoted: {objections}", "--force --reason TEXT promotes it even so")
    if objections:
        why = f"forced: {reason}"
    else:
        why = "first champion, every gate passed"
        if verdict.champion and verdict.difference:
            why = f"beats {verdict.champion.name} on validation, AUROC {estimate_text(verdict.difference)}"
        why += f"; {reason}" if reason else ""
    tags = {
        "experiment": candidate.name,
        "replaced": f"version {verdict.champion.number}, {verdict.champion.name}" if verdict.champion else "",
        "by": run_git(project.root, "config", "user.name") or "unknown",
        "why": why,
        "objections": objections,
    }
    tags = {key: text for key, text in tags.items() if text}
    return registry.register(project.store, candidate, tags, verdict.champion)
