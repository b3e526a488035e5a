"""Callbacks of every training: limits, finite losses, equal buffers, random numbers that do not depend on a resume."""

from datetime import timedelta
from math import isfinite
from time import monotonic
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from torch import Tensor, distributed

from mnist_lit.datasets.sampling import derive_seed

__all__ = [
    "LOSSES_PER_CHECK",
    "DivergedError",
    "FiniteLoss",
    "Limits",
    "SeedSteps",
    "SyncBuffers",
    "any_process",
    "is_accumulating",
]

LOSSES_PER_CHECK = 50
"""Steps between two reads of a loss: each waits until a GPU has computed it, and for all processes."""
STEPS_PER_AGREEMENT = 10
"""Steps between two collective decisions of several processes: each takes milliseconds."""
ADVICE = "try a lower --model.learning_rate; the checkpoints are from before"


class DivergedError(ValueError):
    """A loss or weights that are not finite: a resumed run would end in the same way."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: {ADVICE}")


def is_accumulating(trainer: Trainer, batch_idx: int) -> bool:
    """Return whether the optimizer step is still to come, after more batches of accumulated gradients."""
    return not trainer.is_last_batch and bool((batch_idx + 1) % trainer.accumulate_grad_batches)


def any_process(trainer: Trainer, *, decision: bool, now: bool = False) -> bool:
    """Return whether any process has decided so; of several, in every tenth step only, False in the others.

    So all of them do the same after the same step, and do not wait for each other in each.

    Args:
        trainer: of this process.
        decision: of this process.
        now: whether to ask in any step.
    """
    if trainer.world_size > 1 and trainer.global_step % STEPS_PER_AGREEMENT and not now:
        return False
    return trainer.strategy.reduce_boolean_decision(decision, all=False)


class Limits(Callback):
    """Measure the time of training, and end it after `max_steps` or `max_time`, at the end of an optimizer step.

    Lightning's own limits count an epoch that they end early as finished, and a resumed run would begin the next one.
    Here such an epoch stays unfinished. There is no validation at its end: a run without the limit has none there.

    Args:
        max_time: of training, over all its resumes: a `timedelta`, its arguments, or `DD:HH:MM:SS`.

    Raises:
        MisconfigurationException: if `max_time` is no duration.
    """

    def __init__(self, max_time: str | timedelta | dict[str, int] | None = None) -> None:
        self.max_time = Timer(max_time).time_remaining()
        self.max_steps = -1
        self.start: float | None = None
        self.before, self.batches_before = 0.0, 0

    @property
    def seconds(self) -> float:
        """The time of training so far, validation included."""
        return self.before if self.start is None else self.before + monotonic() - self.start

    def on_fit_start(self, trainer: Trainer, *_: Any) -> None:
        """Take the limit of steps from the Trainer, before it restores its loops."""
        self.max_steps, trainer.fit_loop.epoch_loop.max_steps = trainer.max_steps, -1

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        """Start the clock. A run may be resumed at its limit."""
        self.start, self.batches_before = monotonic(), trainer.fit_loop.total_batch_idx + 1
        self._check(trainer)

    def seconds_left(self, trainer: Trainer) -> float | None:
        """Return how long the training will take from now on, or None if it has no limit, or has just begun."""
        batches = trainer.fit_loop.total_batch_idx + 1
        left: list[float] = []
        if trainer.max_epochs is not None and trainer.max_epochs >= 0:
            left.append(trainer.max_epochs * trainer.num_training_batches - batches)
        if self.max_steps >= 0:
            left.append(self.max_steps * trainer.accumulate_grad_batches - batches)
        if self.start is None or batches <= self.batches_before:
            return None
        mean = (monotonic() - self.start) / (batches - self.batches_before)
        limits = [number * mean for number in left]
        if self.max_time is not None:
            limits.append(self.max_time - self.seconds)
        return max(0.0, min(limits)) if limits else None

    def on_train_batch_end(
        self, trainer: Trainer, _module: LightningModule, _outputs: Any, _batch: Any, batch_idx: int
    ) -> None:
        """End the training at a limit, after the optimizer step."""
        if not is_accumulating(trainer, batch_idx):
            self._check(trainer)

    def on_train_end(self, trainer: Trainer, *_: Any) -> None:
        """Stop the clock, and correct Lightning's counts.

        Lightning counts an epoch that was ended early, and one step less where a run is resumed at its limit.
        """
        self.before, self.start = self.seconds, None
        batches = trainer.fit_loop.total_batch_idx + 1
        trainer.fit_loop.epoch_progress.current.completed = int(batches // trainer.num_training_batches)
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step  # noqa: SLF001  # where the test is logged

    def state_dict(self) -> dict[str, Any]:
        """Return the time so far."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the time of a checkpoint."""
        self.before = state_dict["seconds"]

    def _check(self, trainer: Trainer) -> None:
        reached = 0 <= self.max_steps <= trainer.global_step
        if reached or (self.max_time is not None and any_process(trainer, decision=self.seconds >= self.max_time)):
            trainer.fit_loop.epoch_loop.max_steps = trainer.global_step


