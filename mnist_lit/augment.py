"""Training images as they might also have been written: pure functions of batches, random for each image."""

from math import radians

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

__all__ = ["warp"]

COARSE = 5
"""Side of the field of shifts that `elastic` bends an image by: a random shift every seven pixels, smooth between."""


def warp(
    pixels: Tensor,
    *,
    rotation: float = 0.0,
    shift: float = 0.0,
    scaling: float = 0.0,
    shear: float = 0.0,
    elastic: float = 0.0,
    generator: Generator | None = None,
) -> Tensor:
    """Turn, move, resize, slant and bend each image a little, by amounts drawn evenly from both sides of nothing.

    Args:
        pixels: of any dtype, (B, 1, H, W); what comes in from outside an image is 0.
        rotation: at most so many degrees.
        shift: at most so many pixels, in each direction.
        scaling: at most this share larger or smaller, in each direction by itself.
        shear: at most this much further to the side for each pixel down.
        elastic: how far pixels go astray, in pixels, as a standard deviation (after Simard et al. 2003,
            doi:10.1109/ICDAR.2003.1227801, with interpolated noise instead of filtered).
        generator: what draws, on the device of the images; by default torch's.

    Returns:
        Float32 (B, 1, H, W), in the range of `pixels`.

    >>> warp(torch.full((2, 1, 28, 28), 255, dtype=torch.uint8), rotation=10).shape
    torch.Size([2, 1, 28, 28])
    """
    batch, _, height, width = pixels.shape
    device = pixels.device
    draws = 2 * torch.rand(6, batch, generator=generator, device=device) - 1  # -1 to 1
    angle, slant = radians(rotation) * draws[0], shear * draws[1]
    wide, high = 1 / (1 + scaling * draws[2]), 1 / (1 + scaling * draws[3])
    cos, sin = angle.cos(), angle.sin()
    # Where each pixel comes from, in halves of the image's side: turned, then slanted, then resized.
    rows = [
        torch.stack([wide * cos, wide * (slant * cos - sin), 2 * shift / width * draws[4]], dim=1),
        torch.stack([high * sin, high * (slant * sin + cos), 2 * shift / height * draws[5]], dim=1),
    ]
    grid = affine_grid(torch.stack(rows, dim=1), list(pixels.shape), align_corners=False)  # (B, H, W, 2)
    if elastic:
        noise = torch.randn(batch, 2, COARSE, COARSE, generator=generator, device=device)
        bend = interpolate(noise, (height, width), mode="bicubic", align_corners=True)  # (B, 2, H, W)
        grid = grid + bend.permute(0, 2, 3, 1) * (2 * elastic / width)
    return grid_sample(pixels.float(), grid, align_corners=False)
