"""Mistakes are kept, worst first."""

import torch

from mnist_lit.mistakes import Mistakes


def test_mistakes_come_worst_first() -> None:
    labels, logits = torch.tensor([3, 3, 3, 3]), torch.zeros(4, 10)
    logits[0, 3] = 9  # right
    logits[1, 8] = 1  # wrong, a little
    logits[2, 5] = 7  # wrong, and quite sure
    logits[3, 9], logits[3, 3] = 7, 6.9  # nearly right
    pixels = torch.arange(4).view(4, 1, 1, 1).expand(4, 1, 28, 28)
    mistakes = Mistakes()
    mistakes.add(pixels[:2], labels[:2], logits[:2])
    mistakes.add(pixels[2:], labels[2:], logits[2:])
    found, truth, probabilities = mistakes.worst(10)
    assert found[:, 0, 0, 0].tolist() == [2, 1, 3]
    assert truth.tolist() == [3, 3, 3]
    assert probabilities.argmax(dim=1).tolist() == [5, 8, 9]
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(3))
    assert mistakes.worst(1)[0][0, 0, 0, 0] == 2


def test_there_may_be_none() -> None:
    pixels, labels, probabilities = Mistakes().worst(10)
    assert (len(pixels), len(labels), len(probabilities)) == (0, 0, 0)
