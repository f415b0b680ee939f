"""Trainings with FSDP in several processes, and the same trainings in one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from language_models import make_hybrid, make_teacher, tokens
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from tiny_distillers import ADAPTIVE, DIRECTION, FEATURE, LAYER, LOGITS, batch, build
from tiny_llavas import enlarge, learning_batch
from tiny_vlms import tiny_llava
from torch import nn
from torch.utils.data import DataLoader

from mmtransmamba.compat import is_sharded
from mmtransmamba.engine.hooks import CheckpointHook, SaveStudentHook
from mmtransmamba.engine.optimizers import AutocastOptimWrapper
from mmtransmamba.engine.sharding import FullyShardedRunner
from mmtransmamba.transfer import LanguageDistiller
from mmtransmamba.transfer.convert import convert

RANKS = 2
STEPS = 4
LANGUAGE_TERMS = dict(
    kl=dict(type='mmtransmamba.TokenKLTerm'),
    layer=dict(type='mmtransmamba.ForcedLayerTerm'),
    hidden=dict(
        type='mmtransmamba.HiddenStatesTerm',
        weighting=dict(type='mmtransmamba.AdaptiveWeighting', hidden_dim=4),
    ),
)


def classification() -> tuple[nn.Module, list[dict[str, Any]]]:
    """A distiller, and a batch for each process."""
    layer = dict(LAYER, weighting=ADAPTIVE)
    terms = dict(logits=LOGITS, feature=FEATURE, layer=layer, direction=DIRECTION)
    batches = []
    for size in (3, 2):
        inputs, samples = batch(size)
        inputs = inputs * 60 + 100 + size
        batches.append(dict(inputs=inputs, data_samples=samples))
    return build(terms), batches


def language() -> tuple[nn.Module, list[dict[str, Any]]]:
    teacher = make_teacher()
    student = make_hybrid(teacher)
    long, short = tokens(), tokens(batch=1, length=5, seed=1)
    return LanguageDistiller(student, teacher, LANGUAGE_TERMS), [long, short]


def mixers() -> tuple[nn.Module, list[dict[str, Any]]]:
    """A distiller whose term calls mixers, and never the student as a whole."""
    teacher = make_teacher()
    student = make_hybrid(teacher)
    terms = dict(mixer=dict(type='mmtransmamba.MixerOutputTerm'))
    model = LanguageDistiller(student, teacher, terms, trains=['ssm', 'qkv'])
    return model, [tokens(), tokens(batch=1, length=5, seed=1)]


def vision_language() -> tuple[nn.Module, list[dict[str, Any]]]:
    teacher = enlarge(tiny_llava())
    student, _ = convert(teacher, [1], init='vkq')
    terms = {key: LANGUAGE_TERMS[key] for key in ('kl', 'layer')}
    batches = [learning_batch((6, 6), images=1 - i, seed=i) for i in range(RANKS)]
    return LanguageDistiller(student, teacher, terms, 'matvlm'), batches


MODELS = dict(
    classification=classification,
    language=language,
    mixers=mixers,
    vision_language=vision_language,
)


class Losses(Hook):
    """Collects the losses of the steps."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if outputs:
            self.values.append(float(outputs['loss']))


