import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from filelock import FileLock

from pulmo.base.code import PACKAGE, reached_code
from pulmo.base.errors import UserError
from pulmo.base.files import sha256_file
from pulmo.base.params import AugmentParams, TrainParams
from pulmo.model.augmentation import make_generator
from pulmo.model.networks import build_model
from pulmo.training.checkpoints import Checkpoint, resumable
from pulmo.training.devices import explained_failures, open_fabric
from pulmo.training.features import FilmFeed, StoredFeed, count_variants, store_features
from pulmo.training.freezing import split_frozen
from pulmo.training.network import Compilable
from pulmo.training.objective import Objective
from pulmo.training.optimization import (
    build_optimizer,
    class_weights,
    compute_divergence,
    compute_loss,
    learning_rate,
)
from pulmo.training.rows import Films, Rows, cut_batches, draw_order, skip_easy
from pulmo.training.sharding import shard
from pulmo.training.speedup import speed_up
from pulmo.training.state import State

CPU = torch.device("cpu")
ALONE = open_fabric(TrainParams(device="cpu", precision="fp32"))
TARGETS = torch.tensor([0, 1, 1, 1, 0, 1])


def draw_outputs(head: int) -> torch.Tensor:
    return torch.randn(6, head, generator=torch.Generator().manual_seed(0)) * 3


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_two_outputs_get_cross_entropy(smoothing):
    outputs = draw_outputs(2)
    expected = F.cross_entropy(outputs, TARGETS, label_smoothing=smoothing)
    assert compute_loss(outputs, TARGETS, "cross_entropy", smoothing).item() == pytest.approx(expected.item(), abs=1e-6)


def test_weighted_cross_entropy_is_pytorchs():
    outputs, weights = draw_outputs(2), class_weights(TARGETS)
    expected = F.cross_entropy(outputs, TARGETS, weight=weights)
    assert compute_loss(outputs, TARGETS, "cross_entropy", 0.0, weights).item() == pytest.approx(expected.item())
    assert weights.tolist() == pytest.approx([6 / 4, 6 / 8])  # 1/count, mean 1 over the films


def test_one_output_gets_binary_cross_entropy():
    outputs = draw_outputs(1)
    expected = F.binary_cross_entropy_with_logits(outputs[:, 0], TARGETS.float())
    assert compute_loss(outputs, TARGETS, "bce").item() == pytest.approx(expected.item())


@pytest.mark.parametrize("head", [1, 2])
def test_focal_loss_discounts_what_is_known(head):
    outputs = draw_outputs(head)
    logits = outputs[:, 0] if head == 1 else outputs[:, 1] - outputs[:, 0]
    right = torch.sigmoid(torch.where(TARGETS == 1, logits, -logits))
    expected = (-((1 - right) ** 2) * torch.log(right)).mean()
    assert compute_loss(outputs, TARGETS, "focal").item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("head", [1, 2])
def test_the_divergence_of_two_answers_is_kullback_and_leiblers_both_ways(head):
    first, second = draw_outputs(head), draw_outputs(head).flip(0)
    both = [F.pad(outputs, (1, 0)) if head == 1 else outputs for outputs in (first, second)]
    one, other = (outputs.log_softmax(dim=1) for outputs in both)
    each = [F.kl_div(*pair, reduction="none", log_target=True).sum(dim=1) for pair in ((one, other), (other, one))]
    weights = class_weights(TARGETS)
    assert compute_divergence(first, second, TARGETS).item() == pytest.approx(sum(each).mean().item(), rel=1e-4)
    expected = (sum(each) * weights[TARGETS]).sum() / weights[TARGETS].sum()
    assert compute_divergence(first, second, TARGETS, weights).item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_divergence_pushes_two_answers_together_and_more_so_where_both_are_sure():
    first, second = (torch.tensor([[0.5], [8.0]]) * sign for sign in (1, -1))
    first.requires_grad_()
    compute_divergence(first, second, torch.tensor([0, 1])).backward()
    unsure, sure = first.grad.flatten().tolist()
    assert 0 < unsure < sure


