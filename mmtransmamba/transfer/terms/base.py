"""Inputs and outputs of a distillation term."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from mmtransmamba.models.teachers import BaseTeacher, TeacherOutput
from mmtransmamba.models.trainable.step_average import BATCHES, IMAGES
from mmtransmamba.transfer.alignment import TeacherTokens
from mmtransmamba.transfer.tap_recorder import TapRecord

HALF = (torch.float16, torch.bfloat16)


def check_weight(owner: object, weight: float, name: str = 'weight') -> None:
    """Refuse a factor that is negative, infinite or not a number.

    Args:
        owner: The object that has it, for the message.
        weight: The factor.
        name: Its name in the config.

    Raises:
        ValueError: The factor is invalid; the message names the class of ``owner``.
    """
    if not (isinstance(weight, (int, float)) and 0 <= weight < math.inf):
        raise ValueError(
            f'{type(owner).__name__}: {name}={weight!r} must be a number, and neither '
            'negative nor infinite.'
        )


def check_switched_off(owner: str, terms: Mapping[str, Any]) -> None:
    """Refuse to disable a term by a name that resembles an enabled one.

    Args:
        owner: Owner of the terms, for the message.
        terms: Terms by name, None for a disabled one.

    Raises:
        ValueError: There is such a name.
    """
    active = [name for name, term in terms.items() if term is not None]
    for name in (name for name, term in terms.items() if term is None):
        close = next((other for other in active if _resembles(name, other)), None)
        if close is not None:
            raise ValueError(
                f'{owner}: terms has {name}=None, which switches nothing off; did you '
                f'mean {close!r}?'
            )


def _resembles(name: str, other: str) -> bool:
    """Whether one name may be meant as the other, unlike ``kl`` and ``kl2``.

    Words that both begin with say that there are several of a kind.
    """
    words = [re.findall(r'[^\W\d_]+|\d+', text) for text in (name, other)]
    common = len(os.path.commonprefix(words))
    rest, other_rest = (' '.join(each[common:]) for each in words)
    return bool(get_close_matches(rest, [other_rest], 1, 0.75))


@dataclass
class TransferPair:
    """Facts about student and teacher from which a term is built.

    Attributes:
        student: Name of the student's class, for messages.
        layer_dims: Token width after each student block.
        direction_dims: Inner width of each block's scan directions.
        num_directions: Number of scan directions K of each block with a direction tap.
        feature_dim: Width of the student's final feature; None for a student without
            image-level output, such as a segmentor.
        num_classes: Classes of the student's head, None without one.
        teacher: The frozen teacher.
        layer_map: Index of the teacher layer that supervises each student layer.
    """

    student: str
    layer_dims: list[int]
    direction_dims: list[int]
    num_directions: list[int]
    feature_dim: int | None
    num_classes: int | None
    teacher: BaseTeacher
    layer_map: list[int]

    @property
    def target_dims(self) -> list[int]:
        """Width of the teacher layer that supervises each student layer."""
        return [self.teacher.layer_dims[i] for i in self.layer_map]


@dataclass
class DistillBatch:
    """One step's features.

    Attributes:
        student: Record of the student's taps.
        feature: The student's final feature, ``[B, C]``; None if it has none.
        logits: The student's logits, ``[B, num_classes]``; None if it has none.
        extra: Further outputs of the student's kind, see
            :class:`~mmtransmamba.models.student_kinds.StudentStep`.
        teacher: The teacher's output.
        teacher_tokens: Its tokens on any grid.
        layer_map: See :class:`TransferPair`.
        token_index: Function that returns the raster indices ``[M]`` of the step's
            tokens for a number of patches and a device, None if all are compared.
    """

    student: TapRecord
    feature: Tensor | None
    logits: Tensor | None
    extra: Any
    teacher: TeacherOutput
    teacher_tokens: TeacherTokens
    layer_map: list[int]
    token_index: Callable[[int, torch.device], Tensor | None]


class Term(nn.Module):
    """One named summand of the distillation loss.

    A distiller calls :meth:`bind` once and then the term with the batch of each step.
    The base class of a term says which distiller has it, and what its batch is:

    * images and videos: a subclass of this class is called once a step, after both
      models have run, with a :class:`DistillBatch`;
    * language: a :class:`~mmtransmamba.transfer.terms.language.ModelTerm` is called
      once as well, with a
      :class:`~mmtransmamba.transfer.terms.language.LanguageBatch`;
    * layers of a language model: a
      :class:`~mmtransmamba.transfer.terms.language.ForcedTerm` is called for each
      layer, while the teacher runs, with a
      :class:`~mmtransmamba.transfer.terms.language.ForcedLayer`.

    Args:
        weight: Factor of the term.

    Attributes:
        scale: Further factor, which a schedule may change during training.
        unit: Unit over which its loss is averaged, one of those in
            :mod:`mmtransmamba.models.trainable.step_average`.
        parts: Names of the losses that it may return besides its own.
    """

    needs_directions = False
    unit = IMAGES
    parts: tuple[str, ...] = ()

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        check_weight(self, weight)
        self.weight = weight
        self.scale = 1.0

    def _apply(self, fn: Callable, recurse: bool = True) -> Term:
        """Move the learned parameters; a cast to half precision does not affect them.

        They are small, orthogonal maps cannot be computed in half precision, and the
        compared features are float32 in any case.
        """

        def moved(tensor: Tensor) -> Tensor:
            new = fn(tensor)
            return tensor.to(new.device) if new.dtype in HALF else new

        return super()._apply(moved, recurse)

    def bind(self, pair: Any) -> None:
        """Create the learned parameters, now that student and teacher are known.

        Args:
            pair: Facts about both: a :class:`TransferPair`, or a
                :class:`~mmtransmamba.transfer.terms.language.LanguagePair`.

        Raises:
            ValueError: The term does not support this pair.
        """

    @property
    def is_active(self) -> bool:
        """Whether it has not faded out."""
        return self.scale > 0

    def scaled(self, part: str, loss: Tensor) -> Tensor:
        """A loss that the term returned under a name, times :attr:`scale`."""
        return self.scale * loss

    def unit_of(self, part: str) -> str:
        """Unit over which the loss with a given name is averaged.

        Other parts of a term's loss usually belong to its weighting.
        """
        return BATCHES if part else self.unit

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Losses times ``weight``: the term's own under ``''``, others by name."""
        raise NotImplementedError
