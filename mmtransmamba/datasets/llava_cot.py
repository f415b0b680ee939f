"""Split of LLaVA-CoT's data for teacher, student and validation (TransMamba §3.4)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mmtransmamba.datasets.conversations.conversation import BadSampleError
from mmtransmamba.datasets.conversations.formats import llava_cot
from mmtransmamba.utils.reasoning_text import parse_response
from mmtransmamba.utils.text_files import parse_json, scan_lines


@dataclass
class Split:
    """The result of :func:`split_llava_cot`.

    Attributes:
        counts: Rows of each part.
        shared: Rows of the student's part that are also in the teacher's.
        left_out: Rows that cannot be used, by reason.
    """

    counts: dict[str, int]
    shared: int
    left_out: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        lines = [f'{name}: {count:,} rows' for name, count in self.counts.items()]
        lines.append(f"of the student's also in the teacher's: {self.shared:,}")
        lines += [f'left out, {why}: {n:,}' for why, n in self.left_out.most_common()]
        return '\n'.join(lines)


def split_llava_cot(
    annotations: str | Path,
    out: str | Path,
    sizes: Mapping[str, int],
    images: str | Path | None = None,
    seed: int = 0,
) -> Split:
    """Write ``teacher.jsonl``, ``student.jsonl`` and ``val.jsonl``.

    The paper fine-tunes the teacher on about 80K samples and the student on another
    40K. LLaVA-CoT-100k has fewer than both together. Therefore, the student first gets
    rows that are neither in the teacher's part nor in validation, and then rows of the
    teacher's part. No row of ``val`` is in another part. Rows are chosen at random and
    copied unchanged.

    Rows are left out if they are not a conversation, if a response is not well-formed
    (it would teach another format), and, with ``images``, if their image is missing.

    Args:
        annotations: LLaVA-CoT's ``train.jsonl``.
        out: Folder to write to.
        sizes: Rows of ``teacher``, ``student`` and ``val``.
        images: Folder of the images; by default they are not checked.
        seed: Seed of the choice.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: There are not enough rows, or a part would replace their file.
    """
    annotations = Path(annotations)
    if not annotations.is_file():
        raise FileNotFoundError(f'no file "{annotations}" with LLaVA-CoT\'s rows.')
    for target in (Path(out, f'{name}.jsonl') for name in sizes):
        if target.exists() and target.samefile(annotations):
            raise ValueError(
                f'{target} is the file of the rows, which would be replaced; choose '
                'another folder for the parts.'
            )
    left_out: Counter[str] = Counter()
    # Positions of usable lines, because their texts need not fit into memory.
    places = []
    encoding = 'utf-8'
    for begin, line, encoding in scan_lines(annotations):
        if not line.strip(b' \t\r\n\0'):
            continue
        why = _fault(line, encoding, images)
        if why:
            left_out[why] += 1
        else:
            places.append((begin, len(line)))
    try:
        parts, shared = _choose(len(places), sizes, seed)
    except ValueError as error:
        raise ValueError(f'{annotations}: {error}') from error
    Path(out).mkdir(parents=True, exist_ok=True)
    with annotations.open('rb') as file:
        for name, rows in parts.items():
            partial = Path(out, f'.{name}.jsonl.partial')
            with partial.open('wb') as target:
                for row in sorted(rows):
                    begin, length = places[row]
                    file.seek(begin)
                    text = file.read(length).decode(encoding).strip()
                    target.write(text.encode() + b'\n')
            partial.replace(Path(out, f'{name}.jsonl'))
    return Split({name: len(rows) for name, rows in parts.items()}, shared, left_out)


def _choose(
    count: int, sizes: Mapping[str, int], seed: int
) -> tuple[dict[str, list[int]], int]:
    """Row numbers of each part, and how many the student shares with the teacher."""
    val, teacher, student = (sizes[name] for name in ('val', 'teacher', 'student'))
    if val + max(teacher, student) > count:
        raise ValueError(
            f'{count:,} rows can be used; these are too few for {val:,} of validation '
            f'beside {teacher:,} of the teacher or {student:,} of the student.'
        )
    order = random.Random(seed).sample(range(count), count)
    rest = order[val:]
    own = rest[teacher:][:student]
    again = rest[: student - len(own)]
    parts = dict(teacher=rest[:teacher], student=own + again, val=order[:val])
    return parts, len(again)


def _fault(line: bytes, encoding: str, images: str | Path | None) -> str:
    """The reason why a row cannot be used; empty if it can."""
    try:
        conversation = llava_cot(parse_json(line.decode(encoding)))
        conversation.check()
    except BadSampleError as error:
        return error.reason
    except (ValueError, AttributeError):
        return 'unreadable row'
    answers = [turn.text for turn in conversation.turns if turn.role == 'assistant']
    if not all(parse_response(text).well_formed for text in answers):
        return 'malformed response'
    if images is not None and not all(
        Path(images, image).is_file() for image in conversation.images
    ):
        return 'missing image'
    return ''