class MeanGray(torch.nn.Module):
    """Answers by the mean of its inputs, or by nothing."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(weight))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.weight * inputs.mean(dim=(1, 2, 3))[:, None]


@pytest.mark.parametrize("balance", ["none", "weights"])
def test_consistency_costs_a_network_that_heeds_the_acquisition_and_no_other(balance):
    settings = TrainParams(head=1, loss="bce", class_balance=balance)
    feeds = [FilmFeed(Rows(FILMS, np.arange(6), CPU), AugmentParams(), None, swaps=swaps) for swaps in (False, True)]
    for weight in (0.0, 30.0):
        network = Compilable(MeanGray(weight))
        changed = settings.model_copy(update={"consistency": 2.0})
        (plain, outputs), (loss, answers) = (
            Objective(network, feed, TARGETS, chosen)(torch.arange(6), make_generator(CPU, 1), 0)
            for feed, chosen in zip(feeds, (settings, changed), strict=True)
        )
        assert torch.equal(answers, outputs)  # those of the films as they are
        assert (loss > plain) == (weight > 0)
        weights = class_weights(TARGETS) if balance == "weights" else None
        divergence = compute_divergence(outputs, outputs.roll(1, 0), TARGETS, weights)
        assert loss.item() == pytest.approx((plain + 2 * divergence).item(), abs=0.02)


def follow(schedule: str, steps: int, warmup: float = 0.0) -> list[float]:
    return [learning_rate(schedule, 0.5, (step + 0.5) / steps, warmup) for step in range(steps)]


def test_one_cycle_is_pytorchs():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], 0.5)
    steps = 2000
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=steps)
    expected = []
    for _ in range(steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert np.allclose(follow("one_cycle", steps), expected, atol=0.5 * 3 / steps)
    assert follow("one_cycle", steps)[-1] < 1e-5


def test_cosine_falls_from_the_peak_after_a_linear_rise():
    rates = follow("cosine", 100, warmup=0.2)
    assert np.allclose(np.diff(rates[:20]), 0.5 / 20)
    assert rates.index(max(rates)) == 20
    assert rates[60] == pytest.approx(0.25, abs=0.01)
    assert 0 < rates[-1] < 0.001
    assert follow("cosine", 10)[0] > 0.49


def test_other_schedules_are_left_alone():
    assert set(follow("constant", 9)) == set(follow("plateau", 9)) == {0.5}


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_optimizers_take_what_is_trainable(name, kind):
    layers = torch.nn.Sequential(torch.nn.Linear(2, 2).requires_grad_(False), torch.nn.Linear(2, 1))
    optimizer = build_optimizer(name, layers.parameters(), 0.1, 0.01, fused=False)
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert group["params"] == list(layers[1].parameters())
    assert (group["lr"], group["weight_decay"], group.get("momentum", 0.9)) == (0.1, 0.01, 0.9)


def test_the_average_begins_anew_with_the_first_whole_films():
    net = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(net.weight)
    state = State(net, TrainParams(ema=0.99, epochs=3, early_epochs=2, early_size=32), steps=100)
    torch.nn.init.ones_(net.weight)
    state.history = [{}]
    state.update_average(99)
    before = state.average.weight.item()
    assert before == pytest.approx(9 / 209)
    state.history = [{}, {}]
    state.update_average(0)
    assert state.average.weight.item() == pytest.approx(0.1 * before + 0.9)


def test_an_epoch_sees_every_film_once():
    order = draw_order(torch.zeros(50, dtype=torch.long), False, make_generator(CPU, 1))
    assert sorted(order.tolist()) == list(range(50))
    assert order.tolist() != list(range(50))


def test_most_easy_films_are_skipped_and_those_that_stay_stand_for_them():
    losses = torch.tensor([0.1] * 800 + [2.0] * 200)
    order = draw_order(torch.zeros(1000, dtype=torch.long), False, make_generator(CPU, 1))
    positions, counts = skip_easy(order, losses, 0.75, make_generator(CPU, 2))
    assert positions.tolist() == [place for place in order.tolist() if place in set(positions.tolist())]
    assert set(range(800, 1000)) <= set(positions.tolist()), "hard films are all seen"
    assert 150 < len(positions) - 200 < 250
    assert set(counts[:800].tolist()) == {4.0}
    assert set(counts[800:].tolist()) == {1.0}
    assert float((losses * counts)[positions].sum()) == pytest.approx(float(losses.sum()), rel=0.05)


@pytest.mark.parametrize("balance", ["none", "weights"])
def test_a_film_that_counts_twice_moves_the_loss_as_two_films_do(balance):
    outputs, weights = draw_outputs(1), class_weights(TARGETS) if balance == "weights" else None
    counts = torch.tensor([2.0, 1, 1, 1, 0, 1])
    found = compute_loss(outputs, TARGETS, "bce", 0.1, weights, counts)
    each = [compute_loss(outputs[[i]], TARGETS[[i]], "bce", 0.1) for i in range(6)]
    shares = torch.ones(6) if weights is None else weights[TARGETS]
    expected = sum(float(one * count * share) for one, count, share in zip(each, counts, shares, strict=True))
    assert found.item() == pytest.approx(expected / float(shares.sum()))


@pytest.mark.parametrize(
    ("message", "lost"),
    [
        (
            "[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 5000ms for recv operation",
            "gave no answer within",
        ),
        ("Application timeout caused pair closure", "gave no answer within"),
        ("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.1]:4711", "has gone"),
    ],
)
def test_a_lost_process_is_one_message(message, lost):
    with pytest.raises(UserError, match=f"another process of this training {lost}"), explained_failures(8):
        raise RuntimeError(message)
    with pytest.raises(RuntimeError, match="shapes"), explained_failures(8):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_an_epoch_of_fewer_batches_ends_at_the_same_learning_rate():
    state = State(torch.nn.Linear(1, 1), TrainParams(epochs=4, schedule="cosine"), steps=100)
    rates = {}
    for batches in (100, 25):
        state.batches = batches
        rates[batches] = []
        for epoch in range(4):
            state.history = [{}] * epoch
            state.set_lr(batches // 2)
            rates[batches].append(state.lr)
    assert rates[25] == pytest.approx(rates[100], abs=2e-5)


def test_the_sampler_draws_both_classes_equally_often():
    targets = (torch.arange(1000) >= 100).long()
    order = draw_order(targets, True, make_generator(CPU, 1))
    assert len(order) == 1000
    assert 430 < (targets[order] == 0).sum() < 570


@pytest.mark.parametrize(("films", "sizes"), [(8, [4, 4]), (9, [4, 5]), (10, [4, 4, 2]), (3, [3]), (1, [1])])
def test_no_batch_but_an_only_one_is_a_single_film(films, sizes):
    batches = cut_batches(torch.arange(films), 4)
    assert [len(batch) for batch in batches] == sizes
    assert torch.cat(batches).tolist() == list(range(films))


def test_every_batch_has_a_film_for_each_process():
    assert [len(batch) for batch in cut_batches(torch.arange(11), 4, processes=4)] == [4, 7]
    assert [len(batch) for batch in cut_batches(torch.arange(11), 4, processes=3)] == [4, 4, 3]


def test_rows_are_read_from_a_memory_map(tmp_path):
    np.save(tmp_path / "array.npy", np.arange(10 * 4, dtype=np.uint8).reshape(10, 2, 2))
    rows = Rows(np.load(tmp_path / "array.npy", mmap_mode="r"), np.array([7, 2, 5]), CPU)
    assert len(rows) == 3
    assert rows[torch.tensor([2, 0])][:, 0, 0].tolist() == [20, 28]


@pytest.mark.parametrize(
    ("augmentation", "drawn", "epochs", "variants"),
    [
        (AugmentParams(), 0, 5, 1),
        (AugmentParams(flip=0.5), 0, 5, 2),
        (AugmentParams(flip=0.5), 0, 2, 0),  # two epochs compute no more without storing
        (AugmentParams(), 0, 1, 0),
        (AugmentParams(flip=0.5), -1, 5, 0),
        (AugmentParams(flip=0.5), 7, 5, 2),
        (AugmentParams(rotation=5), 0, 5, 0),
        (AugmentParams(rotation=5), 4, 5, 4),
        (AugmentParams(rotation=5), 6, 5, 0),
    ],
)
def test_outputs_are_stored_where_that_is_exact_and_pays(augmentation, drawn, epochs, variants):
    assert count_variants(augmentation, drawn, epochs) == variants


class Pool(torch.nn.Module):
    """A frozen part: local means, three channels."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(inputs, 4)


