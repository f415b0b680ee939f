"""Loading of checkpoints from any source, without silent gaps."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmtransmamba.compat import is_resuming
from mmtransmamba.engine.student import trained_part
from mmtransmamba.engine.unwrap import unwrapped_model
from mmtransmamba.models.checkpoint import (
    CheckpointError,
    find_state_dict,
    load_pretrained,
)
from mmtransmamba.models.checkpoint_names import unwrapped_names
from mmtransmamba.models.fit import check_fit
from mmtransmamba.models.trainable.naming import OWN_PREFIX
from mmtransmamba.registry import HOOKS

SKIP = 'load_skip'
"""Key of a config: beginnings of the names of tensors that are not loaded."""


@HOOKS.register_module()
class ReleasedCheckpointHook(Hook):
    """Loads the file of ``load_from`` or ``--resume`` into the model, or refuses it.

    mmengine looks only for ``state_dict``. From a file that holds its weights under
    ``model``, it would load nothing, warn, and continue with random weights. From
    another architecture, width or number of classes, it would load whatever happens to
    fit.

    To start from a model with another head, a config lists the tensors to leave out:
    ``load_skip=['head.']``. These tensors keep their initialisation, and everything
    else must fit.
    """

    # After an EMAHook, which exchanges averaged weights of a run that is resumed. The
    # tools put it before all others for ``load_from``.
    priority = 'LOW'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Load the weights.

        Raises:
            CheckpointError: The checkpoint does not fit, see :func:`load_pretrained`,
                or ``load_skip`` names tensors that neither file nor model has.
        """
        model = unwrapped_model(runner)
        state = find_state_dict(checkpoint, 'The checkpoint')
        state = unwrapped_names(state)
        # The parts that a distiller has learned besides its student.
        own = {k: v for k, v in state.items() if k.startswith(OWN_PREFIX)}
        if is_resuming(runner):
            _check_own(model, own)
        # Distillers and transformers models use their own names.
        target = trained_part(model)
        target = getattr(target, 'lm', target)
        skip = () if is_resuming(runner) else _skipped(runner.cfg.get(SKIP))
        try:
            report = _load(target, _without(state, target, skip))
        except CheckpointError as error:
            # The state dict itself does not know where it is from.
            where = f'{runner._load_from}: ' if runner._load_from else ''
            raise CheckpointError(f'{where}{error}') from error
        runner.logger.info(f'Checkpoint: {report}')
        loaded = model.state_dict()
        for name, value in own.items():
            if name in loaded and loaded[name].shape == value.shape:
                loaded[name] = value
        # mmengine now finds weights that are already in the model.
        checkpoint['state_dict'] = loaded


def _load(model: nn.Module, state: dict[str, Tensor]) -> str:
    """Load all of a state dict, and report what was loaded."""
    if not hasattr(model, 'all_tied_weights_keys'):
        return str(load_pretrained(model, state))
    # One of a transformers model's tied tensors is enough.
    state = {k: v for k, v in state.items() if not k.startswith(OWN_PREFIX)}
    check_fit(model, state, '')
    model.load_state_dict(state, strict=False)
    return f'{len(state)} tensors loaded'


def _without(
    state: dict[str, Tensor], model: nn.Module, skip: tuple[str, ...]
) -> dict[str, Tensor]:
    """The tensors to load, with the model's own in place of those to skip."""
    if not skip:
        return state
    own = model.state_dict()
    for beginning in skip:
        if not any(name.startswith(beginning) for name in [*own, *state]):
            raise CheckpointError(
                f'{SKIP}: no tensor of checkpoint or {type(model).__name__} begins '
                f'with {beginning!r}; the model has '
                f'{sorted({name.split(".")[0] + "." for name in own})}.'
            )
    kept = {k: v for k, v in state.items() if not k.startswith(skip)}
    return kept | {k: v for k, v in own.items() if k.startswith(skip)}


def _skipped(names: Any) -> tuple[str, ...]:
    """The config's list of beginnings of names; a single one need not be in a list.

    Raises:
        CheckpointError: It is something else.
    """
    names = [names] if isinstance(names, str) else names or ()
    if not isinstance(names, list | tuple) or not all(
        isinstance(name, str) and name for name in names
    ):
        raise CheckpointError(
            f'{SKIP}={names!r} must be a list of beginnings of names, such as '
            "['head.']."
        )
    return tuple(names)


def _check_own(model: nn.Module, found: dict[str, Tensor]) -> None:
    """Refuse to resume without the parts that a distiller has learned."""
    own = {k: v for k, v in model.state_dict().items() if k.startswith(OWN_PREFIX)}
    lacking = [k for k, v in own.items() if k not in found or found[k].shape != v.shape]
    foreign = [k for k in found if k not in own]
    if lacking or foreign:
        raise CheckpointError(
            'Cannot resume: the checkpoint is not one of this config. Of '
            f'{type(model).__name__} it lacks {lacking[:5]}, and has {foreign[:5]} '
            'besides.'
        )
