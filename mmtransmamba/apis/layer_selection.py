"""Selection of the layers that stay attention, by several methods side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmtransmamba.models.folders.pretrained import Pretrained
from mmtransmamba.models.language.layer_choice import choose_layers, count_layers_of
from mmtransmamba.transfer.convert import Conversion, LayerRanking, rank_layers
from mmtransmamba.transfer.convert.calibration import read_calibration, split_held_out
from mmtransmamba.transfer.convert.candidates import Candidates, check_ids
from mmtransmamba.transfer.convert.probes import text_probes
from mmtransmamba.utils.checkpoint_files import write
from mmtransmamba.utils.choices import POSITIONS, RANKINGS
from mmtransmamba.visualization.report.environment import this_machine
from mmtransmamba.visualization.report.markup import document, table

LITTLE_RECALL = 0.1
"""Recall of a teacher below which rankings by recall mean little."""
COLUMNS = (
    *('choice', 'converted', 'KL on text', 'KL on recall', 'recall'),
    'recall of the teacher',
)


@dataclass
class Choice:
    """Layers to convert, measured together.

    Attributes:
        name: Method, or fixed position.
        layers: The layers.
        text_kl, recall_kl: Divergence from the teacher in nats per token, on held-out
            text and on synthetic recall.
        recall, teacher_recall: Share of the repeated tokens that are predicted.
    """

    name: str
    layers: list[int]
    text_kl: float
    recall_kl: float
    recall: float
    teacher_recall: float

    def cells(self) -> list[str]:
        """Texts for a table."""
        return [
            self.name,
            ', '.join(map(str, self.layers)),
            f'{self.text_kl:.4f}',
            f'{self.recall_kl:.4f}',
            f'{100 * self.recall:.1f} %',
            f'{100 * self.teacher_recall:.1f} %',
        ]


@dataclass
class Selection:
    """Rankings by several methods, and the choices that follow from them.

    Attributes:
        rankings: By method, with ``-recall`` where it measured on synthetic recall.
        choices: Those of the rankings, then fixed positions.
    """

    rankings: dict[str, LayerRanking]
    choices: list[Choice]

    @property
    def warning(self) -> str:
        """A sentence about a teacher that hardly recalls; empty for any other."""
        recall = self.choices[0].teacher_recall
        if recall >= LITTLE_RECALL:
            return ''
        return (
            f'The teacher itself predicts only {100 * recall:.1f} % of the repeated '
            'tokens, so rankings by recall mean little here.'
        )

    def __str__(self) -> str:
        rows = [COLUMNS, *(choice.cells() for choice in self.choices)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ['  '.join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return '\n'.join([*lines, *filter(None, [self.warning])])


def select_layers(
    teacher: nn.Module | str | Path,
    calibration: Sequence[Tensor] | str | Path,
    out: str | Path | None = None,
    methods: Sequence[str] = RANKINGS,
    on: Sequence[str] = ('text',),
    ratio: float = 0.5,
    tokens: int = 8192,
    conversion: Conversion | None = None,
    show: Callable[[str], None] = print,
) -> Selection:
    """Rank the layers by several methods, and compare the hybrids that follow.

    Nothing is trained except, with ``init='calibrate'``, the mixers, each alone. All
    methods see the same text; an eighth of it, which none of them sees, is what the
    choices are compared on.

    Args:
        teacher: A transformers causal language model, or its folder.
        calibration: Batches of token ids ``[B, L]``, or a file for
            :func:`~mmtransmamba.transfer.convert.read_calibration`.
        out: Folder for ``METHOD.json``, a file for ``layers=`` of a conversion, and
            ``comparison.html``.
        methods: See :func:`~mmtransmamba.transfer.convert.rank_layers`.
        on: What they measure on: ``'text'``, ``'recall'``, or both one after the other.
            ``'recall'`` as a method measures on both in any case.
        ratio: Share of the layers that are converted in the comparison.
        tokens: Number of tokens to read from a file.
        conversion: Mixer and initialisation.
        show: Called with each ranking and the comparison.

    Raises:
        FileNotFoundError: A file does not exist.
        ValueError: The teacher cannot be converted, a method is unknown, or the text is
            too short.
    """
    conversion = conversion or Conversion()
    pretrained = Pretrained(teacher).language
    if isinstance(calibration, str | Path):
        folder = pretrained.tokenizer_folder
        calibration = read_calibration(calibration, folder, tokens)
    fit, held = split_held_out(calibration)
    runs = [
        (method, place)
        for method in methods
        for place in (on if method != 'recall' else ('text',))
    ]
    count = count_layers_of(ratio, pretrained.config.num_hidden_layers)
    rankings, choices = {}, []
    with Candidates(pretrained, conversion) as candidates:
        check_ids([*fit, *held], candidates.vocab_size)
        if conversion.initialisation.calibrated:
            candidates.fit(fit, conversion.calibration_steps, conversion.seed)
        for method, place in runs:
            ranking = rank_layers(
                candidates, fit, replace(conversion, ranking=method), on=place
            )
            rankings[method if place == 'text' else f'{method}-{place}'] = ranking
            show(str(ranking))
        text = text_probes(held)
        recall = candidates.recall(sum(b.numel() for b in fit), conversion.seed + 1)
        chosen = {name: each.first(count) for name, each in rankings.items()}
        for position in POSITIONS:
            depth = pretrained.config.num_hidden_layers
            chosen[position] = choose_layers(depth, position, ratio)
        _, teacher_recall = candidates.compare(recall, [])
        for name, layers in chosen.items():
            kl, _ = candidates.compare(text, layers)
            recall_kl, right = candidates.compare(recall, layers)
            choices.append(Choice(name, layers, kl, recall_kl, right, teacher_recall))
    selection = Selection(rankings, choices)
    show(str(selection))
    if out is not None:
        _write(Path(out), selection, conversion, str(pretrained.path or 'a model'))
    return selection


def _write(out: Path, selection: Selection, conversion: Conversion, name: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for method, ranking in selection.rankings.items():
        ranking.save(out / f'{method}.json')
    write(out / 'comparison.html', _page(selection, conversion, name).encode())


def _page(selection: Selection, conversion: Conversion, name: str) -> str:
    best = {
        what: min(selection.choices, key=key).name
        for what, key in (
            ('text', lambda choice: choice.text_kl),
            ('recall', lambda choice: choice.recall_kl),
        )
    }
    layers = sorted(next(iter(selection.rankings.values())).order)
    ranks = [
        [method, *(str(1 + ranking.order.index(i)) for i in layers)]
        for method, ranking in selection.rankings.items()
    ]
    compared = table(COLUMNS, [c.cells() for c in selection.choices], range(2, 6))
    ranked = table(['method', *map(str, layers)], ranks, range(1, 1 + len(layers)))
    listed = ''.join(
        f'<pre>{escape(str(r))}</pre>' for r in selection.rankings.values()
    )
    sections: list[tuple[str, str, Any]] = [
        (
            'choices',
            'Hybrids before any training',
            f'<div class="card">{compared}</div><p class="note">On text that no method '
            'has seen, and on random tokens that are repeated. '
            f'{selection.warning}</p>',
        ),
        (
            'ranks',
            'Rank of each layer',
            f'<div class="card">{ranked}</div><p class="note">1 is converted first; '
            'layers with high ranks stay attention.</p>',
        ),
        ('rankings', 'Rankings', listed),
        (
            'environment',
            'Environment',
            f'<div class="card">{table(["", ""], this_machine().items())}</div>',
        ),
    ]
    lead = (
        f'Lowest divergence on text: {best["text"]}; on recall: {best["recall"]}. '
        f'Mixers: {conversion.mixer_type}, init={conversion.init}.'
    )
    return document(
        f'Layers of {Path(name).name}',
        'Layer selection',
        lead,
        [],
        sections,
        f'<p>Written by mmtransmamba from {escape(name)}.</p>',
    )
