"""How the Triton kernels divide the causal convolution.

A table replaces tuning at the first call; the numbers are predictions, not measured.
"""

STEPS = 32
"""Steps of a tile."""
CHANNELS = 64
"""Channels of a tile."""
