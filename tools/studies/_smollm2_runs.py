"""What ``smollm2.py`` does: convert, train and measure what is missing, report."""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from _process import call_logged
from _smollm2_page import write_page
from _smollm2_plan import (
    BLOCK,
    CALIBRATION_STEPS,
    CALIBRATION_TOKENS,
    CONTEXTS,
    PROMPT,
    Run,
    config_of,
    plan,
    text_of,
    tokens_of,
)
from _tables import add_rows, read_table
from transformers import DynamicCache

from mmtransmamba.apis.experiment import run_experiment
from mmtransmamba.apis.lm_benchmarks import evaluate_lm
from mmtransmamba.models.folders.lm import load_lm
from mmtransmamba.models.language.cache_names import as_argument
from mmtransmamba.models.teachers.fingerprints import file_hash
from mmtransmamba.registry import DATASETS
from mmtransmamba.transfer.convert import convert
from mmtransmamba.transfer.convert.calibration import BATCH
from mmtransmamba.transfer.convert.proof import prove
from mmtransmamba.utils.claims import claim
from mmtransmamba.utils.processors import load_tokenizer
from mmtransmamba.utils.text_files import read_json
from mmtransmamba.visualization.records import read_records

TASKS = ('lambada_openai', 'piqa', 'arc_easy_val', 'openbookqa_val')
BLOCKS = 12
"""Blocks of the validation text that are measured on, evenly spread."""
STEPS = 16
"""Tokens that are generated to measure the speed."""
QUALITY = (
    *('key', 'share', 'mixer', 'init', 'seed', 'calibration_tokens', 'tokens'),
    *('kl_before', 'agreement_before', 'perplexity_before'),
    *('kl', 'agreement', 'perplexity', 'zero_shot', 'convert_seconds', 'seconds'),
    'branch_share',
)
SPEED = ('key', 'share', 'mixer', *(f'tokens_per_second_{n}' for n in CONTEXTS))
CURVE = ('key', 'tokens', 'kl')
"""Columns of the curves: tokens read so far, those of the calibration included, and the
KL in the training, a mean over the steps since the point before."""
RECALL = ('key', 'share', 'mixer', 'init', 'task', 'length', 'questions')
RECALL += ('acc', 'generated')
RECALL_LENGTHS = {'passkey': (64, 256, 1024), 'mqar': (4, 16)}
RECALL_QUESTIONS = 16
SAMPLE = ('key', 'share', 'mixer', 'init', 'text')
SAMPLE_TOKENS = 48
SAMPLE_FILE = 'samples.csv'
TEACHER_FILE = 'teacher.json'
CURVE_FILE = 'curves.csv'


def table_of(run: Run, args: argparse.Namespace) -> tuple[Path, tuple[str, ...]]:
    """File and columns of the table that a run belongs to."""
    name, columns = {
        'quality': ('runs.csv', QUALITY),
        'recall': ('recall.csv', RECALL),
        'speed': ('decode.csv', SPEED),
    }[run.measures]
    return args.out / 'smollm2' / name, columns