FILMS = np.random.default_rng(0).integers(0, 256, (10, 16, 16), dtype=np.uint8)


def make_feed(augmentation: AugmentParams, frozen: torch.nn.Module) -> FilmFeed:
    return FilmFeed(Rows(FILMS, np.arange(10), CPU), augmentation, frozen)


@pytest.mark.parametrize("frozen", [Pool(), torch.nn.Sequential(Pool(), torch.nn.Flatten())], ids=["maps", "vectors"])
def test_stored_outputs_are_those_of_the_frozen_part(tmp_path, frozen):
    feed = make_feed(AugmentParams(flip=0.5), frozen)
    array = store_features(tmp_path / "stored.npy", feed, 2, 1, False, ALONE)
    assert array.dtype == np.float16
    stored = StoredFeed(Rows(array, np.arange(20), CPU), 2, feed.augmentation)
    positions = torch.tensor([3, 9, 0, 1, 2, 5])
    for generators in ((None, None), (make_generator(CPU, 7), make_generator(CPU, 7))):
        expected, found = feed(positions, generators[0]), stored(positions, generators[1])
        assert found.shape == expected.shape
        assert torch.allclose(found, expected, atol=2e-3)
    assert not torch.allclose(expected, feed(positions, None), atol=0.01)


def test_drawn_variants_differ_and_are_all_used(tmp_path):
    feed = make_feed(AugmentParams(noise=0.3), Pool())
    array = store_features(tmp_path / "stored.npy", feed, 3, 1, False, ALONE)
    assert len(np.unique(array.reshape(3, 10, -1)[:, 0], axis=0)) == 3
    stored = StoredFeed(Rows(array, np.arange(30), CPU), 3, feed.augmentation)
    drawn = stored(torch.zeros(200, dtype=torch.long), make_generator(CPU, 1))
    assert len(drawn.flatten(1).unique(dim=0)) == 3


