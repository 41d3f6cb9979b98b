"""Networks: any torchvision classifier with one or two output neurons, and how it predicts.

Every film enters as gray values 0..255 and reaches the network through `to_input`, in training and in prediction.
"""

import difflib
import math
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB, of values 0..1; torchvision's weights were trained with these
IMAGENET_STD = (0.229, 0.224, 0.225)
WEIGHT_FILES = (".safetensors", ".pth", ".pt")
# Test-time augmentation: mirrored or not, degrees turned, zoom. The film alone, then four that balance one another.
TTA_VIEWS = (
    (False, 0.0, 1.0),
    (False, -6.0, 0.92),
    (False, 6.0, 1.08),
    (True, 6.0, 0.92),
    (True, -6.0, 1.08),
)

_SIZE_ARGUMENT = {
    "vit_b_16": "image_size",
    "vit_b_32": "image_size",
    "vit_l_16": "image_size",
    "vit_l_32": "image_size",
    "vit_h_14": "image_size",
    "maxvit_t": "input_size",
}
# One output, always, and inputs scaled as their weights want it, which torchvision does only with weights of its own.
_GOOGLENET_AND_INCEPTION = {"aux_logits": False, "aux1": None, "aux2": None, "AuxLogits": None, "transform_input": True}


def build_model(arch: str, weights: str = "none", head: int = 2, size: int = 224) -> nn.Module:
    """A torchvision classifier whose last layer is replaced by one of `head` outputs, for images of `size` pixels.

    `weights` is none, imagenet (torchvision's best for `arch`), the name of a set of torchvision's weights, or the
    path of a state dict (.safetensors or .pth), whose last layer is taken over only if its shape fits.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if arch not in known:
        near = difflib.get_close_matches(arch, known, 3, 0.4)
        raise ValueError(f"train.arch: torchvision has no classifier {arch!r}; {_choices(near or known[:8])}")
    if weights == "none" or weights.endswith(WEIGHT_FILES):
        model = _construct(arch, size)
    else:
        model = _construct_pretrained(arch, weights, size)
    for name, value in _GOOGLENET_AND_INCEPTION.items():
        if hasattr(model, name):
            setattr(model, name, value)
    _replace_head(model, head)
    if weights.endswith(WEIGHT_FILES):
        _load_file(model, Path(weights).expanduser(), arch)
    return model


def _construct(arch: str, size: int, **settings: Any) -> nn.Module:
    from torchvision import models

    if arch in _SIZE_ARGUMENT:
        argument = _SIZE_ARGUMENT[arch]
        settings[argument] = size if argument == "image_size" else (size, size)
    if arch in ("googlenet", "inception_v3") and "weights" not in settings:
        settings["init_weights"] = True
    try:
        model: nn.Module = models.get_model(arch, **settings)
    except (AssertionError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"train.arch: {arch} cannot take preprocess.size {size}: {reason}") from error
    return model


def _construct_pretrained(arch: str, weights: str, size: int) -> nn.Module:
    from torchvision import models
    from torchvision.models.vision_transformer import interpolate_embeddings

    offered = models.get_model_weights(arch)
    name = offered.DEFAULT.name if weights == "imagenet" else weights
    if name not in offered.__members__:
        names = ["none", "imagenet", *offered.__members__, "a .safetensors or .pth file"]
        raise ValueError(f"train.weights: {arch} has no weights {weights!r}; {_choices(names)}")
    chosen = offered[name]
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / Path(chosen.url).name
    try:
        if not arch.startswith("vit_"):
            return _construct(arch, size, weights=chosen)
        model = _construct(arch, size)
        state = chosen.get_state_dict(progress=True, check_hash=True)
        patch = cast(int, model.patch_size)
        model.load_state_dict(interpolate_embeddings(size, patch, state))
        return model
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        if file.exists():
            raise ValueError(f"train.weights: {file} is damaged ({reason}); put a whole copy in its place") from error
        at_hand = [f"{other.name} (at hand)" for other in offered if (folder / Path(other.url).name).exists()]
        raise ValueError(
            f"train.weights: {weights} of {arch} could not be downloaded ({reason}); put {file.name} into {folder} "
            f"($TORCH_HOME/hub/checkpoints), or set train.weights: {' or '.join(at_hand) or 'none'}"
        ) from error


def find_head(model: nn.Module) -> str:
    """Name of the last layer with weights: the one that gives the class scores."""
    names: list[str] = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    return names[-1]


def _replace_head(model: nn.Module, outputs: int) -> None:
    parent_name, _, name = find_head(model).rpartition(".")
    parent = model.get_submodule(parent_name)
    old = getattr(parent, name)
    convolution = isinstance(old, nn.Conv2d)
    setattr(
        parent, name, nn.Conv2d(old.in_channels, outputs, 1) if convolution else nn.Linear(old.in_features, outputs)
    )
    if isinstance(parent, nn.Sequential):
        for index, layer in enumerate(parent):
            if index > int(name if name.isdigit() else len(parent)) and isinstance(layer, nn.ReLU):
                parent[index] = nn.Identity()  # SqueezeNet's last ReLU would forbid log-odds below zero


def _load_file(model: nn.Module, file: Path, arch: str) -> None:
    state = {key: value for key, value in read_state(file).items() if key.split(".")[0] not in _GOOGLENET_AND_INCEPTION}
    head, own = find_head(model), model.state_dict()
    for key in (f"{head}.weight", f"{head}.bias"):
        if key in state and key in own and state[key].shape != own[key].shape:
            del state[key]
    needless = (f"{head}.weight", f"{head}.bias", "num_batches_tracked")  # the last counts, and older files lack it
    missing = [key for key in own if key not in state and not key.endswith(needless)]
    unknown = [key for key in state if key not in own]
    shapes = [key for key in state if key in own and state[key].shape != own[key].shape]
    for what, keys in (("lacks", missing), ("has the unknown", unknown), ("has another shape of", shapes)):
        if keys:
            raise ValueError(f"train.weights: {file} does not fit {arch}: it {what} {keys[0]} and {len(keys) - 1} more")
    model.load_state_dict(state, strict=False)


def read_state(file: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors or .pth file; a missing, damaged or other file is a ValueError that names it."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{file} not found; name an existing file of weights") from None
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read as weights ({' '.join(str(error).split())[:200]})") from error
    except UnpicklingError as error:
        raise ValueError(f"{file} holds more than tensors, which is refused; save a plain state dict") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{file} is not a plain state dict (name: tensor)")
    return state


def _choices(names: Sequence[str]) -> str:
    return f"choose {', '.join(names)}"


def to_input(gray: Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> Tensor:
    """Gray values 0..255 (N, S, S), integer or float, as normalised float32 (N, 3, S, S) in channels-last memory."""
    both = [[1 / (255 * spread) for spread in std], [centre / spread for centre, spread in zip(mean, std, strict=True)]]
    scale, shift = torch.tensor(both).to(gray.device, non_blocking=True)
    inputs: Tensor = gray.float().unsqueeze(-1) * scale
    return inputs.sub_(shift).permute(0, 3, 1, 2)


def logit_pneumonia(outputs: Tensor) -> Tensor:
    """Log-odds of PNEUMONIA (N,), float32: the output of one neuron, or the difference of two (NORMAL, PNEUMONIA)."""
    outputs = outputs.float()
    return outputs[:, 0] if outputs.shape[1] == 1 else outputs[:, 1] - outputs[:, 0]


def choose_device(device: str = "auto") -> torch.device:
    """`auto` takes the GPU where there is one; ValueError for `gpu` where there is none."""
    if device == "gpu" and not torch.cuda.is_available():
        raise ValueError("train.device: gpu, but PyTorch finds no CUDA GPU; set train.device: auto")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def choose_precision(precision: str, device: torch.device) -> str:
    """fp32 or bf16; `auto` takes bf16 only where the hardware computes it faster.

    Emulated it is slower than fp32, and so it is by AVX-512 of an Intel processor (a matrix product takes twice the
    time), whose fast way is AMX, which many virtual machines hide.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        avx512 = torch.cpu._is_avx512_bf16_supported() and "GenuineIntel" not in _read_cpu()
        fast = torch.cpu._is_amx_tile_supported() or avx512
    return "bf16" if fast else "fp32"


