"""The depthwise causal convolution of the mixers of language models."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mmtransmamba.ops import backends
from mmtransmamba.ops.causal_conv1d import OP, causal_conv1d, triton


class CausalConv(nn.Conv1d):
    """``nn.Conv1d`` without padding, on a GPU in one Triton kernel with its activation.

    Elsewhere it is PyTorch's own convolution. Being a module that is called, it works
    with what wraps modules or gathers their weights for a call.
    """

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__(channels, channels, taps, groups=channels)

    def forward(self, x_BDL: Tensor, silu: bool = False) -> Tensor:
        """Convolve ``[B, D, L]`` to ``[B, D, L - taps + 1]``; ``silu`` follows."""
        x_BLD = x_BDL.transpose(1, 2)
        tensors = dict(x=x_BLD, weight=self.weight.transpose(0, 1), bias=self.bias)
        if backends.resolve_known(OP, tensors) is not triton:
            y_BDL = super().forward(x_BDL)
            return F.silu(y_BDL) if silu else y_BDL
        y_KBLD = causal_conv1d(
            x_BLD, tensors['weight'], self.bias[None], (False,), silu=silu
        )
        # The first steps lack some of what comes before them.
        return y_KBLD[0, :, self.kernel_size[0] - 1 :].transpose(1, 2)