@pytest.mark.parametrize(
    ("arch", "block"), [("resnet18", "layer3"), ("resnet50", "backbone"), ("vgg11_bn", "features.10")]
)
@pytest.mark.parametrize("bf16", [False, True])
def test_the_faster_copy_computes_the_same(arch, block, bf16):
    torch.manual_seed(0)
    model = build_model(arch, "none", 2, 32)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.1, 0.1)
            layer.running_var.uniform_(0.5, 2)
    frozen = split_frozen(model, block)[0]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fast = speed_up(frozen, CPU, bf16)
    assert fast is not frozen
    inputs = torch.randn(3, 3, 32, 32).to(memory_format=torch.channels_last)
    with torch.no_grad():
        expected, found = frozen(inputs), fast(inputs).float()
    assert (found - expected).abs().mean() < (0.03 if bf16 else 1e-4) * expected.abs().mean()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("arch", ["mobilenet_v3_small", "squeezenet1_1", "densenet121"])
def test_layers_that_the_faster_copy_does_not_know_are_left_alone(arch, capfd):
    frozen = split_frozen(build_model(arch, "none", 2, 32), "backbone")[0]
    assert speed_up(frozen, CPU, True) is frozen
    assert speed_up(Pool(), torch.device("cuda"), True).__class__ is Pool
    assert capfd.readouterr().err == ""


def test_a_weight_that_is_a_single_number_cannot_be_cut_into_shares():
    net = torch.nn.Linear(2, 2)
    net.gain = torch.nn.Parameter(torch.tensor(1.0))
    with pytest.raises(UserError, match=r"cannot cut this network's gain") as caught:
        shard(net)
    assert caught.value.hint == "set train.strategy: ddp"


def test_a_compiled_network_computes_the_same(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    network = Compilable(build_model("squeezenet1_1", "none", 2, 32)).eval()
    inputs = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = network(inputs)
        network.compile_soon()
        assert torch.allclose(network(inputs), expected, atol=1e-6)


def test_a_network_that_cannot_be_compiled_goes_on_as_it_was(monkeypatch, capfd):
    def find_no_compiler(graph, inputs):
        raise FileNotFoundError("no compiler here")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=find_no_compiler))
    network = Compilable(build_model("squeezenet1_1", "none", 2, 32)).train()
    inputs = torch.randn(3, 3, 32, 32)
    torch.manual_seed(0)
    expected = network(inputs)  # dropout included: the failure draws no number
    for _ in range(2):
        network.compile_soon()
        torch.manual_seed(0)
        assert torch.equal(network(inputs), expected)
    said = capfd.readouterr().out
    assert said.count("training goes on uncompiled") == 1
    assert "no compiler here" in said


def test_a_full_gpu_is_no_failure_to_compile(monkeypatch):
    def overflow(inputs):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "compile", lambda forward: overflow)
    network = Compilable(torch.nn.Identity())
    network.compile_soon()
    with pytest.raises(torch.cuda.OutOfMemoryError):
        network(torch.zeros(1))


