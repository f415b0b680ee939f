"""The benchmarks: where their rows lie, and how a row is put to the model.

Prompts, choices and metrics are those of lm-evaluation-harness 0.4.13 (the YAML files
in its ``tasks``), without examples in front. One space separates a question from each
choice. COPA's choices have another space of their own, as there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmtransmamba.evaluation.language.questions import (
    Question,
    check_limit,
    with_options,
)
from mmtransmamba.utils.text_files import (
    TextFileError,
    parse_json,
    read_text,
    stream_lines,
)


@dataclass(frozen=True)
class Task:
    """A benchmark.

    Attributes:
        file: Name of the file of rows, JSON lines, compressed with gzip or not.
        read: Makes a question of a row.
        metrics: Of ``acc`` (share of questions whose right answer is the likeliest),
            ``acc_norm`` (likelihood per character), ``perplexity`` (of the
            continuation as a whole) and ``greedy`` (share of continuations that the
            model would write itself; the harness calls it ``acc``).
        chance: Accuracy of guessing.
    """

    file: str
    read: Callable[[dict[str, Any]], Question]
    metrics: tuple[str, ...]
    chance: float


def read_questions(
    task: Task, folder: str | Path, limit: int | None = None
) -> list[Question]:
    """The questions of a benchmark's file.

    Args:
        task: The benchmark.
        folder: Folder with ``task.file``, with or without the ending ``.gz``.
        limit: The first so many rows only, 1 at least.

    Raises:
        FileNotFoundError: The folder has no such file.
        ValueError: A row is not of the benchmark; the message has its number. Or
            ``limit`` is less than 1.
    """
    check_limit(limit)
    path = Path(folder) / task.file
    packed = path.with_name(path.name + '.gz')
    if not path.is_file() and not packed.is_file():
        raise FileNotFoundError(f'there is no {task.file} or {packed.name} in {folder}')
    path = path if path.is_file() else packed
    questions = []
    try:
        is_packed = path.suffix == '.gz'
        lines = read_text(path).split('\n') if is_packed else stream_lines(path)
        for number, line in enumerate(lines, 1):
            if limit is not None and len(questions) == limit:
                break
            if line.strip():
                questions.append(_question(task, line, f'{path}, line {number}'))
    except (OSError, TextFileError) as error:
        raise ValueError(f'{path} cannot be read: {error}') from error
    if not questions:
        raise ValueError(f'{path} has no questions')
    return questions


def _question(task: Task, line: str, where: str) -> Question:
    try:
        return task.read(parse_json(line))
    except KeyError as error:
        raise ValueError(f'{where} has no {error}') from None
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f'{where} is not a row of the benchmark: {error}') from None


def _arc(row: dict[str, Any]) -> Question:
    if 'query' in row:
        return _query(row)
    choices = row['choices']
    gold = choices['label'].index(row['answerKey'])
    return Question.choose(
        f'Question: {row["question"]}\nAnswer:', choices['text'], gold
    )


def _query(row: dict[str, Any]) -> Question:
    """A row whose prompt has been made already."""
    return Question.choose(row['query'], row['choices'], row['gold'])


def _boolq(row: dict[str, Any]) -> Question:
    context = f'{row["passage"]}\nQuestion: {row["question"]}?\nAnswer:'
    return Question.choose(context, ['no', 'yes'], int(row['answer']))


def _commonsense_qa(row: dict[str, Any]) -> Question:
    letters = ['A', 'B', 'C', 'D', 'E']
    texts = row['choices']['text']
    options = [f'{a}. {text}' for a, text in zip(letters, texts, strict=True)]
    stem = f'Question: {row["question"].strip()}'
    question = Question.choose(
        '\n'.join((stem, *options, 'Answer:')), letters, letters.index(row['answerKey'])
    )
    return with_options(question, stem, texts)


def _copa(row: dict[str, Any]) -> Question:
    link = dict(cause='because', effect='therefore')[row['question']]
    choices = [row['choice1'], row['choice2']]
    return Question.choose(
        f'{row["premise"].strip()[:-1]} {link}',
        [f' {choice[0].lower()}{choice[1:]}' for choice in choices],
        row['label'],
    )


def _hellaswag(row: dict[str, Any]) -> Question:
    context = f'{row["activity_label"]}: {row["ctx_a"]} {row["ctx_b"].capitalize()}'
    return Question.choose(
        _without_marks(context),
        [_without_marks(ending) for ending in row['endings']],
        int(row['label']),
    )


def _without_marks(text: str) -> str:
    """WikiHow's rows have marks in brackets."""
    text = re.sub(r'\[.*?\]', '', text.strip().replace(' [title]', '. '))
    return text.replace('  ', ' ')


