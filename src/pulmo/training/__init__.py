"""Training: `fit` trains a network on films in memory, resumes where it was killed and keeps the best epoch."""

from pulmo.training.checkpoints import resumable
from pulmo.training.fitting import Fitted, fit
from pulmo.training.settings import Films, TrainSettings

__all__ = ["Films", "Fitted", "TrainSettings", "fit", "resumable"]
