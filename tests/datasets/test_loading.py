"""A loader goes on with an epoch where it was left."""

import pytest
import torch
from torch.utils.data import TensorDataset

from mnist_lit.datasets.loading import ResumableDataLoader


def resumable(limit: float) -> ResumableDataLoader:
    return ResumableDataLoader(limit=limit, dataset=TensorDataset(torch.arange(10)), batch_size=2)


@pytest.mark.parametrize(("limit", "states"), [(1.0, [1, 2, 3, 4, 0]), (0.6, [1, 2, 0]), (3, [1, 2, 0])])
def test_a_loader_goes_on_after_what_it_had_given(limit: float, states: list[int]) -> None:
    loader = resumable(limit)
    whole = [batch[0].tolist() for batch in loader]
    for place, batch in zip(range(len(states)), loader, strict=False):
        assert batch[0].tolist() == whole[place]
        state = loader.state_dict()
        assert state == {"given": states[place]}
        again = resumable(limit)
        again.load_state_dict(state)
        assert [rest[0].tolist() for rest in again] == whole[states[place] :]
        assert [rest[0].tolist() for rest in again] == whole, "the epoch after it is whole"
