"""Convolutions over images as convolutions over video."""

from __future__ import annotations

from torch import Tensor

TIME = 2
"""Dimension of the frames in the weight of a 3D convolution."""


def inflate(weight: Tensor, frames: int) -> Tensor:
    """``[O, I, h, w]`` as the middle of ``frames``, zeros around it.

    On a clip that stands still the result computes what the image's weight computes
    (the "centre" initialisation of VideoMamba).
    """
    inflated = weight.new_zeros(*weight.shape[:TIME], frames, *weight.shape[TIME:])
    inflated[:, :, frames // 2] = weight
    return inflated
