"""What the training benchmarks share: films, the way most published projects train on them, and the bare step."""

import statistics
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from pulmo.base.params import AugmentParams, TrainParams
from pulmo.model.device import choose_precision
from pulmo.model.networks import build_model
from pulmo.model.scoring import to_input
from pulmo.training import Films, Row, fit

SIZE = 224
BATCH = 32
CPU = torch.device("cpu")
CLASSES = ("NORMAL", "PNEUMONIA")
AUGMENTATION = AugmentParams(flip=0.5, rotation=7, zoom=0.1, translation=0.05, brightness=0.1, contrast=0.1)
WARM_UP = 10  # steps in which a GPU tries its algorithms
REAL = Path(__file__).resolve().parents[1].parent / "shared" / "xrays" / "kermany224.zip"


def write_films(folder: Path, films: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Films as JPEG files in `folder`/{NORMAL,PNEUMONIA} and as one gray array (films, 224, 224), their labels, and
    what they are: real ones where they lie beside the project, else blurred noise, which costs the same to train on.
    """
    random = np.random.default_rng(0)
    contents: list[tuple[int, bytes]] = []
    if REAL.exists():
        with zipfile.ZipFile(REAL) as archive:
            names = [name for name in archive.namelist() if name.endswith(".jpeg") and "/test/" not in name]
            chosen = [names[row] for row in random.permutation(len(names))[:films]]
            contents = [(int(CLASSES[1] in name), archive.read(name)) for name in chosen]
    what = f"{films} images of blurred noise" if not contents else f"{len(contents)} real films"
    while not REAL.exists() and len(contents) < films:
        noise = cv2.GaussianBlur(random.integers(0, 256, (SIZE, SIZE), dtype=np.uint8), (0, 0), 4)
        jpeg = cv2.imencode(".jpeg", cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX))[1].tobytes()
        contents.append((len(contents) % 2, jpeg))
    images = np.empty((len(contents), SIZE, SIZE), dtype=np.uint8)
    for row, (label, content) in enumerate(contents):
        file = folder / CLASSES[label] / f"{row}.jpeg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        images[row] = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    return images, np.array([label for label, _ in contents]), what


def train_as_published(folder: Path, trainable: Callable[[nn.Module], list[nn.Parameter]], rotate: bool) -> float:
    """Seconds of one epoch of ImageFolder, Pillow transforms and a plain fp32 loop over ResNet-18, without workers,
    which take the cores away from training."""
    from torchvision import datasets, transforms

    steps = [transforms.Resize((SIZE, SIZE)), transforms.Grayscale(3), transforms.RandomHorizontalFlip()]
    steps += [transforms.RandomRotation(7)] if rotate else []
    steps += [transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    films = datasets.ImageFolder(str(folder), transforms.Compose(steps))
    loader = torch.utils.data.DataLoader(films, BATCH, shuffle=True)
    model = build_model("resnet18", "none", 2, SIZE)
    model.requires_grad_(False)
    chosen = [parameter.requires_grad_() for parameter in trainable(model)]
    optimizer = torch.optim.Adam(chosen, 1e-4)
    model.train()
    began = time.perf_counter()
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        loss.item()
    return time.perf_counter() - began


def run_bare_steps(
    images: np.ndarray, labels: np.ndarray, device: torch.device, epochs: int, batch: int, precision: str = "auto"
) -> float:
    """Seconds of nothing but forward, backward and AdamW on ResNet-18, in the precision that `train` would choose or
    the one given, on normalised batches that are already in memory."""
    bf16 = choose_precision(precision, device) == "bf16"
    gpu = device.type == "cuda"
    model = build_model("resnet18", "none", 2, SIZE).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=gpu or None)
    inputs = to_input(torch.from_numpy(images[:batch]).to(device))
    targets = torch.from_numpy(labels[:batch]).to(device)
    torch.backends.cudnn.benchmark = gpu
    model.train()
    began = time.perf_counter()
    for step in range(epochs * -(-len(images) // batch) + WARM_UP * gpu):
        if step == WARM_UP and gpu:
            torch.cuda.synchronize()
            began = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
    loss.item()
    return time.perf_counter() - began


def train_here(images: np.ndarray, labels: np.ndarray, settings: TrainParams) -> tuple[list[Row], float]:
    """Training as the stage train runs it, with a validation of one film a class: the history, and the seconds from the
    begin of the first epoch to the end of the last, what lies between epochs included."""
    pair, ends = np.array([labels.argmin(), labels.argmax()]), []
    films = Films(images, np.arange(len(images)), labels), Films(images, pair, labels[pair])
    fitted = fit(*films, settings, on_epoch=lambda _: ends.append(time.perf_counter()), progress=False)
    return fitted.history, ends[-1] - ends[0] + fitted.history[0]["seconds"]


def describe(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
