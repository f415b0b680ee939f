"""Choice of the source layer for each target layer."""

from __future__ import annotations

from collections.abc import Sequence

POLICIES = ('first_n', 'last_n', 'uniform')


def match_depth(
    policy: str | Sequence[int], num_target: int, num_source: int
) -> list[int | None]:
    """Choose a source layer for each target layer.

    Args:
        policy: ``'first_n'``: the first layers, counted from the input, since deeper
            ones are specific to the source's task (TransMamba, Section
            3.2); ``'last_n'``: the last ones, counted from the output;
            ``'uniform'``: spread evenly over the source's depth, first and last
            included, with repetitions in a deeper target; or a list with the source
            layer of every target layer.
        num_target: Layers of the target.
        num_source: Layers of the source.

    Returns:
        One source layer per target layer. If the target is deeper than its source, the
        last layers with ``'first_n'`` and the first with ``'last_n'`` have None.

    Raises:
        ValueError: Unknown policy, wrong length, or a layer that does not exist.
    """
    if policy == 'first_n':
        return [i if i < num_source else None for i in range(num_target)]
    if policy == 'last_n':
        offset = num_source - num_target
        return [i + offset if i + offset >= 0 else None for i in range(num_target)]
    if policy == 'uniform':
        step = (num_source - 1) / max(num_target - 1, 1)
        return [round(i * step) for i in range(num_target)]
    if isinstance(policy, str):
        raise ValueError(
            f'layers={policy!r} must be one of {POLICIES} or a list of source layers.'
        )
    chosen = list(policy)
    if len(chosen) != num_target:
        raise ValueError(
            f'layers={chosen} has {len(chosen)} entries, but the target has '
            f'{num_target} layers.'
        )
    bad = [i for i in chosen if not isinstance(i, int) or not 0 <= i < num_source]
    if bad:
        raise ValueError(
            f'layers={chosen}: the source has layers 0 to {num_source - 1}, not {bad}.'
        )
    return chosen
