"""The page of ``smollm2.py``, from the rows that there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from _smollm2_plan import (
    BESIDE,
    CALIBRATION_STEPS,
    CALIBRATION_TOKENS,
    CONTEXTS,
    PROMPT,
    WINDOW,
    Run,
)

SHARE_TO_REACH = 0.95
LEADERBOARD = """
## Time to {share:.0%} of the teacher

The rule: a student arrives when its perplexity on the documents above is at most the
teacher's divided by {share}, {limit:.2f}. All tokens that its recipe reads count, those
of the calibration included. The perplexity is measured before and after the training,
so 0 is a student that needed none, one that arrives in between has all of its budget
against it, and > is one that has not arrived with that many. Sorted by tokens, then by
the share of the teacher that is reached (its perplexity divided by the student's). The
zero-shot mean is in percent of the teacher's.

| converted | mixer | init | tokens to {share:.0%} | reached | zero-shot |
|---|---|---|---|---|---|
"""

HEAD = """# SmolLM2-135M-Instruct becomes a hybrid

Every student has the same budget of {tokens:,} tokens of English text where the tables
do not say otherwise, one block of 512 tokens a step, and MaTVLM's single stage (KL and
forced layers, mixers trained). The layers are spread evenly. `calibrate` reads
{calibration:,} of these tokens before the training, with {steps} steps. The window of
{window} tokens and {sinks} sinks keeps as many numbers as the states of Mamba-2;
`WindowGatedDeltaNet` has a window of {beside} tokens and {sinks} sinks beside such a
state. One seed; learning rate and schedule are the same in all rows and were not
tuned.

```bash
python tools/studies/smollm2.py checkpoints/smollm2 --data data
```

**{done} of {total} runs are done.** The command goes on with the others.
"""


def write_page(
    path: Path,
    rows: list[dict[str, str]],
    speeds: list[dict[str, str]],
    curves: list[dict[str, str]],
    recalls: list[dict[str, str]],
    samples: list[dict[str, str]],
    runs: list[Run],
    teacher: dict[str, Any] | None,
    tokens: int,
) -> None:
    """Write the page.

    Args:
        path: Its file.
        rows, speeds, curves: Rows of the tables of quality, speed, and the KL over
            the tokens.
        recalls, samples: Rows of the tables of recall, and of what the students write.
        runs: All runs that are planned.
        teacher: What was measured of the teacher, None if nothing yet.
        tokens: Budget of a run.
    """
    found = {row['key']: row for row in (*rows, *speeds, *recalls)}
    done = [run for run in runs if run.key in found]
    text = HEAD.format(
        tokens=tokens,
        calibration=CALIBRATION_TOKENS,
        steps=CALIBRATION_STEPS,
        done=len(done),
        total=len(runs),
        beside=BESIDE['window'],
        **WINDOW,
    )
    if teacher is not None:
        text += (
            f'\nThe teacher has a perplexity of {teacher["perplexity"]:.3f} on '
            f'{teacher["text_tokens"]:,} tokens of other documents, and a zero-shot '
            f'mean of {teacher["zero_shot"]:.2f} % on the first {teacher["limit"]} '
            f'questions each of {", ".join(teacher["tasks"])}.\n'
        )
    quality = [found[run.key] for run in done if run.measures == 'quality']
    if quality:
        text += (
            '\n## Quality\n\nBefore and after the training, on the same text.\n\n'
            '| converted | mixer | init | tokens | KL before | KL | same token '
            '| perplexity before | perplexity | zero-shot | minutes |\n'
            + '|---' * 11
            + '|\n'
        )
        for row in sorted(quality, key=lambda row: int(row['share'])):
            minutes = '–'
            if row['seconds']:
                took = float(row['seconds']) + float(row['convert_seconds'])
                minutes = f'{took / 60:.1f}'
            text += (
                f'| {row["share"]} % | {row["mixer"]} | `{row["init"]}` '
                f'| {tokens_read(row):,} '
                f'| {float(row["kl_before"]):.3f} | {float(row["kl"]):.3f} '
                f'| {100 * float(row["agreement"]):.1f} % '
                f'| {float(row["perplexity_before"]):.2f} '
                f'| {float(row["perplexity"]):.2f} | {row["zero_shot"]} % '
                f'| {minutes} |\n'
            )
    if teacher is not None:
        text += leaderboard(quality, teacher)
    text += beside_the_window(quality)
    text += branches(quality)
    trained = [run for run in done if run.measures == 'quality']
    text += time_to_mimic(trained, curves)
    asked = [run.key for run in done if run.measures == 'recall']
    text += recall_section(_in_order(recalls, asked))
    text += sample_section(_in_order(samples, asked))
    fast = [found[run.key] for run in done if run.measures == 'speed']
    if fast:
        heads = ' | '.join(f'{context:,}' for context in CONTEXTS)
        text += (
            '\n## Tokens per second after a context\n\n'
            f'| converted | mixer | {heads} |\n' + '|---' * (2 + len(CONTEXTS)) + '|\n'
        )
        for row in fast:
            cells = ' | '.join(row[f'tokens_per_second_{n}'] for n in CONTEXTS)
            text += f'| {row["share"]} % | {row["mixer"]} | {cells} |\n'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _in_order(rows: list[dict[str, str]], keys: list[str]) -> list[dict[str, str]]:
    """The rows that have one of the keys, in the order of the keys."""
    found = [row for row in rows if row['key'] in keys]
    return sorted(found, key=lambda row: keys.index(row['key']))


def tokens_read(row: dict[str, str]) -> int:
    """Tokens of a run's calibration and training together."""
    return int(row['calibration_tokens']) + int(row['tokens'])


