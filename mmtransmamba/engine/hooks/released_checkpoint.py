"""Loading of checkpoints that mmengine did not write."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmtransmamba.engine.student import trained_part
from mmtransmamba.engine.unwrap import unwrapped_model
from mmtransmamba.models.checkpoint import find_state_dict, load_pretrained
from mmtransmamba.registry import HOOKS


@HOOKS.register_module()
class ReleasedCheckpointHook(Hook):
    """Loads a released checkpoint into the model, or refuses it.

    mmengine looks for ``state_dict`` only: of a file that holds its weights under
    ``model`` it would load nothing, warn, and go on with random weights. Checkpoints
    with a ``state_dict`` are left to mmengine.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Load what ``load_from`` names.

        Raises:
            CheckpointError: The checkpoint does not fit; see :func:`load_pretrained`.
        """
        if isinstance(checkpoint, dict) and 'state_dict' in checkpoint:
            return
        model = unwrapped_model(runner)
        state = find_state_dict(checkpoint, 'The checkpoint of load_from')
        report = load_pretrained(trained_part(model), state)
        runner.logger.info(f'Released checkpoint: {report}')
        # mmengine now finds the weights that are there already.
        checkpoint.clear()
        checkpoint['state_dict'] = model.state_dict()
