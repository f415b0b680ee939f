"""Base of the distillers: a student, its frozen teacher, and a sum of named terms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmtransmamba.models.trainable.naming import use_names_of
from mmtransmamba.models.trainable.step_average import StepAverage
from mmtransmamba.registry import MODELS
from mmtransmamba.transfer.frozen import FrozenReference
from mmtransmamba.transfer.teacher_device import device_of_process, place_apart
from mmtransmamba.transfer.terms.base import Term, check_switched_off


class Distiller(StepAverage):
    """A student that learns from a frozen teacher.

    The loss is a sum of named terms (:class:`~mmtransmamba.transfer.terms.Term`). A
    config enables each of them, and None disables it, so a child config can change one
    term of its base.

    In the state dict, the student's tensors have the same names as in the student
    alone, and parameters of terms start with ``distiller.``; the teacher is not
    included. So a checkpoint of the distiller is a checkpoint of the student.

    A subclass calls :meth:`_hold` and then :meth:`_build_terms`.

    Attributes:
        student: The model that is trained.
        terms: The enabled terms, by name.
    """

    student: nn.Module
    terms: nn.ModuleDict

    def _hold(
        self,
        student: nn.Module,
        teacher: nn.Module,
        teacher_device: str | Sequence[str] | None = None,
    ) -> None:
        """Set student and teacher.

        Args:
            student: The model that is trained.
            teacher: The frozen one.
            teacher_device: See
                :func:`~mmtransmamba.transfer.teacher_device.device_of_process`.
        """
        self.student = student
        self._teacher = FrozenReference(teacher)
        self.teacher_device = device_of_process(teacher_device)
        if self.teacher_device is not None:
            place_apart(teacher, self.teacher_device)
        use_names_of(self, 'student')

    def _build_terms(
        self, terms: dict[str, dict | None], alternative: str
    ) -> list[Term]:
        """Build the terms of a config; :meth:`Term.bind` completes them later.

        Args:
            terms: Configs by name, None for a disabled term.
            alternative: How to train without terms, for the message.

        Raises:
            ValueError: There is no term, a name that disables nothing, a term of
                another distiller, or one with the name of another one's loss.
        """
        name = type(self).__name__
        check_switched_off(name, terms)
        self.terms = nn.ModuleDict(
            {key: MODELS.build(term) for key, term in terms.items() if term is not None}
        )
        for key, term in self.terms.items():
            if not self.computes(type(term)):
                raise ValueError(
                    f'{name}: terms.{key} is a {type(term).__name__}, which it does '
                    f'not compute; its types are {self._types()}.'
                )
            for part in term.parts:
                if f'{key}_{part}' in self.terms:
                    raise ValueError(
                        f'{name}: terms.{key}_{part} has the name of a loss of '
                        f'terms.{key}; give the term another one.'
                    )
        if not self.terms:
            off = ', '.join(f'{key}=None' for key in terms)
            given = f' but for {off}, which switches nothing off' if off else ''
            raise ValueError(
                f'{name}: terms is empty{given}; configure at least one, or '
                f'{alternative}. Types of terms: {self._types()}.'
            )
        return list(self.terms.values())

    @classmethod
    def computes(cls, kind: type[Term]) -> bool:
        """Whether it calls terms of this class."""
        raise NotImplementedError

    @classmethod
    def _types(cls) -> str:
        """Names of all registered terms that it computes."""
        return ', '.join(
            key
            for key, kind in sorted(MODELS.module_dict.items())
            if isinstance(kind, type) and issubclass(kind, Term) and cls.computes(kind)
        )

    @property
    def teacher(self) -> Any:
        """The frozen teacher; not a submodule, see :class:`FrozenReference`."""
        return self._teacher.module

    def _apply(self, fn: Callable, recurse: bool = True) -> Distiller:
        """Move the teacher along with the student (``to``, ``cuda``, …).

        A teacher with a device of its own stays there, and follows in dtype only.
        """
        super()._apply(fn, recurse)
        apart = self.teacher_device
        if apart is None:
            self.teacher._apply(fn)
        else:
            self.teacher._apply(lambda tensor: fn(tensor).to(apart))
        return self

    def active(self, kind: type[Term] = Term) -> dict[str, Any]:
        """The terms of one kind that have not faded out, by name."""
        return {
            key: term
            for key, term in self.terms.items()
            if isinstance(term, kind) and term.is_active
        }

    @torch.no_grad()
    def layer_weights(self) -> dict[str, Tensor]:
        """The last step's weight of each layer, averaged over directions: ``[N]``.

        Terms that have faded out are excluded.
        """
        return {
            key: term.layer_weights.mean(0)
            for key, term in self.active().items()
            if getattr(term, 'layer_weights', None) is not None
        }


def scaled_losses(
    key: str, term: Term, batch: Any
) -> Iterator[tuple[str, str, Tensor]]:
    """A term's losses of a batch times its scale.

    Args:
        key: The term's name.
        term: The term.
        batch: The features that it compares.

    Yields:
        Name ``loss_KEY`` or ``loss_KEY_PART``, the part (``''`` for the term's own
        loss) and the loss.

    Raises:
        ValueError: The term returns a part that it does not declare.
    """
    for part, loss in term(batch).items():
        if part and part not in term.parts:
            raise ValueError(
                f'terms.{key}: {type(term).__name__} returns a loss {part!r}, which is '
                f'none of its parts {list(term.parts)}.'
            )
        yield (
            f'loss_{key}_{part}' if part else f'loss_{key}',
            part,
            term.scaled(part, loss),
        )
