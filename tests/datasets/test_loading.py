"""Images are in memory, of a GPU if there is one; a ResumableDataLoader resumes within an epoch."""

from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from mnist_lit.datasets.loading import InMemoryDataset, ResumableDataLoader


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


def test_a_gpu_gets_the_images_once_unless_they_are_too_many() -> None:
    """Here the GPU is the meta device: its tensors have no content, but accept no indices from another device."""
    images = InMemoryDataset(torch.zeros(5, 1, 4, 4, dtype=torch.uint8), torch.arange(5))
    assert images.to(torch.device("cpu")) is images
    moved = []

    class OnGPU(torch.Tensor):
        def to(self, device: Any) -> Any:  # type: ignore[override]
            moved.append(device)
            return torch.empty(self.shape, dtype=self.dtype, device="meta")

    gpu = torch.device("cuda")
    images.pixels, images.labels = (tensor.as_subclass(OnGPU) for tensor in (images.pixels, images.labels))
    pixels, labels = images.to(gpu).__getitems__([3, 1])
    assert moved == [gpu, gpu]
    assert (pixels.device.type, pixels.shape, labels.shape) == ("meta", (2, 1, 4, 4), (2,))
    images.pixels = torch.empty(1, device="meta").expand(2**29)  # of four bytes each
    assert images.to(gpu) is images
