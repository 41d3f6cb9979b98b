"""Sweeps: Optuna proposes params, and each trial is a DVC experiment and an MLflow run below the run of the sweep.

Trials are judged by their AUROC on validation alone. The study lives in a database: a killed sweep goes on where it
was, and several workers, on one machine or many, share one study.
"""

from pathlib import Path

import optuna

from pulmo.base import paths
from pulmo.base.errors import UserError, from_database
from pulmo.experiments.aside import prepare_aside
from pulmo.experiments.exchange import Exchange, open_exchange
from pulmo.experiments.project import Project
from pulmo.experiments.search import Search
from pulmo.experiments.study import check_origin, keep_origin, keep_space, lost_database, open_study
from pulmo.experiments.sweep_file import Sweep, read_sweep
from pulmo.tracking import trial_runs


def run_sweep(project: Project, file: Path, storage: str = "") -> Path:
    """Run a sweep, or go on with one, up to its budget; returns the folder of its reports, sweep.json and history.png.

    Budget: trials count over every start and worker, also those that failed; hours count from this start. The study is
    kept in optuna.db at the root of the project unless `storage` names another database, which checkouts of one commit
    share: each pushes what it tried and fetches what the others did. UserError where it was stopped, no trial came to
    an end, or this checkout cannot share.
    """
    sweep = read_sweep(file, project.root / paths.PARAMS)
    prepare_aside(project)
    exchange = open_exchange(project) if storage else None
    study = _prepare_study(project, sweep, file, storage, exchange)
    parent = trial_runs.open_sweep(project.store, sweep.name)
    search = Search(project, sweep, study, parent, exchange)
    status = "FAILED"
    try:
        search.run()
        status = "KILLED" if search.stopping.is_set() else status
        search.check_end()
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    except UserError:
        raise
    except Exception as error:
        if known := from_database(error) or lost_database(error, storage):
            raise known from None
        raise
    finally:
        project.store.client.set_terminated(parent.run_id, status)
    return search.folder


def _prepare_study(project: Project, sweep: Sweep, file: Path, storage: str, exchange: Exchange | None) -> optuna.Study:
    """The study, with this checkout fit to take part in it; UserError where it cannot be."""
    worker = project.address if exchange else ""
    study = open_study(sweep, storage or f"sqlite:///{project.root / 'optuna.db'}", worker)
    sent = exchange.list_sent(sweep.name) if exchange else []
    if not study.trials and (sent or project.dvc.find_commits(f"{sweep.name}-[0-9]*")):
        there = f" --git-remote {exchange.remote}" if exchange and sent else ""
        raise UserError(
            f"{file}: name: experiments of another study {sweep.name} are there",
            f"take a new name, or remove them with `dvc exp remove{there}`",
        )
    keep_space(sweep, study, file)
    if exchange:
        check_origin(sweep, study, exchange.commit)
        exchange.share_data()
        keep_origin(sweep, study, exchange.commit)
    return study
