"""What test-time augmentation gives: AUROC of re-rendered validation films by the number of views that are averaged.

Run from the project's root, after `make recipes`: `python docs/views.py EXPERIMENT ...`. It scores validation alone.
"""

import sys
from dataclasses import replace

import pandas as pd
from ranking import opened, read_aurocs

from pulmo.evaluation.probes.renderings import score_renderings
from pulmo.package.info import TTA_VIEWS

FILMS = 300


def main(names: list[str]) -> None:
    """Print a column for each number of views, with the AUROC of each rendering and of their mean."""
    for name in names:
        with opened(name) as (package, images, val):
            columns = {}
            for views in range(1, len(TTA_VIEWS) + 1):
                seen = replace(package, info=package.info.model_copy(update={"tta_views": views}))
                columns[views] = read_aurocs(score_renderings(seen, val, images, 64, FILMS, 42))
        print(f"{name}, by number of views\n{pd.DataFrame(columns).to_string(float_format='{:.4f}'.format)}\n")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("name experiments: python docs/views.py EXPERIMENT ...")
    main(sys.argv[1:])
