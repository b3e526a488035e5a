"""A network with its temperature gives calibrated probabilities."""

import torch

from mnist_lit import CNN
from mnist_lit.calibration import CalibratedNetwork

PIXELS = torch.randint(256, (25, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_logits_are_divided_by_the_temperature() -> None:
    network = CNN([4], dropout=0.5)
    model = CalibratedNetwork(network, torch.tensor(2.0))
    with torch.inference_mode():
        expected = (network(PIXELS) / 2).softmax(dim=1)
    assert not network.training, "without dropout"
    assert torch.equal(model(PIXELS), expected)
    torch.testing.assert_close(model.classify(PIXELS, 10), expected)


def test_a_temperature_of_one_means_that_none_was_fitted() -> None:
    network = CNN([4])
    assert CalibratedNetwork(network, torch.tensor(2.0)).uncalibrated is None
    assert "not calibrated" in (CalibratedNetwork(network, torch.tensor(1.0)).uncalibrated or "")
