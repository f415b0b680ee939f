"""The first stage of the transfer as a hook."""

from __future__ import annotations

import os.path as osp
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from mmengine.dataset import DefaultSampler
from mmengine.dist import all_reduce, broadcast, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmtransmamba.engine.student import trained_part
from mmtransmamba.engine.unwrap import unwrapped_model
from mmtransmamba.registry import HOOKS, MODELS
from mmtransmamba.transfer.subclone import (
    Source,
    SubcloneOptions,
    read_mixers,
    read_source,
    read_teacher,
    subclone_into,
    with_target_grid,
)
from mmtransmamba.transfer.weight_maps import get_weight_map

REPORT_FILE = 'subclone_report.json'
PIXELS = 'patch_embed.proj.weight'
"""The canonical name of the tensor that reads the image's channels."""


@HOOKS.register_module()
class SubcloneInitializer(Hook):
    """Initialises a student with a teacher's weights (TransMamba, Section 3.2).

    The hook runs once, after the Runner has initialised the model and before the first
    iteration. It does not run if training resumes or loads weights. A table of what
    happened to every parameter is logged and saved as ``subclone_report.json`` in the
    work directory.

    The student is the Runner's model, or the ``student`` of a distiller. In the latter
    case, the distiller's ``teacher`` is the source unless another one is given. A
    teacher's head is inherited in the order of its ``class_order``, and the patch
    embedding with its channels reversed if the distiller's student sees BGR.

    Args:
        weight_map: Name in :data:`mmtransmamba.registry.WEIGHT_MAPS`.
        teacher: Config of a teacher (:mod:`mmtransmamba.models.teachers`) to take
            weights from; it is released afterwards.
        checkpoint: File to take weights from, instead of a teacher. A plain ViT may use
            the names of timm, mmpretrain or transformers.
        mamba_checkpoint: File of a Mamba, Vim or PlainMamba whose mixers initialise
            what the teacher cannot.
        layers, width, rules, rescale, fresh, interpolation, source_grid, target_grid:
            See :class:`mmtransmamba.transfer.subclone.SubcloneOptions`. The grids
            default to those of teacher and student.
        importance_batches: With ``width='importance'``, rank the channels of the
            residual stream by their mean absolute value after the teacher's blocks,
            over this many training batches, as Samragh et al. do; requires a distiller.
            With 0, the ranking uses the weights and needs no data.
        seed: Seed of the newly initialised parameters; by default the Runner's.

    Raises:
        ValueError: An argument is wrong.
    """

    priority = 'VERY_HIGH'

    def __init__(
        self,
        weight_map: str = 'vit_to_plainmamba',
        teacher: dict[str, Any] | None = None,
        checkpoint: str | None = None,
        mamba_checkpoint: str | None = None,
        layers: str | Sequence[int] = 'first_n',
        width: str = 'block',
        rules: Mapping[str, str] | None = None,
        rescale: bool | None = None,
        fresh: Mapping[str, Any] | None = None,
        interpolation: str = 'bicubic',
        source_grid: Sequence[int] | None = None,
        target_grid: Sequence[int] | None = None,
        importance_batches: int = 0,
        seed: int | None = None,
    ) -> None:
        if teacher is not None and checkpoint is not None:
            raise ValueError(
                'SubcloneInitializer: give either teacher or checkpoint, not both.'
            )
        if importance_batches and width != 'importance':
            raise ValueError(
                f'SubcloneInitializer: importance_batches={importance_batches} goes '
                f"with width='importance', not width={width!r}."
            )
        self.weight_map = get_weight_map(weight_map)
        self.teacher = teacher
        self.checkpoint = checkpoint
        self.mamba_checkpoint = mamba_checkpoint
        self.importance_batches = importance_batches
        self.seed = seed
        self.options = SubcloneOptions(
            layers=layers,
            width=width,
            rules=rules,
            rescale=rescale,
            fresh=fresh,
            interpolation=interpolation,
            source_grid=None if source_grid is None else tuple(source_grid),
            target_grid=None if target_grid is None else tuple(target_grid),
        )
        self._loaded = False
        self._done = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Record that the model's weights come from a file."""
        self._loaded = True

    def before_train(self, runner: Runner) -> None:
        """Transfer the weights.

        Raises:
            ValueError: There is no source, or weights and map do not fit; see
                :func:`mmtransmamba.transfer.subclone.subclone`.
            FileNotFoundError: A checkpoint does not exist.
            CheckpointError: A checkpoint cannot be used.
        """
        if self._done:
            return
        self._done = True
        if self._loaded or runner.iter > 0:
            runner.logger.info(
                'SubcloneInitializer: the model has loaded or trained weights; '
                'nothing is inherited.'
            )
            return
        model = unwrapped_model(runner)
        student = trained_part(model)
        sources, options = self._sources(model, student)
        options = replace(options, seed=runner.seed if self.seed is None else self.seed)
        if self.importance_batches:
            scores = self._activations(runner, model)
            shared = [s.name for s in self.weight_map.spaces if not s.per_layer]
            options = replace(options, importance=dict.fromkeys(shared, scores))
        report = subclone_into(student, sources, options)
        for parameter in student.parameters():
            broadcast(parameter.data)
        runner.logger.info(f'\n{report}')
        if is_main_process():
            report.save(osp.join(runner.work_dir, REPORT_FILE))

    def _sources(
        self, model: nn.Module, student: nn.Module
    ) -> tuple[list[Source], SubcloneOptions]:
        options = with_target_grid(self.options, student)
        if self.checkpoint is not None:
            source = read_source(self.weight_map, self.checkpoint)
        else:
            teacher = self._find_teacher(model)
            source, options = read_teacher(self.weight_map, teacher, options)
        sources = [_for_the_students_channels(source, model)]
        if self.mamba_checkpoint is not None:
            sources.append(read_mixers(self.weight_map, self.mamba_checkpoint))
        return sources, options

    def _find_teacher(self, model: nn.Module) -> nn.Module:
        if self.teacher is not None:
            return MODELS.build(self.teacher)
        teacher = getattr(model, 'teacher', None)
        if teacher is None:
            raise ValueError(
                f'SubcloneInitializer: {type(model).__name__} has no teacher to '
                'inherit from. Give teacher=dict(type=...) or checkpoint=FILE.'
            )
        return teacher

    @torch.no_grad()
    def _activations(self, runner: Runner, model: nn.Module) -> Tensor:
        """Mean absolute value ``[C]`` of the residual channels over the layers."""
        if self.teacher is not None or self.checkpoint is not None:
            raise ValueError(
                'SubcloneInitializer: importance_batches needs a distiller, whose '
                'teacher is the source; with teacher or checkpoint leave it 0.'
            )
        teacher = self._find_teacher(model)
        if len(set(teacher.layer_dims)) > 1:
            raise ValueError(
                'SubcloneInitializer: importance_batches needs a teacher of one width, '
                f'not {teacher.layer_dims}.'
            )
        total = 0
        batches = _own_loader(runner.train_dataloader, runner.seed)
        for batch in islice(batches, self.importance_batches):
            inputs = model.data_preprocessor(batch)['inputs']
            for layer in teacher(model.teacher_images(inputs)).layers:
                total = total + layer.tokens.abs().mean((0, 1))
        all_reduce(total)
        return total.cpu()


def _own_loader(loader: DataLoader, seed: int) -> DataLoader:
    """Batches of a loader's data in an order of their own.

    Leaving a loop over the loader itself would close the generator of an
    ``InfiniteSampler``, and the training would have no batch.
    """
    return DataLoader(
        loader.dataset,
        loader.batch_size or 1,
        sampler=DefaultSampler(loader.dataset, shuffle=True, seed=seed),
        collate_fn=loader.collate_fn,
    )


def _for_the_students_channels(source: Source, model: nn.Module) -> Source:
    """A source that reads the image's channels in the order of the student's."""
    # A teacher sees RGB; a distiller knows what its student sees.
    weight_map, state = source
    pixels = state.get(PIXELS)
    bgr = getattr(model, 'channel_order', None) == 'bgr'
    if bgr and pixels is not None and pixels.shape[1] == 3:
        state = {**state, PIXELS: pixels.flip(1)}
    return weight_map, state
