"""Disable autocast on devices that support it."""

from contextlib import AbstractContextManager, nullcontext

import torch

# Asked in advance: torch.compile of PyTorch 2.6 cannot trace the question.
_KNOWN = {
    device: torch.amp.is_autocast_available(device)
    for device in ('cpu', 'cuda', 'xpu', 'mps', 'meta')
}


def without_autocast(device_type: str) -> AbstractContextManager:
    """Keep matrix products in the dtype of their operands."""
    available = _KNOWN.get(device_type)
    if available is None:
        available = torch.amp.is_autocast_available(device_type)
    if not available:
        return nullcontext()
    return torch.autocast(device_type, enabled=False)
