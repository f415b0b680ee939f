"""The model of a finished stage as a folder that transformers can read."""

from __future__ import annotations

import shutil
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmtransmamba.engine.unwrap import unwrapped_model
from mmtransmamba.registry import HOOKS


@HOOKS.register_module()
class SaveStudentHook(Hook):
    """Saves a language model with ``save_pretrained`` when its training has ended.

    That is the student of a :class:`~mmtransmamba.transfer.LanguageDistiller`, or the
    model of a :class:`~mmtransmamba.transfer.CausalLM` or
    :class:`~mmtransmamba.transfer.VisionLanguageModel`, or the tower of a
    :class:`~mmtransmamba.models.multimodal.PatchClassifier`.

    The name of the stage is appended to ``transfer_history`` in its config, so that
    the next stage knows that it may start from this folder. Tokenizer, processor and
    chat template are those of the model it came from. The folder appears when it is
    complete.

    Args:
        folder: Name of the folder in the work directory.
    """

    # After checkpoints have been written.
    priority = 'VERY_LOW'

    def __init__(self, folder: str = 'student') -> None:
        self.folder = folder

    def before_train(self, runner: Runner) -> None:
        """Fail before the training, not after it.

        Raises:
            ValueError: The model has nothing that can be saved.
        """
        if _model_in(unwrapped_model(runner)) is None:
            raise ValueError(
                'SaveStudentHook: the model is no LanguageDistiller, CausalLM, '
                'VisionLanguageModel or PatchClassifier; leave the hook out.'
            )

    def after_train(self, runner: Runner) -> None:
        if not is_main_process():
            return
        trained = unwrapped_model(runner)
        model = _model_in(trained)
        folder = Path(runner.work_dir) / self.folder
        partial = folder.with_name(folder.name + '.partial')
        shutil.rmtree(partial, ignore_errors=True)
        config = model.config.get_text_config()
        before = getattr(config, 'transfer_history', None)
        config.transfer_history = [*(before or []), _step_of(trained)]
        try:
            model.save_pretrained(partial)
        finally:
            config.transfer_history = before
        trained.companions.save(partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        runner.logger.info(f'SaveStudentHook: the model is in {folder}.')


def _model_in(trained: nn.Module) -> nn.Module | None:
    """The transformers model that a Runner's model trains, if any."""
    for name in ('student', 'lm', 'tower'):
        model = getattr(trained, name, None)
        if hasattr(model, 'save_pretrained'):
            return model
    return None


def _step_of(trained: nn.Module) -> str:
    """What ``transfer_history`` says of the training."""
    default = 'distilled' if hasattr(trained, 'student') else 'finetuned'
    return getattr(trained, 'stage', None) or default
