"""deploy/Dockerfile, its steps run as a shell script in fresh environments.

pip downloads what it names, so this is left out unless `pytest -m network` asks for it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from film_files import GRAY, encode
from running_app import find_port
from small_package import make_package
from small_project import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.network]
NOBODY = 10001


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users may read, as pytest's own are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def read_steps() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", "", (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(step, rest) for step, _, rest in (line.partition(" ") for line in lines)]


def to_script(steps: list[tuple[str, str]], folder: Path) -> str:
    """A shell script that builds below `folder` what the Dockerfile builds below /; each stage is an environment."""
    lines, stage = ["set -eux"], folder
    for step, rest in steps:
        if step == "FROM":
            stage = folder / f"stage{len(lines)}"
            lines += [f"{sys.executable} -m venv {stage}", f'export PATH={stage}/bin:"$PATH"']
        elif step == "WORKDIR":
            lines.append(f"mkdir -p {folder}{rest} && cd {folder}{rest}")
        elif step == "COPY":
            *sources, target = rest.split()
            lines.append(f"cp -r {' '.join(str(ROOT / source) for source in sources)} {target}")
        elif step == "RUN":
            lines.append(re.sub(r"--mount=\S+ ", "", rest).replace("/wheels", f"{folder}/wheels"))
        elif step == "ENV":
            lines.append(f"export {rest}")
    return "\n".join([*lines, f"ln -s {stage} {folder}/last"])


def test_the_image_answers_as_a_user_without_rights(folder):
    steps = read_steps()
    script = to_script(steps, folder)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    make_package(folder / "model")
    port, (*_, entry) = str(find_port()), (json.loads(rest) for step, rest in steps if step == "ENTRYPOINT")
    command = [part.replace("/model", f"{folder}/model") for part in entry]
    assert ("USER", f"{NOBODY}:{NOBODY}") in steps
    reachable = all(parent.stat().st_mode & 1 for parent in Path(sys.executable).resolve().parents)
    user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 and reachable else {}
    environment = {"PATH": f"{folder}/last/bin", "PULMO_TOKEN": "secret", "PYTHONDONTWRITEBYTECODE": "1"}
    began = time.monotonic()
    with subprocess.Popen(
        [*command, "--port", port], cwd="/", env=environment, stdout=subprocess.PIPE, **user
    ) as server:
        try:
            assert server.stdout
            assert b"serves: " in server.stdout.readline()
            assert time.monotonic() - began < 20
            answered = httpx.post(
                f"http://127.0.0.1:{port}/v1/predict",
                files={"films": encode(GRAY, "PNG")},
                headers={"Authorization": "Bearer secret"},
                timeout=20,
            )
            assert answered.json()["films"][0]["answer"]["label"] in ("NORMAL", "PNEUMONIA")
            (check,) = (rest.removeprefix("CMD ") for step, rest in steps if step == "HEALTHCHECK")
            subprocess.run(json.loads(check.replace("8000", port)), env=environment, check=True, timeout=20)
        finally:
            server.terminate()
    names = {path.name for path in (folder / "last/lib").glob("python*/site-packages/*")}
    assert "onnxruntime" in names
    assert not {"torch", "mlflow", "dvc", "pandas"} & names
    size = subprocess.run(["du", "-sm", f"{folder}/last/"], capture_output=True, text=True, check=True).stdout
    assert int(size.split()[0]) < 500
