"""Muon, an optimizer for the weights of convolutions and linear layers."""

from collections.abc import Callable, Iterable
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

__all__ = ["Muon", "orthogonalize"]

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the polynomial that moves singular values towards 1, as in the reference implementation."""
RMS = 0.2
"""Root mean square of an update, as a fraction of the learning rate: about that of Adam's updates."""


class Muon(AdamW):
    """Muon for weights of two or more dimensions, and AdamW for all other parameters, with the same learning rate.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) moves the singular values of a weight matrix's
    update towards 1. Scaled as by Liu et al. 2025 (arXiv:2502.16982), the update fits AdamW's learning rates. A
    convolution's weights (O, C, h, w) are a matrix (O, C h w). After a step, matrices have no gradient.

    `torch.optim.Muon` takes matrices only, and Lightning takes one optimizer for all parameters.

    Args:
        params: the parameters.
        lr: learning rate.
        betas: decay rates of AdamW's moment estimates; the first is also Muon's momentum.
        weight_decay: decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101) of the weights of two or more
            dimensions. Biases and the scales of normalisation do not decay: they set the size of what follows.

    >>> weight = torch.nn.Parameter(torch.zeros(2, 3))
    >>> (weight @ torch.tensor([1.0, 0.0, 0.0])).sum().backward()
    >>> Muon([weight], lr=0.1, betas=(0.9, 0.999), weight_decay=0.0).step()
    >>> bool((weight[:, 0] < 0).all())
    True
    """

    def __init__(self, params: Iterable[Tensor], lr: float, betas: tuple[float, float], weight_decay: float) -> None:
        super().__init__(params, lr=lr, betas=betas, weight_decay=0.0)  # AdamW updates biases and scales
        self.weight_decay = weight_decay

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters, and return what `closure`, which computes the gradients, has returned."""
        loss: Any = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            momentum, _ = group["betas"]
            for weight in group["params"]:
                if weight.ndim < 2 or weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:  # named as in AdamW, which requires a step when its state is restored
                    state["step"], state["exp_avg"] = torch.zeros(()), torch.zeros_like(weight)
                state["step"] += 1
                mean = state["exp_avg"].lerp_(weight.grad, 1 - momentum)
                update = orthogonalize(weight.grad.lerp(mean, momentum).flatten(1))  # Nesterov's momentum
                weight.mul_(1 - group["lr"] * self.weight_decay)
                weight.sub_(update.reshape(weight.shape), alpha=group["lr"] * RMS * sqrt(max(update.shape)))
                weight.grad = None  # AdamW skips it then
        super().step()
        return loss


def orthogonalize(matrix: Tensor, steps: int = 3) -> Tensor:
    """Return a matrix with the same singular vectors and singular values nearer to 1, by a Newton–Schulz iteration.

    Args:
        matrix: (M, N).
        steps: number of iterations.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x: Tensor = matrix.T if tall else matrix
    x = x / matrix.norm().clamp(min=1e-7)  # no singular value is larger than 1 then
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x
