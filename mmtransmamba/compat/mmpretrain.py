"""The bridge of mmpretrain."""

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from .bridging import bridges, supplied


def find_pruneable_heads_and_indices(
    heads: Iterable[int], n_heads: int, head_size: int, already_pruned_heads: set[int]
) -> tuple[set[int], Any]:
    """Compute the rows of an attention projection that remain after pruning heads.

    transformers removed this function in version 5; mmpretrain and mmaction
    import it from there.

    Args:
        heads: Heads to prune, numbered as in the unpruned layer.
        n_heads: Number of heads the layer has now.
        head_size: Rows per head.
        already_pruned_heads: Heads pruned before, numbered in the same way.

    Returns:
        The heads that still have to be pruned, and an int64 tensor ``[rows kept]`` with
        the indices of the remaining rows.
    """
    import torch

    to_prune = set(heads) - already_pruned_heads
    gone = {
        head - sum(pruned < head for pruned in already_pruned_heads)
        for head in to_prune
    }
    kept = torch.tensor([head not in gone for head in range(n_heads)], dtype=torch.bool)
    return to_prune, kept.repeat_interleave(head_size).nonzero().flatten()


@bridges('mmpretrain.models')
def _restore_transformers_names_for_mmpretrain(execute: Callable[[], None]) -> None:
    """Names that transformers 5 removed and mmpretrain's multi-modal models import.

    mmpretrain imports these models only if pycocotools and transformers are installed.
    Only in that case may transformers be imported here.
    """
    if not import_module('mmpretrain.utils.dependency').WITH_MULTIMODAL:
        execute()
        return
    configuration_utils = import_module('transformers.configuration_utils')
    with (
        supplied(
            import_module('transformers.pytorch_utils'),
            find_pruneable_heads_and_indices=find_pruneable_heads_and_indices,
        ),
        supplied(
            import_module('transformers.modeling_utils'),
            PretrainedConfig=configuration_utils.PreTrainedConfig,
        ),
    ):
        execute()
