"""Subcloning into a module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from mmtransmamba.transfer.subclone.core import subclone
from mmtransmamba.transfer.subclone.donor import Source
from mmtransmamba.transfer.subclone.options import SubcloneOptions
from mmtransmamba.transfer.subclone.report import SubcloneReport


@torch.no_grad()
def subclone_into(
    student: nn.Module, sources: Sequence[Source], options: SubcloneOptions
) -> SubcloneReport:
    """Replace a module's parameters by the result of :func:`subclone`.

    Args:
        student: A backbone or a model with one; changed in place.
        sources, options: See :func:`subclone`.

    Raises:
        ValueError: See :func:`subclone`; the student is then unchanged.
    """
    parameters = dict(student.named_parameters())
    before = {name: p.detach().cpu() for name, p in parameters.items()}
    after, report = subclone(before, sources, options)
    for name, parameter in parameters.items():
        parameter.copy_(after[name])
    return report


def with_target_grid(options: SubcloneOptions, student: nn.Module) -> SubcloneOptions:
    """The options with the grid of the student's position embedding, if none is set."""
    grid = getattr(getattr(student, 'backbone', student), 'pos_embed_grid', None)
    if options.target_grid is not None or grid is None:
        return options
    return replace(options, target_grid=tuple(grid))