class FiniteLoss(Callback):
    """Stop before a checkpoint or a validation of weights that had a loss that is NaN or infinite.

    The losses stay on their device and are checked together: a check of each would make a GPU wait in each step. What
    is trained between such a loss and its check is lost anyway.
    """

    def __init__(self) -> None:
        self.losses: list[tuple[int, Tensor]] = []
        """Those that are not checked yet, with the numbers of their steps."""

    def on_before_backward(self, trainer: Trainer, _module: LightningModule, loss: Tensor) -> None:
        """Keep the loss, and check if there are enough, or if an anomaly would raise its own error in this step."""
        self.losses.append((trainer.global_step + 1, loss.detach()))
        if len(self.losses) >= LOSSES_PER_CHECK or torch.is_anomaly_enabled():
            self._check(trainer)

    def on_validation_start(self, trainer: Trainer, *_: Any) -> None:
        """Check the losses before it."""
        self._check(trainer)

    def on_save_checkpoint(self, trainer: Trainer, *_: Any) -> None:
        """Check those before the checkpoint."""
        self._check(trainer)

    def on_train_end(self, trainer: Trainer, *_: Any) -> None:
        """Check the last ones."""
        self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        """Raise `DivergedError`, naming the step, in all processes: one alone would leave the others waiting."""
        if not self.losses:
            return
        steps, losses = zip(*self.losses, strict=True)
        self.losses = []
        values = trainer.strategy.reduce(torch.stack(losses).float(), reduce_op="sum")  # over processes
        assert isinstance(values, Tensor)  # noqa: S101  # strategies also reduce other things
        for step, value in zip(steps, values.tolist(), strict=True):
            if not isfinite(value):
                raise DivergedError(f"the loss is {value} in step {step}")


class SyncBuffers(Callback):
    """Give all processes the buffers of the first one, such as running means, before they validate.

    DDP would do so in every step. Batch normalisation uses its running means in evaluation only, and a checkpoint is
    that of the first process.
    """

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Send the buffers, which may be averages: Lightning's WeightAveraging puts them there in this hook too."""
        if trainer.world_size > 1:
            for buffer in pl_module.buffers():
                distributed.broadcast(buffer, src=0)


class SeedSteps(Callback):
    """Seed torch before each batch, so that its random numbers do not depend on where training was resumed.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Make dropout and the like a function of the seed and the batch."""
        seed = derive_seed(self.seed, trainer.fit_loop.total_batch_idx, trainer.global_rank)
        # Not torch.manual_seed: for devices not in use it keeps every call, with a traceback, at a millisecond each.
        torch.default_generator.manual_seed(seed)
        if pl_module.device.type != "cpu":
            torch.get_device_module(pl_module.device).manual_seed(seed)
