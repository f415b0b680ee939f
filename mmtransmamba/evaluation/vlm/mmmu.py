"""MMMU: college-level questions in 30 subjects (Yue et al., 2024)."""

from __future__ import annotations

import ast
import random
import re
from pathlib import Path
from typing import Any

from mmtransmamba.registry import METRICS

from .files import Row, find_file, read_json, read_rows
from .metric import AnswerMetric, by_group, percentage
from .mmmu_parser import open_is_right, parse_choice, parse_open
from .prompts import LETTERS, OPTION_LETTER, SHORT_ANSWER
from .sample import VLMSample

DISCIPLINES = {
    'Art and Design': ('Art', 'Art_Theory', 'Design', 'Music'),
    'Business': ('Accounting', 'Economics', 'Finance', 'Manage', 'Marketing'),
    'Science': ('Biology', 'Chemistry', 'Geography', 'Math', 'Physics'),
    'Health and Medicine': (
        'Basic_Medical_Science',
        'Clinical_Medicine',
        'Diagnostics_and_Laboratory_Medicine',
        'Pharmacy',
        'Public_Health',
    ),
    'Humanities and Social Science': (
        'History',
        'Literature',
        'Psychology',
        'Sociology',
    ),
    'Tech and Engineering': (
        'Agriculture',
        'Architecture_and_Engineering',
        'Computer_Science',
        'Electronics',
        'Energy_and_Power',
        'Materials',
        'Mechanical_Engineering',
    ),
}
_DISCIPLINE_OF = {
    subject: name for name, subjects in DISCIPLINES.items() for subject in subjects
}


def load_mmmu(folder: str | Path) -> list[VLMSample]:
    """The validation split of MMMU.

    Args:
        folder: Contains ``dev_val.jsonl`` or ``validation.jsonl``, the rows of the
            official data set (``id``, ``question``, ``options``, ``answer``,
            ``question_type``) with image k of a question in ``images/ID_k.png``. If the
            official ``answer_dict_val.json`` is present, it provides the gold answers.

    Returns:
        Samples whose gold is a letter, or a list of right answers if there are no
        options; ``category`` is the subject.
    """
    path = find_file(folder, 'validation.jsonl', 'dev_val.jsonl')
    gold = find_file(folder, 'answer_dict_val.json', optional=True)
    answers = {} if gold is None else read_json(gold)
    return [
        _sample(row, answers)
        for row in read_rows(path)
        if row['id'].startswith('validation_')
    ]


def is_other_split(question_id: str) -> bool:
    """Whether an id belongs to a question of MMMU's other splits."""
    return question_id.startswith(('dev_', 'test_'))


def _as_list(value: Any) -> list[str]:
    """The official rows hold lists in Python's notation."""
    if isinstance(value, str) and value.startswith('['):
        value = ast.literal_eval(value)
    return value if isinstance(value, list) else [value]


def _sample(row: Row, answers: dict) -> VLMSample:
    options = tuple(_as_list(row['options']))
    gold = answers.get(row['id'], {}).get('ground_truth', row['answer'])
    listed = ''.join(
        f'({letter}) {text}\n' for letter, text in zip(LETTERS, options, strict=False)
    )
    ask = f'{listed}\n{OPTION_LETTER}' if options else SHORT_ANSWER
    numbers = re.findall(r'<image (\d+)>', f'{row["question"]}{options}')
    return VLMSample(
        row['id'],
        f'{row["question"]}\n\n{ask}',
        gold if options else _as_list(gold),
        tuple(f'{row["id"]}_{k}.png' for k in sorted(set(numbers), key=int)),
        options,
        re.sub(r'^validation_|_\d+$', '', row['id']),
    )


@METRICS.register_module()
class MMMUMetric(AnswerMetric):
    """Accuracy by the official parser; also for each discipline and subject.

    The official parser guesses if an answer points to no option. The guesses come from
    Python's generator in the order of the answers, so the figure is reproducible.
    ``mmmu/guessed`` is the share of such answers, in percent; ``mmmu/unread`` also
    counts empty answers to open questions.

    Args:
        seed: Seed of the guesses; the official code uses 42.
        **kwargs: Arguments of mmengine's ``BaseMetric``.
    """

    default_prefix = 'mmmu'

    def __init__(self, seed: int = 42, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed

    def judge(self, sample: VLMSample, text: str) -> dict[str, Any]:
        result = dict(
            subject=sample.category,
            discipline=_DISCIPLINE_OF.get(sample.category, ''),
            choice=bool(sample.options),
            gold=sample.gold,
            letters=LETTERS[: len(sample.options)],
        )
        if sample.options:
            letter = parse_choice(text, sample.options)
            return result | dict(
                letter=letter, right=letter == sample.gold, unread=letter is None
            )
        right = open_is_right(parse_open(text), sample.gold)
        return result | dict(right=right, unread=not text.strip())

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        generator = random.Random(self.seed)
        scored, guessed = [], []
        for result in results:
            guess = result['choice'] and result['letter'] is None
            guessed.append(guess)
            if guess:
                letter = generator.choice(result['letters'])
                result = result | dict(right=letter == result['gold'])
            scored.append(result)
        figures = dict(
            accuracy=percentage(r['right'] for r in scored),
            guessed=percentage(guessed),
            unread=percentage(r['unread'] for r in results),
        )
        for name, choice in (('multiple_choice', True), ('open', False)):
            of_kind = [r['right'] for r in scored if r['choice'] is choice]
            if of_kind:
                figures[name] = percentage(of_kind)
        return (
            figures
            | by_group(scored, 'discipline', 'right')
            | by_group(scored, 'subject', 'right')
        )
