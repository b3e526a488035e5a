"""Lower precision, accumulated and clipped gradients: a run still learns what it should."""

import pytest
import torch
from conftest import FLAGS, RUN, SHORT, Command

from mnist_lit.checkpoints import read_checkpoint
from mnist_lit.runs import Run


@pytest.mark.parametrize(
    "flags",
    [
        ["--trainer.precision=bf16-mixed"],
        ["--trainer.gradient_clip_val=0.5"],
        ["--trainer.precision=bf16-mixed", "--trainer.gradient_clip_val=0.5", "--trainer.accumulate_grad_batches=2"],
    ],
    ids=["half precision", "clipped", "all at once"],
)
def test_digits_are_learnt(command: Command, flags: list[str]) -> None:
    code, _, err = command("fit", *FLAGS, *flags, "--model.learning_rate=0.01")
    assert (code, err) == (0, "")
    assert RUN.results()["test"]["accuracy"] > 0.9


def test_four_batches_of_25_accumulated_are_one_of_100(command: Command) -> None:
    assert command("fit", *SHORT)[0] == 0
    quarters = ["--data.batch_size=25", "--trainer.accumulate_grad_batches=4", "--trainer.limit_train_batches=80"]
    assert command("fit", *SHORT, *quarters)[0] == 0
    one, other = (
        read_checkpoint(run.checkpoints / "last.ckpt") for run in (RUN, Run(RUN.folder.with_name("version_1")))
    )
    assert one["global_step"] == other["global_step"] == 40
    for name in [name for name in one["state_dict"] if name.startswith("network.")]:
        torch.testing.assert_close(one["state_dict"][name], other["state_dict"][name], rtol=1e-4, atol=1e-5)


def test_gradients_clipped_to_nothing_teach_nothing(command: Command) -> None:
    """Adam divides by the size of the gradients, unless they are far below its epsilon of 1e-8."""
    assert command("fit", *SHORT, "--trainer.gradient_clip_val=1e-13", "--trainer.max_epochs=1")[0] == 0
    assert RUN.results()["fit"]["best_val_accuracy"] < 0.3
