"""Implementation of ``stories260k.py``: stages of students, and their tables."""

import argparse
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from _tables import add_rows, read_table
from transformers import AutoModelForCausalLM

import mmtransmamba.models.language  # noqa: F401  (makes hybrids known)
from mmtransmamba.apis.layer_selection import described
from mmtransmamba.models.language import choose_layers
from mmtransmamba.models.language.layer_choice import count_layers_of
from mmtransmamba.models.teachers.fingerprints import file_hash
from mmtransmamba.transfer.convert import Conversion, convert, rank_layers
from mmtransmamba.transfer.convert.head_choice import convert_heads
from mmtransmamba.utils.claims import claim
from mmtransmamba.utils.seed_statistics import mean_and_spread

_ROOT = Path(__file__).absolute().parents[2]
CONFIGS = _ROOT / 'configs/language/stories260k'
NUM_LAYERS = 5
HEADS = 4
"""Key-value heads of a layer."""
WINDOW = 32
CALIBRATION_STORIES = 192
"""Of 256 tokens each, 49,152 in all."""

RANKED = 32
"""Stories by which layers and heads are ranked."""
RANKINGS = ('greedy', 'gates', 'single')
HEAD_TABLES = ('heads', 'trained_heads')
TRAINED_COUNTS = (2, 4)
"""Numbers of layers whose share is also converted and trained."""

FIGURES = ('nll', 'ppl', 'kl')
COLUMNS = ('run', 'converted', *FIGURES)

POSITIONS = ('evenly', 'early', 'middle', 'late', 'interleaved_head')


@dataclass(frozen=True)
class Student:
    """A student: its layers, initialisation, mixer and the stages it goes through.

    The stages are numbers of mmMamba's, ``'M'`` and ``'T'``; ``scale`` makes the last
    one longer. The mixer is that of the initialisation if it is empty; ``norm`` is the
    field of this name. If ``heads`` are given, pairs of a layer and a key-value head,
    only these are converted. The seed draws fresh weights and the order of the stories.
    """

    layers: tuple[int, ...] = tuple(range(NUM_LAYERS))
    init: str = 'mimic'
    stages: str = '123'
    scale: int = 1
    mixer: str = ''
    norm: str = ''
    heads: tuple[tuple[int, int], ...] = ()
    seed: int = 0

    @property
    def converted(self) -> str:
        """What is converted, as a text."""
        return described(self.heads or self.layers)

    @property
    def name(self) -> str:
        layers = ''.join(map(str, self.layers))
        if self.heads:
            layers += '_heads' + '.'.join(f'{i}{head}' for i, head in self.heads)
        longer = '' if self.scale == 1 else f'_x{self.scale}'
        kind = ''.join(f'_{part}' for part in (self.mixer, self.norm) if part)
        return f'layers{layers}_{self.init}{kind}_{self.stages or "none"}{longer}'

    @property
    def before(self) -> 'Student':
        """The same student one stage earlier."""
        return replace(self, stages=self.stages[:-1])


@dataclass
class Table:
    """A table of the report: rows of a label and a student."""

    name: str
    title: str
    rows: list[tuple[str, Student]] = field(default_factory=list)

    def drawn_by(self, seed: int) -> 'Table':
        """The same table of another seed."""
        rows = [(label, replace(student, seed=seed)) for label, student in self.rows]
        return replace(self, rows=rows)


def layers_at(position: str, ratio: float) -> tuple[int, ...]:
    return tuple(choose_layers(NUM_LAYERS, position, ratio))


