"""Inflation of image convolutions to video convolutions."""

from __future__ import annotations

from torch import Tensor

TIME = 2
"""Dimension of the frames in the weight of a 3D convolution."""


def inflate(weight: Tensor, frames: int) -> Tensor:
    """``[O, I, h, w]`` as the middle of ``frames``, with zeros around it.

    On a clip of one repeated image, the result computes the same as the image's weight
    (the "centre" initialisation of VideoMamba).
    """
    inflated = weight.new_zeros(*weight.shape[:TIME], frames, *weight.shape[TIME:])
    inflated[:, :, frames // 2] = weight
    return inflated
