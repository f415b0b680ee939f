"""The trained part of a model or of its config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn


def trained_part(model: nn.Module) -> nn.Module:
    """A distiller's student; otherwise the model itself."""
    return getattr(model, 'student', model)


def transformers_part(model: nn.Module) -> nn.Module | None:
    """The transformers model inside a Runner's model; None if there is none."""
    student = trained_part(model)
    parts = [
        student,
        *(getattr(student, name, None) for name in ('lm', 'tower', 'encoder')),
    ]
    return next((part for part in parts if hasattr(part, 'save_pretrained')), None)


def is_distiller(model: nn.Module | Mapping[str, Any]) -> bool:
    """Whether a model, or the model that a config describes, trains a student."""
    if isinstance(model, nn.Module):
        return hasattr(model, 'student')
    return model.get('student') is not None


def student_config(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """As :func:`trained_part`, for ``cfg.model``.

    A distiller's head is the student's then: it answers in the student's place.
    """
    if not is_distiller(model):
        return model
    student, head = model['student'], model.get('head')
    return student if head is None else {**student, 'head': head}
