"""Implementation of ``distillation_overhead.py``."""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import init_default_scope

from mmtransmamba.apis.vlm_loading import choose_device
from mmtransmamba.registry import MODELS
from mmtransmamba.utils.launch import override, read_config


def seconds(step: Callable[[], None], device: str) -> float:
    if device.startswith('cuda'):
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device.startswith('cuda'):
        torch.cuda.synchronize()
    return time.perf_counter() - start


class Distillation:
    """The distiller of a config with random weights, and one batch of images.

    Args:
        path: Config whose model is a distiller.
        batch_size: Number of images.
        image_size: Their side in pixels.
        device: Where everything lies.
        options: Changes of the config.

    Raises:
        ValueError: The config has no teacher.
    """

    def __init__(
        self,
        path: str | Path,
        batch_size: int,
        image_size: int,
        device: str,
        options: dict[str, Any] | None = None,
    ) -> None:
        config = read_config(path)
        if 'teacher' not in config.get('model', {}):
            raise ValueError(
                f'{path}: the model is not a distiller, as it has no teacher.'
            )
        # Random weights take the same time as trained ones.
        config.model.teacher.checkpoint = 'random'
        override(config, options)
        init_default_scope(config.get('default_scope', 'mmpretrain'))
        distiller = MODELS.build(
            dict(config.model, data_preprocessor=config.data_preprocessor)
        )
        self.distiller = distiller.to(device).train()
        shape = (batch_size, 3, image_size, image_size)
        generator = torch.Generator().manual_seed(0)
        data = distiller.data_preprocessor(
            dict(
                inputs=list(torch.randint(0, 256, shape, generator=generator).byte()),
                data_samples=_labels(batch_size),
            ),
            training=True,
        )
        self.inputs, self.samples = data['inputs'], data['data_samples']

    def teacher_forward(self) -> None:
        self.distiller.teacher(self.distiller.teacher_images(self.inputs))

    def student_step(self) -> None:
        student = self.distiller.student
        self.distiller.recorder.close()
        loss, _ = student.parse_losses(student.loss(self.inputs, self.samples))
        loss.backward()

    def distillation_step(self) -> None:
        losses = self.distiller.loss(self.inputs, self.samples)
        loss, _ = self.distiller.parse_losses(losses)
        loss.backward()

    def times(self, repeat: int) -> dict[str, list[float]]:
        """Seconds of the three steps in turn, after one of each that is not counted."""
        device = str(self.inputs.device)
        steps = (self.teacher_forward, self.student_step, self.distillation_step)
        times: dict[str, list[float]] = {step.__name__: [] for step in steps}
        for step in steps:
            step()
        for _ in range(repeat):
            for step in steps:
                self.distiller.zero_grad(set_to_none=True)
                times[step.__name__].append(seconds(step, device))
        return times


def overhead(times: dict[str, list[float]]) -> float:
    """Percent of a distillation step that is neither teacher nor student."""
    # The difference within each round: a slow moment of the machine affects all three.
    shares = [(c - a - b) / c for a, b, c in zip(*times.values(), strict=True)]
    return 100 * statistics.median(shares)


def run(args: argparse.Namespace) -> None:
    device = str(choose_device(args.device or 'auto'))
    sizes = (args.batch_size, args.image_size)
    distillation = Distillation(args.config, *sizes, device, args.cfg_options)
    times = distillation.times(args.repeat)
    for name, values in times.items():
        print(f'{name:18s} {1000 * statistics.median(values):9.1f} ms')
    print(
        f'overhead           {overhead(times):9.1f} % of the step, '
        f'median of {args.repeat} ({torch.get_num_threads()} threads, '
        f'batch {args.batch_size}, {args.image_size} px, {device})'
    )


def _labels(count: int) -> list:
    from mmpretrain.structures import DataSample

    return [DataSample().set_gt_label(i % 10) for i in range(count)]
