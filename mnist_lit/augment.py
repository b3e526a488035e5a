"""Augmentation: random affine and elastic transforms of batches, on any device."""

from dataclasses import InitVar, dataclass
from math import radians

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

__all__ = ["Augmentation"]

ELASTIC_GRID = 5
"""Random displacements on each side of the grid that elastic deformation interpolates: for MNIST, one in 7 pixels."""


@dataclass(frozen=True)
class Augmentation:
    """A random affine transform and elastic deformation of each image, uniform in ± each setting.

    Args:
        side: of an image, in pixels: translations must be smaller.
        rotation: maximum angle of the training images' rotation, in degrees.
        shift: maximum translation of the training images in each direction, in pixels.
        scaling: maximum change of the training images' size in each direction, as a fraction.
        shear: maximum horizontal shear of the training images, in pixels per pixel down.
        elastic: standard deviation of the training images' elastic deformation, in pixels (after Simard et al. 2003,
            doi:10.1109/ICDAR.2003.1227801, with interpolated noise instead of filtered).

    Raises:
        ValueError: if a setting is out of range.

    >>> Augmentation(28, rotation=10)(torch.full((2, 1, 28, 28), 255, dtype=torch.uint8)).shape
    torch.Size([2, 1, 28, 28])
    """

    side: InitVar[int]
    rotation: float = 0.0
    shift: float = 0.0
    scaling: float = 0.0
    shear: float = 0.0
    elastic: float = 0.0

    def __post_init__(self, side: int) -> None:
        limits = {"rotation": 180, "shift": side, "scaling": 1, "shear": 1, "elastic": side}
        for name, limit in limits.items():
            if not 0 <= getattr(self, name) < limit:
                raise ValueError(f"{name} must be at least 0 and less than {limit}, got {getattr(self, name)}")

    def __bool__(self) -> bool:
        """Return whether any setting changes an image."""
        return any(vars(self).values())

    def __call__(self, pixels: Tensor, generator: Generator | None = None) -> Tensor:
        """Return transformed images, float32 (B, C, H, W), in the range of `pixels`.

        Args:
            pixels: of any dtype, (B, C, H, W); outside of an image there is 0.
            generator: on the device of the images; by default torch's.
        """
        batch, _, height, width = pixels.shape
        device = pixels.device
        draws = 2 * torch.rand(6, batch, generator=generator, device=device) - 1  # -1 to 1
        angle, slant = radians(self.rotation) * draws[0], self.shear * draws[1]
        wide, high = 1 / (1 + self.scaling * draws[2]), 1 / (1 + self.scaling * draws[3])
        cos, sin = angle.cos(), angle.sin()
        # The source of each output pixel, in units of half the image's sides: rotated, then sheared, then scaled.
        ratio = height / width
        rows = [
            torch.stack([wide * cos, ratio * wide * (slant * cos - sin), 2 * self.shift / width * draws[4]], dim=1),
            torch.stack([high * sin / ratio, high * (slant * sin + cos), 2 * self.shift / height * draws[5]], dim=1),
        ]
        grid = affine_grid(torch.stack(rows, dim=1), list(pixels.shape), align_corners=False)  # (B, H, W, 2)
        if self.elastic:
            noise = torch.randn(batch, 2, ELASTIC_GRID, ELASTIC_GRID, generator=generator, device=device)
            bend = interpolate(noise, (height, width), mode="bicubic", align_corners=True)  # (B, 2, H, W)
            grid = grid + bend.permute(0, 2, 3, 1) * torch.tensor([2 / width, 2 / height], device=device) * self.elastic
        return grid_sample(pixels.float(), grid, align_corners=False)
