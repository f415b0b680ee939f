"""Compilation of student and teacher with ``torch.compile``."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmtransmamba.engine.student import trained_part, transformers_part
from mmtransmamba.engine.unwrap import unwrapped_model
from mmtransmamba.registry import HOOKS


@HOOKS.register_module()
class CompileHook(Hook):
    """Compiles the student's forward pass, and the teacher's on request.

    mmengine's ``compile`` compiles the whole ``train_step``, in which hooks, checks and
    the optimizer break the graph. This hook compiles the backbone of a vision model or
    the whole transformers model in place, so the names in the state dict stay. Each is
    one graph. Layers that a term calls on the teacher's input, outside the student's
    forward pass, are not compiled.

    Args:
        teacher: Compile a distiller's teacher too. Teachers of other packages may
            have graph breaks.
        **options: Arguments of ``torch.compile``, such as ``mode='max-autotune'``.

    Raises:
        ValueError: An option is unknown, or ``teacher`` is set without a distiller.
    """

    # After hooks that change weights or layers.
    priority = 'VERY_LOW'

    def __init__(self, teacher: bool = False, **options: Any) -> None:
        known = ('backend', 'mode', 'fullgraph', 'dynamic', 'options')
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise ValueError(
                f'CompileHook: {unknown[0]}={options[unknown[0]]!r} is unknown; '
                f'accepted are teacher, {", ".join(known)}.'
            )
        self.teacher = teacher
        self.options = options

    def before_train(self, runner: Runner) -> None:
        model = unwrapped_model(runner)
        parts = [_network(model)]
        if self.teacher:
            teacher = getattr(model, 'teacher', None)
            if not isinstance(teacher, nn.Module):
                raise ValueError(
                    f'CompileHook: teacher=True needs a teacher to run, which '
                    f'{type(model).__name__} does not have.'
                )
            parts.append(getattr(teacher, 'model', teacher))
        for part in parts:
            part.compile(**self.options)


def _network(model: nn.Module) -> nn.Module:
    """The part of a model that is one graph."""
    student = trained_part(model)
    return transformers_part(model) or getattr(student, 'backbone', student)
