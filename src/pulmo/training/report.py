"""The progress bar, the line of each epoch and history.csv."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from pulmo.base.files import write_csv
from pulmo.training.state import Row


class Report:
    """Reports a training to the terminal (`progress`), to a CSV file and to whoever asked to hear of each epoch."""

    def __init__(self, history: Path | None, on_epoch: Callable[[Row], None] | None, progress: bool) -> None:
        self.history, self.on_epoch, self.progress = history, on_epoch, progress

    def open_bar(self, epochs: int, steps: int, done: int) -> "tqdm[Any]":
        """A bar of all steps, of which those of `done` epochs were taken by an earlier process."""
        disable = None if self.progress else True  # None: where stderr is no terminal
        bar: tqdm[Any] = tqdm(total=epochs * steps, initial=done * steps, unit="batch", disable=disable)
        return bar

    def resume(self, rows: list[Row], epochs: int) -> None:
        """Say after which of `epochs` a training goes on, and write the rows of those that are done."""
        if self.progress:
            print(f"resuming after epoch {len(rows)} of {epochs}")
        self.write(rows, rows)

    def write(self, rows: list[Row], new: list[Row]) -> None:
        """Write all rows of the history, and pass the new ones on."""
        if self.history:
            write_csv(self.history, pd.DataFrame(rows))
        for row in new:
            if self.progress:
                tqdm.write(
                    f"epoch {row['epoch']}: loss {row['train_loss']:.4f}, validation loss {row['val_loss']:.4f}, "
                    f"AUROC {row['val_auroc']:.4f}, {row['seconds']:.1f} s"
                )
            if self.on_epoch:
                self.on_epoch(row)
