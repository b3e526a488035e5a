"""mnist-lit: the classic two-convolution CNN on MNIST as a small, complete and honest PyTorch Lightning experiment.

>>> from mnist_lit import CNN, DigitClassifier, MNISTDataModule
>>> CNN(channels=[8, 16]).fc
Linear(in_features=784, out_features=10, bias=True)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_lit.classifier import DigitClassifier
    from mnist_lit.data import MNISTDataModule
    from mnist_lit.model import CNN

__all__ = ["CNN", "DigitClassifier", "MNISTDataModule"]
__version__ = "0.2.0"

_MODULES = {"CNN": "model", "DigitClassifier": "classifier", "MNISTDataModule": "data"}


def __getattr__(name: str) -> Any:
    """Import the public names when first used (PEP 562), so that help does not wait seconds for torch."""
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
