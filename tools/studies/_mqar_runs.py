"""What ``mqar.py`` does: train teachers, convert, distil, measure, report."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from _mqar_page import write_page
from _mqar_plan import (
    BATCH,
    HEADS,
    HIDDEN,
    LAYERS,
    LENGTH,
    PAIRS,
    TEACHER_RATES,
    TEST_FIRST,
    TESTED,
    VOCAB,
    Run,
    plan,
)
from _tables import add_rows, read_table
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from mmtransmamba.datasets import MQARTokens, collate_tokens
from mmtransmamba.models.folders.lm import load_lm
from mmtransmamba.transfer import LanguageDistiller
from mmtransmamba.transfer.convert import convert
from mmtransmamba.utils.claims import claim

SOLVED = 0.995
"""Accuracy on test sequences at which a teacher's training ends."""
CHECK = 100
"""Steps of a teacher between two tests."""
TERMS = dict(
    kl=dict(type='mmtransmamba.TokenKLTerm'),
    layer=dict(type='mmtransmamba.ForcedLayerTerm'),
)
STUDENTS = (
    *('key', 'mixer', 'head_dim', 'state', 'rate', 'seed', 'steps'),
    *('before', 'accuracy', 'teacher', 'seconds'),
)
TEACHERS = ('key', 'head_dim', 'seed', 'rate', 'steps', 'accuracy', 'seconds')


def batch(first: int, size: int, seed: int) -> dict[str, Tensor]:
    """Sequences from an index on."""
    return collate_tokens(list(MQARTokens(size, LENGTH, PAIRS, VOCAB, seed, first)))


@torch.no_grad()
def accuracy(model: nn.Module, seed: int) -> float:
    """Share of the queries in test sequences that are answered correctly."""
    test = batch(TEST_FIRST, TESTED, seed)
    model.eval()
    answers = model(test['input_ids'], use_cache=False).logits[:, :-1].argmax(-1)
    asked = test['labels'][:, 1:] >= 0
    return float((answers == test['labels'][:, 1:])[asked].double().mean())


def optimizer_of(model: nn.Module, rate: float, steps: int):
    """AdamW with a warm-up of 5 % and a linear decay to a tenth of the rate."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    warmup = max(1, steps // 20)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, max(0.1, 1 - step / steps))
    )


def train(model: nn.Module, loss_of, rate: float, steps: int, seed: int):
    """Train, and yield the number of each finished step."""
    optimizer, schedule = optimizer_of(model, rate, steps)
    for step in range(steps):
        model.train()
        loss = loss_of(batch(step * BATCH, BATCH, seed))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        yield step + 1


def teacher_of(run: Run, args: argparse.Namespace) -> tuple[nn.Module, float]:
    """The teacher of a run, trained at its first use, and its accuracy.

    Raises:
        SystemExit: It did not learn the task.
    """
    folder = args.work_dir / f'teacher_k{run.head_dim}_seed{run.seed}'
    table = args.out / 'mqar' / 'teachers.csv'
    known = {row['key']: row for row in read_table(table)}
    if folder.is_dir() and folder.name in known:
        return load_lm(folder).eval(), float(known[folder.name]['accuracy'])
    start = time.perf_counter()
    for rate in TEACHER_RATES:
        model, step, score = train_teacher(run, rate, args.teacher_steps)
        if score >= SOLVED:
            break
    else:
        raise SystemExit(
            f'mqar.py: error: {folder.name} answers {100 * score:.1f} % after '
            f'{args.teacher_steps} steps at each of the rates {TEACHER_RATES}; a '
            'student of it would show nothing'
        )
    model.save_pretrained(folder)
    row = dict(
        key=folder.name,
        head_dim=run.head_dim,
        seed=run.seed,
        rate=f'{rate:g}',
        steps=step,
        accuracy=f'{score:.4f}',
        seconds=f'{time.perf_counter() - start:.0f}',
    )
    add_rows(table, TEACHERS, row)
    return model.eval(), score


def train_teacher(run: Run, rate: float, steps: int) -> tuple[nn.Module, int, float]:
    """A teacher, the step at which its training ended, and its accuracy there."""
    torch.manual_seed(run.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=HIDDEN,
            intermediate_size=2 * HIDDEN,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            head_dim=run.head_dim,
            max_position_embeddings=4 * LENGTH,
            initializer_range=0.05,
        )
    )

    def loss_of(data: dict[str, Tensor]) -> Tensor:
        return model(**data).loss

    score = 0.0
    for step in train(model, loss_of, rate, steps, run.seed):
        if step % CHECK == 0 or step == steps:
            score = accuracy(model, run.seed)
            print(
                f'teacher, K = {run.head_dim}, seed {run.seed}, rate {rate:g}: '
                f'step {step}, {score:.3f}',
                flush=True,
            )
            if score >= SOLVED:
                break
    return model, step, score


def distil(run: Run, args: argparse.Namespace) -> dict[str, Any]:
    """Convert, distil and measure a student; its row."""
    teacher, score = teacher_of(run, args)
    torch.manual_seed(run.seed)
    student, _ = convert(teacher, 'evenly', 1.0, mixer=run.fields, seed=run.seed)
    before = accuracy(student, run.seed)
    # Everything is trained: a window has no parameters of its own.
    distiller = LanguageDistiller(student, teacher, TERMS)

    def loss_of(data: dict[str, Tensor]) -> Tensor:
        return sum(distiller(**data, mode='loss').values())

    start = time.perf_counter()
    for _ in train(distiller, loss_of, run.rate, args.steps, run.seed):
        pass
    return dict(
        key=run.key,
        mixer=run.mixer,
        head_dim=run.head_dim,
        state=run.state,
        rate=f'{run.rate:g}',
        seed=run.seed,
        steps=args.steps,
        before=f'{before:.4f}',
        accuracy=f'{accuracy(student, run.seed):.4f}',
        teacher=f'{score:.4f}',
        seconds=f'{time.perf_counter() - start:.0f}',
    )


def run(args: argparse.Namespace) -> None:
    """All students that have no row yet."""
    torch.set_num_threads(args.threads)
    folder = args.out / 'mqar'
    settings = dict(steps=args.steps, teacher_steps=args.teacher_steps)
    claim(folder / 'settings.json', settings, '*.csv', 'tables')
    runs = plan(args.head_dims, args.seeds)
    table: Path = folder / 'students.csv'
    done = {row['key'] for row in read_table(table)}
    missing = [r for r in runs if r.key not in done][: args.max_runs]
    args.work_dir.mkdir(parents=True, exist_ok=True)
    for number, each in enumerate(missing, 1):
        row = distil(each, args)
        add_rows(table, STUDENTS, row)
        print(
            f'{each.key}: {row["accuracy"]}, {number} of {len(missing)}, '
            f'{row["seconds"]} s',
            flush=True,
        )
        write_page(args.out, runs, args.teacher_steps)
    write_page(args.out, runs, args.teacher_steps)
