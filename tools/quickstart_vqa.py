"""Questions about pictures, from a LLaVA to a pure Mamba in minutes.

Trains, on generated pictures of coloured shapes, a vision tower and a small LLaVA
around it, the teacher. Its language model then becomes a hybrid (the first of every
four layers stays attention) and a pure Mamba, each by mmMamba's three stages; beside
them stands the same pure Mamba learned from the labels alone. Prints accuracy by
category, agreement with the teacher, speed and the size of the state, and draws
pictures with the answers. A finished part is not trained again.
"""

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A clean checkout needs no installation of the package itself.
_ROOT = Path(__file__).absolute().parent.parent
if (_ROOT / 'mmtransmamba' / '__init__.py').is_file():
    sys.path.insert(0, str(_ROOT))

import mmtransmamba  # noqa: F401, I001  (first: it bridges the imports that follow)
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from rich.console import Console
from rich.table import Table
from torch import nn

from mmtransmamba.apis import run_experiment
from mmtransmamba.datasets import collate_conversations
from mmtransmamba.datasets.shapes_vqa import words
from mmtransmamba.datasets.vqa_start import write_start
from mmtransmamba.evaluation import AnswerAccuracy
from mmtransmamba.evaluation.answer_accuracy import normalise
from mmtransmamba.models.language.cache_names import as_argument, returned_cache
from mmtransmamba.registry import DATASETS, MODELS
from mmtransmamba.transfer.vision_language import convert_vlm, load_vlm
from mmtransmamba.visualization import AnsweredQuestion, plot_answers

CONFIGS = _ROOT / 'configs' / 'quickstart'
STUDENTS = {'hybrid': 'hybrid', 'pure': 'pure Mamba'}
CONTEXT, STEPS, BATCH = 1024, 32, 100


@dataclass
class Evaluated:
    """What one model says to the test questions.

    Attributes:
        answers: In the questions' order.
        record: Metrics.
    """

    answers: list[str]
    record: dict[str, Any]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/quickstart_vqa'),
        help='results',
    )
    parser.add_argument('--seed', type=int, default=0, help='of all trainings')
    parser.add_argument(
        '--no-scratch', action='store_true', help='leave out the control from scratch'
    )
    return parser.parse_args()


def train(work_dir: Path, seed: int, scratch: bool) -> dict[str, Path]:
    """Folders of the trained models by name."""
    start = work_dir / f'start_seed{seed}'
    if not (start / 'processor_config.json').is_file():
        write_start(start, words(), image_size=36, patch_size=12, seed=seed)
    data = {'train_dataloader.dataset.processor': str(start)}
    test = {
        f'{part}_dataloader.dataset.processor': str(start) for part in ('val', 'test')
    }

    def run(name: str, options: dict[str, Any], folder: str = 'model') -> Path:
        place = work_dir / f'{name}_seed{seed}'
        options = {'randomness.seed': seed} | data | options
        run_experiment(CONFIGS / f'vqa_{name}.py', place, options)
        return place / folder

    tower = run('tower', {'model.processor': str(start)})
    new = {'model.vision': str(tower), 'model.language': str(start)} | test
    folders = {'teacher': run('teacher', new)}
    for name in STUDENTS:
        before = folders['teacher']
        for stage in (1, 2, 3):
            options = {
                'model.student.path': str(before),
                'model.teacher.path': str(folders['teacher']),
            }
            before = run(f'{name}_stage{stage}', options | test, 'student')
        folders[name] = before
    if scratch:
        folders['scratch'] = run('pure_scratch', new)
    return folders


def converted(teacher: Path, name: str) -> nn.Module:
    """A student as the conversion leaves it."""
    cfg = Config.fromfile(CONFIGS / f'vqa_{name}_stage1.py')
    return convert_vlm(teacher, **cfg.model.student.convert)[0]


@torch.inference_mode()
def evaluate(model: nn.Module, dataset: Any, head: nn.Module) -> Evaluated:
    """Answer all questions, and measure how fast."""
    model.eval()
    processor = dataset.encoder.processor
    batches = [
        collate_conversations([dataset[i] for i in part.tolist()])
        for part in torch.arange(len(dataset)).split(BATCH)
    ]
    head.predict(model, processor, batches[0])  # warm
    begin = time.perf_counter()
    said = [one for batch in batches for one in head.predict(model, processor, batch)]
    seconds = time.perf_counter() - begin
    metric = AnswerAccuracy(allowed=sorted({q.answer for q in dataset.questions}))
    metric.process(None, said)
    kept, decode = decoding(model, batches[0])
    record = dict(
        **metric.compute_metrics(metric.results),
        answers_per_second=len(said) / seconds,
        ms_per_token=decode,
        state_kib_question=kept[0] / 1024,
        state_kib_long=kept[1] / 1024,
        parameters=sum(p.numel() for p in model.parameters()),
    )
    return Evaluated([one['prediction'] for one in said], record)


