"""Checkpoints that survive interruptions and resume exactly."""

from __future__ import annotations

import inspect
import os.path as osp
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, get_rank, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.runner import IterBasedTrainLoop, Runner

from mmtransmamba.compat.private import is_resuming
from mmtransmamba.engine.data_position import DataPosition, ResumableIterator
from mmtransmamba.engine.random_state import generator_states, set_generator_states
from mmtransmamba.engine.resume_check import check_length, check_settings
from mmtransmamba.registry import HOOKS
from mmtransmamba.utils.checkpoint_files import checkpoint_folder, point_to
from mmtransmamba.utils.near_names import did_you_mean

_KEY = 'random_state'  # of a checkpoint


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """mmengine's hook of the same name, with the same arguments, made reliable.

    * An old checkpoint is deleted only after the new one is complete.
    * ``last_checkpoint`` and a checkpoint's references to others are names within the
      run's folder. A copy of the folder is an independent run.
    * A checkpoint stores the states of all random number generators, including those
      of the dataloader's workers and of all processes, and the position in the data. A
      resumed run is then bitwise equal to an uninterrupted one, provided that the
      numbers of processes and workers are unchanged.
    * Validation restores the generators, so it does not affect training.
    * A resumed run is refused if it changes settings of the optimizer or the
      schedulers, which the checkpoint would override, or if it is shorter than what the
      checkpoint has behind it.

    Partially accumulated gradients (``accumulative_counts``) are not in a checkpoint:
    save at steps where none are pending.

    Raises:
        TypeError: An argument is unknown.
    """

    _position: DataPosition | None = None
    _saved: dict[str, Any] | None = None
    _before_val: dict[str, Any] | None = None
    _collected: list[dict[str, Any]] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # mmengine hands what it does not know to the first saving.
        known = {
            *inspect.signature(MMEngineCheckpointHook).parameters,
            *inspect.signature(Runner.save_checkpoint).parameters,
        }
        for name in kwargs:
            if name not in known:
                hint = did_you_mean(name, known)
                raise TypeError(f'CheckpointHook has no argument "{name}"{hint}')
        super().__init__(*args, **kwargs)

    # ------------------------------------------------------------- old files last

    def before_train(self, runner: Runner) -> None:
        if is_resuming(runner):
            check_length(runner.train_loop)
        self._resolve_names(runner)
        super().before_train(runner)
        self._follow_data(runner)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        self._collected = all_gather_object(self._state(runner))
        with self._removals_last():
            super()._save_checkpoint_with_step(runner, step, meta)
        self._collected = None
        if is_main_process():
            point_to(runner.work_dir, osp.basename(self.last_ckpt))

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        wanted = [key for key in getattr(self, 'key_indicators', ()) if key != 'auto']
        missing = [key for key in wanted if key not in metrics]
        if missing:
            # What is trained is not lost.
            step = runner.epoch if self.by_epoch else runner.iter
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            self._save_checkpoint_with_step(runner, step, meta)
            raise ValueError(
                f'save_best={missing[0]!r} of the CheckpointHook is none of the '
                f'metrics of the validation: {", ".join(metrics) or "there are none"}'
            )
        with self._removals_last():
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _removals_last(self) -> Iterator[None]:
        backend = self.file_backend
        later = self.file_backend = _RemovesLater(backend)
        try:
            yield
        finally:
            self.file_backend = backend
        later.remove_all(
            {
                self.last_ckpt,
                getattr(self, 'best_ckpt_path', None),
                *getattr(self, 'best_ckpt_path_dict', {}).values(),
            }
        )

    # ------------------------------------------------------------ names, not paths

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        info = checkpoint.get('message_hub', {}).get('runtime_info', {})
        for key in _names_files(info):
            info[key] = osp.basename(info[key])
        if self._collected is not None:
            checkpoint[_KEY] = self._collected

    def _resolve_names(self, runner: Runner) -> None:
        """Find the files that a resumed checkpoint refers to in this run's folder."""
        out_dir = None if self.out_dir is None else str(self.out_dir)
        if out_dir is not None and '://' in out_dir:
            return
        folder = checkpoint_folder(runner.work_dir, out_dir)
        info = runner.message_hub.runtime_info
        for key in _names_files(info):
            path = folder / Path(info[key]).name
            if path.exists():
                runner.message_hub.update_info(key, str(path))
            else:
                del info[key]

    # ------------------------------------------------------ generators, and the data

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self._saved = checkpoint.get(_KEY)
        if is_resuming(runner):
            check_settings(checkpoint, runner.cfg.pretty_text)

    def _follow_data(self, runner: Runner) -> None:
        loop = runner.train_loop
        self._position = DataPosition(loop.dataloader)
        saved = self._own_state(runner) if runner.iter > 0 else None
        self._saved = saved
        if saved is not None:
            self._position.prepare(saved)
            set_generator_states(saved['now'])
        if isinstance(loop, IterBasedTrainLoop):
            loop.dataloader_iterator = ResumableIterator(self._position, saved)

    def _own_state(self, runner: Runner) -> dict[str, Any] | None:
        """The loaded checkpoint's data for this process."""
        saved = self._saved
        if saved is None:
            runner.logger.warning(
                'The checkpoint has no states of random number generators: the run '
                'will differ from one that was not interrupted.'
            )
            return None
        if len(saved) != get_world_size():
            runner.logger.warning(
                f'The checkpoint is of a run in {len(saved)} processes, and it goes on '
                f'in {get_world_size()}: batches and random numbers will differ from '
                'those of a run that was not interrupted.'
            )
            return None
        own = saved[get_rank()]
        workers = runner.train_dataloader.num_workers
        if own['num_workers'] != workers:
            runner.logger.warning(
                f'The checkpoint is of a run with num_workers={own["num_workers"]}, '
                f'and it goes on with {workers}: random numbers of the data will '
                'differ from those of a run that was not interrupted.'
            )
        return own

    def _state(self, runner: Runner) -> dict[str, Any]:
        now = generator_states() if self._before_val is None else self._before_val
        state = self._position.state(now)
        iterator = getattr(runner.train_loop, 'dataloader_iterator', None)
        return dict(state, passes=getattr(iterator, 'passes', 0))

    def before_train_epoch(self, runner: Runner) -> None:
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            return  # its iterator restores the position
        saved, self._saved = self._saved, None
        if saved is not None and not self._position.streams:
            self._position.resume(saved)
            return
        if saved is not None and saved['consumed'] > 0:
            runner.logger.warning(
                'The checkpoint is of the middle of an epoch over a stream, which '
                'begins anew.'
            )
        self._position.begin()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        if not isinstance(runner.train_loop, IterBasedTrainLoop):
            self._position.take()
        super().after_train_iter(runner, batch_idx, data_batch, outputs)

    def after_train_epoch(self, runner: Runner) -> None:
        if not isinstance(runner.train_loop, IterBasedTrainLoop):
            self._position.end()
        super().after_train_epoch(runner)

    def before_val(self, runner: Runner) -> None:
        self._before_val = generator_states()

    def after_val(self, runner: Runner) -> None:
        set_generator_states(self._before_val)
        self._before_val = None


class _RemovesLater:
    """A file backend that defers removals until it is told to perform them."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._due: list[tuple[str, str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self._due.append(('remove', str(path)))

    def rmtree(self, path: str) -> None:
        self._due.append(('rmtree', str(path)))

    def remove_all(self, but: set[str | None]) -> None:
        """Perform the deferred removals, except of files that were written again."""
        for how, path in self._due:
            if path not in but and self._backend.exists(path):
                getattr(self._backend, how)(path)


def _names_files(info: dict[str, Any]) -> list[str]:
    """Keys of the message hub under which checkpoints are named."""
    keys = [key for key in info if key == 'last_ckpt' or key.startswith('best_ckpt')]
    return [key for key in keys if isinstance(info[key], str)]