def test_stored_outputs_are_computed_once(tmp_path):
    file = tmp_path / "stored.npy"
    first = store_features(file, make_feed(AugmentParams(), Pool()), 1, 1, False, ALONE).copy()
    assert np.array_equal(
        store_features(file, make_feed(AugmentParams(), torch.nn.Identity()), 1, 1, False, ALONE), first
    )


def test_a_full_disk_is_noticed_before(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100}))
    with pytest.raises(
        UserError, match=r"no room.*MB for 10 films x 1 variants.*\n\nhint: .*train\.cache_variants: -1"
    ):
        store_features(tmp_path / "stored.npy", make_feed(AugmentParams(), Pool()), 1, 1, False, ALONE)


def test_outputs_beyond_float16_are_an_error(tmp_path):
    class Huge(torch.nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs * 1e6

    with pytest.raises(UserError, match="do not fit into float16"):
        store_features(tmp_path / "stored.npy", make_feed(AugmentParams(), Huge()), 1, 1, False, ALONE)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_is_the_state_when_it_was_saved(tmp_path):
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.load() is None
    weights = torch.ones(3)
    state = {"weights": weights, "nested": [{"step": torch.tensor(2)}], "history": [{"loss": math.pi}], "none": None}
    checkpoint.save(state)
    weights.zero_()
    state["history"].append({"loss": 0.0})
    checkpoint.wait()
    loaded = Checkpoint(tmp_path).load()
    assert loaded["weights"].tolist() == [1, 1, 1]
    assert loaded["nested"][0]["step"] == 2
    assert loaded["history"] == [{"loss": math.pi}]


def test_a_failed_save_is_not_silent(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.save", fail)
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save({})
    with pytest.raises(OSError, match="No space"):
        checkpoint.wait()


def test_a_checkpoint_of_which_any_bit_changed_is_not_gone_on_from(tmp_path, capsys):
    checkpoint, file = Checkpoint(tmp_path), tmp_path / "state.pt"
    checkpoint.save({"weights": torch.ones(20), "history": [{"loss": 1.0}]})
    checkpoint.wait()
    whole = file.read_bytes()
    assert checkpoint.load() is not None
    assert not capsys.readouterr().out
    flipped = [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in range(0, len(whole), 7)]
    for damaged in (*flipped, whole[:-1], whole + b"x", b"damaged", b""):
        file.write_bytes(damaged)
        assert checkpoint.load() is None
        assert "state.pt is damaged: training starts from the first epoch" in capsys.readouterr().out


def test_stored_outputs_that_changed_are_computed_anew(tmp_path, capsys):
    file = tmp_path / "stored.npy"
    first = store_features(file, make_feed(AugmentParams(), Pool()), 1, 1, False, ALONE).copy()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    for damaged in (bytes(content), bytes(content[:-100]), b""):
        file.write_bytes(damaged)
        assert np.array_equal(store_features(file, make_feed(AugmentParams(), Pool()), 1, 1, False, ALONE), first)
        assert "stored.npy is damaged: its outputs are computed anew" in capsys.readouterr().out


def folder_of(root, settings, data="data", films=()):
    with resumable(root, settings, data, films) as folder:
        return folder


def test_the_folder_follows_settings_data_code_and_weights(tmp_path, monkeypatch):
    settings = {"lr": 0.1, "weights": str(tmp_path / "own.pth"), "augment": {"flip": 0.5}}
    (tmp_path / "own.pth").write_bytes(b"1")
    known = folder_of(tmp_path, settings)
    assert folder_of(tmp_path, settings) == known
    others = [folder_of(tmp_path, settings | {"lr": 0.2}), folder_of(tmp_path, settings, "other")]
    others.append(folder_of(tmp_path, settings | {"augment": {"flip": 0.4}}))
    (tmp_path / "own.pth").write_bytes(b"2")
    others.append(folder_of(tmp_path, settings))
    others.append(folder_of(tmp_path, settings, films=[Films(FILMS, np.arange(2), np.array([0, 1]))]))
    others.append(folder_of(tmp_path, settings, films=[Films(FILMS, np.array([1, 0]), np.array([0, 1]))]))
    now = folder_of(tmp_path, settings)
    for name in ("loop.py", "augmentation.py", "files.py"):
        monkeypatch.setattr("pulmo.training.checkpoints.sha256_file", partial(hash_as_if_changed, name))
        others.append(folder_of(tmp_path, settings))
    monkeypatch.setattr("pulmo.training.checkpoints.sha256_file", partial(hash_as_if_changed, "shortcuts.py"))
    assert folder_of(tmp_path, settings) == now  # training does not reach it
    assert len({known, *others}) == 10


def hash_as_if_changed(name: str, file: Path) -> str:
    return "changed" if file.name == name else sha256_file(file)


def test_the_code_of_a_training_is_what_its_imports_reach(tmp_path):
    files = {
        "pkg/__init__.py": "",
        "pkg/room/__init__.py": "from pkg.room.inner import thing",
        "pkg/room/inner.py": "import numpy\ndef late():\n    from pkg import plain",
        "pkg/plain.py": "from pkg.deep.value import NUMBER",
        "pkg/deep/__init__.py": "import pkg.plain",
        "pkg/deep/value.py": "NUMBER = 1",
        "pkg/unrelated.py": "from pkg.room import thing",
        "numpy.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    reached = {
        path.relative_to(tmp_path).as_posix()
        for path in reached_code(tmp_path / "pkg/room/__init__.py", tmp_path / "pkg")
    }
    assert reached == set(files) - {"pkg/unrelated.py", "numpy.py"}


def test_the_code_of_this_package_is_found():
    reached = reached_code(PACKAGE / "training/__init__.py")
    names = {"/".join(path.parts[-2:]) for path in reached}
    assert {"training/loop.py", "model/augmentation.py", "metrics/ranking.py", "base/files.py"} <= names
    others = {"answering", "evaluation", "experiments", "images", "reporting", "tracking"}
    assert not {path.parent.name for path in reached} & others, "an edit there costs no training what it has done"


def test_the_folder_outlives_a_failure_and_goes_with_success(tmp_path):
    def fail(leave: bool) -> None:
        with resumable(tmp_path, {}, "") as folder:
            if leave:
                (folder / "state.pt").touch()
            raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        fail(leave=False)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="stopped"):
        fail(leave=True)
    with resumable(tmp_path, {}, "") as folder:
        assert (folder / "state.pt").exists()
    assert not list(tmp_path.iterdir())


def test_the_lock_is_released_when_its_folder_is_gone(tmp_path, monkeypatch):
    """Else whoever gets it meanwhile has his lock removed, and a third process trains beside him."""
    left = []

    def release(lock, force=False, original=FileLock.release):
        left.extend(tmp_path.iterdir())
        original(lock, force)

    monkeypatch.setattr(FileLock, "release", release)
    with pytest.raises(ValueError, match="stopped"), resumable(tmp_path, {}, ""):
        raise ValueError("stopped")
    assert not left


def test_who_trains_the_same_waits_and_finds_nothing_left(tmp_path):
    import subprocess
    import sys
    import time

    program = (
        "import sys\nfrom pathlib import Path\nfrom pulmo.training import resumable\n"
        "with resumable(Path(sys.argv[1]), {}, '') as folder:\n    print([file.name for file in folder.iterdir()])"
    )
    with resumable(tmp_path, {}, "") as folder:
        (folder / "state.pt").touch()
        second = subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True)
        assert second.stdout is not None
        assert "already running" in second.stdout.readline()
        time.sleep(0.2)
        assert second.poll() is None
    assert second.communicate(timeout=30)[0] == "['lock']\n"
    assert second.returncode == 0
    assert not list(tmp_path.iterdir())


def test_stale_folders_are_removed(tmp_path):
    import os
    import time

    for name, days in (("old", 20), ("recent", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.pt").touch()
        stamp = time.time() - days * 86400
        os.utime(tmp_path / name, (stamp, stamp))
    folder_of(tmp_path, {})
    assert [folder.name for folder in tmp_path.iterdir()] == ["recent"]


def test_a_rise_as_long_as_the_training_is_refused():
    from pulmo.base.params import TrainParams
    from pulmo.base.params_file import load_params

    given = load_params().train.model_dump() | {"schedule": "cosine", "epochs": 3}
    assert TrainParams.model_validate(given | {"warmup_epochs": 2}).warmup_epochs == 2
    with pytest.raises(ValueError, match=r"train\.warmup_epochs leaves no epoch"):
        TrainParams.model_validate(given | {"warmup_epochs": 3})
