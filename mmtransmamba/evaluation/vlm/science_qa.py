"""ScienceQA: multiple choice on school science (Lu et al., 2022)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mmtransmamba.registry import METRICS

from .files import Row, find_file, read_json
from .metric import AnswerMetric, by_group, percentage
from .prompts import LETTERS, OPTION_LETTER, ask_options
from .sample import VLMSample

_LETTERS = LETTERS[:5]


def load_science_qa(folder: str | Path, part: str = 'image') -> list[VLMSample]:
    """The test split of ScienceQA.

    Args:
        folder: Contains LLaVA's ``llava_test_CQM-A.json`` (or ``questions.json``), or
            the official ``problems.json`` and ``pid_splits.json``.
        part: ``'image'`` for the questions with an image (ScienceQA-IMG), or ``'all'``.

    Returns:
        Samples with the gold letter; ``category`` is the subject, if known.
    """
    path = find_file(folder, 'llava_test_CQM-A.json', 'questions.json', 'problems.json')
    document = read_json(path)
    if isinstance(document, list):
        samples = [_from_llava(Row(item, str(path))) for item in document]
    else:
        splits = find_file(Path(path).parent, 'pid_splits.json')
        tested = Row(read_json(splits), str(splits))['test']
        problems = Row(document, str(path))
        samples = [
            _from_problem(pid, Row(problems[pid], f'{path}, problem {pid}'))
            for pid in tested
        ]
    return [sample for sample in samples if part == 'all' or sample.images]


def _from_llava(item: Row) -> VLMSample:
    question, gold = (turn['value'] for turn in item['conversations'][:2])
    question = question.replace('<image>', '').strip()
    return VLMSample(
        str(item['id']),
        f'{question}\n{OPTION_LETTER}',
        gold,
        (item['image'],) if 'image' in item else (),
        tuple(re.findall(r'^[A-E]\. (.*)$', question, re.MULTILINE)),
    )


def _from_problem(pid: str, problem: Row) -> VLMSample:
    hint = f'Context: {problem["hint"]}' if problem['hint'] else ''
    options = tuple(problem['choices'])
    return VLMSample(
        pid,
        ask_options(problem['question'], options, hint),
        LETTERS[problem['answer']],
        (f'{pid}/{problem["image"]}',) if problem['image'] else (),
        options,
        problem['subject'],
    )


def chosen_letter(text: str) -> str | None:
    """The letter that LLaVA's evaluation reads.

    It is the answer alone, or what the answer starts with (``B. a dog``), or the one
    letter after "The answer is" that another character follows.
    """
    text = text.strip()
    if len(text) == 1:
        return text if text in _LETTERS else None
    if re.match(rf'[{_LETTERS}]\. ', text):
        return text[0]
    found = re.findall(r'The answer is ([A-Z]).', text)
    return found[0] if len(found) == 1 else None


@METRICS.register_module()
class ScienceQAMetric(AnswerMetric):
    """Accuracy over all answers, over those with an image, and for each subject.

    ``science_qa/unread``: share of answers without a letter in one of the three forms
    of the rule. They are wrong.
    """

    default_prefix = 'science_qa'

    def judge(self, sample: VLMSample, text: str) -> dict[str, Any]:
        letter = chosen_letter(text)
        return dict(
            subject=sample.category,
            image=bool(sample.images),
            right=letter == sample.gold,
            unread=letter is None,
        )

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        figures = dict(
            accuracy=percentage(r['right'] for r in results),
            unread=percentage(r['unread'] for r in results),
        )
        with_image = [r['right'] for r in results if r['image']]
        if with_image:
            figures['image'] = percentage(with_image)
        return figures | by_group(results, 'subject', 'right')
