"""What the seed of training decides, and what several give together: AUROC of validation films in other renderings and
from other equipment.

Run from the project's root, after `dvc exp apply ours`: `python docs/seeds.py FOLDER SEED SEED ...`. A training each
(twenty minutes on two cores), kept in FOLDER, so that a killed run goes on, and some five minutes to score it. No test
film is scored. For a variant, change params.yaml before and run `dvc repro preprocess`.
"""

import sys
from pathlib import Path

import pandas as pd
import torch
from ranking import read_aurocs
from safetensors.torch import load_file, save_file
from torch import nn

from pulmo.base import paths
from pulmo.base.params_file import load_params
from pulmo.evaluation.probes.equipment import score_equipment
from pulmo.evaluation.probes.equipment_films import FIRST
from pulmo.evaluation.probes.renderings import score_renderings
from pulmo.films.rows.processed import open_images, read_rows
from pulmo.model.classifier import Classifier
from pulmo.model.networks import build_model
from pulmo.model.scoring import to_input
from pulmo.package.harmony import read_harmony
from pulmo.package.info import PackageInfo
from pulmo.training import Films, fit


def main(folder: Path, seeds: list[int]) -> None:
    """Print a column for each seed, for the mean of their log-odds and for the mean of their weights."""
    params = load_params(paths.PARAMS)
    settings = params.train
    images = open_images(paths.IMAGES)
    train, val = (read_rows(paths.SPLITS, paths.INDEX, split) for split in ("train", "val"))
    info = PackageInfo(
        arch=settings.arch,
        head=settings.head,
        size=images.shape[1],
        fit=params.preprocess.fit,
        harmony=read_harmony(paths.HARMONY),
        tta_views=params.evaluate.tta_views,
    )

    def score(model: nn.Module) -> list[pd.DataFrame]:
        classifier = Classifier(model.eval(), info)
        rendered = score_renderings(classifier, val, images, 64, len(val), 42)
        return [rendered, score_equipment(classifier, val, images, FIRST, len(val), 42)]

    tables, states = {}, []
    for seed in seeds:
        file = folder / f"seed-{seed}.safetensors"
        model = build_model(settings.arch, "none", settings.head, info.size)
        if not file.exists():
            films = [Films(images, table.row.to_numpy(), table.target.to_numpy()) for table in (train, val)]
            fitted = fit(*films, settings.model_copy(update={"seed": seed}), resume=folder / f"seed-{seed}")
            save_file({name: value.contiguous() for name, value in fitted.model.state_dict().items()}, file)
        states.append(load_file(file))
        model.load_state_dict(states[-1])
        tables[f"seed {seed}"] = score(model)
    tables["log-odds"] = [
        scored[0].assign(logit=sum(table.logit for table in scored) / len(scored))
        for scored in zip(*tables.values(), strict=True)
    ]
    soup = {name: torch.stack([state[name].float() for state in states]).mean(dim=0) for name in states[0]}
    model.load_state_dict(soup)
    batches = (to_input(torch.from_numpy(images[rows])) for rows in torch.tensor(train.row.to_numpy()).split(64))
    torch.optim.swa_utils.update_bn(batches, model)  # statistics of its own: those of other weights fit it badly
    tables["weights"] = score(model)
    for place, title in enumerate(("renderings", "other equipment")):
        values = {name: read_aurocs(scored[place]) for name, scored in tables.items()}
        print(f"{title}\n{pd.DataFrame(values).to_string(float_format='{:.4f}'.format)}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("name a folder and two seeds or more: python docs/seeds.py FOLDER SEED SEED ...")
    main(Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]])
