"""A model package loaded into a network that scores films."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from torch import nn

from pulmo.base.errors import UserError
from pulmo.films.rows.stack import Films
from pulmo.model.networks import build_model
from pulmo.model.scoring import Preparation, predict_logits
from pulmo.model.weight_files import read_state
from pulmo.package.info import PackageInfo
from pulmo.package.storage import WEIGHTS, read_known, verify_package


@dataclass(frozen=True)
class Classifier:
    """The network in eval mode on the CPU, and what its package says.

    `films`: split (train, val, test) by the pixel hash of each film that it was made with; empty where it does not say.
    """

    network: nn.Module
    info: PackageInfo
    films: Mapping[str, str] = field(default_factory=dict)

    def score(self, images: Films, batch_size: int = 64, device: str = "auto", precision: str = "auto") -> np.ndarray:
        """Log-odds of PNEUMONIA, float32 (N,), of gray images uint8 (N, S, S) that are sized, fitted and
        harmonised as `info` says."""
        info = self.info
        preparation = Preparation(info.mean, info.std, info.tta_views)
        return predict_logits(self.network, images, batch_size, device, precision, preparation)


def load_classifier(folder: Path) -> Classifier:
    """Load a package and verify it: hash, keys and shapes; anything wrong is a UserError that names the file."""
    info, file = verify_package(folder), folder / WEIGHTS
    network = build_model(info.arch, "none", info.head, info.size, info.network)
    try:
        network.load_state_dict(read_state(file))
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UserError(
            f"{file} does not fit {info.arch} with {info.head} outputs: {reason[:100]}",
            "copy the package again, or run `dvc repro`",
        ) from None
    return Classifier(network.eval(), info, read_known(folder))


def view_films(classifier: Classifier, views: int) -> Classifier:
    """The same classifier, which answers by the mean log-odds of so many views of a film."""
    return replace(classifier, info=classifier.info.model_copy(update={"tta_views": views}))