def decoding(model: nn.Module, batch: dict) -> tuple[tuple[int, int], float]:
    """State after a question and after a long context in bytes; ms per token then."""
    one = batch['attention_mask'][0].bool()
    outputs = model(
        input_ids=batch['input_ids'][:1, one],
        pixel_values=batch['pixel_values'][:1],
        use_cache=True,
    )
    short = returned_cache(outputs)
    text = batch['input_ids'][0, -4:].repeat(CONTEXT // 4)[None]
    cache = returned_cache(model(input_ids=text, use_cache=True))
    times = []
    for _ in range(STEPS):
        begin = time.perf_counter()
        model(input_ids=text[:, :1], use_cache=True, **as_argument(cache))
        times.append(time.perf_counter() - begin)
    return (state_bytes(short), state_bytes(cache)), 1000 * float(np.median(times))


def state_bytes(cache: Any) -> int:
    """What has to be kept between two tokens."""
    total = 0
    for layer in cache.layers:
        kept = [getattr(layer, 'keys', None), getattr(layer, 'values', None)]
        kept += getattr(layer, 'conv_states', {}).values()
        kept += getattr(layer, 'recurrent_states', {}).values()
        total += sum(tensor.nbytes for tensor in kept if tensor is not None)
    return total


def majority(train: Any, test: Any) -> dict[str, float]:
    """Accuracy of the most frequent training answer of each category."""
    counts: dict[str, Counter] = {}
    for each in train.questions:
        counts.setdefault(each.category, Counter())[each.answer] += 1
    guesses = {name: count.most_common(1)[0][0] for name, count in counts.items()}
    metric = AnswerAccuracy()
    metric.process(
        None,
        [
            dict(prediction=guesses[q.category], answer=q.answer, category=q.category)
            for q in test.questions
        ],
    )
    return metric.compute_metrics(metric.results)


def agreement(one: list[str], other: list[str]) -> float:
    same = [normalise(a) == normalise(b) for a, b in zip(one, other, strict=True)]
    return 100 * sum(same) / len(same)


def report(
    results: dict[str, Evaluated], baseline: dict[str, float], categories: list[str]
) -> list[dict]:
    """One record for each model, the most frequent answer being the first."""
    records = [dict(model='most frequent answer', **baseline)]
    for name, result in results.items():
        records.append(
            dict(
                model=name,
                agreement=agreement(result.answers, results['teacher'].answers),
                **result.record,
            )
        )
    console = Console(width=150)
    table = Table(title='Test questions answered right, in percent')
    table.add_column('model')
    for name in ('all', *categories, 'malformed', 'as teacher'):
        table.add_column(name, justify='right')
    for record in records:
        keys = ['accuracy', *categories, 'malformed', 'agreement']
        table.add_row(record['model'], *(_shown(record.get(key)) for key in keys))
    console.print(table)
    table = Table(title='Speed and size')
    table.add_column('model')
    titles = {
        'parameters': 'parameters',
        'answers_per_second': 'answers/s',
        'ms_per_token': f'ms/token after {CONTEXT}',
        'state_kib_question': 'KiB of state after a question',
        'state_kib_long': f'after {CONTEXT} tokens',
    }
    for title in titles.values():
        table.add_column(title, justify='right')
    for record in records[1:]:
        table.add_row(record['model'], *(_shown(record[key]) for key in titles))
    console.print(table)
    return records


def _shown(value: float | None) -> str:
    if value is None:
        return '–'
    return f'{value:,}' if isinstance(value, int) else f'{value:.1f}'


def draw(results: dict[str, Evaluated], dataset: Any, path: Path) -> None:
    """Two questions of each category: the first, and the first that fools a student."""
    shown = {
        name: result.answers
        for name, result in results.items()
        if name in ('teacher', *STUDENTS.values())
    }
    chosen = []
    for category in sorted({q.category for q in dataset.questions}):
        numbers = [i for i, q in enumerate(dataset.questions) if q.category == category]
        wrong = [
            i
            for i in numbers[1:]
            if any(not _right(shown[n][i], dataset, i) for n in STUDENTS.values())
        ]
        chosen += [numbers[0], *(wrong or numbers[1:])[:1]]
    page = []
    for i in chosen:
        asked = dataset.questions[i]
        answers = {
            name: (said[i], _right(said[i], dataset, i)) for name, said in shown.items()
        }
        picture = np.asarray(dataset.picture(asked.picture))
        page.append(AnsweredQuestion(picture, asked.question, asked.answer, answers))
    plot_answers(page, path)


def _right(said: str, dataset: Any, number: int) -> bool:
    return normalise(said) == normalise(dataset.questions[number].answer)


def main() -> None:
    args = parse_args()
    begin = time.perf_counter()
    folders = train(args.work_dir, args.seed, not args.no_scratch)
    minutes = (time.perf_counter() - begin) / 60
    cfg = Config.fromfile(CONFIGS / 'vqa_teacher.py')
    start = str(args.work_dir / f'start_seed{args.seed}')
    with DefaultScope.overwrite_default_scope('mmengine'):
        test, train_set = (
            DATASETS.build(cfg[part].dataset | dict(processor=start))
            for part in ('test_dataloader', 'train_dataloader')
        )
        head = MODELS.build(cfg.model.head)
    results = {'teacher': evaluate(load_vlm(folders['teacher']), test, head)}
    for name, title in STUDENTS.items():
        untrained = converted(folders['teacher'], name)
        results[f'{title}, only converted'] = evaluate(untrained, test, head)
    for name, title in STUDENTS.items():
        results[title] = evaluate(load_vlm(folders[name]), test, head)
    if 'scratch' in folders:
        scratch = evaluate(load_vlm(folders['scratch']), test, head)
        results['pure Mamba, from scratch'] = scratch
    categories = sorted({q.category for q in test.questions})
    records = report(results, majority(train_set, test), categories)
    path = args.work_dir / 'results.json'
    path.write_text(json.dumps(records, indent=2))
    page = args.work_dir / 'answers.png'
    draw(results, test, page)
    print(
        f'{len(test)} questions about {len(test.scenes)} scenes that no training has.'
    )
    print(f'Trained in {minutes:.1f} minutes.' if minutes > 0.5 else 'Trained before.')
    print(f'Pictures, questions and answers: {page}\nTable: {path}')


if __name__ == '__main__':
    main()