def leaderboard(rows: list[dict[str, str]], teacher: dict[str, Any]) -> str:
    """Which students come within five percent of the teacher, and how soon.

    Args:
        rows: Rows of the table of quality.
        teacher: What was measured of the teacher.

    Returns:
        A section of the page, empty without rows.
    """
    if not rows:
        return ''

    def reached(row: dict[str, str], when: str = '') -> float:
        return teacher['perplexity'] / float(row[f'perplexity{when}'])

    def tokens(row: dict[str, str]) -> int | None:
        if reached(row, '_before') >= SHARE_TO_REACH:
            return int(row['calibration_tokens'])
        return tokens_read(row) if reached(row) >= SHARE_TO_REACH else None

    def place(row: dict[str, str]) -> tuple[float, float]:
        needed = tokens(row)
        return (float('inf') if needed is None else needed, -reached(row))

    text = LEADERBOARD.format(
        share=SHARE_TO_REACH, limit=teacher['perplexity'] / SHARE_TO_REACH
    )
    for row in sorted(rows, key=place):
        needed = tokens(row)
        text += (
            f'| {row["share"]} % | {row["mixer"]} | `{row["init"]}` '
            f'| {f"> {tokens_read(row):,}" if needed is None else f"{needed:,}"} '
            f'| {reached(row):.1%} '
            f'| {float(row["zero_shot"]) / teacher["zero_shot"]:.1%} |\n'
        )
    return text


def beside_the_window(rows: list[dict[str, str]]) -> str:
    """Which students end closer to the teacher than those with windows.

    Args:
        rows: Rows of the table of quality.

    Returns:
        A paragraph, empty if no student with windows has been trained.
    """
    windows = {
        row['share']: float(row['kl'])
        for row in rows
        if row['mixer'] == 'SlidingWindow'
    }
    if not windows:
        return ''
    closer = [
        f'{row["share"]} % {row["mixer"]} by `{row["init"]}` '
        f'({tokens_read(row):,} tokens)'
        for row in rows
        if row['mixer'] != 'SlidingWindow'
        and float(row['kl']) < windows.get(row['share'], 0)
    ]
    return (
        '\nThe window is the baseline that a linear mixer must beat: the attention of '
        'the teacher,\ncut to the last tokens. Closer to the teacher than a window in '
        f'as many layers: {", ".join(closer) or "none of them"}.\nThe likelihood of '
        'blocks of 512 tokens asks for little that is further away;\n[questions about '
        'a long text](#recall) do.\n'
    )


