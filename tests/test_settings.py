"""Configs are deltas, later ones win, flags win over all, and mistakes are named."""

from pathlib import Path

import pytest

from mnist_lit.classifier import DigitClassifier
from mnist_lit.data import MNISTDataModule
from mnist_lit.settings import build_parser, instantiate, parse, take_defaults
from mnist_lit.usage import UsageError

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text("seed: 5\ndata:\n  batch_size: 50\n")
    return path


def test_the_defaults_are_the_blogs_recipe() -> None:
    settings = parse(build_parser("fit"), [])
    assert (settings.seed, settings.trainer.max_epochs, settings.data.batch_size) == (777, 15, 100)
    assert (list(settings.model.channels), settings.model.learning_rate) == ([32, 64], 0.001)
    assert (settings.data.val_size, settings.experiment) == (5_000, "baseline")


def test_the_baseline_config_is_the_defaults_written_out() -> None:
    parser = build_parser("fit")
    written, defaults = (parse(parser, argv).as_flat() for argv in (["--config", "configs/baseline.yaml"], []))
    written.config = None
    assert vars(written) == vars(defaults) | {"model.channels": [32, 64]}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_names_its_experiment_and_can_be_built(path: Path) -> None:
    parser = build_parser("fit")
    settings = instantiate(parser, parse(parser, ["--config", str(path)]))
    assert settings.experiment == path.stem
    assert isinstance(settings.model, DigitClassifier)
    assert isinstance(settings.data, MNISTDataModule)


def test_later_configs_win_and_flags_win_over_all(config: Path, tmp_path: Path) -> None:
    (later := tmp_path / "later.yaml").write_text("data:\n  batch_size: 25\n")
    settings = parse(build_parser("fit"), [f"--config={config}", "--config", str(later), "--data.val_size=7"])
    assert (settings.seed, settings.data.batch_size, settings.data.val_size) == (5, 25, 7)
    before = parse(build_parser("fit"), ["--data.batch_size=10", "--config", str(config)])
    assert before.data.batch_size == 10, "a flag wins also where it stands before the config"


def test_a_saved_config_gives_the_same_settings(config: Path, tmp_path: Path) -> None:
    parser = build_parser("fit")
    settings = parse(parser, ["--config", str(config), "--trainer.max_epochs=3"])
    (saved := tmp_path / "saved.yaml").write_text(parser.dump(settings, skip_unset=False))
    again = parse(build_parser("fit"), ["--config", str(saved)])
    assert parser.dump(again, skip_unset=False) == saved.read_text()


def test_a_checkpoints_settings_are_defaults_that_flags_win_over() -> None:
    parser = build_parser("test")
    take_defaults(parser, {"data.batch_size": 250, "model.channels": [4]}, Path("my.ckpt"))
    settings = parse(parser, ["--model.channels=[8]"])
    assert (settings.data.batch_size, settings.model.channels) == (250, [8])


def test_a_checkpoints_unknown_setting_is_named() -> None:
    with pytest.raises(ValueError, match=r"my.ckpt has a setting that this version does not know: data.colour"):
        take_defaults(build_parser("test"), {"data.colour": "red"}, Path("my.ckpt"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--data.batch_sze=3", "no flag --data.batch_sze: did you mean --data.batch_size?"),
        ("--data.bat=3", "no flag --data.bat"),
        ("--quiet", "no flag --quiet"),
        ("more", "no flag more"),
        ("--data.batch_size=x", "--data.batch_size: expected int, got x"),
        ("--data.batch_size=2.5", "--data.batch_size: expected int, got 2.5"),
        ("--model.channels=[a]", "--model.channels: expected int, got a"),
        ("--model.learning_rate=fast", "--model.learning_rate: expected float, got fast"),
        ("--seed=-1", "--seed: -1 does not conform to restriction v>=0"),
        ("--experiment=../up", "--experiment: ../up does not match"),
        ("--trainer.max_epochs=x", "--trainer.max_epochs: expected int or null, got x"),
        ("--data.dataset=CIFAR", "--data.dataset: expected 'MNIST', 'FashionMNIST', 'KMNIST', got CIFAR"),
        ("--data.mirrors=file:///a", "--data.mirrors: expected a list as [1,2] or null, got file:///a"),
        ("--trainer.logger=CSVLoger", "--trainer.logger: expected"),
        ("--config=missing.yaml", "missing.yaml"),
        ("--config", "expected one argument"),
    ],
)
def test_a_mistaken_flag_is_named_with_what_would_do(argv: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(build_parser("fit"), [argv])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data:\n  batch_sze: 3\n", "bad.yaml: no setting data.batch_sze: did you mean data.batch_size?"),
        ("dta:\n  batch_size: 3\n", "dta"),
        ("seed: x\n", "--seed: invalid literal for int"),
        ("data: [\n", "bad.yaml: "),
        ("hello\n", "bad.yaml: "),
    ],
)
def test_a_mistake_in_a_config_is_named(tmp_path: Path, text: str, message: str) -> None:
    (path := tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        parse(build_parser("fit"), ["--config", str(path)])
    assert message in str(caught.value)


def test_a_value_out_of_range_is_a_usage_error() -> None:
    parser = build_parser("fit")
    with pytest.raises(UsageError, match="batch_size must be 1 to 55,000"):
        instantiate(parser, parse(parser, ["--data.batch_size=0"]))
