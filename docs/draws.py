"""What an accuracy on 100 films hangs on: recipe resnet50-head, drawn anew and trained at several learning rates.

Run from the project's root: `python docs/draws.py PATH/chest_xray.zip [WEIGHTS]`. About ten minutes on two cores,
nearly all of it for the outputs of the frozen network, which are computed once.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from pulmo.films.rows.labels import LABELS
from pulmo.images.decode import read_image
from pulmo.model.networks import build_model
from pulmo.model.scoring import to_input
from pulmo.sources import folder as own_folder

DRAWS = 20
RATES = (0.0001, 0.0003, 0.001, 0.003, 0.01)


def main(films: Path, weights: str) -> None:
    """Print mean and spread over draws of the accuracy on 100 test films, by learning rate."""
    with tempfile.TemporaryDirectory() as folder:
        listed, _ = own_folder.fetch(Path(folder), films)
        images = np.stack([read_image(Path(folder) / film.path, 224, "crop") for film in listed])
    features = torch.stack([embed(images, weights, mirrored) for mirrored in (False, True)], dim=1)
    positive = torch.tensor([float(film.label == LABELS[1]) for film in listed])
    is_test = np.array([film.source_split == "test" for film in listed])
    print(f"{len(listed)} films, {DRAWS} draws of 200 / 100 / 100 films, a class each half of them")
    print("learning rate   accuracy, mean (sd; lowest to highest)   AUROC on all of test   validation loss")
    for rate in RATES:
        found = np.array([train_head(features, positive, is_test, rate, draw) for draw in range(DRAWS)])
        accuracy, auroc, loss = found.T
        spread = f"{accuracy.mean():.3f} ({accuracy.std(ddof=1):.3f}; {accuracy.min():.2f} to {accuracy.max():.2f})"
        print(f"{rate:<13}   {spread:38}   {auroc.mean():.3f}                  {loss.mean():.3f}")


@torch.inference_mode()
def embed(images: np.ndarray, weights: str, mirrored: bool) -> Tensor:
    """What the last layer of ResNet-50 would see, float32 (N, 2048)."""
    model = build_model("resnet50", weights, 1, 224).eval().to(memory_format=torch.channels_last)
    model.fc = nn.Identity()
    batches = []
    for start in range(0, len(images), 32):
        gray = torch.from_numpy(images[start : start + 32])
        with torch.autocast("cpu", torch.bfloat16):
            batches.append(model(to_input(gray.flip(-1) if mirrored else gray)).float())
    return torch.cat(batches)


def train_head(features: Tensor, positive: Tensor, is_test: np.ndarray, rate: float, draw: int) -> tuple[float, ...]:
    """The recipe on one draw: accuracy on its 100 test films, AUROC on all of test, loss on its 100 for validation."""
    dice = np.random.default_rng(draw)
    torch.manual_seed(draw)

    def pick(of: np.ndarray, films: int) -> list[np.ndarray]:
        return [dice.permutation(np.flatnonzero(of & (positive.numpy() == label)))[:films] for label in (0, 1)]

    drawn = pick(~is_test, 150)
    train, val = (torch.from_numpy(np.concatenate([part[rows] for part in drawn])) for rows in (SLICE, ~SLICE))
    test = torch.from_numpy(np.concatenate(pick(is_test, 50)))
    head = nn.Linear(features.shape[-1], 1)
    optimizer = torch.optim.Adam(head.parameters(), rate)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    best, since, kept, loss_kept = -1.0, 0, head.state_dict(), 0.0
    for _ in range(30):
        for rows in train[torch.randperm(len(train))].split(32):
            seen = features[rows, (torch.rand(len(rows)) < 0.5).long()]
            optimizer.zero_grad()
            bce(head(seen)[:, 0], positive[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            scores = head(features[val, 0])[:, 0]
            loss = float(bce(scores, positive[val]))
        schedule.step(loss)
        auroc = roc_auc_score(positive[val], scores)
        since += 1
        if auroc > best:
            best, since, loss_kept = auroc, 0, loss
            kept = {key: value.clone() for key, value in head.state_dict().items()}
        if since >= 5:
            break
    head.load_state_dict(kept)
    with torch.no_grad():
        right = (head(features[test, 0])[:, 0] > 0) == (positive[test] > 0)
        everywhere = head(features[is_test, 0])[:, 0]
    return float(right.float().mean()), float(roc_auc_score(positive[is_test], everywhere)), loss_kept


SLICE = np.arange(150) < 100  # of the 150 films of a class that are drawn: those to train on

if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("name the films: python docs/draws.py PATH/chest_xray.zip")
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "imagenet")
