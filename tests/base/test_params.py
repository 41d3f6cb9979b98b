import re
from pathlib import Path

import pytest
import yaml_text

from pulmo.base.errors import UserError
from pulmo.base.params import Params
from pulmo.base.params_file import load_params
from pulmo.package.info import TTA_VIEWS

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")


def load_text(text: str, folder: Path) -> Params:
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return load_params(path)


def test_the_repositorys_params_are_valid():
    params = load_params(ROOT / "params.yaml")
    assert params.data.source == "phantom"
    assert params.split.from_ == "source"


def test_params_are_read_only():
    params = load_params(ROOT / "params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        params.train.lr = 1.0


def test_every_knob_has_a_comment():
    sections = yaml_text.load(TEXT)
    bare = [
        line
        for line in TEXT.splitlines()
        if line.strip()
        and "#" not in line
        and line.split(":")[0].strip() not in {*sections, "phantom", "folder", "columns"}
    ]
    known = ("kaggle", "huggingface", "handle", "repo", "seed", "label_smoothing", "optimizer", "lr", "weight_decay")
    known += ("warmup_epochs", "epochs", "batch_size", "size")
    assert [line for line in bare if line.split(":")[0].strip() not in known] == []


@pytest.mark.parametrize("number", ["1e-4", "3e-05", "1E-4", "0.0001", "1.0e-4", "+1e-4"])
def test_numbers_are_read_as_dvc_reads_them(number, tmp_path):
    params = load_text(TEXT.replace("lr: 0.001", f"lr: {number}"), tmp_path)
    assert params.train.lr == float(number)


BAD = [
    ("lr: 0.001", 'lr: "1e-4"', r"train\.lr: .*'1e-4', a text\n\nhint: .* without quotes, for example 0\.0001"),
    ("lr: 0.001", "lr: fast", r"train\.lr: .*valid number.*'fast'"),
    ("lr: 0.001", "lr: -0.1", r"train\.lr: .*greater than 0.*-0\.1"),
    ("lr: 0.001", "lr: .nan", r"train\.lr: .*finite number"),
    ("lr: 0.001", "lr: 1e400", r"train\.lr: .*finite number"),
    ("weight_decay: 0.01", "weight_decay: .inf", r"train\.weight_decay: .*finite number"),
    (
        "warmup_epochs: 0",
        "warmup_epochs: 1",
        r"train\.warmup_epochs belongs to train\.schedule: cosine\n\nhint: set it to 0",
    ),
    ("revision: 15439bd", "revision: 15439e1", r"revision: .*154390\.0\n\nhint: write texts like numbers in quotes"),
    ("revision: 15439bd", 'revision: ""', r"data\.huggingface\.revision: .*at least 1 character"),
    ("weights: none", "weights:", r'train\.weights: .*None\n\nhint: .*"" for none'),
    ("handle: paultimothymooney/", "handle: ../", r"data\.kaggle\.handle"),
    ("seed: 42", "seed: 2026-99-99", r"params\.yaml: 2026-99-99 is a date in line .*\n\nhint: write"),
    ("epochs: 8", "epochs: 8.5", r"train\.epochs: .*8\.5"),
    ("epochs: 8", "epochs: true", r"train\.epochs: .*True"),
    ("epochs: 8", "epochs: 0", r"train\.epochs"),
    ("early_epochs: 0", "early_epochs: 2", r"train\.early_epochs and train\.early_size go together\n\nhint: set both"),
    ("early_size: 0", "early_size: 96", r"train\.early_epochs and train\.early_size go together"),
    ("devices: auto", "devices: 0", r"train\.devices: input should be auto or greater than 0, got 0"),
    ("num_nodes: auto", "num_nodes: two", r"train\.num_nodes: .*got 'two'"),
    ("epochs: 8", "epochs: 8\n  epochs: 9", r"key 'epochs' is given twice in line \d+, column 3"),
    ("epochs: 8", "epoch: 8", r"unknown key train\.epoch\n\nhint: .*remove it"),
    ("arch: resnet18", "arch: [resnet18]", r"train\.arch"),
    ("optimizer: adamw", "optimizer: adamW", r"train\.optimizer: .*'adamW'"),
    ("loss: cross_entropy", "loss: bce", r"train\.loss: bce is for one output neuron\n\nhint: set train\.head: 1"),
    ("head: 2", "head: 1", r"train\.loss: cross_entropy is for two logits\n\nhint: set train\.head: 2"),
    ("head: 2", "head: 3", r"train\.head"),
    ("source: phantom", "source: Phantom", r"data\.source: .*'phantom', 'kaggle', 'huggingface' or 'folder'"),
    ("source: phantom", "source: folder", r"data\.folder\.path is empty"),
    ("films: 720", "films: 3", r"data\.phantom\.films: .*60"),
    ("handle: paul", "handle: https://x/paul", r"data\.kaggle\.handle"),
    ("val_fraction: 0.15", "val_fraction: 1.0", r"split\.val_fraction"),
    ("val_fraction: 0.15", "val_fraction: 15%", r"split\.val_fraction: .*'15%'"),
    ("from: source", "from: all\n  from: source", "given twice"),
    ("val: carve", "val: none", r"split\.val"),
    ("size: 128", "size: 8", r"preprocess\.size"),
    ("size: 128", "size: 128px", r"preprocess\.size: .*'128px'"),
    ("batch_size: 32", "batch_size: 1", r"train\.batch_size: .*greater than or equal to 2"),
    ("  seed: 42", "  seed: 4294967296", r"split\.seed: .*less than 4294967296"),
    ("fit: squash", "fit: stretch", r"preprocess\.fit"),
    ("flip: 0.5", "flip: 50", r"train\.augment\.flip"),
    ("min_sensitivity: 0.95", "min_sensitivity: 95", r"evaluate\.min_sensitivity"),
    ("bootstrap: 2000", "bootstrap: 10", r"evaluate\.bootstrap"),
    ("tta_views: 1", "tta_views: 0", r"evaluate\.tta_views: .*greater than or equal to 1"),
    ("tta_views: 1", "tta_views: 99", rf"evaluate\.tta_views: .*less than or equal to {len(TTA_VIEWS)}"),
    ("\nsplit:", "\nsplits:", r"key split is missing.*unknown key splits"),
    ("\nsplit:", "\nsplit", "not valid YAML"),
    ("\nsplit:", "\n\tsplit:", "not valid YAML"),
]


@pytest.mark.parametrize(("old", "new", "message"), BAD, ids=[new.strip() for _, new, _ in BAD])
def test_a_mistake_is_one_line_that_names_the_key(old, new, message, tmp_path):
    assert old in TEXT
    with pytest.raises(UserError, match=message) as caught:
        load_text(TEXT.replace(old, new, 1), tmp_path)
    assert "\n" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("epochs", "size", "freeze", "message"),
    [
        (8, 96, "none", r"train\.early_epochs leaves no epoch of whole films\n\nhint: lower it below train\.epochs"),
        (2, 128, "none", r"train\.early_size is no smaller than preprocess\.size\n\nhint: lower it"),
        (2, 96, "layer3", r"stored are those of one size\n\nhint: set train\.cache_variants: -1, or"),
    ],
    ids=["no other epochs", "no smaller films", "stored outputs"],
)
def test_a_mistake_in_early_epochs_names_the_key(epochs, size, freeze, message, tmp_path):
    text = TEXT.replace("freeze: none", f"freeze: {freeze}")
    text = text.replace("early_epochs: 0", f"early_epochs: {epochs}").replace("early_size: 0", f"early_size: {size}")
    with pytest.raises(UserError, match=message):
        load_text(text, tmp_path)


