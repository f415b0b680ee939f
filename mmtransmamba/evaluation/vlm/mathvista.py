"""MathVista testmini: mathematics in images (Lu et al., 2024), without a judge."""

from __future__ import annotations

import ast
import math
import re
from pathlib import Path
from typing import Any

from mmtransmamba.registry import METRICS

from .answers import choose_option
from .files import Row, find_file, read_json
from .metric import AnswerMetric, by_group, percentage
from .prompts import LETTERS
from .sample import VLMSample

_DECIMALS = {1: ('one decimal place', '1.2, 1.3, 1.4')}
_DECIMALS[2] = ('two decimal places', '1.23, 1.34, 1.45')
# With thousands separators, decimals, exponent; or a fraction.
_NUMBER = re.compile(
    r'(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:\.\d+|(?<=\d))'
    r'(?:[eE][-+]?\d+)?(?:/\d+)?'
)
_ANNOUNCED = re.compile(r'\banswers?(?:\s+(?:is|are)\b\s*:?|\s*[:=])', re.IGNORECASE)


def load_mathvista(folder: str | Path) -> list[VLMSample]:
    """MathVista testmini.

    Args:
        folder: Contains the official ``testmini.json``.

    Returns:
        Samples with the gold text; ``category`` is the task. The prompt is the official
        query with its hint on the form of the answer.
    """
    path = find_file(folder, 'testmini.json')
    return [
        _sample(pid, Row(problem, f'{path}, problem {pid}'))
        for pid, problem in read_json(path).items()
    ]


def _sample(pid: str, problem: Row) -> VLMSample:
    kind = problem['answer_type']
    if problem['question_type'] == 'multi_choice':
        kind = 'choice'
    precision = int(problem['precision'] or 0)
    return VLMSample(
        pid,
        problem.get('query') or _query(problem, kind, precision),
        problem['answer'],
        (problem['image'],),
        tuple(problem['choices'] or ()),
        problem['metadata']['task'],
        dict(kind=kind, precision=precision),
    )


def _query(problem: Row, kind: str, precision: int) -> str:
    """The official prompt without examples, for files that lack it."""
    task = 'Please answer the question'
    if kind == 'choice':
        hint = f'{task} and provide the correct option letter, e.g., A, B, C, D'
    elif kind == 'list':
        hint = (
            f'{task} requiring a Python list as an answer and provide the final list, '
            'e.g., [1, 2, 3], [1.2, 1.3, 1.4]'
        )
    elif kind == 'float':
        places, examples = _DECIMALS[precision]
        hint = (
            f'{task} requiring a floating-point number with {places} and provide the '
            f'final value, e.g., {examples}'
        )
    else:
        hint = (
            f'{task} requiring an integer answer and provide the final value, e.g., 1, '
            '2, 3'
        )
    unit = f' (Unit: {problem["unit"]})' if problem['unit'] else ''
    lines = [f'Hint: {hint}, at the end.', f'Question: {problem["question"]}{unit}']
    if problem['choices']:
        lines.append('Choices:')
        lines += [
            f'({letter}) {text}'
            for letter, text in zip(LETTERS, problem['choices'], strict=False)
        ]
    return '\n'.join(lines)


def extract(text: str, kind: str, precision: int, choices: tuple[str, ...]) -> Any:
    """The answer in a response, in the form of the gold answer; None if not found.

    The part after the last "answer is" or "answer:" is searched first, then the whole
    response. A choice is accepted if exactly one is named, by text or letter. If the
    prompt asks for a number, it is the first one after the announcement, or the last
    one of the response. It is truncated (integer) or rounded (float) as in the official
    scorer.

    Args:
        text: Response of a model.
        kind: ``'choice'``, ``'integer'``, ``'float'`` or ``'list'``.
        precision: Decimals of a float.
        choices: Texts of the choices.
    """
    text = text.strip()
    announced = list(_ANNOUNCED.finditer(text))
    tail = text[announced[-1].end() :] if announced else ''
    tail = tail.strip(' \n*"\'$').rstrip('.* ')
    if kind == 'choice':
        # Before letters, because the choices themselves may be letters.
        for whole in (text, tail):
            if whole in choices:
                return whole
        letter = choose_option(tail, choices) or choose_option(text, choices)
        return choices[LETTERS.index(letter)] if letter else None
    if kind == 'list':
        found = re.findall(r'\[[^\[\]]*\]', text)
        try:
            return str(ast.literal_eval(found[-1])) if found else None
        except (ValueError, SyntaxError):
            return None
    numbers = _numbers(tail)[:1] or _numbers(text)[-1:]
    if not numbers:
        return None
    number = numbers[0]
    return str(round(number, precision) if kind == 'float' else int(number))


def _numbers(text: str) -> list[float]:
    numbers = []
    for found in _NUMBER.findall(text.replace('−', '-')):
        number, _, divisor = found.replace(',', '').partition('/')
        value = float(number) / (float(divisor or 1) or math.nan)
        if math.isfinite(value):
            numbers.append(value)
    return numbers


@METRICS.register_module()
class MathVistaMetric(AnswerMetric):
    """Accuracy by rules alone; also for each task.

    The official scorer lets GPT-4 extract the answer, and replaces an invalid choice
    with the most similar one. Here, an answer that no rule finds is wrong, which gives
    lower figures. ``mathvista/extracted`` is the share of responses in which an answer
    was found, ``mathvista/unread`` that of the others.
    """

    default_prefix = 'mathvista'

    def judge(self, sample: VLMSample, text: str) -> dict[str, Any]:
        answer = extract(text, **sample.info, choices=sample.options)
        return dict(
            task=sample.category,
            extracted=answer is not None,
            right=answer == sample.gold,
        )

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        return dict(
            accuracy=percentage(r['right'] for r in results),
            extracted=percentage(r['extracted'] for r in results),
            unread=percentage(not r['extracted'] for r in results),
            **by_group(results, 'task', 'right'),
        )
