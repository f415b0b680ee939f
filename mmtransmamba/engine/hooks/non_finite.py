"""Ending a training with non-finite numbers, and reporting their origin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmtransmamba.compat import accumulated_batches
from mmtransmamba.engine.unwrap import loss_scaler, unwrapped_model
from mmtransmamba.models.values import first_fault_in
from mmtransmamba.registry import HOOKS


class NonFiniteError(ValueError):
    """A loss, a weight or an output that is NaN or infinite."""


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Ends a training at the first loss that is NaN or infinite.

    Each step checks only the total loss, before the weights are updated with it. If it
    is not finite, the step is repeated while every layer is watched. The error names
    the origin: a weight, the batch, the first layer of model or teacher, or the terms
    of the loss. Checkpoints with such weights are not written.

    With several processes, all of them end, whichever has the loss.

    ``tools/train.py`` adds this hook to every training;
    ``default_hooks=dict(non_finite=None)`` disables it.

    Args:
        patience: With a gradient scaler, which skips steps that overflow (AMP), this
            many consecutive steps may have such a loss.
    """

    # Weights are checked before any other hook saves them.
    priority = 'VERY_HIGH'

    def __init__(self, patience: int = 20) -> None:
        if patience < 0:
            raise ValueError(
                f'NonFiniteHook: patience={patience} must not be negative.'
            )
        self.patience = patience
        # Steps in a row that were skipped; the step that runs, and whether it is one.
        self._skipped = 0
        self._step: int | None = None
        self._overflows = False
        self._batches: list[Any] = []

    def before_train(self, runner: Runner) -> None:
        model = unwrapped_model(runner)
        if not callable(getattr(model, 'parse_losses', None)):
            return
        parse = model.parse_losses

        def parse_losses(losses: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
            total, log_vars = parse(losses)
            self._check(runner, total, log_vars)
            return total, log_vars

        model.parse_losses = parse_losses

    def after_train(self, runner: Runner) -> None:
        """Check the weights of the last step, and restore the model's methods.

        Raises:
            NonFiniteError: A weight is NaN or infinite.
        """
        model = unwrapped_model(runner)
        vars(model).pop('parse_losses', None)
        self._batches = []
        self._check_weights(runner, 'The training ends with')

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        if runner.iter % accumulated_batches(runner.optim_wrapper) == 0:
            self._batches = []
        self._batches.append(data_batch)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Check the loss of a model that does not sum its losses as mmengine's do."""
        if 'parse_losses' in vars(unwrapped_model(runner)):
            return
        loss = (outputs or {}).get('loss')
        if isinstance(loss, Tensor):
            self._check(runner, loss, outputs)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep non-finite weights out of checkpoints.

        Raises:
            NonFiniteError: A weight is NaN or infinite.
        """
        self._check_weights(runner, 'No checkpoint is written')

    @staticmethod
    def _check_weights(runner: Runner, what: str) -> None:
        fault = first_fault_in(unwrapped_model(runner))
        if fault is not None:
            raise NonFiniteError(
                f'{what}: after iteration {runner.iter} the weight {fault}.'
            )

    def _check(self, runner: Runner, total: Tensor, log_vars: dict) -> None:
        bad = (~torch.isfinite(total.detach())).any().float().reshape(1)
        if get_world_size() > 1:
            all_reduce(bad)
        step = runner.iter // accumulated_batches(runner.optim_wrapper)
        if step != self._step:
            if not self._overflows:
                self._skipped = 0
            self._step, self._overflows = step, False
        if not bad.item() or self._overflows:
            return
        if loss_scaler(runner) is not None and self._skipped < self.patience:
            self._skipped += 1
            self._overflows = True
            return
        # Every process looks for the origin: layers may wait for each other.
        origin = self._origin(runner)
        if bool(torch.isfinite(total).all()):
            what = (
                'the loss of another process is NaN or infinite; its message says why'
            )
        else:
            value = float(total.detach())
            what = f'the loss is {value:g}{_bad_terms(log_vars)}. {origin}'
        raise NonFiniteError(
            f'Iteration {runner.iter + 1}: {what.removesuffix(".")}. To train on '
            'regardless, set default_hooks=dict(non_finite=None).'
        )

    def _origin(self, runner: Runner) -> str:
        """The origin of the fault, in a sentence."""
        model = unwrapped_model(runner)
        teacher = getattr(model, 'teacher', None)
        parts = {'teacher': teacher} if isinstance(teacher, nn.Module) else {}
        # First: a forward pass of such a batch spoils the statistics of a BatchNorm.
        try:
            batches = [model.data_preprocessor(each, True) for each in self._batches]
        except Exception as error:  # the loss is what the user must know about
            return f'To prepare the batch once more fails: {error}'
        named = next(filter(None, map(_bad_tensors, batches)), None)
        if named:
            return f'The batch is so already: {named}.'
        for owner, part in {'model': model, **parts}.items():
            fault = first_fault_in(part)
            if fault is not None:
                began = '' if runner.iter else ' from the beginning'
                return f'In the {owner} the weight {fault}{began}.'
        watched = {'': model, **{f'{name}.': part for name, part in parts.items()}}
        for data in batches:
            try:
                found = first_output(watched, lambda data=data: _compute(model, data))
            except Exception as error:
                return f'To compute it once more fails: {error}'
            if found is not None:
                return f'The first to be so is {found}.'
        return (
            'All weights and outputs of layers are finite: it comes about in the loss, '
            'or not again.'
        )


def _compute(model: nn.Module, data: Any) -> None:
    if isinstance(data, dict):
        model(**data, mode='loss')
    else:
        model(*data, mode='loss')


class _Found(Exception):
    """Ends a computation whose fault has been found."""


def first_output(parts: dict[str, nn.Module], run: Callable[[], None]) -> str | None:
    """The first layer that outputs NaN or infinity; None if there is none.

    Minus infinity alone does not count: masks and excluded classes use it.

    Args:
        parts: Models whose layers are watched, by the prefix of their names.
        run: Computes them, without gradients.
    """
    stack: list[str] = []

    def entered(name: str) -> Callable:
        def hook(_: nn.Module, args: tuple, kwargs: dict) -> None:
            if _is_bad((args, kwargs)):
                where = f'what {stack[-1]} computes itself' if stack else 'the input'
                raise _Found(f'{where}, before it calls {name}')
            stack.append(name)

        return hook

    def left(name: str) -> Callable:
        def hook(_: nn.Module, args: tuple, output: Any) -> None:
            if _is_bad(output):
                raise _Found(f'the output of {name}')
            stack.pop()

        return hook

    with _hooked(parts, entered, left), torch.no_grad():
        try:
            run()
        except _Found as found:
            return str(found)
    return None


@contextmanager
def _hooked(
    parts: dict[str, nn.Module], entered: Callable, left: Callable
) -> Iterator[None]:
    handles, seen = [], set()
    for beginning, part in parts.items():
        for name, module in part.named_modules():
            if id(module) in seen or not name:
                continue
            seen.add(id(module))
            name = beginning + name
            handles += [
                module.register_forward_pre_hook(entered(name), with_kwargs=True),
                module.register_forward_hook(left(name)),
            ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


def _is_bad(value: Any) -> bool:
    return any(
        bool((tensor.isnan() | tensor.isposinf()).any())
        for tensor in _tensors(value)
        if tensor.is_floating_point()
    )


def _bad_tensors(data: Any) -> str:
    """Names of the non-finite values in a batch."""
    if isinstance(data, dict):
        return ', '.join(str(key) for key, value in data.items() if _is_bad(value))
    return 'its tensors' if _is_bad(data) else ''


def _bad_terms(log_vars: dict[str, Any]) -> str:
    """The non-finite terms of a loss."""
    terms = [
        f'{name}={float(value.detach()):g}'
        for name, value in log_vars.items()
        if name != 'loss'
        and isinstance(value, Tensor)
        and value.numel() == 1
        and not bool(torch.isfinite(value))
    ]
    return f' ({", ".join(terms)})' if terms else ''
