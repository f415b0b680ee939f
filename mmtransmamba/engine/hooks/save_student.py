"""Saving the model of a finished stage as a folder for transformers."""

from __future__ import annotations

import shutil
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmtransmamba.compat import is_resuming
from mmtransmamba.engine.averaged import checkpoint_weights
from mmtransmamba.engine.hooks.student_card import trained_facts
from mmtransmamba.engine.sharding.whole import whole_weights
from mmtransmamba.engine.student import (
    is_distiller,
    trained_part,
    transformers_part,
)
from mmtransmamba.engine.unwrap import unwrapped_model
from mmtransmamba.models.card import write_card
from mmtransmamba.models.trainable.adapters import has_adapters, without_adapters
from mmtransmamba.models.trainable.stages import StageError, history_of
from mmtransmamba.registry import HOOKS
from mmtransmamba.utils.checkpoint_files import put_in_place

_HISTORY = 'transfer_history'  # key of a checkpoint, as in the config


@HOOKS.register_module()
class SaveStudentHook(Hook):
    """Saves a transformers model with ``save_pretrained`` at the end of training.

    The saved model is the student of a
    :class:`~mmtransmamba.transfer.LanguageDistiller`, the model of a
    :class:`~mmtransmamba.models.trainable.CausalLM` or
    :class:`~mmtransmamba.models.trainable.VisionLanguageModel`, the tower of a
    :class:`~mmtransmamba.models.trainable.PatchClassifier`, or the encoder of an
    :class:`~mmtransmamba.models.trainable.EncoderClassifier`, also as the student of a
    :class:`~mmtransmamba.transfer.MultiDirectionDistiller`.

    The name of the stage is appended to ``transfer_history`` in its config, so that the
    next stage knows that it may start from this folder. Tokenizer, processor and chat
    template are copied from the original model. A model card names the original, the
    stages, the files of their data and the last validation. The folder appears only
    when it is complete. Its weights are those of a checkpoint's ``state_dict``: with an
    ``EMAHook`` these are the averages, which validation has measured. Low-rank adapters
    are merged into the weights.

    Checkpoints store the history too, including their own stage. A stage neither
    resumes from nor loads a checkpoint of another stage.

    Args:
        folder: Name of the folder in the work directory.
    """

    # After the checkpoints are written.
    priority = 'VERY_LOW'

    def __init__(self, folder: str = 'student') -> None:
        self.folder = folder

    def before_train(self, runner: Runner) -> None:
        """Fail before the training instead of after it.

        Raises:
            ValueError: The model contains nothing that can be saved.
        """
        if transformers_part(unwrapped_model(runner)) is None:
            raise ValueError(
                'SaveStudentHook: the model is not a LanguageDistiller, CausalLM, '
                'VisionLanguageModel, PatchClassifier or EncoderClassifier; leave the '
                'hook out.'
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        trained = unwrapped_model(runner)
        checkpoint[_HISTORY] = [*_history_of(trained), _step_of(trained)]

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse weights of another stage before they are loaded.

        Raises:
            StageError: The checkpoint belongs to another stage.
        """
        trained = unwrapped_model(runner)
        stage = _stage_of(trained)
        if _HISTORY not in checkpoint or stage is None:
            return
        # The initial weights of the stage, which the model already has, or its own.
        start = _history_of(trained)
        own = [*start, stage]
        accepted = [own] if is_resuming(runner) else [start, own]
        if checkpoint[_HISTORY] not in accepted:
            raise StageError(
                f'Stage {stage!r} cannot '
                f'{"resume from" if is_resuming(runner) else "load"} a checkpoint of '
                f'{" > ".join(checkpoint[_HISTORY])}; it takes one of '
                f'{" or ".join(" > ".join(history) for history in accepted)}. Give '
                'each stage a work_dir of its own, and the folder that the stage '
                'before has saved as model.student.path.'
            )

    def after_train(self, runner: Runner) -> None:
        # Every process holds a part of a sharded model.
        with whole_weights(runner.model):
            if is_main_process():
                self._save(runner)

    def _save(self, runner: Runner) -> None:
        trained = unwrapped_model(runner)
        model = transformers_part(trained)
        folder = Path(runner.work_dir) / self.folder
        partial = folder.with_name(folder.name + '.partial')
        shutil.rmtree(partial, ignore_errors=True)
        config = model.config.get_text_config()
        before = getattr(config, 'transfer_history', None)
        config.transfer_history = [*(before or []), _step_of(trained)]
        try:
            with checkpoint_weights(runner):
                whole = without_adapters(model) if has_adapters(model) else model
                whole.save_pretrained(partial)
            companions = getattr(trained, 'companions', None)
            if companions is None:
                companions = trained.student.companions
            facts = trained_facts(runner, model, companions.folder, _step_of(trained))
            write_card(
                partial,
                self.folder,
                whole.config,
                facts.teacher,
                facts.rows,
                replace=True,
            )
        finally:
            config.transfer_history = before
        companions.save(partial)
        put_in_place(partial, folder)
        runner.logger.info(f'SaveStudentHook: the model is in {folder}.')


def _history_of(trained: nn.Module) -> list[str]:
    model = transformers_part(trained)
    return [] if model is None else history_of(model)


def _step_of(trained: nn.Module) -> str:
    """The entry of the training in ``transfer_history``."""
    default = 'distilled' if is_distiller(trained) else 'finetuned'
    return _stage_of(trained) or default


def _stage_of(trained: nn.Module) -> str | None:
    """The stage of a distiller, or of the model that is trained in it."""
    own = getattr(trained, 'stage', None)
    return own or getattr(trained_part(trained), 'stage', None)
