"""Low-rank adapters (LoRA) in place of training whole matrices."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from mmtransmamba.models.trainable.stages import (
    StageError,
    freeze_all_but,
    group_of_parameters,
)

ALPHA = 16.0
"""Strength of adapters whose config names none."""

_DOWN, _UP = '.lora_A.default.weight', '.lora_B.default.weight'
_BASE = '.base_layer.'


def add_adapters(
    model: nn.Module,
    trains: Sequence[str] | None,
    rank: int = 8,
    alpha: float = ALPHA,
    dropout: float = 0.0,
) -> str:
    """Freeze a model, and train low-rank updates of some of its linear layers.

    A weight W becomes :math:`W + (alpha / rank) B A`, with A ``[rank, inputs]`` and B
    ``[outputs, rank]``, which starts as zero (arXiv:2106.09685). Whatever else is in
    the groups, such as norms and convolutions, is frozen as well.

    Args:
        model: The student, changed in place.
        trains: Groups of parameters
            (:data:`~mmtransmamba.models.trainable.stages.GROUPS`) whose linear layers
            get an adapter; None for all.
        rank, alpha, dropout: As in PEFT's ``LoraConfig``.

    Returns:
        A table of frozen parameters by group, with the number of parameters of the
        adapters.

    Raises:
        ImportError: PEFT is not installed.
        StageError: A group is unknown, or there is no linear layer in the groups.
        ValueError: ``rank`` or ``alpha`` is not positive.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError(
            'adapters need PEFT, which is not installed: pip install peft.'
        ) from error
    if type(rank) is not int or rank < 1 or not alpha > 0:
        raise ValueError(
            f'adapters: rank={rank!r} and alpha={alpha!r} must be positive.'
        )
    freeze_all_but(model, trains)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and f'{name}.weight' in trained
    ]
    if not names:
        raise StageError(
            f'adapters: there is no linear layer in {list(trains or ())}; name groups '
            'with matrices, such as qkv and out_proj.'
        )
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=names
    )
    inject_adapter_in_model(config, model)
    counts = [p.numel() for p in model.parameters() if p.requires_grad]
    frozen = sum(p.numel() for p in model.parameters()) - sum(counts)
    groups = group_of_parameters(model)
    where = sorted({groups[f'{name}.base_layer.weight'] for name in names})
    return (
        f'adapters of rank {rank} in {len(names)} linear layers ({", ".join(where)}): '
        f'{sum(counts):,} parameters are trained, {frozen:,} are frozen'
    )


def has_adapters(model: nn.Module) -> bool:
    """Whether a model contains adapters of :func:`add_adapters`."""
    return any(hasattr(module, 'lora_A') for module in model.modules())


def without_adapters(model: nn.Module) -> nn.Module:
    """A copy of a model with its adapters merged into the weights."""
    merged = copy.deepcopy(model)
    layers = [
        (name, module)
        for name, module in merged.named_modules()
        if hasattr(module, 'lora_A')
    ]
    for name, layer in layers:
        layer.merge(safe_merge=True)
        owner, _, child = name.rpartition('.')
        setattr(merged.get_submodule(owner), child, layer.get_base_layer())
    return merged


def merged_state(
    state: Mapping[str, Tensor], alpha: float = ALPHA
) -> dict[str, Tensor]:
    """The tensors of a training of adapters as those of the model without them.

    Args:
        state: Tensors by name; those without adapters are returned as they are.
        alpha: As in :func:`add_adapters`; the rank is that of the tensors.

    Returns:
        :math:`W + (alpha / rank) B A` under the name of W.
    """
    merged = {name.replace(_BASE, '.'): value for name, value in state.items()}
    for layer in [n.removesuffix(_DOWN) for n in state if n.endswith(_DOWN)]:
        # A half of a pair stays, as a name that no model has.
        if {f'{layer}{_UP}', f'{layer}{_BASE}weight'} <= state.keys():
            down, up = (merged.pop(f'{layer}{end}').float() for end in (_DOWN, _UP))
            weight = merged[f'{layer}.weight']
            whole = weight.float() + alpha / len(down) * (up @ down)
            merged[f'{layer}.weight'] = whole.to(weight.dtype)
    return merged
