"""The runs of ``smollm2.py``, what decides first."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmtransmamba.apis.configs import read_config

BLOCK = 512
CALIBRATION_TOKENS = 8192
CALIBRATION_STEPS = 24
CONTEXTS = (128, 1024, 4096, 16384)
SHARES = (25, 50, 75, 100)
PROMPT = 'The keeper of the lighthouse climbed the stairs and'
WINDOW = dict(window=92, sinks=4)
"""As many numbers as Mamba-2's states: 9 heads of 64 x 64 are 96 keys and values of 3
key-value heads."""
BESIDE = dict(window=60, sinks=4)
"""The window that stands beside a state of that size in the same layer."""
WINDOWS = dict(SlidingWindow=WINDOW, WindowGatedDeltaNet=BESIDE)
BASE = Path(__file__).absolute().parents[2] / 'configs/language/stories260k/matvlm.py'


PREFIXES = {'quality': '', 'recall': 'recall_', 'speed': 'decode_'}


@dataclass(frozen=True)
class Run:
    """One student, or a measurement of one.

    Attributes:
        share: Percent of the layers that are converted, 0 for the teacher.
        mixer, init: See :class:`mmtransmamba.transfer.convert.Conversion`.
        measures: ``'quality'`` trains a student; ``'recall'`` asks a trained one, and
            ``'speed'`` times one that need not be.
        budgets: How many times the tokens of the other runs it has.
    """

    share: int
    mixer: str
    init: str
    measures: str = 'quality'
    budgets: int = 1

    @property
    def key(self) -> str:
        name = f'{self.share}_{self.mixer}_{self.init}'
        longer = '' if self.budgets == 1 else f'_{self.budgets}x'
        return PREFIXES[self.measures] + name + longer

    @property
    def calibrates(self) -> bool:
        return self.init == 'calibrate'

    @property
    def mixer_fields(self) -> dict[str, Any]:
        return dict(type=self.mixer, **WINDOWS.get(self.mixer, {}))


KINDS = (
    *(('Mamba2', 'mimic'), ('Mamba2', 'calibrate'), ('GatedDeltaNet', 'calibrate')),
    *(('SlidingWindow', 'mimic'), ('GatedDeltaNet', 'mimic'), ('Mamba2', 'vkq')),
    *(('WindowGatedDeltaNet', 'calibrate'), ('KDA', 'calibrate'), ('KDA', 'mimic')),
)
"""Mixers and initialisations, the most interesting first."""
SHARED = (
    *(('GatedDeltaNet', 'calibrate'), ('SlidingWindow', 'mimic')),
    ('WindowGatedDeltaNet', 'calibrate'),
)
"""Those of other shares of the layers: the best linear one, the window, and both."""
LONG = ('GatedDeltaNet', 'calibrate')
LONGER = (4, 26)
"""Times the budget of the other runs that the best of them gets: a million tokens by
26 times the default."""


def plan(parts: list[str]) -> list[Run]:
    """The runs of some parts of the study, in the order in which they are done."""
    runs = []
    for part in parts:
        if part == 'decisive':
            runs += [Run(50, *kind) for kind in KINDS]
        elif part == 'long':
            runs += [Run(50, *LONG, budgets=budgets) for budgets in LONGER]
        elif part == 'shares':
            others = [share for share in (100, 25, 75) if share in SHARES]
            runs += [Run(share, *kind) for share in others for kind in SHARED]
        elif part == 'recall':
            runs.append(Run(0, 'attention', 'none', 'recall'))
            runs += [Run(50, *kind, 'recall') for kind in KINDS]
        else:
            mixers = dict.fromkeys(mixer for mixer, _ in KINDS)
            runs.append(Run(0, 'attention', 'none', 'speed'))
            runs += [
                Run(share, mixer, 'mimic', 'speed')
                for share in (50, 100)
                for mixer in mixers
            ]
    return runs


def tokens_of(run: Run, tokens: int) -> tuple[int, int]:
    """Tokens of a run's calibration, and of its training."""
    calibration = CALIBRATION_TOKENS if run.calibrates else 0
    return calibration, max(run.budgets * tokens - calibration, BLOCK)


def config_of(run: Run, args: argparse.Namespace, student: str) -> Config:
    """The complete config of a run's training: MaTVLM's single stage."""
    cfg = read_config(BASE)
    _, tokens = tokens_of(run, args.tokens)
    cfg.model.student = dict(type='mmtransmamba.CausalLM', path=student)
    cfg.model.teacher = dict(type='mmtransmamba.CausalLM', path=str(args.teacher))
    cfg.model.requires = f'init:{run.init}'
    cfg.train_dataloader.batch_size = 1
    cfg.train_dataloader.dataset = text_of(args, 'train_*.jsonl')
    cfg.optim_wrapper.optimizer.lr = 5e-4
    steps = tokens // BLOCK
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=steps, val_interval=10**9)
    interval = min(10, steps)
    cfg.merge_from_dict(
        {
            'randomness.seed': args.seed,
            'default_hooks.checkpoint.interval': 20,
            'default_hooks.checkpoint.max_keep_ckpts': 1,
            'default_hooks.logger.interval': interval,
        }
    )
    if run.mixer == 'WindowGatedDeltaNet':
        cfg.custom_hooks.append(
            dict(type='mmtransmamba.BranchShareHook', interval=interval)
        )
    for split in ('val', 'test'):
        for name in ('cfg', 'dataloader', 'evaluator'):
            cfg[f'{split}_{name}'] = None
    return cfg


def text_of(args: argparse.Namespace, files: str) -> dict[str, Any]:
    """Config of the text of some files in blocks."""
    return dict(
        type='mmtransmamba.PackedText',
        files=str(args.data / 'text' / files),
        tokenizer=str(args.teacher),
        block_size=BLOCK,
        cache_dir=str(args.work_dir / 'packed'),
    )
