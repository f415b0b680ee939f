"""The parts of a model whose parameters FSDP gathers together."""

from __future__ import annotations

from torch import nn

from mmtransmamba.engine.sharding.base import parameters_with_images
from mmtransmamba.engine.student import transformers_part


def units_of(model: nn.Module) -> list[nn.Module]:
    """The modules that gather their parameters when they are called.

    All processes must gather the same. A vision tower runs only in processes whose
    batch has images, so it is gathered with the rest of the model, which is not a unit.
    Where a distiller's term calls parts of blocks, each part is a unit.

    Args:
        model: A model for mmengine, or a distiller's teacher.
    """
    optional = parameters_with_images(transformers_part(model))
    blocks = [b for b in blocks_of(model) if optional.isdisjoint(b.parameters())]
    terms = getattr(model, 'terms', {}).values()
    if not any(getattr(term, 'calls_parts', False) for term in terms):
        return blocks
    parts = [part for block in blocks for part in block.children()]
    return [part for part in parts if any(True for _ in part.parameters())]


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The blocks of a model: elements of its outermost lists of modules.

    Lists of PyTorch's own layers are left to the block that contains them, because
    models may read their weights without calling them.
    """
    found: list[nn.Module] = []
    for child in model.children():
        if isinstance(child, nn.ModuleList) and all(map(_is_block, child)):
            found += child
        elif not isinstance(child, nn.ModuleDict):
            found += blocks_of(child)
    return found


def _is_block(module: nn.Module) -> bool:
    own = not type(module).__module__.startswith('torch.nn.')
    return own and any(True for _ in module.parameters())
