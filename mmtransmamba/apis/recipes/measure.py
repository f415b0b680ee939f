"""Time and memory of a transfer's stages, by a few steps of each."""

from __future__ import annotations

import copy
import logging
import resource
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmtransmamba.apis.recipes.plan import PlannedStage, TransferPlan
from mmtransmamba.apis.recipes.recipe import Recipe
from mmtransmamba.apis.recipes.training import distiller_of, optim_wrapper_of
from mmtransmamba.models.folders.lm import load_lm
from mmtransmamba.models.language.mixers import mixer_class
from mmtransmamba.transfer.convert import convert
from mmtransmamba.transfer.convert.spec import Conversion
from mmtransmamba.transfer.distillers.language import LanguageDistiller
from mmtransmamba.utils.log_levels import at_level

STEPS = 2
"""Steps that are timed, after one that is not."""


def measure(
    plan: TransferPlan, recipe: Recipe, teacher: str, conversion: Mapping[str, Any]
) -> None:
    """Fill in trained parameters, time and memory of each planned stage.

    The student is converted as in the transfer, but without calibration and, with
    ``layers='auto'``, with evenly spread layers. On a CPU the steps have a single
    sequence of random tokens, on a GPU a whole forward pass.

    Args:
        plan: Changed in place.
        recipe: Its recipe.
        teacher: Folder of the teacher.
        conversion: Arguments of :class:`Conversion`.
    """
    device = torch.device(get_device())
    cuda = device.type == 'cuda'
    plan.device = torch.cuda.get_device_name() if cuda else device.type.upper()
    quiet = at_level(logging.ERROR, MMLogger.get_current_instance())
    with quiet, torch.random.fork_rng():
        model = load_lm(teacher).to(device)
        student, _ = convert(model, **_without_text(conversion))
        student = student.float()
        for planned in plan.stages:
            stage = recipe.stages[planned.index]
            own = copy.deepcopy(student) if stage.adapters else student
            distiller = LanguageDistiller(
                own, model, **distiller_of(stage, planned), requires='*', compare=False
            ).to(device)
            wrapper = build_optim_wrapper(
                distiller,
                optim_wrapper_of(stage, planned, device.type == 'cpu')
                | dict(accumulative_counts=1),
            )
            _measure(planned, distiller, wrapper, device)
    plan.peak = _peak(device)


def _measure(
    planned: PlannedStage, distiller: nn.Module, wrapper: Any, device: torch.device
) -> None:
    rows = 1 if device.type == 'cpu' else planned.rows // planned.accumulate
    vocabulary = distiller.teacher.config.vocab_size
    ids = torch.randint(0, vocabulary, (rows, planned.length), device=device)
    batch = dict(input_ids=ids, labels=ids)
    took = []
    for _ in range(1 + STEPS):
        start = time.perf_counter()
        distiller.train_step(batch, wrapper)
        if device.type == 'cuda':
            torch.cuda.synchronize()
        took.append(time.perf_counter() - start)
    planned.seconds = min(took[1:]) * planned.tokens / ids.numel()
    trained = [p for p in distiller.student.parameters() if p.requires_grad]
    planned.trained = sum(p.numel() for p in trained)
    planned.bytes = sum(
        p.numel() * p.element_size()
        for model in (distiller.student, distiller.teacher)
        for p in model.parameters()
    ) + sum(3 * p.numel() * p.element_size() for p in trained)


def _without_text(conversion: Mapping[str, Any]) -> dict[str, Any]:
    """The conversion with the same shapes that needs no text."""
    given = {k: v for k, v in conversion.items() if not k.startswith('calibration')}
    given.pop('ranking', None)
    if given['layers'] == 'auto':
        given['layers'] = 'evenly'
    # That the text is there is checked with the conversion itself.
    spec = Conversion(**{**conversion, 'calibration': [torch.zeros(1, 2).long()]})
    if spec.initialisation.calibrated:
        kind = mixer_class(spec.mixer_type)
        given['init'] = next(n for n, i in kind.inits.items() if not i.calibrated)
    return given


def _peak(device: torch.device) -> int:
    """Most memory of the process, or on a GPU of its tensors, in bytes."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else peak * 1024
