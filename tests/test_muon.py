"""Muon: nearly orthogonal updates of matrices and kernels, AdamW's updates of the others, and its state."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mnist_lit.muon import Muon, orthogonalize

SETTINGS: dict[str, Any] = {"lr": 0.02, "betas": (0.8, 0.95), "weight_decay": 0.1}


@pytest.mark.parametrize("shape", [(8, 30), (30, 8), (8, 8)], ids=str)
def test_singular_vectors_stay_and_singular_values_get_near_1(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    left, before, right = torch.linalg.svd(matrix, full_matrices=False)
    for steps, least in ((3, 3 * (before / before.norm()).min()), (8, 0.6)):
        values = left.T @ orthogonalize(matrix, steps) @ right.T
        assert_close(values, values.diagonal().diag(), rtol=0, atol=1e-4)
        assert least < values.diagonal().min() < values.diagonal().max() < 1.3
    assert torch.equal(orthogonalize(matrix), orthogonalize(matrix, 3))
    assert orthogonalize(torch.zeros(shape)).abs().max() == 0


def test_update_of_a_matrix_is_that_of_torch() -> None:
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(6, 20))
    theirs = nn.Parameter(ours.detach().clone())
    optimizers = [
        Muon([ours], **SETTINGS),
        torch.optim.Muon([theirs], lr=0.02, momentum=0.8, weight_decay=0.1, ns_steps=3, adjust_lr_fn="match_rms_adamw"),
    ]
    before = ours.detach().clone()
    for _ in range(4):
        ours.grad = torch.randn(6, 20)
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert (ours - before).abs().mean() > 0.01
    assert_close(ours, theirs, rtol=0, atol=1e-3)  # torch computes in bfloat16


def test_kernels_are_matrices_and_vectors_are_updated_by_adamw_without_decay() -> None:
    torch.manual_seed(0)
    kernel, bias = torch.randn(4, 3, 2, 2), torch.randn(4)
    convolution = [nn.Parameter(kernel.clone().to(memory_format=torch.channels_last)), nn.Parameter(bias.clone())]
    matrix, vector = nn.Parameter(kernel.flatten(1)), nn.Parameter(bias.clone())
    optimizers = [
        Muon(convolution, **SETTINGS),
        Muon([matrix], **SETTINGS),
        torch.optim.AdamW([vector], **SETTINGS | {"weight_decay": 0.0}),
    ]
    for _ in range(3):
        convolution[0].grad, convolution[1].grad = torch.randn_like(convolution[0]), torch.randn(4)
        matrix.grad, vector.grad = convolution[0].grad.flatten(1), convolution[1].grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert_close(convolution[0].flatten(1), matrix)
    assert torch.equal(convolution[1], vector)


def test_a_restored_state_goes_on_with_the_same_bits() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 5))
    optimizer = Muon(network.parameters(), **SETTINGS)

    def train(network: nn.Module, optimizer: Muon) -> None:
        optimizer.zero_grad()
        network(torch.ones(2, 2, 4, 4) * torch.arange(2)[:, None, None, None]).square().mean().backward()
        optimizer.step()

    for _ in range(2):
        train(network, optimizer)
    restored = copy.deepcopy(network)
    other = Muon(restored.parameters(), **SETTINGS)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(network, optimizer)
    train(restored, other)
    for weight, same in zip(network.parameters(), restored.parameters(), strict=True):
        assert torch.equal(weight, same)
