"""Implementation of ``teacher_cache.py``."""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from _distillation_overhead import Distillation
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from mmtransmamba.apis.token_recording import record_tokens
from mmtransmamba.datasets.token_collate import collate_tokens, token_sample
from mmtransmamba.models.teachers.cached_teacher import CachedTeacher
from mmtransmamba.models.teachers.recorded import RECORD
from mmtransmamba.transfer import LanguageDistiller
from mmtransmamba.transfer.convert import convert

LLAMA = dict(
    vocab_size=4096,
    hidden_size=256,
    intermediate_size=688,
    num_hidden_layers=6,
    num_attention_heads=8,
    tie_word_embeddings=True,
)
TERMS = dict(kl=dict(type='mmtransmamba.TokenKLTerm'))

Step = Callable[[], Tensor]


def run(args: argparse.Namespace) -> None:
    for case in args.cases:
        with tempfile.TemporaryDirectory() as folder:
            steps = images(args) if case == 'images' else language(args, folder)
            times = medians(steps, args.repeat)
        saving = 100 * (1 - times[1] / times[0])
        print(
            f'{case:8s} | teacher runs {times[0]:.2f} s | recorded {times[1]:.2f} s | '
            f'{saving:.0f} % less'
        )
    print(
        f'processor time of a step, medians of {args.repeat}, batch {args.batch_size}, '
        f'{torch.get_num_threads()} threads, PyTorch {torch.__version__}'
    )


def medians(steps: tuple[Step, ...], repeat: int) -> list[float]:
    """Processor seconds of each step and its gradient, after one that is not counted.

    Args:
        steps: What computes a loss; they take turns.
        repeat: Turns.
    """
    times: list[list[float]] = [[] for _ in steps]
    for turn in range(repeat + 1):
        for step, found in zip(steps, times, strict=True):
            start = time.process_time()
            step().backward()
            if turn:
                found.append(time.process_time() - start)
    return [statistics.median(found) for found in times]


def language(args: argparse.Namespace, folder: str) -> tuple[Step, ...]:
    """Steps of a hybrid, half of whose layers are Mamba, with KL to a Llama.

    ``folder`` is for the recording.
    """
    torch.manual_seed(0)
    teacher = LlamaForCausalLM(LlamaConfig(**LLAMA))
    layers = range(0, LLAMA['num_hidden_layers'], 2)
    student, _ = convert(teacher, list(layers), init='mimic')
    shape = args.batch_size, args.tokens
    samples = [token_sample(x) for x in torch.randint(LLAMA['vocab_size'], shape)]
    record_tokens(samples, teacher, folder, k=args.k)
    return tuple(
        _step(
            LanguageDistiller(student, source, TERMS, compare=False).train(),
            **collate_tokens(samples),
        )
        for source in (teacher, CachedTeacher(folder))
    )


def images(args: argparse.Namespace) -> tuple[Step, ...]:
    """Steps of a config's distiller, whose images are not mixed."""
    sizes = args.batch_size, args.image_size
    options = {'model.student.train_cfg': None} | (args.cfg_options or {})
    made = Distillation(args.config, *sizes, 'cpu', options)
    samples = [sample.clone() for sample in made.samples]
    for sample, record in zip(samples, _records(made), strict=True):
        sample.set_metainfo({RECORD: record})
    return tuple(
        _step(made.distiller, inputs=made.inputs, data_samples=given)
        for given in (made.samples, samples)
    )


@torch.no_grad()
def _records(made: Distillation) -> list[dict[str, Any]]:
    """The teacher's outputs for each image, as ``record_views`` stores them."""
    distiller = made.distiller
    output = distiller.teacher(distiller.teacher_images(made.inputs))
    arrays = dict(logits=output.logits, feature=output.feature)
    for i, layer in enumerate(output.layers):
        arrays[f'layer_{i}'] = layer.tokens.unflatten(1, layer.grid)
    return [
        {name: values[i].numpy() for name, values in arrays.items()}
        for i in range(len(made.inputs))
    ]


def _step(distiller: nn.Module, **batch: Any) -> Step:
    def step() -> Tensor:
        distiller.zero_grad(set_to_none=True)
        losses = distiller(**batch, mode='loss')
        return distiller.parse_losses(losses)[0]

    return step
