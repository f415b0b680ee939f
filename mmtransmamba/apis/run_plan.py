"""The memory and the time of a training, before it starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from statistics import fmean
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import IterableDataset

from mmtransmamba.apis.step_costs import StepCosts, measure_step
from mmtransmamba.engine.student import student_config
from mmtransmamba.models.teachers.loading import RANDOM
from mmtransmamba.registry import MODELS
from mmtransmamba.utils.model_config import input_shape

_LOOKED_AT = 16
"""Samples of which the largest is measured, and the mean length is known."""
_OF_WORKERS = ('persistent_workers', 'prefetch_factor', 'multiprocessing_context')
"""Options of a loader that it may not have without workers."""


@dataclass
class RunPlan:
    """A training in figures.

    Attributes:
        gpus: Number of devices.
        strategy: ``'ddp'`` or ``'fsdp'``.
        costs: Costs of a step.
        batch_size: Samples of a device in one forward pass.
        samples: Samples of the whole training, over all devices.
        memory: Bytes on each device, by what they are for.
        flops: Operations of the whole training, a multiplication and an addition as
            two, as peak rates of devices count.
        hours: Time at the given utilisation.
        typical: Mean length of a sample as a part of the largest's, which is measured.
    """

    gpus: int
    strategy: str
    costs: StepCosts
    batch_size: int
    samples: int
    memory: dict[str, float]
    flops: float
    hours: float
    typical: float = 1.0

    @property
    def tokens(self) -> int:
        """Tokens of the whole training; 0 for images."""
        return round(self.samples * self.costs.tokens * self.typical)

    @property
    def total(self) -> float:
        """Bytes on each device."""
        return sum(self.memory.values())

    def largest_batch(self, device_memory: float) -> int:
        """Samples of a forward pass that fit into a memory of some bytes; 0 if none."""
        growth = max(self.costs.peak.per_sample, self.costs.saved.per_sample, 1.0)
        room = (device_memory - self.total) / growth
        return max(0, int(self.batch_size + room))

    def as_dict(self) -> dict[str, Any]:
        """All figures, as data."""
        return asdict(self) | dict(tokens=self.tokens, total_memory=self.total)


def plan_run(
    cfg: Config,
    gpus: int,
    mfu: float,
    peak: float,
    strategy: str = 'ddp',
    samples: int | None = None,
) -> RunPlan:
    """Measure a training step of a config on the CPU, and scale it up.

    Weights do not matter: a teacher of images is built with random ones. A language
    model's folder must exist.

    Args:
        cfg: Config of the training.
        gpus: Number of devices.
        mfu: Part of the devices' peak rate that is reached, in (0, 1].
        peak: Peak rate of a device in FLOP/s.
        strategy: ``'ddp'`` or ``'fsdp'``, with a whole teacher on each device.
        samples: Size of the data set, if its files are not here. Then images of
            random numbers are measured.

    Raises:
        ValueError: The data set cannot be read, and ``samples`` is not given or the
            model does not take images.
    """
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    data = _Data(cfg, samples)
    model = MODELS.build(_with_random_teacher(cfg))
    if hasattr(model, 'init_weights'):
        model.init_weights()
    costs = measure_step(model, data.batch, cfg.optim_wrapper)
    batch_size = cfg.train_dataloader.batch_size
    training = cfg.train_cfg
    if training.get('max_epochs'):
        total = training.max_epochs * data.count
    else:
        total = training.max_iters * batch_size * gpus
    # A backward pass takes twice the forward pass; there is none for the teacher.
    per_sample = 2 * (3 * costs.student_flops + costs.teacher_flops) * data.typical
    return RunPlan(
        gpus=gpus,
        strategy=strategy,
        costs=costs,
        batch_size=batch_size,
        samples=total,
        memory=_memory(costs, batch_size, gpus, strategy),
        flops=total * per_sample,
        hours=total * per_sample / (gpus * mfu * peak) / 3600,
        typical=data.typical,
    )


def _memory(
    costs: StepCosts, batch_size: int, gpus: int, strategy: str
) -> dict[str, float]:
    """Bytes on each device."""
    parts = gpus if strategy == 'fsdp' else 1
    activations = costs.saved.at(batch_size)
    temporary = costs.peak.at(batch_size) - activations - costs.gradients
    memory = {
        'student': costs.weights / parts,
        'teacher': costs.teacher_weights,
        'gradients': costs.gradients / parts,
        'optimizer': costs.optimizer / parts,
        'activations': activations,
        'temporary tensors': max(0.0, temporary),
    }
    if strategy == 'fsdp':
        # One block in use, and the next that is being gathered.
        memory['gathered blocks'] = 2 * costs.largest_block
    elif gpus > 1:
        memory['buckets of DDP'] = costs.gradients
    return memory


def _with_random_teacher(cfg: Config) -> dict[str, Any]:
    model = dict(cfg.model)
    if 'data_preprocessor' in cfg:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    # This machine measures, and may have no such device.
    model.pop('teacher_device', None)
    teacher = model.get('teacher')
    if isinstance(teacher, dict) and 'checkpoint' in teacher:
        model['teacher'] = dict(teacher, checkpoint=RANDOM)
    return model


class _Data:
    """Batches of the training's data, or of random numbers in its place.

    Attributes:
        count: Number of samples.
        typical: See :class:`RunPlan`.
    """

    typical = 1.0

    def __init__(self, cfg: Config, samples: int | None) -> None:
        self._collate: Callable[[list], Any]
        loader = {k: v for k, v in cfg.train_dataloader.items() if k not in _OF_WORKERS}
        try:
            loader = Runner.build_dataloader(dict(loader, num_workers=0))
        except Exception as error:
            if samples is None:
                raise ValueError(
                    f'train_dataloader.dataset cannot be read ({error}); give the '
                    'number of its samples as --samples to plan without it'
                ) from error
            self.count = samples
            self._sample, self._collate = _image(cfg, error)
            return
        dataset = loader.dataset
        self.count = len(dataset) if samples is None else samples
        if isinstance(dataset, IterableDataset):
            looked_at = list(islice(dataset, _LOOKED_AT))
        else:
            looked_at = [dataset[i] for i in range(min(_LOOKED_AT, len(dataset)))]
        self._sample = max(looked_at, key=_size)
        if 'input_ids' in self._sample:
            lengths = [sample['input_ids'].numel() for sample in looked_at]
            self.typical = fmean(lengths) / self._sample['input_ids'].numel()
        self._collate = loader.collate_fn

    def batch(self, size: int) -> Any:
        """A batch of equal samples, as large as any."""
        return self._collate([self._sample] * size)


def _size(sample: Any) -> int:
    leaves = tree_leaves(sample)
    return sum(leaf.numel() for leaf in leaves if isinstance(leaf, Tensor))


def _image(cfg: Config, error: Exception) -> tuple[dict, Callable[[list], Any]]:
    from mmengine.dataset import default_collate
    from mmpretrain.structures import DataSample

    model = student_config(cfg.model)
    if 'backbone' not in model:
        raise ValueError(
            f'train_dataloader.dataset cannot be read ({error}), and the samples of '
            'a language model are not known without it'
        )
    image = torch.randint(0, 256, input_shape(model, None), dtype=torch.uint8)
    sample = dict(inputs=image, data_samples=DataSample().set_gt_label(0))
    return sample, default_collate