def _read_cpu() -> str:
    told = Path("/proc/cpuinfo")
    return told.read_text() if told.exists() else ""


@torch.no_grad()  # inference mode would forbid gradients for good to the parameters that are moved in here
def predict_logits(
    model: nn.Module,
    images: np.ndarray,
    batch_size: int = 64,
    device: str = "auto",
    precision: str = "auto",
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    tta_views: int = 1,
) -> np.ndarray:
    """Log-odds of PNEUMONIA, float32 (N,), of gray images uint8 (N, S, S), which may be memory-mapped.

    The mean over the first `tta_views` of `TTA_VIEWS`. The model is moved to the device and left in eval mode.
    """
    place = choose_device(device)
    bf16 = choose_precision(precision, place) == "bf16"
    model.to(place).to(memory_format=torch.channels_last).eval()
    logits = np.empty(len(images), dtype=np.float32)
    for start in range(0, len(images), batch_size):
        gray = torch.from_numpy(np.array(images[start : start + batch_size])).to(place)
        views = []
        for mirrored, degrees, zoom in TTA_VIEWS[:tta_views]:
            inputs = to_input(move_films(gray, mirrored, degrees, zoom), mean, std)
            with torch.autocast(place.type, torch.bfloat16, enabled=bf16):
                views.append(logit_pneumonia(model(inputs)))
        logits[start : start + batch_size] = torch.stack(views).mean(dim=0).cpu().numpy()
    return logits


def move_films(gray: Tensor, mirrored: bool, degrees: float, zoom: float) -> Tensor:
    """Gray images (N, S, S) mirrored, turned about their middle and enlarged; what comes from outside continues the
    edge. Float32, but for images that stay as they are."""
    if mirrored:
        gray = gray.flip(-1)
    if not degrees and zoom == 1:
        return gray
    angle = math.radians(degrees)
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    matrix = torch.tensor([[[cos, -sin, 0], [sin, cos, 0]]], device=gray.device)
    grid = F.affine_grid(matrix, [1, 1, *gray.shape[1:]], align_corners=False).expand(len(gray), -1, -1, -1)
    moved = F.grid_sample(gray.float().unsqueeze(1), grid, align_corners=False, padding_mode="border")
    return moved.squeeze(1)
