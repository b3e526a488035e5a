"""A ResumableDataLoader resumes within an epoch."""

import pytest
import torch
from torch.utils.data import TensorDataset

from mnist_lit.datasets.loading import ResumableDataLoader


def resumable(limit: float) -> ResumableDataLoader:
    return ResumableDataLoader(limit=limit, dataset=TensorDataset(torch.arange(10)), batch_size=2)


@pytest.mark.parametrize(("limit", "states"), [(1.0, [1, 2, 3, 4, 0]), (0.6, [1, 2, 0]), (3, [1, 2, 0])])
def test_loader_resumes_after_the_batches_already_yielded(limit: float, states: list[int]) -> None:
    loader = resumable(limit)
    epoch = [batch[0].tolist() for batch in loader]
    for number, batch in zip(range(len(states)), loader, strict=False):
        assert batch[0].tolist() == epoch[number]
        state = loader.state_dict()
        assert state == {"given": states[number]}
        resumed = resumable(limit)
        resumed.load_state_dict(state)
        assert [batch[0].tolist() for batch in resumed] == epoch[states[number] :]
        assert [batch[0].tolist() for batch in resumed] == epoch, "the next epoch is complete"