def tables(order: list[int]) -> list[Table]:
    """The tables, given the layers in the order of their cost."""
    pure = layers_at('evenly', 1.0)
    share = Table('share', 'Share of Mamba layers (evenly spread, stages 1, 2, 3)')
    # Five layers cannot be split at 50 %.
    for count in range(1, NUM_LAYERS + 1):
        layers = layers_at('evenly', count / NUM_LAYERS)
        share.rows.append((f'{len(layers)} of 5', Student(layers)))
    stages = Table('stages', 'Stages (pure Mamba; mmMamba, Table 3)')
    for which in ('', '1', '2', '3', '12', '13', '23', '123'):
        stages.rows.append((which or 'none', Student(pure, stages=which)))
    stages.rows.append(('3, three times as long', Student(pure, stages='3', scale=3)))
    inits = Table(
        'inits', 'Initialisation (pure Mamba, stages 1, 2, 3; mmMamba, Table 4)'
    )
    for label, init in (
        ('from scratch', 'scratch'),
        ('inherit q, k, v', 'inherit'),
        ('inherit + mimic', 'mimic'),
    ):
        inits.rows.append((label, Student(pure, init)))
    positions = Table('positions', 'Where two Mamba layers lie (stage 3 alone)')
    for position in POSITIONS:
        layers = layers_at(position, 0.4)
        positions.rows.append((position, Student(layers, stages='3')))
    count = count_layers_of(0.4, NUM_LAYERS)
    layers = tuple(sorted(order[:count]))
    positions.rows.append(('auto', Student(layers, stages='3')))
    recipes = Table('recipes', 'Recipes (two Mamba layers)')
    layers = layers_at('evenly', 0.4)
    recipes.rows = [
        ('mmMamba, stages 1, 2, 3', Student(layers)),
        ('MaTVLM, three times as long', Student(layers, 'vkq', 'M', 3)),
        ('TransMamba, three times as long', Student(layers, 'subclone', 'T', 3)),
    ]
    return [share, stages, inits, positions, recipes, *mixer_tables(), norm_table()]


def mixer_tables() -> list[Table]:
    """Mixers and initialisations, before training and after MaTVLM's stage."""
    before = Table('starts', 'Mixers before any training (two layers)')
    after = Table('mixers', "Mixers after MaTVLM's stage (two layers)")
    layers = layers_at('evenly', 0.4)
    kinds = [
        (f'{mixer}, {init}', mixer, init, '')
        for mixer in ('Mamba2', 'GatedDeltaNet', 'KDA')
        for init in ('mimic', 'vkq', 'calibrate')
    ]
    kinds.insert(2, ("Mamba2, vkq, norm 'gated'", 'Mamba2', 'vkq', 'gated'))
    kinds.append(('SlidingWindow of 32', 'SlidingWindow', 'mimic', ''))
    for label, mixer, init, norm in kinds:
        for table, stages in ((before, ''), (after, 'M')):
            student = Student(layers, init, stages, mixer=mixer, norm=norm)
            table.rows.append((label, student))
    return [before, after]


def head_tables(teacher: torch.nn.Module, data: Path, seed: int) -> list[Table]:
    """Layers and heads by several rankings, at the same size of the cache."""
    first, second = HEAD_TABLES
    before = Table(first, 'Layers or heads, before any training')
    after = Table(second, "Layers or heads, after MaTVLM's stage")
    batches = list(read_tokens(data / 'samples_train.npz')[:RANKED].split(8))
    rankings = [
        rank_layers(teacher, batches, Conversion(ranking=method, seed=seed), unit=unit)
        for unit, methods in (('layers', RANKINGS[:2]), ('heads', RANKINGS))
        for method in methods
    ]
    for count in range(1, NUM_LAYERS):
        for ranking in rankings:
            label = f'{100 - 20 * count} %, {ranking.unit}, {ranking.method}'
            student = Student(tuple(ranking.first(count)), stages='')
            if ranking.unit == 'heads':
                heads = ranking.first(count * HEADS)
                layers = tuple(sorted({layer for layer, _ in heads}))
                student = replace(student, layers=layers, heads=_pairs(heads))
            before.rows.append((label, student))
            if count in TRAINED_COUNTS and ranking.method != 'single':
                after.rows.append((label, replace(student, stages='M')))
    return [before, after]


