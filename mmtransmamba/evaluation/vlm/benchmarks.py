"""The benchmarks by name, and how to run some of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from os.path import normpath
from pathlib import Path
from typing import Any

from mmengine.evaluator import Evaluator

from .ai2d import AI2DMetric, load_ai2d
from .gqa import GQAMetric, load_gqa
from .mathvista import MathVistaMetric, load_mathvista
from .metric import AnswerMetric
from .mm_vet import MMVetMetric, load_mm_vet
from .mmbench import MMBenchMetric, load_mmbench
from .mme import MMEMetric, load_mme
from .mmmu import MMMUMetric, is_other_split, load_mmmu
from .pope import POPEMetric, load_pope
from .predictions import Answerer, generate_predictions, read_predictions
from .sample import VLMSample
from .science_qa import ScienceQAMetric, load_science_qa
from .seed_bench import SEEDBenchMetric, is_other_question, load_seed_bench
from .textvqa import TextVQAMetric, load_textvqa
from .vqav2 import VQAv2Metric, load_vqav2

Known = Callable[[str], bool]
"""Whether an id is that of a question of the benchmark that is not asked."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark of vision-language models.

    Attributes:
        name: Name on the command line.
        title: Name in tables.
        folder: Folder of its files below the folder of all benchmarks.
        load: Function that reads its questions from that folder.
        metric: The class that scores answers.
        headline: The figures that papers report, by the metric's key.
        images: Folders of its images below ``folder``, in search order.
        max_new_tokens: Maximum length of a model's answer; LLaVA-1.5's value.
        has_others: Function of a folder that returns which other ids answer files may
            contain: those of questions in another part of the benchmark.
    """

    name: str
    title: str
    folder: str
    load: Callable[[Path], list[VLMSample]]
    metric: type[AnswerMetric]
    headline: dict[str, str]
    images: tuple[str, ...] = ('images', '')
    max_new_tokens: int = 128
    has_others: Callable[[Path], Known] | None = None

    def image_folders(self, root: str | Path) -> list[Path]:
        """The folders of its images below the folder of all benchmarks."""
        return [Path(normpath(Path(root, self.folder, name))) for name in self.images]

    @property
    def takes_submission(self) -> bool:
        """Whether its metric can write a file for a server."""
        return self.metric in (MMBenchMetric, MMVetMetric, VQAv2Metric)

    @property
    def submission_name(self) -> str:
        """The name of that file, with the suffix that the server accepts."""
        suffix = 'xlsx' if self.metric is MMBenchMetric else 'json'
        return f'{self.name}_submission.{suffix}'


def _questions_without_image(folder: Path) -> Known:
    ids = {sample.question_id for sample in load_science_qa(folder, part='all')}
    return ids.__contains__


def _all_test_questions(folder: Path) -> Known:
    """Files for the server may hold test-dev's answers among those of the test set."""
    try:
        samples = load_vqav2(folder, split='test2015')
    except FileNotFoundError:
        samples = []
    return {sample.question_id for sample in samples}.__contains__


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            'pope',
            'POPE',
            'pope',
            load_pope,
            POPEMetric,
            {'pope/f1': 'F1', 'pope/accuracy': 'accuracy'},
            images=('val2014', '../coco/val2014', 'images'),
        ),
        Benchmark(
            'mme',
            'MME',
            'mme',
            load_mme,
            MMEMetric,
            {'mme/perception': 'perception', 'mme/cognition': 'cognition'},
            images=('MME_Benchmark_release_version', ''),
        ),
        Benchmark(
            'mmbench',
            'MMBench',
            'mmbench',
            load_mmbench,
            MMBenchMetric,
            {
                'mmbench/circular': 'circular',
                'mmbench/plain': 'plain',
                'mmbench/answers': 'answers to submit',
            },
            max_new_tokens=1024,
        ),
        Benchmark(
            'seed_image',
            'SEED-Image',
            'seed_bench',
            load_seed_bench,
            SEEDBenchMetric,
            {'seed/accuracy': 'accuracy'},
            images=('SEED-Bench-image', 'images'),
            has_others=lambda folder: is_other_question,
        ),
        Benchmark(
            'mmmu',
            'MMMU val',
            'mmmu',
            load_mmmu,
            MMMUMetric,
            {'mmmu/accuracy': 'accuracy'},
            max_new_tokens=1024,
            has_others=lambda folder: is_other_split,
        ),
        Benchmark(
            'ai2d',
            'AI2D',
            'ai2d',
            load_ai2d,
            AI2DMetric,
            {'ai2d/accuracy': 'accuracy, masked'},
            images=('',),
        ),
        Benchmark(
            'ai2d_no_mask',
            'AI2D',
            'ai2d',
            partial(load_ai2d, masked=False),
            AI2DMetric,
            {'ai2d/accuracy': 'accuracy, not masked'},
            images=('',),
        ),
        Benchmark(
            'mathvista',
            'MathVista testmini',
            'mathvista',
            load_mathvista,
            MathVistaMetric,
            {'mathvista/accuracy': 'accuracy', 'mathvista/extracted': 'extracted'},
            images=('',),
            max_new_tokens=1024,
        ),
        Benchmark(
            'scienceqa_img',
            'ScienceQA-IMG',
            'scienceqa',
            load_science_qa,
            ScienceQAMetric,
            {'science_qa/image': 'accuracy'},
            images=('images/test', 'test'),
            max_new_tokens=1024,
            has_others=_questions_without_image,
        ),
        Benchmark(
            'textvqa',
            'TextVQA val',
            'textvqa',
            load_textvqa,
            TextVQAMetric,
            {'textvqa/accuracy': 'accuracy'},
            images=('train_images', 'train_val_images/train_images', 'images'),
        ),
        Benchmark(
            'gqa', 'GQA', 'gqa', load_gqa, GQAMetric, {'gqa/accuracy': 'accuracy'}
        ),
        Benchmark(
            'vqav2',
            'VQAv2 val',
            'vqav2',
            load_vqav2,
            VQAv2Metric,
            {'vqav2/accuracy': 'accuracy'},
            images=('val2014', '../coco/val2014'),
        ),
        Benchmark(
            'vqav2_testdev',
            'VQAv2 test-dev',
            'vqav2',
            partial(load_vqav2, split='test-dev2015'),
            VQAv2Metric,
            {'vqav2/answers': 'answers to submit'},
            images=('test2015', '../coco/test2015'),
            has_others=_all_test_questions,
        ),
        Benchmark(
            'mm_vet',
            'MM-Vet',
            'mm_vet',
            load_mm_vet,
            MMVetMetric,
            {'mm_vet/score': 'score', 'mm_vet/answers': 'answers to submit'},
            max_new_tokens=1024,
        ),
    )
}


