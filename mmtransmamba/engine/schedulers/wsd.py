"""Warm-up, stable, decay: a schedule that ends with the training."""

from __future__ import annotations

import math
from typing import Any

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import INF, _ParamScheduler

from mmtransmamba.registry import PARAM_SCHEDULERS

FORMS = {
    'linear': lambda part: 1 - part,
    'cosine': lambda part: (1 + math.cos(math.pi * part)) / 2,
    'sqrt': lambda part: 1 - math.sqrt(part),
}
"""The remaining share of the parameter after a fraction of the decay."""

# State that a checkpoint stores: the schedule's position, not its shape.
_POSITION = ('base_values', 'last_step', '_global_step', '_last_value')


@PARAM_SCHEDULERS.register_module()
class WSDParamScheduler(_ParamScheduler):
    """Linear warm-up, then constant, then decay (arXiv:2404.06395).

    The value grows over the first ``warmup`` iterations to that of the optimizer. It
    falls over the last ``decay`` iterations so that the very last one of the training
    uses ``eta_min``.

    The length is the Runner's, from which mmengine takes ``end``. A config sets
    ``by_epoch=False``, or ``convert_to_iter_based=True`` if the loop counts epochs, and
    no ``end``. A schedule that disagrees with the Runner is refused at the first
    iteration. A run that is resumed with another length follows the schedule of the new
    length from its current position.

    Args:
        optimizer: Optimizer or OptimWrapper.
        param_name: Parameter of its groups, ``'lr'`` in :class:`WSD`.
        warmup, decay: A fraction of the training as a float in [0, 1), or a number of
            iterations (of epochs with ``convert_to_iter_based``) as an int. The decay
            has at least one iteration.
        form: Form of the decay: ``'linear'``, ``'cosine'`` or ``'sqrt'``, one minus the
            square root.
        eta_min: Value of the last iteration.
        eta_min_ratio: Instead, the part of each group's own value.
        begin, end: First iteration, and the one after the last.
        last_step, by_epoch, verbose: As in mmengine's schedulers.

    Raises:
        ValueError: The length is unknown, the schedule counts epochs, or warm-up and
            decay do not fit into it.
    """

    def __init__(
        self,
        optimizer: Any,
        param_name: str,
        warmup: float | int = 0.1,
        decay: float | int = 0.1,
        form: str = 'linear',
        eta_min: float = 0.0,
        eta_min_ratio: float | None = None,
        begin: int = 0,
        end: int = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
    ) -> None:
        check_form(form)
        if by_epoch:
            # mmengine's default; with it, `end` would be a number of epochs, which is 1
            # in a loop over iterations.
            raise ValueError(
                'WSD: set by_epoch=False, or convert_to_iter_based=True in a loop over '
                'epochs.'
            )
        if end >= INF:
            raise ValueError(
                'WSD: the length of the schedule is unknown. A Runner gives it; '
                'elsewhere set end to the number of iterations.'
            )
        self.form = form
        if eta_min_ratio is not None and eta_min:
            raise ValueError('WSD: give either eta_min or eta_min_ratio, not both.')
        self.eta_min, self.eta_min_ratio = eta_min, eta_min_ratio
        self.warmup, self.decay = phases(end - begin, warmup, decay)
        super().__init__(
            optimizer,
            param_name,
            begin=begin,
            end=end,
            last_step=last_step,
            by_epoch=False,
            verbose=verbose,
        )

    @classmethod
    def build_iter_from_epoch(
        cls,
        *args: Any,
        warmup: float | int = 0.1,
        decay: float | int = 0.1,
        begin: int = 0,
        end: int = INF,
        by_epoch: bool = True,
        epoch_length: int | None = None,
        **kwargs: Any,
    ) -> WSDParamScheduler:
        """Build from a config that counts epochs; see the base class."""

        def iterations(value: float | int) -> float | int:
            return value if isinstance(value, float) else value * epoch_length

        return cls(
            *args,
            warmup=iterations(warmup),
            decay=iterations(decay),
            begin=int(begin * epoch_length),
            end=end if end >= INF else int(end * epoch_length),
            by_epoch=False,
            **kwargs,
        )

    def step(self) -> None:
        """Advance by one iteration.

        Raises:
            ValueError: The Runner's training has another length.
        """
        self._check_length()
        super().step()

    def _check_length(self) -> None:
        # A Runner tells its OptimWrapper the number of iterations, without a public way
        # to query it; -1 before that.
        length = getattr(self.optimizer, '_max_counts', -1)
        if length < 0:
            return
        if self.end != length:
            raise ValueError(
                f'WSD: the schedule ends after {self.end} iterations, the training '
                f'after {length}. Leave end out of the config, and set by_epoch=False '
                'for a loop over iterations or convert_to_iter_based=True for one over '
                'epochs.'
            )

    def load_state_dict(self, state_dict: dict) -> None:
        """Restore the position; the shape remains that of the config."""
        super().load_state_dict({name: state_dict[name] for name in _POSITION})

    def factor(self, step: int) -> tuple[float, float]:
        """Weights of the optimizer's value and of ``eta_min`` in an iteration."""
        if step < self.warmup:
            return (step + 1) / self.warmup, 0.0
        over = step - (self.end - self.begin - self.decay) + 1
        left = FORMS[self.form](min(over / self.decay, 1.0)) if over > 0 else 1.0
        return left, 1 - left

    def _get_value(self) -> list[float]:
        # Computed from the number of calls, so the value does not depend on the path.
        weight, rest = self.factor(self._global_step - self.begin)
        ratio = self.eta_min_ratio
        lasts = (self.eta_min if ratio is None else ratio * b for b in self.base_values)
        return [
            weight * base + rest * last
            for base, last in zip(self.base_values, lasts, strict=True)
        ]


@PARAM_SCHEDULERS.register_module()
class WSD(LRSchedulerMixin, WSDParamScheduler):
    """:class:`WSDParamScheduler` of the learning rate."""


def check_form(form: str) -> None:
    """Check the form of a decay.

    Raises:
        ValueError: It is unknown.
    """
    if form not in FORMS:
        raise ValueError(f'WSD: form={form!r} must be one of {", ".join(FORMS)}.')


def phases(
    length: int, warmup: float | int = 0.1, decay: float | int = 0.1
) -> tuple[int, int]:
    """Iterations of warm-up and decay in a schedule of a length.

    Raises:
        ValueError: One is out of its range, or both do not fit.
    """
    first = _iterations('warmup', warmup, length)
    last = max(_iterations('decay', decay, length), 1)
    if first + last > length:
        raise ValueError(
            f'WSD: warmup={warmup} and decay={decay} are {first} + {last} iterations, '
            f'more than the {length} of the schedule.'
        )
    return first, last


def _iterations(name: str, value: float | int, length: int) -> int:
    """Convert a fraction of the schedule, or a number of iterations, to iterations."""
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not value >= 0
        or (isinstance(value, float) and value >= 1)
    ):
        raise ValueError(
            f'WSD: {name}={value!r} must be a part of the training as a float in '
            '[0, 1), or a number of iterations as an int.'
        )
    return round(value * length) if isinstance(value, float) else value
