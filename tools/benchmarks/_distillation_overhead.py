"""Implementation of ``distillation_overhead.py``."""

import argparse
import statistics
import time
from collections.abc import Callable

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


def run(args: argparse.Namespace) -> None:
    args.device = str(choose_device(args.device or 'auto'))
    config = read_config(args.config)
    if 'teacher' not in config.get('model', {}):
        raise ValueError(
            f'{args.config}: the model is not a distiller, as it has no teacher.'
        )
    # Random weights take the same time as trained ones.
    config.model.teacher.checkpoint = 'random'
    override(config, args.cfg_options)
    init_default_scope(config.get('default_scope', 'mmpretrain'))
    distiller = MODELS.build(
        dict(config.model, data_preprocessor=config.data_preprocessor)
    )
    distiller = distiller.to(args.device).train()
    student, teacher = distiller.student, distiller.teacher

    shape = (args.batch_size, 3, args.image_size, args.image_size)
    generator = torch.Generator().manual_seed(0)
    data = distiller.data_preprocessor(
        dict(
            inputs=list(torch.randint(0, 256, shape, generator=generator).byte()),
            data_samples=_labels(args.batch_size),
        ),
        training=True,
    )
    inputs, samples = data['inputs'], data['data_samples']

    def teacher_forward() -> None:
        teacher(distiller.teacher_images(inputs))

    def student_step() -> None:
        distiller.recorder.close()
        loss, _ = student.parse_losses(student.loss(inputs, samples))
        loss.backward()

    def distillation_step() -> None:
        loss, _ = distiller.parse_losses(distiller.loss(inputs, samples))
        loss.backward()

    steps = (teacher_forward, student_step, distillation_step)
    times: dict[str, list[float]] = {step.__name__: [] for step in steps}
    for step in steps:
        step()
    for _ in range(args.repeat):
        for step in steps:
            distiller.zero_grad(set_to_none=True)
            times[step.__name__].append(seconds(step, args.device))

    median = {name: statistics.median(values) for name, values in times.items()}
    for name, value in median.items():
        print(f'{name:18s} {1000 * value:9.1f} ms')
    # The difference within each round: a slow moment of the machine affects all three.
    shares = [(c - a - b) / c for a, b, c in zip(*times.values(), strict=True)]
    print(
        f'overhead           {100 * statistics.median(shares):9.1f} % of the step, '
        f'median of {args.repeat} ({torch.get_num_threads()} threads, '
        f'batch {args.batch_size}, {args.image_size} px, {args.device})'
    )


def _labels(count: int) -> list:
    from mmpretrain.structures import DataSample

    return [DataSample().set_gt_label(i % 10) for i in range(count)]
