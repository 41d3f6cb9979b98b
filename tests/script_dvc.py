"""DVC as a shell script, for what is done around it."""

import json
import os
from pathlib import Path

from small_project import run

from pulmo.experiments.dvc import Dvc


class ScriptDvc(Dvc):
    """A shell script in the place of dvc; the message of a commit that it leaves behind is the AUROC."""

    broken: BaseException | None = None  # what comes of reading a result

    def write(self, script: str) -> None:
        (self.root / "bin").mkdir(exist_ok=True)
        (self.root / "bin/dvc").write_text(f"#!/bin/bash\n{script}\n")
        (self.root / "bin/dvc").chmod(0o755)

    def command(self, *arguments: str) -> dict[str, object]:
        return {"args": [str(self.root / "bin/dvc"), *arguments], "cwd": self.root, "env": dict(os.environ)}

    def read(self, path: Path, revision: str) -> str:
        if self.broken:
            raise self.broken
        auroc = run(self.root, "git", "log", "-1", "--format=%s", revision)
        return json.dumps({"val": {"auroc": float(auroc)}})

    @property
    def commit(self) -> str:
        return run(self.root, "git", "rev-parse", "HEAD").strip()
