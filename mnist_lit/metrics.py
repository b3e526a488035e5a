"""Metrics of the experiment: training loss and accuracy, temperature scaling, and the mistakes of an evaluation."""

from math import nan
from typing import Any

import torch
from torch import Tensor, distributed
from torchmetrics import MeanMetric, Metric
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

__all__ = ["EpochMetrics", "Mean", "Mistakes", "TemperatureScaling"]

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.2, 5.0
"""Without bounds, images that are all classified correctly would give a temperature of 0."""
MIN_IMAGES = 100
"""For a temperature: fewer are often all classified correctly."""

FORMER_NAMES = {"loss.mean_value": "loss", "loss.weight": "images", "accuracy.tp": "correct"}
"""Names of the states of `EpochMetrics` in earlier checkpoints."""

Mistake = tuple[Tensor, Tensor, Tensor]
"""Pixels (N, C, H, W), labels (N,) and probabilities (N, K)."""


class Mean(MeanMetric):
    """A weighted mean, NaN if a value is NaN; torchmetrics' own check for that makes a GPU wait in each step."""

    mean_value: Tensor
    weight: Tensor

    def update(self, value: Tensor, weight: int) -> None:  # type: ignore[override]  # always with a weight
        """Add a value () with its weight."""
        self.mean_value = self.mean_value + value.float() * weight  # losses may be in half precision
        self.weight = self.weight + weight


class EpochMetrics(Metric):
    """Loss and accuracy over all images of a training epoch so far, in one process or several.

    They are sums over images, not means of batch means: the last batch may be smaller. Checkpoints contain them, so
    that an epoch that is resumed within it ends with the metrics of all its steps.

    >>> metrics = EpochMetrics()
    >>> metrics.update(torch.tensor(0.5), torch.eye(4), torch.tensor([0, 1, 2, 0]))
    >>> metrics.compute()
    {'train/loss': tensor(0.5000), 'train/accuracy': tensor(0.7500)}
    """

    full_state_update = False
    loss: Tensor
    correct: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("loss", torch.zeros(()), dist_reduce_fx="sum", persistent=True)
        for name in ("correct", "images"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum", persistent=True)

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: its mean loss (), logits (B, K) and labels (B,)."""
        self.loss += loss.float() * len(labels)  # it may be in half precision
        self.correct += (logits.argmax(dim=1) == labels).sum()
        self.images += len(labels)

    def compute(self) -> dict[str, Tensor]:
        """Return `train/loss` and `train/accuracy` over all processes."""
        return {"train/loss": self.loss / self.images, "train/accuracy": self.correct / self.images}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Load the states, also those of checkpoints which have them by their former names."""
        for name in [name for name in state_dict if name.startswith(prefix) and name.count(".") > prefix.count(".")]:
            value = state_dict.pop(name)
            if new := FORMER_NAMES.get(name.removeprefix(prefix)):
                state_dict[prefix + new] = value.to(self._defaults[new].dtype).squeeze()  # type: ignore[union-attr]
        super()._load_from_state_dict(state_dict, prefix, *args)

    def gather(self, checkpoint: dict[str, Any], prefix: str) -> None:
        """Replace the metric states in a checkpoint by those of all processes, (processes,)."""
        for state, name in _find_states(checkpoint, prefix):
            counts = gather_all_tensors(state[name]) if distributed.is_initialized() else [state[name]]
            state[name] = torch.stack(counts)

    def scatter(self, checkpoint: dict[str, Any], prefix: str, rank: int) -> None:
        """Replace them by this process's own; if the number of processes has changed, rank 0 gets the sum."""
        processes = distributed.get_world_size() if distributed.is_initialized() else 1
        for state, name in _find_states(checkpoint, prefix):
            counts = state[name]  # (processes that saved,)
            total = counts.sum().expand(processes) * (torch.arange(processes) == 0)
            state[name] = (counts if len(counts) == processes else total)[rank]


def _find_states(checkpoint: dict[str, Any], prefix: str) -> list[tuple[dict[str, Any], str]]:
    """Return state dicts and names of metric states; Lightning's WeightAveraging saves two state dicts."""
    states = [checkpoint[name] for name in ("state_dict", "current_model_state") if name in checkpoint]
    return [(state, name) for state in states for name in state if name.startswith(prefix)]


class TemperatureScaling(Metric):
    """The temperature that minimises the cross-entropy of logits divided by it (Guo et al. 2017, arXiv:1706.04599).

    It calibrates probabilities and changes no classification. It must be fitted on images that were not trained on.

    >>> import torch
    >>> scaling = TemperatureScaling()
    >>> scaling.update(torch.tensor([[2.0, 0.0]] * 100), torch.tensor([0, 0, 0, 1] * 25))
    >>> round(float((2 / scaling.compute()).sigmoid()), 3)  # three of four are correct
    0.75
    """

    full_state_update = False
    logits: list[Tensor]
    labels: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("logits", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: logits (B, K) and labels (B,)."""
        self.logits.append(logits.float())
        self.labels.append(labels)

    def compute(self) -> Tensor:
        """Return the temperature (), float32 on the CPU, by Newton's method: the loss is convex in its inverse.

        It is NaN if there are too few images.
        """
        # MPS has no float64. Moved first, then converted: one call of `to` would convert on the device.
        logits = dim_zero_cat(self.logits).cpu().double()  # (N, K)
        labels = dim_zero_cat(self.labels).cpu()  # (N,)
        if len(labels) < MIN_IMAGES:
            return torch.tensor(nan)
        target = logits.gather(1, labels[:, None])[:, 0]  # (N,)
        inverse = logits.new_ones(())
        for _ in range(20):
            probabilities = (inverse * logits).softmax(dim=1)  # (N, K)
            mean = (probabilities * logits).sum(dim=1)
            variance = (probabilities * logits.square()).sum(dim=1) - mean.square()
            step = (target - mean).mean() / variance.mean().clamp(min=1e-9)
            inverse = (inverse + step.clamp(-inverse / 2, inverse)).clamp(1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE)
        return (1 / inverse).float()


class Mistakes:
    """The misclassified images of an evaluation."""

    def __init__(self) -> None:
        self.batches: list[Mistake] = []

    def update(self, pixels: Tensor, labels: Tensor, logits: Tensor) -> None:
        """Keep the misclassified images of a batch, (B, C, H, W), (B,) and (B, K)."""
        wrong = logits.argmax(dim=1) != labels
        probabilities = logits[wrong].float().softmax(dim=1)
        self.batches.append((pixels[wrong].cpu(), labels[wrong].cpu(), probabilities.cpu()))

    def worst(self, number: int) -> Mistake:
        """Return up to `number` mistakes of all processes, those with the lowest probability of the label first."""
        gathered = [self.batches]
        if distributed.is_initialized():
            gathered = [[] for _ in range(distributed.get_world_size())]
            distributed.all_gather_object(gathered, self.batches)
        batches = [batch for process in gathered for batch in process]
        pixels, labels, probabilities = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
        order = probabilities[torch.arange(len(labels)), labels].argsort(stable=True)[:number]
        return pixels[order], labels[order], probabilities[order]
