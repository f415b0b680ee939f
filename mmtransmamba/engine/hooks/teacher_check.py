"""A check of a distiller's teacher on the student's task."""

from __future__ import annotations

import copy
import logging
from itertools import islice
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.evaluator import DumpResults, Evaluator
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from mmtransmamba.engine.hooks.metric_values import in_words, single_numbers
from mmtransmamba.engine.random_state import kept_generators
from mmtransmamba.engine.unwrap import unwrapped_model
from mmtransmamba.models.teachers import CachedTeacher
from mmtransmamba.models.teachers.class_order import ClassOrderError, order_of_classes
from mmtransmamba.registry import HOOKS


@HOOKS.register_module()
class TeacherCheckHook(Hook):
    """Evaluates the teacher of a distiller once, at the first validation.

    The validation metrics are computed for the teacher's outputs, logged, and written
    to the visualizer as ``teacher/METRIC``. This reveals a teacher whose classes are in
    another order, or whose images are preprocessed differently from its training. A
    teacher that is hardly better than chance triggers a warning.

    Before training, the class names of teacher and data set are compared, if both have
    them. Models without a teacher are ignored.

    Args:
        batches: Evaluate only this many batches of each process; None for all. For a
            teacher that answers questions, this takes as long as for a student.
    """

    # Before any hook that runs the teacher.
    priority = 'VERY_HIGH'

    def __init__(self, batches: int | None = None) -> None:
        if batches is not None and batches < 1:
            raise ValueError(
                f'TeacherCheckHook: batches={batches} must be at least 1, or None.'
            )
        self.batches = batches
        self._done = False

    def before_train(self, runner: Runner) -> None:
        """Compare the names of the classes, or the samples of a recorded teacher.

        Raises:
            ClassOrderError: The teacher has the data set's classes in another order.
            ValueError: The teacher was recorded from another data set.
        """
        teacher = getattr(unwrapped_model(runner), 'teacher', None)
        if isinstance(teacher, CachedTeacher):
            teacher.check_dataset(runner.train_dataloader.dataset)
            return
        names = getattr(teacher, 'class_names', None)
        classes = _classes_of(runner.train_dataloader.dataset)
        if getattr(teacher, 'ordered_by_names', False):
            teacher.order_by_names(classes)
            return
        # A different number of classes is not an error of order.
        if not names or not classes or len(names) != len(classes):
            return
        order = order_of_classes(names, classes)
        if order is None:
            runner.logger.warning(
                'TeacherCheckHook: the teacher calls its classes '
                f'{_some(names)}, the data set {_some(classes)}; whether they are in '
                'the same order is not known from these names. See the teacher/... '
                'metrics of the first validation.'
            )
        elif order != list(range(len(names))):
            first = next(i for i, k in enumerate(order) if i != k)
            raise ClassOrderError(
                f"The teacher's classes are in another order than the data set's: "
                f'class {first} of the data set, {classes[first]!r}, is number '
                f'{order[first]} of the teacher, whose number {first} is '
                f"{names[first]!r}. Set model.teacher.class_order='names', or a list "
                "with the teacher's number of each class."
            )

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        if self._done:
            return
        self._done = True
        model = unwrapped_model(runner)
        if not hasattr(model, 'teacher_predict'):
            return
        with kept_generators():
            found = self._measure(runner, model)
        if found is None:
            runner.logger.info(
                'TeacherCheckHook: the teacher says nothing that the metrics of the '
                'validation could be computed of.'
            )
            return
        figures = ', '.join(
            f'{name}: {in_words(value)}' for name, value in found.items()
        )
        runner.logger.info(f'The teacher itself at this validation: {figures}')
        runner.visualizer.add_scalars(
            {f'teacher/{name}': value for name, value in single_numbers(found).items()},
            step=runner.iter,
        )
        self._warn_of_chance(runner, model, found)

    @torch.no_grad()
    def _measure(self, runner: Runner, model: nn.Module) -> dict[str, Any] | None:
        loop = runner.val_loop
        own: Evaluator = loop.evaluator
        evaluator = Evaluator(
            [copy.deepcopy(m) for m in own.metrics if not isinstance(m, DumpResults)]
        )
        evaluator.dataset_meta = own.dataset_meta
        seen = 0
        for data in islice(loop.dataloader, self.batches):
            outputs = model.teacher_predict(model.data_preprocessor(data, False))
            if outputs is None:
                return None
            evaluator.process(data_samples=outputs, data_batch=data)
            seen += len(outputs)
        size = len(loop.dataloader.dataset) if self.batches is None else None
        return evaluator.evaluate(seen * get_world_size() if size is None else size)

    @staticmethod
    def _warn_of_chance(runner: Runner, model: nn.Module, found: dict) -> None:
        classes = getattr(model.teacher, 'num_classes', None)
        accuracy = found.get('accuracy/top1')
        if not classes or not isinstance(accuracy, int | float):
            return
        # Twice as often as by chance where there are many classes.
        chance = 100 / classes
        if accuracy < chance + min(chance, 0.1 * (100 - chance)):
            runner.logger.log(
                logging.WARNING,
                f'The teacher is right in {accuracy:.3g} % of the validation set, by '
                f'chance it would be in {chance:.3g} %: are its classes in '
                "another order (model.teacher.class_order), its weights this task's, "
                'its mean and std its own?',
            )


def _classes_of(dataset: Dataset) -> list[str] | None:
    """The class names of a data set, or of one that it wraps."""
    found = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    if found:
        return [str(name) for name in found]
    inner = getattr(dataset, 'dataset', None) or next(
        iter(getattr(dataset, 'datasets', [])), None
    )
    return None if inner is None else _classes_of(inner)


def _some(names: list[str]) -> str:
    return ', '.join(map(repr, names[:3])) + (', …' if len(names) > 3 else '')