def _lambada(row: dict[str, Any]) -> Question:
    context, _, word = row['text'].rpartition(' ')
    return Question.choose(context, [word], 0)


def _openbookqa(row: dict[str, Any]) -> Question:
    if 'query' in row:
        return _query(row)
    choices = row['choices']
    gold = choices['label'].index(row['answerKey'].lstrip())
    return Question.choose(row['question_stem'], choices['text'], gold)


def _piqa(row: dict[str, Any]) -> Question:
    context = f'Question: {row["goal"]}\nAnswer:'
    return Question.choose(context, [row['sol1'], row['sol2']], row['label'])


def _sciq(row: dict[str, Any]) -> Question:
    wrong = [row[f'distractor{i}'] for i in (1, 2, 3)]
    context = f'{row["support"].lstrip()}\nQuestion: {row["question"]}\nAnswer:'
    return Question.choose(context, [*wrong, row['correct_answer']], 3)


def _social_iqa(row: dict[str, Any]) -> Question:
    context = f'Q: {row["context"]} {row["question"]}\nA:'
    choices = [row[f'answer{letter}'] for letter in 'ABC']
    return Question.choose(context, choices, int(row['label']) - 1)


def _winogrande(row: dict[str, Any]) -> Question:
    """Both names in the gap, and the likelihood of what follows it."""
    before, gap, after = row['sentence'].partition('_')
    if not gap:
        raise ValueError('the sentence has no gap "_"')
    options = [row['option1'], row['option2']]
    return Question(
        tuple(before + option for option in options),
        (f' {after.strip()}',) * 2,
        ('1', '2').index(row['answer']),
        (len(after),) * 2,
    )


_BOTH = ('acc', 'acc_norm')
TASKS = {
    'arc_challenge': Task('arc_challenge_test.jsonl', _arc, _BOTH, 0.25),
    'arc_challenge_val': Task('arc_challenge_validation.jsonl', _arc, _BOTH, 0.25),
    'arc_easy': Task('arc_easy_test.jsonl', _arc, _BOTH, 0.25),
    'arc_easy_val': Task('arc_easy_validation.jsonl', _arc, _BOTH, 0.25),
    'boolq': Task('boolq_validation.jsonl', _boolq, ('acc',), 0.5),
    'commonsense_qa': Task(
        'commonsense_qa_validation.jsonl', _commonsense_qa, ('acc',), 0.2
    ),
    'copa': Task('copa_validation.jsonl', _copa, ('acc',), 0.5),
    'hellaswag': Task('hellaswag_validation.jsonl', _hellaswag, _BOTH, 0.25),
    'lambada_openai': Task(
        'lambada_openai_test.jsonl', _lambada, ('greedy', 'perplexity'), 0.0
    ),
    'openbookqa_val': Task('openbookqa_validation.jsonl', _openbookqa, _BOTH, 0.25),
    'piqa': Task('piqa_validation.jsonl', _piqa, _BOTH, 0.5),
    'sciq': Task('sciq_validation.jsonl', _sciq, _BOTH, 0.25),
    'social_iqa': Task('social_i_qa_validation.jsonl', _social_iqa, ('acc',), 1 / 3),
    'winogrande': Task('winogrande_xl_validation.jsonl', _winogrande, ('acc',), 0.5),
}
"""Benchmarks by the harness's names; ``_val`` where it would take the test rows."""