def test_pooling_everything_cannot_keep_the_sources_val(tmp_path):
    text = TEXT.replace("from: source", "from: all").replace("val: carve", "val: source")
    with pytest.raises(UserError, match=r"split\.val: source cannot be kept"):
        load_text(text, tmp_path)


def test_renderings_of_no_film_tell_no_threshold(tmp_path):
    text = TEXT.replace("operating_point: min_sensitivity ", "operating_point: youden_rendered ")
    text = text.replace("rendered_films: 300", "rendered_films: 0")
    with pytest.raises(UserError, match=r"youden_rendered needs films\n\nhint: raise evaluate\.rendered_films"):
        load_text(text, tmp_path)


def test_swapped_films_need_films_and_no_stored_features(tmp_path):
    text = TEXT.replace("freeze: none", "freeze: backbone").replace("consistency: 0.0", "consistency: 1.0")
    with pytest.raises(UserError, match=r"train\.consistency needs films.*\n\nhint: set train\.cache_variants: -1"):
        load_text(text, tmp_path)
    assert load_text(text.replace("cache_variants: 0", "cache_variants: -1"), tmp_path).train.consistency == 1


def test_films_of_an_epoch_are_chosen_in_one_way(tmp_path):
    text = TEXT.replace("class_balance: none ", "class_balance: sampler ").replace("skip_easy: 0.0", "skip_easy: 0.5")
    with pytest.raises(
        UserError, match=r"train\.skip_easy .*sampler both choose.*\n\nhint: set class_balance: weights"
    ):
        load_text(text, tmp_path)
    assert load_text(text.replace("sampler ", "weights "), tmp_path).train.skip_easy == 0.5


def test_fractions_must_leave_something_to_train_on(tmp_path):
    text = TEXT.replace("from: source", "from: all").replace("val_fraction: 0.15", "val_fraction: 0.95")
    with pytest.raises(UserError, match="leave nothing to train on"):
        load_text(text, tmp_path)


@pytest.mark.parametrize("section", ["split", "promote"])
def test_a_section_without_keys_is_a_mistake_that_names_it(section, tmp_path):
    text = re.sub(rf"^{section}:.*\n(  .*\n)+", f"{section}:\n", TEXT, flags=re.MULTILINE)
    with pytest.raises(
        UserError, match=f"params.yaml: section {section} is empty\n\nhint: copy it from the params.yaml of"
    ):
        load_text(text, tmp_path)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_no_file_of_utf_8(encoding, tmp_path):
    (tmp_path / "params.yaml").write_bytes(TEXT.replace("…", "ü").encode(encoding))
    with pytest.raises(UserError, match=r"params\.yaml is not UTF-8 text\n\nhint: save it as UTF-8"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(("text", "message"), [("", "one mapping"), ("- 1", "one mapping"), ("a: [", "not valid YAML")])
def test_a_file_that_is_no_mapping(text, message, tmp_path):
    with pytest.raises(UserError, match=message):
        load_text(text, tmp_path)


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="run from the root of the project"):
        load_params(tmp_path / "params.yaml")


def test_what_an_experiment_set_in_the_workspace_can_be_taken_back(tmp_path, monkeypatch):
    for name in ("DVC_ROOT", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "params.yaml").write_text(TEXT.replace("lr: 0.001", "lr: -1"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for name, told in (("", False), ("tried", True)):
        monkeypatch.setenv("DVC_EXP_NAME", name)
        with pytest.raises(UserError, match=r"train\.lr") as error:
            load_params(Path("params.yaml"))
        assert ("`git checkout params.yaml` takes back what -S set" in error.value.hint) == told
    monkeypatch.setenv("DVC_ROOT", str(tmp_path.parent))  # in a temporary copy there is nothing to take back
    with pytest.raises(UserError) as error:
        load_params(Path("params.yaml"))
    assert "git checkout" not in error.value.hint