def runner_of(
    kind: str,
    folder: Path,
    rank: int | None,
    steps: int = STEPS,
    resume: Path | None = None,
    start: int = 0,
    autocast: bool = False,
    optimizer: str = 'SGD',
    **wrapper: Any,
) -> Runner:
    """A Runner for one of the processes, or for one that has all batches itself.

    Args:
        kind: Key of :data:`MODELS`.
        folder: Its work directory.
        rank: Number of the process; None for one alone, which accumulates.
        steps: Steps of the optimizer, after those of ``resume``.
        resume: Checkpoint to go on from.
        start: Iterations of that checkpoint.
        autocast: Compute in bfloat16 where that is safe.
        optimizer: ``'SGD'`` or ``'AdamW'``.
        **wrapper: Arguments of the wrapper, FSDP's unless they have a type.
    """
    model, batches = MODELS[kind]()
    count = RANKS if rank is None else 1
    data = batches if rank is None else batches[rank : rank + 1]
    trained = [p for p in model.parameters() if p.requires_grad]
    if optimizer == 'SGD':
        made = torch.optim.SGD(trained, lr=0.05, momentum=0.9)
    else:
        made = torch.optim.AdamW(trained, lr=0.01, weight_decay=0.1)
    hooks = [Losses()]
    if kind != 'classification':
        hooks.append(SaveStudentHook())
    options: dict[str, Any] = {}
    if rank is not None:
        options['launcher'] = 'pytorch'
        options['cfg'] = dict(
            model_wrapper_cfg=dict(type='mmtransmamba.FullyShardedModel') | wrapper
        )
    return (Runner if rank is None else FullyShardedRunner)(
        model,
        str(folder),
        train_dataloader=DataLoader(
            data * steps, batch_size=1, collate_fn=lambda batches: batches[0]
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=start + steps * count),
        optim_wrapper=(AutocastOptimWrapper if autocast else OptimWrapper)(
            optimizer=made, accumulative_counts=count, clip_grad=dict(max_norm=1.0)
        ),
        default_hooks=dict(checkpoint=CheckpointHook(interval=count, by_epoch=False)),
        custom_hooks=hooks,
        resume=resume is not None,
        load_from=None if resume is None else str(resume),
        default_scope='mmpretrain',
        log_level='ERROR',
        experiment_name=f'{folder.name}-{kind}-{rank}',
        randomness=dict(seed=0),
        **options,
    )


def losses_of(runner: Runner) -> list[float]:
    return next(hook for hook in runner.hooks if isinstance(hook, Losses)).values


class Dtypes(Hook):
    """Collects the dtypes that a forward pass computes with, by name of parameter."""

    def __init__(self) -> None:
        self.found: dict[str, torch.dtype] = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        model = runner.model.module

        def look(module, args):
            own = module._parameters.items()
            self.found |= {
                f'{type(module).__name__}.{n}': p.dtype for n, p in own if p is not None
            }

        for module in model.student.modules():
            module.register_forward_pre_hook(look)


def run(rank: int, folder: str, kinds: tuple[str, ...] = ()) -> None:
    """One process of all trainings; it saves what it has looked at."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(RANKS), LOCAL_RANK=str(rank))
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=RANKS
    )
    place, found = Path(folder), {}
    for kind in kinds or MODELS:
        runner = runner_of(kind, place / f'{kind}-two', rank)
        runner.train()
        found[kind] = losses_of(runner)
        found[f'{kind}, parameters'] = {
            name: parameter.to_local().numel() if is_sharded(parameter) else None
            for name, parameter in runner.model.module.named_parameters()
        }
    for kind in ('classification', 'language'):
        runner = runner_of(kind, place / f'{kind}-shard', rank, teacher='shard')
        runner.train()
        found[f'{kind}, teacher'] = losses_of(runner)
        half = (
            dict(autocast=True) if kind == 'classification' else dict(dtype='bfloat16')
        )
        runner = runner_of(kind, place / f'{kind}-half', rank, **half)
        dtypes = Dtypes()
        runner.register_hook(dtypes)
        runner.train()
        found[f'{kind}, half'] = losses_of(runner)
        found[f'{kind}, dtypes'] = dtypes.found
    for name in ('one', 'two'):
        start = 2 * RANKS if name == 'one' else 2
        runner = runner_of(
            'language',
            place / f'language-{name}-resumed',
            rank,
            steps=2,
            resume=place / f'language-{name}' / f'iter_{start}.pth',
            start=start,
        )
        runner.train()
    torch.save(found, place / f'{rank}.pth')
    torch.distributed.destroy_process_group()
