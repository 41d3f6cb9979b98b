"""What a change at the edge of a film, where no patient lies, does to the answer of a model.

Run from the project's root, after `make recipes`: `python docs/edge.py EXPERIMENT ...`. It scores validation alone.
"""

import sys

import cv2
import numpy as np
import pandas as pd
from ranking import opened

from pulmo.metrics.ranking import ranking

DEGREES = 5.0
CROP, FRAME = 0.1, 0.03  # of the side, at each edge


def main(names: list[str]) -> None:
    """Print AUROC on validation and the mean change of the log-odds of PNEUMONIA, of PNEUMONIA and of NORMAL films."""
    for name in names:
        with opened(name) as (package, images, val):
            label, rows = val.target.to_numpy() == 1, {}
            for change, films in render(images[val.row], label).items():
                logits = package.score(films).astype(float)
                auroc = ranking(label, logits)(np.ones((1, len(label))))["auroc"][0]
                rows[change] = {"AUROC": auroc, "PNEUMONIA": logits[label].mean(), "NORMAL": logits[~label].mean()}
        table = pd.DataFrame(rows).T
        table.iloc[:, 1:] -= table.iloc[0, 1:]
        print(f"{name}\n{table.to_string(float_format='{:+.3f}'.format)}\n")


def render(films: np.ndarray, label: np.ndarray) -> dict[str, np.ndarray]:
    """Films (N, S, S) with other edges, by the name of the change."""
    cropped = [crop(film) for film in films]
    dice = np.random.default_rng(42)
    donors = np.where(label, *(dice.choice(np.flatnonzero(label == other), len(label)) for other in (False, True)))
    return {
        "as it is": films,
        f"turned by {DEGREES:g} degrees, corners black": np.stack([turn(f, cv2.BORDER_CONSTANT) for f in films]),
        f"turned by {DEGREES:g} degrees, edge continued": np.stack([turn(f, cv2.BORDER_REPLICATE) for f in films]),
        "black frame": np.stack([frame(film) for film in films]),
        "cropped": np.stack(cropped),
        "cropped, with a black frame": np.stack([frame(film) for film in cropped]),
        "outer 5% of a film of the other class": swap(films, films[donors], 0.05),
        "outer 10% of a film of the other class": swap(films, films[donors], 0.1),
    }


def swap(films: np.ndarray, donors: np.ndarray, share: float) -> np.ndarray:
    """Films (N, S, S) with the outer `share` of the side, at each edge, of their donors (N, S, S)."""
    width = round(share * films.shape[1])
    swapped = donors.copy()
    swapped[:, width:-width, width:-width] = films[:, width:-width, width:-width]
    return swapped


def turn(film: np.ndarray, border: int) -> np.ndarray:
    """The film turned about its middle."""
    middle = (len(film) - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), DEGREES, 1)
    return cv2.warpAffine(film, matrix, film.shape[::-1], borderMode=border)


def frame(film: np.ndarray) -> np.ndarray:
    """The film with its edges black."""
    width = round(FRAME * len(film))
    return np.pad(film[width:-width, width:-width], width)


def crop(film: np.ndarray) -> np.ndarray:
    """The middle of the film, at its size."""
    lost = round(CROP * len(film))
    return cv2.resize(film[lost:-lost, lost:-lost], film.shape[::-1])


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("name experiments: python docs/edge.py EXPERIMENT ...")
    main(sys.argv[1:])
