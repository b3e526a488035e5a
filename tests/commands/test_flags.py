"""Flags, config files and the settings of checkpoints: defaults, precedence, and errors."""

import builtins
import os
import re
from pathlib import Path
from typing import Any, Optional, Union

import pytest
import yaml
from lightning.pytorch import Trainer

from mnist_lit.classifier import DigitClassifier
from mnist_lit.commands import COMMANDS, describe_flags
from mnist_lit.commands.flags import build_parser, find_config, find_flags, instantiate, parse, set_checkpoint_defaults
from mnist_lit.data import MNISTDataModule
from mnist_lit.system.errors import UsageError

CONFIGS = sorted((Path(__file__).parent.parent.parent / "configs").glob("*.yaml"))
FAST = str(CONFIGS[0].with_name("fast.yaml"))
NO_DEFAULTS = {"config", "data.val_size", "images", "init_from", "output"}
"""Flags whose short help has a remark in parentheses instead of a default."""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text("seed: 5\ndata:\n  batch_size: 50\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["010", "0809", "1_0", "no", "12"])
def test_a_saved_config_can_be_read_whatever_the_name_of_the_experiment(name: str, tmp_path: Path) -> None:
    parser = build_parser("fit")
    text = parser.dump(parse(parser, [f"--experiment={name}"]), skip_unset=False)
    (path := tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    assert parse(parser, [f"--config={path}"]).experiment == name


def test_defaults_are_the_recipe_of_the_blog() -> None:
    settings = parse(build_parser("fit"), [])
    assert (settings.seed, settings.trainer.max_epochs, settings.data.batch_size) == (777, 15, 100)
    assert (list(settings.model.channels), settings.model.learning_rate) == ([32, 64], 0.001)
    assert (instantiate(build_parser("fit"), settings).data.val_size, settings.experiment) == (5_000, "baseline")


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "compare"])
def test_short_help_has_the_defaults_of_the_parser(command: str) -> None:
    parser = build_parser(command)
    found = dict(re.findall(r"^  --(\S+).*?\((.*?)\)", describe_flags(command), re.MULTILINE))
    documented = {flag: yaml.safe_load(text) for flag, text in found.items() if flag not in NO_DEFAULTS}
    defaults = {flag: parser.get_default(flag) for flag in documented}
    assert documented == {flag: list(value) if isinstance(value, tuple) else value for flag, value in defaults.items()}
    assert documented.keys() >= {"data.batch_size", "data.data_dir", "trainer.accelerator"}


def test_baseline_config_has_the_defaults() -> None:
    parser = build_parser("fit")
    baseline = str(CONFIGS[0].with_name("baseline.yaml"))
    settings, defaults = (parse(parser, argv).as_flat() for argv in (["--config", baseline], []))
    settings.config = None
    assert vars(settings) == vars(defaults) | {"model.channels": [32, 64], "data.val_size": 5_000}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_has_its_name_as_experiment_and_is_instantiated(path: Path) -> None:
    parser = build_parser("search" if path.stem == "search" else "fit")
    settings = instantiate(parser, parse(parser, ["--config", str(path)]))
    assert settings.experiment == path.stem
    assert isinstance(settings.model, DigitClassifier)
    assert isinstance(settings.data, MNISTDataModule)