def validation(args: argparse.Namespace) -> list[torch.Tensor]:
    """Blocks ``[1, L]`` of text that no student has seen."""
    text = DATASETS.build(text_of(args, 'val.jsonl'))
    step = max(1, len(text) // BLOCKS)
    return [text[i]['input_ids'][None] for i in range(0, len(text), step)][:BLOCKS]


def calibration(args: argparse.Namespace) -> list[torch.Tensor]:
    """Batches from the end of the text of the training."""
    text = DATASETS.build(text_of(args, 'train_*.jsonl'))
    count = min(len(text), CALIBRATION_TOKENS // text.block_size)
    blocks = [text[len(text) - 1 - i]['input_ids'] for i in range(count)]
    return list(torch.stack(blocks).split(BATCH))


def converted(run: Run, args: argparse.Namespace) -> tuple[Path, float]:
    """Folder of the student before its training, and the time that took."""
    folder = args.work_dir / run.key / 'converted'
    seconds = folder.with_name('seconds.json')
    if not (seconds.is_file() and folder.is_dir()):
        fit = {}
        if run.calibrates:
            fit = dict(
                calibration=calibration(args), calibration_steps=CALIBRATION_STEPS
            )
        start = time.perf_counter()
        student, report = convert(
            args.teacher,
            'evenly',
            run.share / 100,
            run.init,
            mixer=run.mixer_fields,
            seed=args.seed,
            **fit,
        )
        took = time.perf_counter() - start
        student.save_pretrained(folder)
        load_tokenizer(args.teacher).save_pretrained(folder)
        report.save(folder.with_name('conversion_report.json'))
        seconds.write_text(json.dumps(took))
    return folder, read_json(seconds)


def scores(model: torch.nn.Module, args: argparse.Namespace) -> float:
    """Mean accuracy on the benchmarks, in percent."""
    pair = (model, load_tokenizer(args.teacher))
    comparison = evaluate_lm([pair], TASKS, args.data / 'lm_eval', args.limit, 2048)
    return comparison.average('model 0')


def scalars(run: Run, args: argparse.Namespace) -> list[dict[str, float]]:
    """What a run's training has logged, parts that were interrupted included."""
    return read_records(args.work_dir / run.key / 'training')[0]


def curve(run: Run, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The KL in a run's training."""
    calibrated, _ = tokens_of(run, args.tokens)
    points = {
        point['step']: point['loss_kl']
        for point in scalars(run, args)
        if 'loss_kl' in point
    }
    return [
        dict(key=run.key, tokens=calibrated + step * BLOCK, kl=f'{kl:.4f}')
        for step, kl in sorted(points.items())
    ]


def branch_share(run: Run, args: argparse.Namespace) -> str:
    """The linear branch's last share of the output, a mean over the layers.

    Returns:
        Empty for a mixer without branches.
    """
    last = {
        name: value
        for point in scalars(run, args)
        for name, value in point.items()
        if name.startswith('branch_share/')
    }
    return f'{statistics.fmean(last.values()):.4f}' if last else ''


def quality(run: Run, args: argparse.Namespace) -> dict[str, Any]:
    """Convert and train a student, and measure it before and after."""
    folder, convert_seconds = converted(run, args)
    work_dir = args.work_dir / run.key / 'training'
    result = run_experiment(config_of(run, args, str(folder)), work_dir)
    teacher, text = load_lm(args.teacher).eval(), validation(args)
    before = prove(load_lm(folder).eval(), teacher, text)
    student = load_lm(work_dir / 'student').eval()
    after = prove(student, teacher, text)
    calibrated, trained = tokens_of(run, args.tokens)
    row = dict(
        key=run.key,
        share=run.share,
        mixer=run.mixer,
        init=run.init,
        seed=args.seed,
        calibration_tokens=calibrated,
        tokens=trained,
        zero_shot=f'{scores(student, args):.2f}',
        convert_seconds=f'{convert_seconds:.0f}',
        seconds='' if result.seconds is None else f'{result.seconds:.0f}',
        branch_share=branch_share(run, args),
    )
    for name in ('kl', 'agreement', 'perplexity'):
        row[f'{name}_before'] = f'{getattr(before, name):.4f}'
        row[name] = f'{getattr(after, name):.4f}'
    return row


@torch.no_grad()
def speed(run: Run, args: argparse.Namespace) -> dict[str, Any]:
    """Tokens per second of greedy generation after contexts of several lengths."""
    model = load_lm(args.teacher).eval()
    if run.share:
        share = run.share / 100
        model, _ = convert(model, 'evenly', share, mixer=run.mixer_fields)
    row = dict(key=run.key, share=run.share, mixer=run.mixer)
    generator = torch.Generator().manual_seed(args.seed)
    for context in CONTEXTS:
        ids = torch.randint(
            0, model.config.vocab_size, (1, context), generator=generator
        )
        cache = DynamicCache(config=model.config)
        for part in ids.split(1024, dim=1):
            out = model(part, logits_to_keep=1, use_cache=True, **as_argument(cache))
        start = time.perf_counter()
        for _ in range(STEPS):
            token = out.logits[:, -1:].argmax(-1)
            out = model(token, use_cache=True, **as_argument(cache))
        took = time.perf_counter() - start
        row[f'tokens_per_second_{context}'] = f'{STEPS / took:.2f}'
    return row


def trained(run: Run, args: argparse.Namespace) -> torch.nn.Module:
    """The student that a run of the quality left, or the teacher.

    Raises:
        SystemExit: It has not been trained yet.
    """
    if not run.share:
        return load_lm(args.teacher).eval()
    key = replace(run, measures='quality').key
    folder = args.work_dir / key / 'training' / 'student'
    if not folder.is_dir():
        raise SystemExit(
            f'smollm2.py: error: {run.key} needs {folder}; do the part decisive first'
        )
    return load_lm(folder).eval()


def recall(run: Run, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Answers to questions about the prompt, by its length."""
    pair = (trained(run, args), load_tokenizer(args.teacher))
    known = dict(key=run.key, share=run.share, mixer=run.mixer, init=run.init)
    rows = []
    for task, lengths in RECALL_LENGTHS.items():
        result = evaluate_lm(
            [pair], [task], None, RECALL_QUESTIONS, 2048, lengths=lengths
        ).results['model 0'][task]
        for length, scores in result.by_length.items():
            found = {n: f'{100 * scores[n].value:.1f}' for n in ('acc', 'generated')}
            rows.append(
                known
                | dict(task=task, length=length, questions=RECALL_QUESTIONS)
                | found
            )
    return rows


@torch.no_grad()
def sample(run: Run, args: argparse.Namespace) -> dict[str, Any]:
    """What a student writes after a prompt, the likeliest token each time."""
    tokenizer = load_tokenizer(args.teacher)
    prompt = tokenizer(PROMPT, return_tensors='pt')
    ids = trained(run, args).generate(
        **prompt,
        max_new_tokens=SAMPLE_TOKENS,
        min_new_tokens=SAMPLE_TOKENS,
        do_sample=False,
    )
    text = tokenizer.decode(ids[0, prompt.input_ids.shape[1] :])
    return dict(
        key=run.key,
        share=run.share,
        mixer=run.mixer,
        init=run.init,
        text=' '.join(text.split()),
    )


def measure_teacher(args: argparse.Namespace) -> None:
    """Perplexity and benchmarks of the teacher, once."""
    path = args.out / 'smollm2' / TEACHER_FILE
    if path.is_file():
        return
    teacher = load_lm(args.teacher).eval()
    proof = prove(teacher, teacher, validation(args))
    path.parent.mkdir(parents=True, exist_ok=True)
    record = dict(
        perplexity=proof.perplexity,
        text_tokens=proof.tokens,
        zero_shot=scores(teacher, args),
        tasks=TASKS,
        limit=args.limit,
    )
    path.write_text(json.dumps(record, indent=1) + '\n')


def in_process(run: Run, args: argparse.Namespace) -> None:
    """Do a run in a process of its own, whose output goes to a log file.

    Raises:
        SystemExit: It failed.
    """
    arguments = [str(args.teacher), '--one', run.key, '--data', str(args.data)]
    arguments += ['--work-dir', str(args.work_dir), '--out', str(args.out)]
    for name in ('threads', 'seed', 'tokens', 'limit'):
        arguments += [f'--{name}', str(getattr(args, name))]
    call_logged('smollm2.py', arguments, run.key, args)


def measured(run: Run, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Do a run; what has tables of its own is added there."""
    folder = args.out / 'smollm2'
    if run.measures == 'speed':
        return [speed(run, args)]
    if run.measures == 'recall':
        add_rows(folder / SAMPLE_FILE, SAMPLE, sample(run, args))
        return recall(run, args)
    row = quality(run, args)
    add_rows(folder / CURVE_FILE, CURVE, *curve(run, args))
    return [row]


def run(args: argparse.Namespace, whole: list[Run]) -> None:
    """Those runs of some parts of the study that are missing, or one of them.

    Args:
        whole: All runs of the study, for the page.
    """
    torch.set_num_threads(args.threads)
    folder = args.out / 'smollm2'
    weights = sorted(Path(args.teacher).glob('*.safetensors'))
    settings = dict(
        teacher='+'.join(file_hash(path)[:16] for path in weights),
        seed=args.seed,
        tokens=args.tokens,
        limit=args.limit,
    )
    claim(folder / 'settings.json', settings, '*.csv', 'tables')
    runs = plan(args.parts)
    if args.one is not None:
        (wanted,) = (r for r in runs if r.key == args.one)
        rows = measured(wanted, args)
        add_rows(*table_of(wanted, args), *rows)
        return
    missing = [
        r
        for r in runs
        if r.key not in {row['key'] for row in read_table(table_of(r, args)[0])}
    ][: args.max_runs]
    if missing:
        args.work_dir.mkdir(parents=True, exist_ok=True)
        measure_teacher(args)
    page(args, whole)
    for number, each in enumerate(missing, 1):
        in_process(each, args)
        # What the row came from is kept, checkpoints are needed to go on alone.
        for checkpoint in (args.work_dir / each.key).rglob('*.pth'):
            checkpoint.unlink()
        shutil.rmtree(args.work_dir / each.key / 'converted', ignore_errors=True)
        page(args, whole)
        print(f'{each.key}: done, {number} of {len(missing)}', flush=True)


def page(args: argparse.Namespace, runs: list[Run]) -> None:
    """Write the page from the rows that there are."""
    folder = args.out / 'smollm2'
    teacher = folder / TEACHER_FILE
    write_page(
        args.out / 'smollm2.md',
        read_table(folder / 'runs.csv'),
        read_table(folder / 'decode.csv'),
        read_table(folder / CURVE_FILE),
        read_table(folder / 'recall.csv'),
        read_table(folder / SAMPLE_FILE),
        runs,
        read_json(teacher) if teacher.is_file() else None,
        args.tokens,
    )