def branches(rows: list[dict[str, str]]) -> str:
    """How much the linear branch beside a window adds.

    Args:
        rows: Rows of the table of quality.

    Returns:
        Paragraphs, empty if no student has both.
    """
    return ''.join(
        f'\n{row["mixer"]}, `{row["init"]}`: after the training, the linear branch has '
        f'{float(row["branch_share"]):.1%} of the norm of\nthe output, a mean over the '
        'layers; 0 would be a branch that is bypassed.\n'
        for row in rows
        if row['branch_share']
    )


def time_to_mimic(runs: list[Run], curves: list[dict[str, str]]) -> str:
    """Tokens after which each run has a KL at which Mamba-2 by mimic arrives.

    Args:
        runs: The runs that are done.
        curves: Points of the runs' KL in the training.

    Returns:
        A section of the page, empty if there is nothing to compare with.
    """
    points: dict[str, list[tuple[int, float]]] = {}
    for row in curves:
        points.setdefault(row['key'], []).append((int(row['tokens']), float(row['kl'])))
    lines = ''
    for run in runs:
        mimic = points.get(f'{run.share}_Mamba2_mimic')
        if not mimic or run.key not in points or run.budgets > 1:
            continue
        lines += f'| {run.share} % | {run.mixer} | `{run.init}` |'
        for _, target in (mimic[(len(mimic) - 1) // 2], mimic[-1]):
            reached = (tokens for tokens, kl in points[run.key] if kl <= target)
            tokens = next(reached, None)
            lines += ' not reached |' if tokens is None else f' {tokens:,} |'
        lines += '\n'
    if not lines:
        return ''
    return (
        '\n## Tokens to the same KL\n\n'
        'Tokens, those of the calibration included, after which the KL in training (a '
        'mean over\n10 steps) is at most what Mamba-2 by `mimic` has after half and '
        'after all of its budget.\n\n'
        '| converted | mixer | init | half of the budget | all of it |\n'
        + '|---' * 5
        + '|\n'
        + lines
    )


def recall_section(rows: list[dict[str, str]]) -> str:
    """What the students remember of their prompts, by length.

    Args:
        rows: A row for each student, task and length, students together.

    Returns:
        A section of the page, empty without rows.
    """
    if not rows:
        return ''
    columns = list(dict.fromkeys((row['task'], row['length']) for row in rows))
    cells: dict[str, dict[tuple[str, str], str]] = {}
    names = {}
    for row in rows:
        names[row['key']] = _name(row)
        cell = f'{row["generated"]} ({row["acc"]})'
        cells.setdefault(row['key'], {})[row['task'], row['length']] = cell
    heads = ' | '.join(f'{task}, {length}' for task, length in columns)
    text = (
        '\n## Recall\n\nQuestions about the prompt, '
        f'{rows[0]["questions"]} of each length (words of the text with the pass key, '
        'pairs\nof MQAR): how many percent the student writes rightly itself, and in '
        'brackets how many\nright answers are the likeliest of four. With so few '
        'questions, the standard error is up to\n12.5 points '
        '([tasks](../language_evaluation.md)).\n\n'
        f'| student | {heads} |\n' + '|---' * (1 + len(columns)) + '|\n'
    )
    for key, own in cells.items():
        found = ' | '.join(own.get(column, '–') for column in columns)
        text += f'| {names[key]} | {found} |\n'
    return text


def sample_section(rows: list[dict[str, str]]) -> str:
    """What the students write.

    Returns:
        A section of the page, empty without rows.
    """
    if not rows:
        return ''
    text = (
        '\n## What they write\n\nThe likeliest next token each time, after “'
        f'{PROMPT}”.\n\n| student | text |\n|---|---|\n'
    )
    for row in rows:
        written = row['text'].replace('|', '\\|').replace('<', '&lt;')
        text += f'| {_name(row)} | {written} |\n'
    return text


def _name(row: dict[str, str]) -> str:
    if row['share'] == '0':
        return 'teacher'
    return f'{row["share"]} % {row["mixer"]}, `{row["init"]}`'
