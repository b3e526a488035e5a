"""How the learning rate goes, step by step."""

from lightning.pytorch import Trainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

__all__ = ["one_cycle"]


def one_cycle(optimizer: Optimizer, learning_rate: float, trainer: Trainer) -> OneCycleLR:
    """Return a schedule from a 25th of `learning_rate` up to it and down to nothing, over all steps of a training.

    Raises:
        ValueError: if the Trainer has no end, or no data module to count an epoch's batches.
    """
    return OneCycleLR(optimizer, learning_rate, total_steps=_total_steps(trainer), cycle_momentum=False)


def _total_steps(trainer: Trainer) -> int:
    """Return how many steps the optimizer will take.

    Not the Trainer's `estimated_stepping_batches`, which would load the data too early for a run that is resumed.
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