@dataclass(frozen=True)
class Result:
    """Figures of one benchmark.

    Attributes:
        benchmark: The benchmark.
        count: Number of questions.
        figures: All figures of the metric.
        note: A remark for the reader of the figures, or empty.
    """

    benchmark: Benchmark
    count: int
    figures: dict[str, float]
    note: str = ''

    @property
    def headline(self) -> dict[str, float]:
        """The figures that papers report, by their plain names."""
        return {
            name: self.figures[key]
            for key, name in self.benchmark.headline.items()
            if key in self.figures
        }

    @property
    def unread(self) -> float | None:
        """Share of answers in percent that the rule could not read, if known."""
        return self.figures.get(f'{self.benchmark.metric.default_prefix}/unread')


def score(
    metric: AnswerMetric, samples: Sequence[VLMSample], texts: Sequence[str]
) -> dict[str, float]:
    """All figures of a metric for the answers to questions.

    Raises:
        ValueError: There are no questions, or the number of answers differs.
    """
    if not samples or len(samples) != len(texts):
        raise ValueError(
            f'{type(metric).__name__}: {len(texts)} answers to {len(samples)} '
            'questions.'
        )
    pairs = [dict(sample=s, text=t) for s, t in zip(samples, texts, strict=True)]
    return Evaluator([metric]).offline_evaluate(pairs)


Provider = Callable[[Benchmark, list[VLMSample], Known], tuple[Sequence[str], str]]
"""Where answers come from: a file, or a model; with a note on them for the reader."""


def from_files(files: Mapping[str, str | Path]) -> Provider:
    """Answers that were generated before.

    Args:
        files: File of answers by name of the benchmark.
    """

    def answers(
        benchmark: Benchmark, samples: list[VLMSample], known: Known | None = None
    ) -> tuple:
        texts, left_over = read_predictions(samples, files[benchmark.name], known)
        return texts, f'answers to other questions: {left_over}' if left_over else ''

    return answers


def from_model(answer: Answerer, folder: str | Path, batch_size: int = 1) -> Provider:
    """Answers of a model, written to ``FOLDER/NAME.jsonl`` as they arrive.

    Args:
        answer: The model.
        folder: Folder in which answer files are written and continued.
        batch_size: Questions per call of ``answer``.
    """

    def answers(
        benchmark: Benchmark, samples: list[VLMSample], known: Known | None = None
    ) -> tuple:
        path = Path(folder) / f'{benchmark.name}.jsonl'
        return generate_predictions(
            samples, answer, path, batch_size, benchmark.title, known
        ), ''

    return answers


def _known(benchmark: Benchmark, folder: Path, unasked: list[VLMSample]) -> Known:
    ids = {sample.question_id for sample in unasked}
    further: list[Known] = []  # read only if there is something to ask

    def known(question_id: str) -> bool:
        if question_id in ids:
            return True
        if benchmark.has_others and not further:
            further.append(benchmark.has_others(folder))
        return any(has(question_id) for has in further)

    return known


def run_benchmark(
    benchmark: Benchmark,
    data_root: str | Path,
    answers: Provider,
    limit: int | None = None,
    **metric_args: Any,
) -> Result:
    """Read the questions of a benchmark, get the answers and score them.

    Args:
        benchmark: One of :data:`BENCHMARKS`.
        data_root: Folder with a folder for each benchmark.
        answers: Provides the answers to the questions.
        limit: Number of questions to use, from the first; by default all.
        **metric_args: Arguments of the metric.
    """
    folder = Path(data_root) / benchmark.folder
    samples = benchmark.load(folder)
    samples, unasked = samples[:limit], samples[len(samples[:limit]) :]
    texts, note = answers(benchmark, samples, _known(benchmark, folder, unasked))
    figures = score(benchmark.metric(**metric_args), samples, texts)
    return Result(benchmark, len(samples), figures, note)
