"""How models bear validation films as other equipment delivers them, beside the mean over the renderings.

Run from the project's root, after the experiments: `python docs/equipment.py [--second] EXPERIMENT ...`. About two
minutes each; it scores validation alone. With --second, the second set of changes, which is for one look once all is
chosen.
"""

import sys

import pandas as pd
from ranking import opened, read_aurocs

from pulmo.evaluation.probes.equipment import score_equipment
from pulmo.evaluation.probes.equipment_films import FIRST, SECOND
from pulmo.evaluation.probes.renderings import score_renderings


def main(names: list[str], second: bool) -> None:
    """Print a column for each experiment: the AUROC of each change and of their mean, and that of the renderings."""
    columns = {}
    for name in names:
        with opened(name) as (package, images, val):
            changes = SECOND if second else FIRST
            aurocs = read_aurocs(score_equipment(package, val, images, changes, len(val), 42))
            renderings = read_aurocs(score_renderings(package, val, images, 64, len(val), 42))
            columns[name] = aurocs | {"mean of the renderings": renderings["mean"]}
    print(pd.DataFrame(columns).to_string(float_format="{:.4f}".format))


if __name__ == "__main__":
    chosen = [name for name in sys.argv[1:] if name != "--second"]
    if not chosen:
        sys.exit("name experiments: python docs/equipment.py [--second] EXPERIMENT ...")
    main(chosen, "--second" in sys.argv)
