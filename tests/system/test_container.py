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
import yaml_text
from film_files import GRAY, encode
from running_app import find_port
from small_package import make_package
from small_project import ROOT, kill_all

pytestmark = [pytest.mark.slow, pytest.mark.network]
NOBODY = 10001
UNWANTED = {"torch", "mlflow", "dvc", "pandas"}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that other users may read, as pytest's own are not, with a model and the images `last` and `ray`."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        script = to_script(read_steps(), folder)
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr[-3000:]
        make_package(folder / "model")
        yield folder
    finally:
        shutil.rmtree(folder)


def read_steps() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", "", (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(step, rest) for step, _, rest in (line.partition(" ") for line in lines)]


def to_script(steps: list[tuple[str, str]], folder: Path) -> str:
    """A shell script that builds below `folder` what the Dockerfile builds below /; each stage is an environment with a
    link of its name, or `last`. What Ray's own image has installed is taken from pip."""
    lines, stage = ["set -eux"], folder
    for step, rest in steps:
        if step == "FROM":
            stage = folder / f"stage{len(lines)}"
            image, _, name = rest.partition(" AS ")
            lines += [f"{sys.executable} -m venv {stage}", f"ln -s {stage} {folder}/{name or 'last'}"]
            lines.append(f'export PATH={stage}/bin:"$PATH"')
            if version := re.match(r"rayproject/ray:([\d.]+)-", image):
                lines.append(f"pip install --no-cache-dir 'ray[serve]=={version[1]}'")
        elif step == "WORKDIR":
            lines.append(f"mkdir -p {folder}{rest} && cd {folder}{rest}")
        elif step == "COPY":
            *sources, target = rest.split()
            lines.append(f"cp -r {' '.join(str(ROOT / source) for source in sources)} {target}")
        elif step == "RUN":
            lines.append(re.sub(r"--mount=\S+ ", "", rest).replace("/wheels", f"{folder}/wheels"))
        elif step == "ENV":
            lines.append(f"export {rest}")
    return "\n".join(lines)


def installed(image: Path) -> set[str]:
    return {path.name for path in (image / "lib").glob("python*/site-packages/*")}


def ask(port: str) -> dict:
    answered = httpx.post(
        f"http://127.0.0.1:{port}/v1/predict",
        files={"films": encode(GRAY, "PNG")},
        headers={"Authorization": "Bearer secret"},
        timeout=20,
    )
    return answered.raise_for_status().json()["films"][0]["answer"]


def test_the_image_answers_as_a_user_without_rights(folder):
    steps = read_steps()
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
            assert ask(port)["label"] in ("NORMAL", "PNEUMONIA")
            (check,) = (rest.removeprefix("CMD ") for step, rest in steps if step == "HEALTHCHECK")
            subprocess.run(json.loads(check.replace("8000", port)), env=environment, check=True, timeout=20)
        finally:
            server.terminate()
    assert "onnxruntime" in installed(folder / "last")
    assert not UNWANTED & installed(folder / "last")
    size = subprocess.run(["du", "-sm", f"{folder}/last/"], capture_output=True, text=True, check=True).stdout
    assert int(size.split()[0]) < 500


def is_ready(port: int) -> bool:
    """True where a replica answers."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).is_success
    except httpx.TransportError:
        return False


def test_the_image_for_ray_answers_as_its_file_for_kubernetes_says(folder, tmp_path):
    """`serve run` does on this machine what KubeRay does with the same configuration."""
    spec = yaml_text.load((ROOT / "deploy/rayservice.yaml").read_text(encoding="utf-8"))["spec"]
    config, port = yaml_text.load(spec["serveConfigV2"]), find_port()
    config["http_options"] = {"host": "127.0.0.1", "port": port}
    config["applications"][0]["args"] |= {"fewest": 1, "most": 1, "package": str(folder / "model")}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    environment = {"PATH": f"{folder}/ray/bin:{os.defpath}", "PULMO_TOKEN": "secret", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [f"{folder}/ray/bin/serve", "run", "config.yaml"]
    log, end = tmp_path / "log", time.monotonic() + 120
    with (
        log.open("wb") as output,
        subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=output, stderr=output) as server,
    ):
        try:
            while not is_ready(port):
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.2)
            assert ask(str(port))["label"] in ("NORMAL", "PNEUMONIA")
        finally:
            kill_all(server)
    assert not UNWANTED & installed(folder / "ray")
