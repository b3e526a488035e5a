"""Augmentation: random affine and elastic transforms, crops and flips of batches, on any device."""

from dataclasses import InitVar, dataclass
from math import radians

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate, pad

__all__ = ["Augmentation"]

ELASTIC_GRID = 5
"""Random displacements on each side of the grid that elastic deformation interpolates: for MNIST, one in 7 pixels."""

HASH_FACTOR = 2_654_435_769
"""2**32 divided by the golden ratio (Knuth, The Art of Computer Programming, section 6.4)."""


@dataclass(frozen=True)
class Augmentation:
    """A random affine transform, elastic deformation and crop of each image, uniform in ± a setting; and flips.

    `crop` and `flip` are for photographs: a mirrored 3 is not a 3.

    Args:
        side: shorter side of an image, in pixels: translations must be smaller.
        rotation: maximum angle of the training images' rotation, in degrees.
        shift: maximum translation of the training images in each direction, in pixels.
        scaling: maximum change of the training images' size in each direction, as a fraction.
        shear: maximum horizontal shear of the training images, in pixels per pixel down.
        elastic: standard deviation of the random displacements of a 5×5 grid over each training image, in pixels. Those
            of the pixels in between are interpolated; their root mean square is 0.82 times this setting (after Simard
            et al. 2003, doi:10.1109/ICDAR.2003.1227801, with interpolated noise instead of filtered).
        crop: maximum translation of the training images in whole pixels, with reflections at the border instead of 0
            (a crop of the padded image, as is usual for CIFAR-10).
        flip: whether to mirror each training image in every other epoch, so that it is seen equally often in both
            orientations (Jordan 2024, arXiv:2404.00498).

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
    crop: int = 0
    flip: bool = False

    def __post_init__(self, side: int) -> None:
        limits = {"rotation": 180, "shift": side, "scaling": 1, "shear": 1, "elastic": side, "crop": side}
        for name, limit in limits.items():
            if not 0 <= getattr(self, name) < limit:
                raise ValueError(f"{name} must be at least 0 and less than {limit}, got {getattr(self, name)}")

    def __bool__(self) -> bool:
        """Return whether any setting changes an image."""
        return any(vars(self).values())

    def __call__(self, pixels: Tensor, epoch: int = 0) -> Tensor:
        """Return transformed images, float32 (B, C, H, W), in the range of `pixels`.

        Args:
            pixels: images 0-255 of any dtype, (B, C, H, W); outside of an image there is 0.
            epoch: number of the epoch.
        """
        images = pixels.float()
        if self.flip:
            # A hash of the sum of its pixels says in which epochs an image is mirrored: about half of all in each.
            hashed = pixels.sum(dim=(1, 2, 3), dtype=torch.int64) * HASH_FACTOR >> 16
            mirrored = (hashed + epoch) % 2 == 1
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        if any((self.rotation, self.shift, self.scaling, self.shear, self.elastic)):
            images = self._transform(images)
        if self.crop:
            images = self._crop(images)
        return images

    def _transform(self, images: Tensor) -> Tensor:
        batch, _, height, width = images.shape
        device = images.device
        draws = 2 * torch.rand(6, batch, device=device) - 1  # -1 to 1
        angle, slant = radians(self.rotation) * draws[0], self.shear * draws[1]
        wide, high = 1 / (1 + self.scaling * draws[2]), 1 / (1 + self.scaling * draws[3])
        cos, sin = angle.cos(), angle.sin()
        # The source of each output pixel, in units of half the image's sides: rotated, then sheared, then scaled.
        ratio = height / width
        rows = [
            torch.stack([wide * cos, ratio * wide * (slant * cos - sin), 2 * self.shift / width * draws[4]], dim=1),
            torch.stack([high * sin / ratio, high * (slant * sin + cos), 2 * self.shift / height * draws[5]], dim=1),
        ]
        grid = affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)  # (B, H, W, 2)
        if self.elastic:
            noise = torch.randn(batch, 2, ELASTIC_GRID, ELASTIC_GRID, device=device)
            bend = interpolate(noise, (height, width), mode="bicubic", align_corners=True)  # (B, 2, H, W)
            grid = grid + bend.permute(0, 2, 3, 1) * torch.tensor([2 / width, 2 / height], device=device) * self.elastic
        return grid_sample(images, grid, align_corners=False)

    def _crop(self, images: Tensor) -> Tensor:
        batch, _, height, width = images.shape
        device = images.device
        padded = pad(images, [self.crop] * 4, mode="reflect").permute(0, 2, 3, 1)  # (B, H + 2 crop, W + 2 crop, C)
        corners = torch.randint(2 * self.crop + 1, (2, batch, 1), device=device)
        rows, columns = (
            corner + torch.arange(n, device=device) for corner, n in zip(corners, (height, width), strict=True)
        )
        image = torch.arange(batch, device=device)[:, None, None]
        return padded[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
