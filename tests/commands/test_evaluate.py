"""`test` and `validate`: which checkpoint and settings they use, and what they record."""

import shutil
from pathlib import Path

import pytest
import torch
from conftest import RUN, SHORT, Command

from mnist_lit import DigitClassifier
from mnist_lit.datasets.sampling import Batch
from mnist_lit.runs.checkpoints import Checkpoint


def test_test_records_the_result_of_the_best_checkpoint(trained: Command) -> None:
    expected = RUN.results()
    RUN.record(test=expected["test"] | {"loss": -1})
    out = trained.succeed("test")
    assert f"checkpoint {RUN.checkpoints / 'best.ckpt'}" in out
    assert RUN.results() == expected
    assert len(list(Path("runs/baseline").iterdir())) == 1, "no new run"


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--ckpt_path=last", f"not recorded: {RUN.folder} records tests with best.ckpt only"),
        ("--trainer.limit_test_batches=1", f"not recorded: {RUN.folder} records tests with all 10,000 images"),
    ],
)
def test_results_of_other_tests_are_not_recorded(trained: Command, flag: str, message: str) -> None:
    expected = RUN.results()
    out = trained.succeed("test", flag)
    assert message in out
    assert RUN.results() == expected


@pytest.mark.parametrize("name", ["validate", "test", "predict"])
def test_limit_of_0_batches_is_a_usage_error(name: str, trained: Command) -> None:
    err = trained.refuse(name, f"--trainer.limit_{name.removesuffix('idate')}_batches=0")
    assert err == f"error: --trainer.limit_{name.removesuffix('idate')}_batches: 0 leaves nothing to {name}\n"


def test_validate_reproduces_the_accuracy_of_the_training(trained: Command) -> None:
    out = trained.succeed("validate")
    assert f"validation accuracy {RUN.results()['fit']['best_val_accuracy']:.2%}" in out
    assert out.rstrip().endswith("in 5,000")
    code, _, err = trained("validate", "--data.val_size=0", "--data.dataset=KMNIST")
    assert (code, err) == (2, "error: --data.val_size: 0 leaves nothing to validate\n")


@pytest.mark.parametrize(("name", "value", "trained_with"), [("split_seed", 5, 0), ("val_size", 6_000, 5_000)])
def test_validation_set_with_training_images_is_refused(
    trained: Command, name: str, value: int, trained_with: int
) -> None:
    code, _, err = trained("validate", f"--data.{name}={value}")
    assert (code, err) == (
        2,
        f"error: --data.{name}: leave it at {trained_with}, or training images would be validated\n",
    )
    assert trained("test", f"--data.{name}={value}", "--trainer.limit_test_batches=1")[0] == 0


def test_subset_of_the_validation_set_is_accepted(trained: Command) -> None:
    out = trained.succeed("validate", "--data.val_size=2500")
    assert out.rstrip().endswith("in 2,500")


def test_test_has_the_precision_of_the_training(command: Command) -> None:
    flags = ["--trainer.precision=bf16-mixed", "--trainer.limit_test_batches=1.0", "--trainer.logger=false"]
    assert command("fit", *SHORT, *flags)[0] == 0
    expected = RUN.results()
    RUN.record(test=expected["test"] | {"loss": -1})
    assert command("test")[0] == 0
    assert RUN.results() == expected
    out = command.succeed("test", "--trainer.precision=32")
    assert f"not recorded: {RUN.folder} records tests with precision bf16-mixed" in out
    assert RUN.results() == expected


def test_precision_that_is_not_available_is_replaced(trained: Command) -> None:
    expected, path = RUN.results(), RUN.checkpoints / "best.ckpt"
    content = Checkpoint.read(path).content
    assert content["precision"] == "32-true"
    torch.save(content | {"precision": "16-mixed"}, path)
    out = trained.succeed("test", "--trainer.accelerator=cpu")
    assert "trained in 16-mixed, which is not available here: evaluated in 32-true\n" in out
    assert f"not recorded: {RUN.folder}" in out
    del content["precision"]
    torch.save(content, path)
    assert "not recorded" not in trained("test", "--trainer.accelerator=cpu")[1], "old checkpoints have none"
    assert RUN.results() == expected


def test_checkpoint_is_enough_in_another_folder(
    trained: Command, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = RUN.results()["test"]
    folder = tmp_path_factory.mktemp("elsewhere")
    shutil.copy(RUN.checkpoints / "best.ckpt", folder / "mine.ckpt")
    monkeypatch.chdir(folder)
    out = trained.succeed("test", "--ckpt_path=mine.ckpt")
    assert f"{10_000 - expected['correct']:,} errors in 10,000" in out
    assert sorted(path.name for path in folder.iterdir()) == ["data", "mine.ckpt"]
    assert trained("predict", "--ckpt_path=mine.ckpt")[0] == 0
    assert (folder / "predictions.csv").is_file()


def test_batch_size_is_that_of_the_checkpoint_by_default(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("fit", *SHORT, "--data.batch_size=250", "--trainer.max_epochs=1")[0] == 0
    sizes = []
    step = DigitClassifier.test_step

    def record(classifier: DigitClassifier, batch: Batch) -> torch.Tensor:
        sizes.append(len(batch[1]))
        return step(classifier, batch)

    monkeypatch.setattr(DigitClassifier, "test_step", record)
    for flags in ([], ["--data.batch_size=1000"]):
        assert command("test", *flags)[0] == 0
    assert sizes == [250] * 40 + [1_000] * 10


def test_flag_that_does_not_fit_the_weights_is_refused(trained: Command) -> None:
    err = trained.refuse("test", "--model.channels=[4,9]", code=1)
    assert "do not fit the network: was a --model flag or --data.dataset changed?" in err


def test_config_of_a_run_is_accepted(trained: Command) -> None:
    out = trained.succeed("test", "--config", RUN.config, "--trainer.limit_test_batches=1")
    assert f"checkpoint {RUN.checkpoints / 'best.ckpt'}" in out


def test_experiment_selects_the_newest_run(trained: Command) -> None:
    assert trained("fit", *SHORT, "--experiment=other", "--trainer.max_steps=1")[0] == 0
    assert str(Path("runs/other/version_0/checkpoints/best.ckpt")) in trained("test")[1]
    assert str(RUN.checkpoints / "best.ckpt") in trained("test", "--experiment=baseline")[1]
    code, _, err = trained("test", "--experiment=none")
    assert (code, err) == (1, f"error: no run with a best checkpoint in {Path('runs/none')}: train one with fit\n")
