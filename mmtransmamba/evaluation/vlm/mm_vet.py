"""MM-Vet: open answers that GPT-4 grades (Yu et al., 2023)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmtransmamba.registry import METRICS

from .files import Row, find_file, read_json, read_rows
from .metric import AnswerMetric, percentage, write_submission
from .sample import VLMSample


def load_mm_vet(folder: str | Path) -> list[VLMSample]:
    """The 218 questions of MM-Vet.

    Args:
        folder: Contains the official ``mm-vet.json``, or LLaVA's prompts
            (``llava-mm-vet.jsonl`` or ``questions.jsonl``).

    Returns:
        Samples without gold; ``info`` has the official id and the capabilities that a
        question needs, if known.
    """
    path = find_file(folder, 'mm-vet.json', 'llava-mm-vet.jsonl', 'questions.jsonl')
    if 'jsonl' not in path.name:
        return [
            _official(number, Row(entry, f'{path}, question {number}'))
            for number, entry in read_json(path).items()
        ]
    return [
        VLMSample(
            str(row['question_id']),
            row['text'],
            images=(row['image'],),
            info=dict(official_id=f'v1_{row["question_id"]}', capabilities=()),
        )
        for row in read_rows(path)
    ]


def _official(number: str, entry: Row) -> VLMSample:
    return VLMSample(
        number,
        entry['question'],
        images=(entry['imagename'],),
        info=dict(official_id=number, capabilities=tuple(entry['capability'])),
    )


def read_grades(path: str | Path) -> dict[str, list[float]]:
    """Grades of every run of the grader, by official id.

    Args:
        path: Output of the official grader, ``{id: {"score": [...]}}``, or the grades
            alone, ``{id: [...]}``.

    Raises:
        ValueError: The file has another format, or a grade is missing.
    """
    grades = {}
    for number, entry in read_json(path).items():
        scores = entry.get('score') if isinstance(entry, dict) else entry
        if not isinstance(scores, list) or not scores:
            raise ValueError(f'{path} has no grades of {number}: {entry!r:.200}')
        grades[number] = scores
    runs = {len(scores) for scores in grades.values()}
    if len(runs) != 1:
        raise ValueError(f'{path} has between {min(runs)} and {max(runs)} grades each.')
    return grades


@METRICS.register_module()
class MMVetMetric(AnswerMetric):
    """The file for MM-Vet's grader, or the score computed from its grades.

    Without grades, ``mm_vet/answers`` is the number of answers written. With grades,
    ``mm_vet/score`` is the mean grade in percent over answers and runs. Grades are also
    reported for each run and, if known, for each capability.

    Args:
        submission: File for the grader: answers by official id.
        grades: Output of the grader for this file, see :func:`read_grades`.
        **kwargs: Arguments of mmengine's ``BaseMetric``.
    """

    default_prefix = 'mm_vet'

    def __init__(
        self,
        submission: str | Path | None = None,
        grades: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        if submission is None and grades is None:
            raise ValueError(
                'MMVetMetric: answers are graded by GPT-4; give submission=FILE for '
                'the grader, or its grades=FILE.'
            )
        super().__init__(**kwargs)
        self.submission = submission
        self.grades = grades

    def judge(self, sample: VLMSample, text: str) -> dict[str, Any]:
        return dict(sample.info, text=text)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        if self.submission is not None:
            answers = {r['official_id']: r['text'] for r in results}
            write_submission(self.submission, answers)
        if self.grades is None:
            return dict(answers=len(results))
        grades = read_grades(self.grades)
        missing = [r['official_id'] for r in results if r['official_id'] not in grades]
        if missing:
            raise ValueError(f'{self.grades} has no grades of {missing[:5]}.')
        graded = [(r['capabilities'], grades[r['official_id']]) for r in results]
        runs = len(graded[0][1])
        figures = dict(score=percentage(sum(g) / runs for _, g in graded))
        for run in range(runs):
            figures[f'run_{run + 1}'] = percentage(g[run] for _, g in graded)
        for name in sorted({name for names, _ in graded for name in names}):
            figures[name] = percentage(sum(g) / runs for n, g in graded if name in n)
        return figures
