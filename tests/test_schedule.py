"""The learning rate goes its way over exactly the steps that there are."""

from pathlib import Path
from typing import Any

import pytest
from conftest import stock_trainer
from lightning.pytorch import Callback, Trainer

from mnist_lit import DigitClassifier, MNISTDataModule


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        ({"max_epochs": 2}, 14),
        ({"max_epochs": 3, "limit_train_batches": 0.5}, 9),
        ({"max_epochs": 3, "limit_train_batches": 4}, 12),
        ({"max_epochs": 2, "accumulate_grad_batches": 2}, 8),
        ({"max_epochs": 9, "max_steps": 5}, 5),
        ({"max_epochs": -1, "max_steps": 10}, 10),
    ],
)
def test_one_cycle_goes_from_a_25th_up_and_down_to_nothing_at_the_last_step(
    data_dir: Path, tmp_path: Path, arguments: dict[str, Any], steps: int
) -> None:
    rates: list[float] = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == len(rates):
                rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    stock = stock_trainer(tmp_path, callbacks=[Watch()], limit_val_batches=0, enable_checkpointing=False, **arguments)
    data = MNISTDataModule(batch_size=100, val_size=59_300, data_dir=str(data_dir))
    stock.fit(DigitClassifier(channels=[1], schedule="one_cycle", learning_rate=0.1), data)
    assert len(rates) == steps == stock.global_step
    assert rates[0] == pytest.approx(0.1 / 25)
    assert max(rates) > 0.08
    assert rates[-1] < 0.1 / 10_000
    assert rates[: rates.index(max(rates))] == sorted(rates[: rates.index(max(rates))])


def test_one_cycle_needs_an_end(data_dir: Path, tmp_path: Path) -> None:
    stock = stock_trainer(tmp_path, max_epochs=-1, limit_val_batches=0, enable_checkpointing=False)
    with pytest.raises(ValueError, match="schedule one_cycle needs an end"):
        stock.fit(DigitClassifier(channels=[1], schedule="one_cycle"), MNISTDataModule(data_dir=str(data_dir)))
