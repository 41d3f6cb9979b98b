"""Training: `fit` trains a network on films in memory, resumes where it was killed and keeps the best epoch."""

from pulmo.training.checkpoints import resumable
from pulmo.training.devices import resolve_settings
from pulmo.training.launch import is_first_process, start_processes
from pulmo.training.loop import Fitted, fit
from pulmo.training.rows import Films
from pulmo.training.state import Row

__all__ = ["Films", "Fitted", "Row", "fit", "is_first_process", "resolve_settings", "resumable", "start_processes"]
