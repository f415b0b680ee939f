"""Which parameters of a hybrid stay in float32."""

from __future__ import annotations

import torch
from torch import nn

# Names as transformers wants them in ``_keep_in_fp32_modules_strict``.
SSM_PARAMETERS = ('A_log', 'dt_bias', 'D', 'dt_proj.bias')
_ENDINGS = tuple(f'.{name}' for name in SSM_PARAMETERS)


def is_ssm_parameter(name: str) -> bool:
    """Whether a parameter loses its meaning in half precision.

    Args:
        name: Its name, in a model or in a mixer.
    """
    return f'.{name}'.endswith(_ENDINGS)


def cast_parameters(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Give a model's parameters a dtype, and its SSM parameters float32, in place."""
    for name, parameter in model.named_parameters():
        wanted = torch.float32 if is_ssm_parameter(name) else dtype
        parameter.data = parameter.data.to(wanted)
    return model
