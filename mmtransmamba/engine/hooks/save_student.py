"""The student of a finished stage as a folder that transformers can read."""

from __future__ import annotations

import shutil
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmtransmamba.engine.unwrap import unwrapped_model
from mmtransmamba.registry import HOOKS


@HOOKS.register_module()
class SaveStudentHook(Hook):
    """Saves a language model with ``save_pretrained`` when its training has ended.

    The name of the stage is appended to ``transfer_history`` in its config, so that
    the next stage knows that it may start from this folder. Tokenizer and chat
    template are copied from the folder that the student came from. The folder appears
    when it is complete.

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
            ValueError: The model has no student that can be saved.
        """
        student = getattr(unwrapped_model(runner), 'student', None)
        if not hasattr(student, 'save_pretrained'):
            raise ValueError(
                'SaveStudentHook: the model is no LanguageDistiller; leave the hook '
                'out.'
            )

    def after_train(self, runner: Runner) -> None:
        if not is_main_process():
            return
        distiller = unwrapped_model(runner)
        folder = Path(runner.work_dir) / self.folder
        partial = folder.with_name(folder.name + '.partial')
        shutil.rmtree(partial, ignore_errors=True)
        config = distiller.student.config.get_text_config()
        before = list(getattr(config, 'transfer_history', None) or [])
        config.transfer_history = before + [distiller.stage or 'distilled']
        try:
            distiller.student.save_pretrained(partial)
        finally:
            config.transfer_history = before
        distiller.companions.save(partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        runner.logger.info(f'SaveStudentHook: the student is in {folder}.')
