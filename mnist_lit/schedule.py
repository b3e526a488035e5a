"""Learning rate schedules."""

from lightning.pytorch import Trainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

__all__ = ["one_cycle"]


def one_cycle(optimizer: Optimizer, learning_rate: float, trainer: Trainer) -> OneCycleLR:
    """Return a schedule from `learning_rate` / 25 up to `learning_rate` and down to 0 over all training steps.

    Raises:
        ValueError: if the Trainer has no last step, or no data module.
    """
    return OneCycleLR(optimizer, learning_rate, total_steps=_total_steps(trainer), cycle_momentum=False)


def _total_steps(trainer: Trainer) -> int:
    """Return the number of optimizer steps.

    Not `trainer.estimated_stepping_batches`: it builds the loader before its state is restored (Lightning issue 20550).
    """
    epochs = trainer.max_epochs
    if epochs is None or epochs == -1:
        if trainer.max_steps == -1:
            raise ValueError("schedule one_cycle needs an end: give the Trainer max_epochs or max_steps")
        return trainer.max_steps
    if (data := trainer.datamodule) is None:  # type: ignore[attr-defined]
        raise ValueError("schedule one_cycle needs a data module")
    batches, limit = len(data.train_dataloader()), trainer.limit_train_batches
    batches = min(limit, batches) if isinstance(limit, int) else int(batches * limit)
    steps: int = -(-batches // trainer.accumulate_grad_batches) * epochs
    return steps if trainer.max_steps == -1 else min(steps, trainer.max_steps)