def test_later_configs_take_precedence_and_flags_over_all(config: Path, tmp_path: Path) -> None:
    (later := tmp_path / "later.yaml").write_text("data:\n  batch_size: 25\n", encoding="utf-8")
    settings = parse(build_parser("fit"), [f"--config={config}", "--config", str(later), "--data.val_size=7"])
    assert (settings.seed, settings.data.batch_size, settings.data.val_size) == (5, 25, 7)
    flag_first = parse(build_parser("fit"), ["--data.batch_size=10", "--config", str(config)])
    assert flag_first.data.batch_size == 10, "also a flag before the config"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": {"color": "red"}}, "my.ckpt cannot be used: its settings: no setting data.color"),
        ({"model": {"channels": "x"}}, "my.ckpt cannot be used: --model.channels: expected a list as '[1,2]', got x"),
        ({"model": {"_class_path": "os.system"}}, "my.ckpt cannot be used: its settings: no setting model._class_path"),
    ],
)
def test_error_names_an_invalid_setting_of_a_checkpoint(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        set_checkpoint_defaults(build_parser("test"), settings, Path("my.ckpt"))


def test_batch_limit_1_is_an_int_and_1_0_a_float(monkeypatch: pytest.MonkeyPatch) -> None:
    # As Lightning's annotation if a module imported before it has the equal type with float first.
    annotation = Optional[Union[float, int]]  # noqa: UP007, UP045  # `|` is not cached
    monkeypatch.setitem(Trainer.__init__.__annotations__, "limit_train_batches", annotation)
    for text, kind in (("1", int), ("1.0", float)):
        settings = parse(build_parser("fit"), [f"--trainer.limit_train_batches={text}"])
        assert isinstance(settings.trainer.limit_train_batches, kind)
        assert f"limit_train_batches: {text}\n" in build_parser("fit").dump(settings)


@pytest.mark.parametrize("path", [path for path in CONFIGS if path.stem != "search"], ids=lambda path: path.stem)
def test_other_commands_accept_configs_of_fit(path: Path, tmp_path: Path) -> None:
    fit = build_parser("fit")
    settings = parse(fit, ["--config", str(path)])
    (saved := tmp_path / "saved.yaml").write_text(fit.dump(settings, skip_unset=False), encoding="utf-8")
    for given in (path, saved):
        assert parse(build_parser("test"), ["--config", str(given)]).data.dataset == settings.data.dataset


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--data.bat=3", "no flag --data.bat"),
        ("--quiet", "no flag --quiet"),
        ("more", "no flag more"),
        ("--data.batch_size=x", "--data.batch_size: expected int, got x"),
        ("--data.batch_size=2.5", "--data.batch_size: expected int, got 2.5"),
        ("--model.channels=[a]", "--model.channels: expected int, got a"),
        ("--model.learning_rate=fast", "--model.learning_rate: expected float, got fast"),
        ("--seed=-1", "--seed: -1 must be >=0"),
        ("--select=first_epoch", "--select: "),
        ("--experiment=../up", "--experiment: ../up does not match"),
        ("--trainer.max_epochs=x", "--trainer.max_epochs: expected int or null, got x"),
        ("--model.shape=[1,32,32]", "no flag --model.shape: it follows from --data.dataset"),
        ("--model.classes=7", "no flag --model.classes: it follows from --data.dataset"),
        ("--data.mirrors=file:///a", "--data.mirrors: expected a list as '[1,2]' or null, got file:///a"),
        ("--trainer.logger=CSVLoger", "--trainer.logger: expected"),
        ("--trainer.callbacks+=mine.Hello", "--trainer.callbacks: mine.Hello: only classes in mnist_lit and"),
        ("--config", "expected one argument"),
    ],
)
def test_error_names_an_invalid_flag_and_what_is_valid(argv: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(build_parser("fit"), [argv])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data:\n  batch_sze: 3\n", "bad.yaml: no setting data.batch_sze: did you mean data.batch_size?"),
        ("dta:\n  batch_size: 3\n", "bad.yaml: no setting dta.batch_size: did you mean data.batch_size?"),
        ("seeed: 3\n", "bad.yaml: no setting seeed: did you mean seed?"),
        ("model: 3\n", "bad.yaml: model: expected a group of settings"),
        ("data: 5\n", "bad.yaml: data: expected a group of settings"),
        ("trainer: [1]\n", "bad.yaml: trainer: expected a group of settings"),
        ("model:\n  classes: 7\n", "bad.yaml: no setting model.classes: it follows from --data.dataset"),
        (
            "model:\n  width: 7\n",
            "bad.yaml: no setting model.width: neither the network in model.py nor DigitClassifier",
        ),
        ("seed: x\n", "--seed: invalid literal for int"),
        ("data: [\n", "bad.yaml: "),
        ("hello\n", "bad.yaml: expected settings, such as 'seed: 1', got hello"),
        ("data:\n", "bad.yaml: expected settings, such as 'seed: 1', got data:"),
        ("experiment: no\n", "--experiment: expected a text, got true or false: yes, no, on and off are these in YAML"),
    ],
)
def test_error_names_an_invalid_setting_of_a_config(tmp_path: Path, text: str, message: str) -> None:
    (path := tmp_path / "bad.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        parse(build_parser("fit"), ["--config", str(path)])
    assert str(caught.value).replace(f"{tmp_path}{os.sep}", "").startswith(message)


@pytest.mark.parametrize("group", ["logger", "callbacks", "profiler", "strategy", "plugins", "accelerator"])
def test_config_cannot_import_modules(group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "malicious.py").write_text("import os; os.mkdir('trap')\nclass Trap: ...\n", encoding="utf-8")
    (tmp_path / "bad.yaml").write_text(f"trainer:\n  {group}:\n    class_path: malicious.Trap\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=rf"--trainer.{group}: .*malicious.Trap"):
        parse(build_parser("fit"), ["--config=bad.yaml"])
    assert not Path("trap").exists()


def test_config_is_utf_8_on_every_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path := tmp_path / "my.yaml").write_text("data:\n  data_dir: zürich\n", encoding="utf-8")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("opened in the encoding of the system, as jsonargparse does")

    monkeypatch.setattr(builtins, "open", refuse)
    assert parse(build_parser("fit"), ["--config", str(path)]).data.data_dir == "zürich"


def test_callback_that_needs_another_package_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning.pytorch.callbacks.progress.rich_progress._RICH_AVAILABLE", False)
    parser = build_parser("fit")
    with pytest.raises(UsageError, match=r"^lightning.pytorch.callbacks.RichProgressBar: `RichProgressBar` requires"):
        instantiate(parser, parse(parser, ["--trainer.callbacks=RichProgressBar"]))


def test_find_flags_finds_what_parse_finds(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("a.yaml", "b.yaml", "c.yaml"))
    first.write_text("init_from: x.ckpt\nexperiment: mine\n", encoding="utf-8")
    second.write_text("seed: 3\n", encoding="utf-8")
    third.write_text("init_from: null\n", encoding="utf-8")
    names = ("init_from", "experiment", "ckpt_path")
    (other := tmp_path / "d.yaml").write_text("init_from: [a]\nexperiment: 2024\n", encoding="utf-8")
    assert find_flags([f"--config={other}"], *names) == {"experiment": "2024"}, "`parse` refuses the list"
    for configs, flags, expected in (
        ([first, second], [], {"init_from": "x.ckpt", "experiment": "mine"}),
        ([first, third], [], {"experiment": "mine"}),
        ([first], ["--init_from=y.ckpt", "--ckpt_path=null"], {"init_from": "y.ckpt", "experiment": "mine"}),
    ):
        argv = [*(f"--config={path}" for path in configs), *flags]
        assert find_flags(argv, *names) == expected
        config = parse(build_parser("fit"), argv)
        assert {name: config[name] for name in names} == {"ckpt_path": None, "init_from": None} | expected


def test_a_name_is_a_config_of_the_package_unless_there_is_a_file_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config("fast") == find_config("fast.yaml") == FAST
    for path in ("mine", "./fast", "else/fast.yaml", "runs/fast/version_0/config.yaml", ""):
        with pytest.raises(UsageError, match=f"^--config: no file {path}"):
            find_config(path)
    Path("fast").mkdir()
    assert find_config("fast") == FAST
    Path("fast").rmdir()
    for name in ("fast", "fast.yaml"):
        Path(name).touch()
        assert find_config(name) == name
