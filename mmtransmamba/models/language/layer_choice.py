"""Choice of the attention layers of a decoder that become Mamba layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mmtransmamba.utils.choices import POSITIONS

_ALIASES = {'low': 'early', 'high': 'late', 'interleaved': 'interleaved_head'}


def count_layers_of(ratio: float, num_layers: int, unit: str = 'layer') -> int:
    """Number of Mamba layers for a ratio, with halves rounded up.

    Args:
        ratio: Share of the layers in (0, 1].
        num_layers: Layers of the decoder.
        unit: What is counted, for the message of the error.

    Raises:
        ValueError: The ratio is outside (0, 1], or yields no layer.
    """
    if not 0 < ratio <= 1:
        raise ValueError(f'ratio={ratio} must lie in (0, 1].')
    count = math.floor(ratio * num_layers + 0.5)
    if count == 0:
        raise ValueError(
            f'ratio={ratio} of {num_layers} {unit}s is less than half a {unit}; the '
            f'smallest ratio is {0.5 / num_layers:.3g}.'
        )
    return count


def choose_layers(
    num_layers: int,
    position: str | Sequence[int] = 'evenly',
    ratio: float = 1.0,
) -> list[int]:
    """Indices of the layers whose attention becomes Mamba.

    Args:
        num_layers: Layers of the decoder.
        position: A list of indices (negative ones count from the end), or the
            placement of the Mamba layers: ``'evenly'`` spread over the depth (MaTVLM,
            Table 3); ``'early'`` (TransMamba's *low*), ``'middle'`` or ``'late'``
            (*high*) in one block; ``'interleaved_head'`` or ``'interleaved_tail'``,
            where the first or the last layer of equal groups keeps its attention
            (mmMamba, Table 6). ``'interleaved'`` is ``'interleaved_head'``.
        ratio: Share of Mamba layers, rounded to a whole number of layers; ignored for
            a list.

    Returns:
        Sorted indices without repetition.

    Raises:
        ValueError: Unknown position, or an index or ratio out of range.
    """
    if not isinstance(position, str):
        return _explicit(num_layers, position)
    position = _ALIASES.get(position, position)
    if position not in POSITIONS:
        raise ValueError(
            f'layers={position!r} must be one of {", ".join(POSITIONS)}, '
            f'{", ".join(_ALIASES)}, or a list of layer indices.'
        )
    count = count_layers_of(ratio, num_layers)
    if position == 'early':
        return list(range(count))
    if position == 'late':
        return list(range(num_layers - count, num_layers))
    if position == 'middle':
        start = (num_layers - count) // 2
        return list(range(start, start + count))
    if position == 'evenly':
        return sorted({(2 * i + 1) * num_layers // (2 * count) for i in range(count)})
    kept = num_layers - count
    ends = [i * num_layers // kept for i in range(kept + 1)] if kept else []
    attention = ends[:-1]
    if position == 'interleaved_tail':
        attention = [end - 1 for end in ends[1:]]
    return [i for i in range(num_layers) if i not in set(attention)]


def _explicit(num_layers: int, layers: Sequence[int]) -> list[int]:
    bad = [
        i for i in layers if not isinstance(i, int) or not -num_layers <= i < num_layers
    ]
    if bad or not layers:
        raise ValueError(
            f'layers={list(layers)} must name at least one layer, each in '
            f'[{-num_layers}, {num_layers - 1}].'
        )
    chosen = sorted({i % num_layers for i in layers})
    if len(chosen) != len(layers):
        raise ValueError(f'layers={list(layers)} names a layer twice.')
    return chosen