def _pairs(heads: list[list[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((layer, head) for layer, head in heads)


def norm_table() -> Table:
    """Norms of Mamba-2's mixers after MaTVLM's stage; Granite has 'gated_per_head'."""
    table = Table('norms', "Norms of Mamba-2 after MaTVLM's stage (two layers)")
    layers = layers_at('evenly', 0.4)
    for init, norms in (
        ('vkq', ('gated_per_head', 'gated', 'per_head')),
        ('mimic', ('per_head', 'gated_per_head')),
        ('calibrate', ('gated_per_head', 'per_head')),
    ):
        for norm in norms:
            student = Student(layers, init, 'M', mixer='Mamba2', norm=norm)
            table.rows.append((f'{init}, {norm}', student))
    return table


class Trainings:
    """Runs stages, each once, several at a time."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.locks: dict[Student, threading.Lock] = {}
        self.guard = threading.Lock()

    def run(self, student: Student) -> str:
        """The name of a student that is trained."""
        return f'{student.name}_i{self.args.iters}_s{student.seed}'

    def folder(self, student: Student) -> Path:
        return self.args.work_dir / self.run(student)

    def finish(self, student: Student) -> None:
        """Convert a student and run those of its stages that are not finished."""
        with self.guard:
            lock = self.locks.setdefault(student, threading.Lock())
        with lock:
            if (self.folder(student) / 'student/config.json').is_file():
                return
            if student.stages:
                self.finish(student.before)
                self._train(student)
            else:
                self._convert(student)

    def _train(self, student: Student) -> None:
        stage = student.stages[-1]
        config = {'M': 'matvlm', 'T': 'transmamba'}.get(stage, f'mmmamba_stage{stage}')
        options = {
            'train_cfg.max_iters': self.args.iters * student.scale,
            'randomness.seed': student.seed,
            'default_hooks.checkpoint.interval': 10**6,
            'model.teacher.path': self.args.data / 'hf',
        }
        for split, name in (('train', 'train'), ('val', 'val'), ('test', 'val')):
            file = self.args.data / f'samples_{name}.npz'
            options[f'{split}_dataloader.dataset.file'] = file
        before = student.before
        options['model.student.path'] = self.folder(before) / 'student'
        options['model.student.convert'] = None
        last = f'stage{before.stages[-1]}' if before.stages else f'init:{student.init}'
        options['model.requires'] = last
        folder = self.folder(student)
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(_ROOT / 'tools/train.py')]
        command += [str(CONFIGS / f'{config}.py'), '--work-dir', str(folder)]
        command += ['--no-validate', '--cfg-options']
        command += [f'{key}={value}' for key, value in options.items()]
        threads = str(max(1, len(os.sched_getaffinity(0)) // self.args.jobs))
        environment = {'OMP_NUM_THREADS': threads} | os.environ
        with (folder / 'output.log').open('w') as log:
            done = subprocess.run(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        if done.returncode:
            raise SystemExit(f'{folder.name} failed, see {folder / "output.log"}.')
        print(f'trained {folder.name}', flush=True)

    def _convert(self, student: Student) -> None:
        # One at a time, because they share one random number generator.
        with self.guard:
            teacher, layers = self.args.data / 'hf', list(student.layers)
            options: dict[str, Any] = dict(init=student.init, seed=student.seed)
            if student.mixer:
                fields = {'norm': student.norm} if student.norm else {}
                if student.mixer == 'SlidingWindow':
                    fields |= dict(window=WINDOW)
                options['mixer'] = dict(type=student.mixer, **fields)
            if student.heads:
                asked = Conversion(mixer=options.pop('mixer', None), **options)
                asked = convert_heads(asked, student.heads, HEADS)
                options |= dict(mixer=asked.mixer, **asked.fields)
            if student.init == 'calibrate':
                stories = read_tokens(self.args.data / 'samples_train.npz')
                options['calibration'] = stories[:CALIBRATION_STORIES].split(8)
            hybrid, _ = convert(teacher, layers, **options)
            hybrid.save_pretrained(self.folder(student) / 'student')

    def load(self, student: Student) -> torch.nn.Module:
        """A finished student."""
        folder = self.folder(student) / 'student'
        return AutoModelForCausalLM.from_pretrained(folder).eval()


@torch.no_grad()
def measure(
    model: torch.nn.Module, teacher: torch.nn.Module, tokens: torch.Tensor
) -> dict[str, float]:
    """Perplexity and KL per token on stories ``[N, L]``."""
    nll = kl = 0.0
    for batch in tokens.split(50):
        log_probs = model(batch[:, :-1]).logits.log_softmax(-1)
        target = teacher(batch[:, :-1]).logits.log_softmax(-1)
        nll += float(
            F.nll_loss(log_probs.flatten(0, 1), batch[:, 1:].flatten(), reduction='sum')
        )
        kl += float(F.kl_div(log_probs, target, reduction='sum', log_target=True))
    count = tokens[:, 1:].numel()
    return dict(nll=nll / count, ppl=float(np.exp(nll / count)), kl=kl / count)


def read_tokens(path: Path) -> torch.Tensor:
    with np.load(path) as file:
        return torch.from_numpy(file['tokens'].astype('int64'))


def run(args: argparse.Namespace) -> None:
    """Train what is not trained yet, and print the tables.

    Raises:
        ValueError: The teacher is missing or differs.
    """
    if not (args.data / 'hf').is_dir():
        raise ValueError(
            f'there is no {args.data / "hf"}; docs/data.md says what belongs there.'
        )
    teacher = AutoModelForCausalLM.from_pretrained(args.data / 'hf').eval()
    if teacher.config.num_hidden_layers != NUM_LAYERS:
        raise ValueError(
            f'the model in {args.data / "hf"} has '
            f'{teacher.config.num_hidden_layers} layers; the tables are for '
            f'{NUM_LAYERS}.'
        )
    out = args.out or args.work_dir
    claim(out / 'settings.json', _settings(args.data), '*.csv', 'tables')
    batches = list(read_tokens(args.data / 'samples_train.npz')[:RANKED].split(8))
    ranking = rank_layers(teacher, batches)
    print(ranking)
    reports = [asked_tables(args, teacher, ranking.order, s) for s in args.seeds]
    rows = [row for report in reports for table in report for row in table.rows]
    trainings = Trainings(args)
    stories = read_tokens(args.data / 'samples_val.npz')
    table, measuring = out / 'runs.csv', threading.Lock()

    def finish(student: Student) -> None:
        trainings.finish(student)
        with measuring:
            figures = measure(trainings.load(student), teacher, stories)
            row = dict(run=trainings.run(student), converted=student.converted)
            rounded = {name: f'{value:.6f}' for name, value in figures.items()}
            add_rows(table, COLUMNS, row | rounded, keys=('run',))

    done = {row['run'] for row in read_table(table)}
    missing = [
        s for s in dict.fromkeys(s for _, s in rows) if trainings.run(s) not in done
    ]
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(finish, missing))
    figures = {row['run']: row for row in read_table(table)}
    scores = {
        student: {
            name: float(figures[trainings.run(student)][name]) for name in FIGURES
        }
        for _, student in rows
    }
    text = page(measure(teacher, teacher, stories), reports, scores)
    print(text)
    (out / 'tables.md').write_text(text)


def _settings(data: Path) -> dict[str, str]:
    """What the figures depend on, besides what the name of a run says."""
    files = [*sorted((data / 'hf').glob('*.safetensors'))]
    files += [data / f'samples_{split}.npz' for split in ('train', 'val')]
    return {path.name: file_hash(path)[:16] for path in files}


def asked_tables(
    args: argparse.Namespace, teacher: torch.nn.Module, order: list[int], seed: int
) -> list[Table]:
    """The tables that the command asks for, of one seed."""
    made = tables(order)
    if set(HEAD_TABLES) & set(args.only):
        made += head_tables(teacher, args.data, seed)
    return [table.drawn_by(seed) for table in made if table.name in args.only]


Scores = dict[Student, dict[str, float]]


def page(
    reference: dict[str, float], reports: list[list[Table]], scores: Scores
) -> str:
    """Markdown of the teacher's figures and of each table, over the seeds.

    Args:
        reference: Figures of the teacher.
        reports: The same tables of each seed.
        scores: Figures of each student.
    """
    lines = ['| | layers | NLL | perplexity | KL per token |', '|---|---|---|---|---|']
    nll, ppl = reference['nll'], reference['ppl']
    text = ['## The teacher\n', *lines, f'| teacher | – | {nll:.4f} | {ppl:.3f} | 0 |']
    for same in zip(*reports, strict=True):
        text += [f'\n## {same[0].title}\n', *lines]
        for row in zip(*(table.rows for table in same), strict=True):
            students = [student for _, student in row]
            converted = dict.fromkeys(student.converted for student in students)
            found = [scores[student] for student in students]
            cells = [
                mean_and_spread([score[key] for score in found], digits)
                for key, digits in (('nll', 4), ('ppl', 3), ('kl', 4))
            ]
            label, where = row[0][0], '; '.join(converted)
            text.append(f'| {label} | {where} | {" | ".join(cells)} |')
    return '\n'.join(text) + '\n'
