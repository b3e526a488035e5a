"""The learning rate schedule covers exactly the steps of the training."""

from pathlib import Path
from typing import Any

import pytest
from conftest import stock_trainer
from lightning.pytorch import Callback, Trainer

from mnist_lit import DigitClassifier, MNISTDataModule

SETTINGS: dict[str, Any] = {"limit_val_batches": 0, "enable_checkpointing": False}


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
def test_one_cycle_rises_from_a_25th_and_decays_to_0_at_the_last_step(
    data_dir: Path, tmp_path: Path, arguments: dict[str, Any], steps: int
) -> None:
    rates: list[float] = []

    class Record(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == len(rates):
                rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    trainer = stock_trainer(tmp_path, callbacks=[Record()], **SETTINGS, **arguments)
    data = MNISTDataModule(batch_size=100, val_size=59_300, data_dir=str(data_dir))
    trainer.fit(DigitClassifier(channels=[1], schedule="one_cycle", learning_rate=0.1), data)
    assert len(rates) == steps == trainer.global_step
    assert rates[0] == pytest.approx(0.1 / 25)
    assert max(rates) > 0.08
    assert rates[-1] < 0.1 / 10_000
    warm_up = rates[: rates.index(max(rates))]
    assert warm_up == sorted(warm_up)


def test_one_cycle_needs_a_number_of_steps(data_dir: Path, tmp_path: Path) -> None:
    trainer = stock_trainer(tmp_path, max_epochs=-1, **SETTINGS)
    with pytest.raises(ValueError, match="schedule one_cycle needs an end"):
        trainer.fit(DigitClassifier(channels=[1], schedule="one_cycle"), MNISTDataModule(data_dir=str(data_dir)))
