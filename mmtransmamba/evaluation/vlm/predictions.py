"""Answers of a model: reading, matching to questions, and generating them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from mmtransmamba.utils.checkpoint_files import write
from mmtransmamba.utils.text_files import decode_text

from .files import Row, read_rows, rows_of_lines
from .sample import VLMSample

Answerer = Callable[[list[VLMSample]], Sequence[str]]
"""A model: the answers to a batch of questions, in their order."""

_ID_KEYS = ('question_id', 'id', 'index')
_TEXT_KEYS = ('text', 'prediction')


class PredictionError(ValueError):
    """Answers that do not belong to the questions."""


def _first(row: Row, keys: Sequence[str]) -> tuple[str, object]:
    for key in keys:
        if key in row:
            return key, row[key]
    raise PredictionError(
        f'{row.where} has none of {", ".join(keys)}, but {", ".join(row)}.'
    )


def _id_of(row: Row) -> str:
    key, value = _first(row, _ID_KEYS)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise PredictionError(
            f'{row.where}: "{key}" must be text or an integer, not {value!r:.80}'
        )
    return str(value)


def _text_of(row: Row) -> str:
    key, value = _first(row, _TEXT_KEYS)
    if not isinstance(value, str):
        raise PredictionError(
            f'{row.where}: "{key}" of question {_id_of(row)} must be text, not '
            f'{json.dumps(value, default=repr):.80}'
        )
    return value


def _asks_the_same(row: Row, sample: VLMSample) -> bool:
    """Whether a row belongs to a sample, as far as the row contains the question.

    LLaVA's prompts lack the final request for an option letter.
    """
    if row.get('prompt') is None:
        return True
    if not isinstance(row['prompt'], str):
        raise PredictionError(
            f'{row.where}: "prompt" of question {sample.question_id} must be text, not '
            f'{row["prompt"]!r:.80}'
        )
    given = ' '.join(row['prompt'].replace('<image>', '').split())
    return ' '.join(sample.prompt.split()).startswith(given)


def match_predictions(
    samples: Sequence[VLMSample],
    rows: Sequence[Row],
    known: Callable[[str], bool] | None = None,
) -> tuple[list[str | None], int]:
    """Find the answer to each question.

    A row belongs to a question with the same id and, if the row has a ``prompt``, the
    same prompt. If several match, they are taken in order.

    Args:
        samples: The questions.
        rows: ``question_id`` (or ``id``, ``index``) and ``text`` (or ``prediction``).
        known: Whether an id belongs to a question that is not asked here.

    Returns:
        The answers, None for a missing one, and the number of unmatched rows.

    Raises:
        PredictionError: A row lacks a key, its text is not a string, its prompt differs
            from that of the question with its id, or a question already has an answer.
    """
    texts, left_over = _matched(samples, rows, known)
    return texts, len(left_over)


def _matched(
    samples: Sequence[VLMSample],
    rows: Sequence[Row],
    known: Callable[[str], bool] | None,
) -> tuple[list[str | None], list[Row]]:
    """The answers, and the unmatched rows."""
    by_id: dict[str, list[Row]] = {}
    for row in rows:
        _text_of(row)
        by_id.setdefault(_id_of(row), []).append(row)
    texts: list[str | None] = []
    for sample in samples:
        candidates = by_id.get(sample.question_id, [])
        place = next(
            (i for i, row in enumerate(candidates) if _asks_the_same(row, sample)), None
        )
        if place is None:
            texts.append(None)
            continue
        texts.append(_text_of(candidates.pop(place)))
    missing = [s for s, text in zip(samples, texts, strict=True) if text is None]
    for sample in missing:
        if by_id.get(sample.question_id):
            row = by_id[sample.question_id][0]
            raise PredictionError(
                f'{row.where} answers another prompt than question '
                f'{sample.question_id} has: {row["prompt"]!r:.200} instead of '
                f'{sample.prompt!r:.200}'
            )
    asked = {sample.question_id for sample in samples}
    for number, left in by_id.items():
        if left and number in asked and not (known and known(number)):
            raise PredictionError(
                f'{left[0].where} answers question {number} once more; there must be '
                'one answer.'
            )
    return texts, [row for left in by_id.values() for row in left]


def read_predictions(
    samples: Sequence[VLMSample],
    path: str | Path,
    known: Callable[[str], bool] | None = None,
) -> tuple[list[str], int]:
    """Read the answers to all questions from a file.

    Args:
        samples: The questions.
        path: JSON Lines or a JSON list, see :func:`match_predictions`.
        known: Whether an id belongs to a question that is not asked here; its answer is
            then left over. By default, all ids do.

    Returns:
        The answers, and the number of rows that belong to no question.

    Raises:
        FileNotFoundError: The file does not exist.
        PredictionError: An answer is missing (it would count as wrong, or as "yes"), or
            a row does not answer any question; see also :func:`match_predictions`.
        ValueError: The file cannot be read.
    """
    texts, left_over = _matched(samples, read_rows(path), known)
    missing = [
        s.question_id for s, text in zip(samples, texts, strict=True) if text is None
    ]
    if missing:
        raise PredictionError(
            f'{path} has no answers to {len(missing)} of {len(samples)} questions: '
            f'{", ".join(missing[:5])}{", …" if len(missing) > 5 else ""}'
        )
    for row in left_over if known else ():
        if not known(_id_of(row)):
            raise PredictionError(
                f'{row.where} answers question {_id_of(row)}, which is none of the '
                'benchmark.'
            )
    return texts, len(left_over)


def generate_predictions(
    samples: Sequence[VLMSample],
    answer: Answerer,
    path: str | Path,
    batch_size: int = 1,
    title: str = 'answering',
    known: Callable[[str], bool] | None = None,
) -> list[str]:
    """Generate answers with a model, and write every batch as it arrives.

    Questions that are already answered in the file are not asked again. A partial line
    left by an interruption is removed.

    Args:
        samples: The questions.
        answer: The model.
        path: File of JSON lines, continued if it exists.
        batch_size: Questions per call of ``answer``.
        title: Text before the progress bar.
        known: Whether an id belongs to a question that is not asked here; its answer
            stays in the file. By default, none does.

    Returns:
        The answers to all questions.

    Raises:
        PredictionError: The file holds answers to other questions or is a JSON list, or
            the model does not return one text per question.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = _continue_from(samples, path, known)
    waiting = iter([n for n, text in enumerate(texts) if text is None])
    done = sum(text is not None for text in texts)
    with (
        path.open('a', encoding='utf-8') as file,
        tqdm(total=len(samples), initial=done, desc=title, unit='question') as bar,
    ):
        while numbers := list(islice(waiting, batch_size)):
            batch = [samples[n] for n in numbers]
            answers = list(answer(batch))
            if len(answers) != len(batch) or not all(
                isinstance(text, str) for text in answers
            ):
                raise PredictionError(
                    f'{len(batch)} questions got {len(answers)} answers, not one text '
                    f'each: {answers!r:.200}'
                )
            for number, sample, text in zip(numbers, batch, answers, strict=True):
                texts[number] = text
                row = dict(
                    question_id=sample.question_id, prompt=sample.prompt, text=text
                )
                file.write(json.dumps(row, ensure_ascii=False) + '\n')
            file.flush()
            bar.update(len(batch))
    return texts


def _continue_from(
    samples: Sequence[VLMSample], path: Path, known: Callable[[str], bool] | None
) -> list[str | None]:
    """The answers that are already in a file, which then ends with a whole line."""
    if not path.is_file():
        return [None] * len(samples)
    content = path.read_bytes()
    lines, _, last = content.rpartition(b'\n')
    whole = lines + b'\n' if lines else b''
    if last.strip() and _is_object(last):
        whole = content + b'\n'
    if content.lstrip(b'\xef\xbb\xbf \t\r\n').startswith(b'['):
        raise PredictionError(
            f'{path} is a JSON list, to which nothing can be added; choose another '
            'file, or read its answers as predictions.'
        )
    rows = rows_of_lines(decode_text(whole, path), path)
    texts, left_over = _matched(samples, rows, known)
    other = [row for row in left_over if not (known and known(_id_of(row)))]
    if other:
        raise PredictionError(
            f'{path} has {len(other)} answers to other questions. Choose another file, '
            'or remove this one.'
        )
    if whole != content:
        write(path, whole)
    return texts


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
