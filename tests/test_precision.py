"""Precision, gradient accumulation and clipping, and devices without float64."""

from typing import Any

import pytest
import torch
from conftest import FLAGS, RUN, SHORT, Command
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.runs.folders import Run


def test_training_with_lower_precision_clipping_and_accumulation_reaches_90_percent(command: Command) -> None:
    flags = ["--trainer.precision=bf16-mixed", "--trainer.gradient_clip_val=0.5", "--trainer.accumulate_grad_batches=2"]
    command.succeed("fit", *FLAGS, *flags, "--model.learning_rate=0.01")
    assert RUN.results()["test"]["accuracy"] > 0.9


def test_four_accumulated_batches_of_25_equal_one_of_100(command: Command) -> None:
    assert command("fit", *SHORT)[0] == 0
    quarters = ["--data.batch_size=25", "--trainer.accumulate_grad_batches=4", "--trainer.limit_train_batches=80"]
    assert command("fit", *SHORT, *quarters)[0] == 0
    one, accumulated = (
        Checkpoint.read(run.checkpoints / "last.ckpt").content for run in (RUN, Run(RUN.folder.with_name("version_1")))
    )
    assert one["global_step"] == accumulated["global_step"] == 40
    for name in [name for name in one["state_dict"] if name.startswith("network.")]:
        torch.testing.assert_close(one["state_dict"][name], accumulated["state_dict"][name], rtol=1e-4, atol=1e-5)


class NoFloat64(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raise TypeError if an operation creates float64 on the training device, as Apple's MPS does.

    Here that device is the CPU, so only tensors returned by `Tensor.cpu`, and float64 tensors, count as on the CPU. One
    call that moves and converts a tensor is an error too: MPS would convert before it moves.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.on_cpu = WeakTensorKeyDictionary()

        def cpu(tensor: Tensor) -> Tensor:
            self.on_cpu[moved := tensor.clone()] = True
            return moved

        monkeypatch.setattr(Tensor, "cpu", cpu)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = [v for v in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(v, Tensor)]  # noqa: SLF001
        allowed = any(value.dtype == torch.float64 or value in self.on_cpu for value in inputs)
        result = func(*args, **kwargs)
        for value in torch.utils._pytree.tree_leaves(result):  # noqa: SLF001
            if isinstance(value, Tensor) and value.dtype == torch.float64 and not allowed:
                raise TypeError(f"{func} creates float64, which the training device does not support")
        return result


@pytest.mark.slow
def test_no_float64_is_created_on_the_training_device(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for convert in (Tensor.double, lambda tensor: tensor.to("cpu", torch.float64)):
        with pytest.raises(TypeError, match="creates float64"), NoFloat64(monkeypatch):
            convert(torch.ones(1))
    augmented = ["--data.rotation=5", "--data.elastic=1", "--model.schedule=one_cycle", "--model.batch_norm=true"]
    with NoFloat64(monkeypatch):
        for name, *flags in (["fit", *SHORT, *augmented], ["validate"], ["test"], ["predict"]):
            assert command(name, *flags)[::2] == (0, "")
