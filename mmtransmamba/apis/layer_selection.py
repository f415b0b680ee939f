"""Selection of the layers or heads that stay attention, by several methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmtransmamba.models.folders.pretrained import Pretrained
from mmtransmamba.models.language.layer_choice import choose_layers, count_layers_of
from mmtransmamba.transfer.convert import Conversion, LayerRanking, rank_layers
from mmtransmamba.transfer.convert.calibration import read_calibration, split_held_out
from mmtransmamba.transfer.convert.candidates import Candidates, check_ids, kv_heads
from mmtransmamba.transfer.convert.head_choice import mixer_of_heads
from mmtransmamba.transfer.convert.probes import text_probes
from mmtransmamba.utils.checkpoint_files import write
from mmtransmamba.utils.choices import POSITIONS, RANKINGS, UNITS
from mmtransmamba.visualization.report.environment import this_machine
from mmtransmamba.visualization.report.markup import document, table

LITTLE_RECALL = 0.1
"""Recall of a teacher below which rankings by recall mean little."""
COLUMNS = (
    *('choice', 'converted', 'KV cache', 'KL on text', 'KL on recall', 'recall'),
    'recall of the teacher',
)


@dataclass
class Choice:
    """Layers or heads to convert, measured together.

    Attributes:
        name: Method, or fixed position.
        layers: The layers; for heads, pairs of a layer and a key-value head.
        kv_cache: Share of the teacher's keys and values that the cache still has.
        text_kl, recall_kl: Divergence from the teacher in nats per token, on held-out
            text and on synthetic recall.
        recall, teacher_recall: Share of the repeated tokens that are predicted.
    """

    name: str
    layers: list[Any]
    kv_cache: float
    text_kl: float
    recall_kl: float
    recall: float
    teacher_recall: float

    def cells(self) -> list[str]:
        """Texts for a table."""
        return [
            self.name,
            described(self.layers),
            f'{100 * self.kv_cache:.0f} %',
            f'{self.text_kl:.4f}',
            f'{self.recall_kl:.4f}',
            f'{100 * self.recall:.1f} %',
            f'{100 * self.teacher_recall:.1f} %',
        ]


def described(layers: Sequence[Any]) -> str:
    """Layers, or heads as ``LAYER: HEADS; …``, as a text."""
    if all(isinstance(layer, int) for layer in layers):
        return ', '.join(map(str, layers))
    heads: dict[int, list[str]] = {}
    for layer, head in layers:
        heads.setdefault(layer, []).append(str(head))
    return '; '.join(f'{layer}: {", ".join(own)}' for layer, own in heads.items())


@dataclass
class Selection:
    """Rankings by several methods, and the choices that follow from them.

    Attributes:
        rankings: By method, with ``heads-`` in front where it ranked heads, and
            ``-recall`` where it measured on synthetic recall.
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
    units: Sequence[str] = ('layers',),
) -> Selection:
    """Rank layers or heads by several methods, and compare the hybrids that follow.

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
        ratio: Share of the layers that are converted in the comparison. As many heads
            are converted as these layers have, so the caches are of the same size.
        tokens: Number of tokens to read from a file.
        conversion: Mixer and initialisation.
        show: Called with each ranking and the comparison.
        units: What is ranked: ``'layers'``, ``'heads'``, or both one after the other.

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
        (unit, method, place)
        for unit in units
        for method in methods
        for place in (on if method != 'recall' else ('text',))
    ]
    if 'heads' in units:
        mixer_of_heads(conversion)  # that the mixer has heads
    depth, groups = pretrained.config.num_hidden_layers, kv_heads(pretrained.config)
    layers = count_layers_of(ratio, depth)
    count = {'layers': layers, 'heads': layers * groups}
    rankings, choices = {}, []
    with Candidates(pretrained, conversion) as candidates:
        check_ids([*fit, *held], candidates.vocab_size)
        if conversion.initialisation.calibrated:
            candidates.fit(fit, conversion.calibration_steps, conversion.seed)
        for unit, method, place in runs:
            asked = replace(conversion, ranking=method)
            ranking = rank_layers(candidates, fit, asked, on=place, unit=unit)
            before = '' if unit == 'layers' else f'{unit}-'
            after = '' if place == 'text' else f'-{place}'
            name = f'{before}{method}{after}'
            rankings[name] = ranking
            if out is not None:
                Path(out).mkdir(parents=True, exist_ok=True)
                ranking.save(Path(out) / f'{name}.json')
            show(str(ranking))
        text = text_probes(held)
        recall = candidates.recall(sum(b.numel() for b in fit), conversion.seed + 1)
        chosen = {name: each.first(count[each.unit]) for name, each in rankings.items()}
        for position in POSITIONS:
            chosen[position] = choose_layers(depth, position, ratio)
        _, teacher_recall = candidates.compare(recall, [])
        for name, converted in chosen.items():
            own = [i if isinstance(i, int) else tuple(i) for i in converted]
            kl, _ = candidates.compare(text, own)
            measured = (kl, *candidates.compare(recall, own), teacher_recall)
            choices.append(Choice(name, converted, 1 - layers / depth, *measured))
    selection = Selection(rankings, choices)
    show(str(selection))
    if out is not None:
        _write(Path(out), selection, conversion, str(pretrained.path or 'a model'))
    return selection


def _write(out: Path, selection: Selection, conversion: Conversion, name: str) -> None:
    write(out / 'comparison.html', _page(selection, conversion, name).encode())


def _page(selection: Selection, conversion: Conversion, name: str) -> str:
    best = {
        what: min(selection.choices, key=key).name
        for what, key in (
            ('text', lambda choice: choice.text_kl),
            ('recall', lambda choice: choice.recall_kl),
        )
    }
    compared = table(COLUMNS, [c.cells() for c in selection.choices], range(2, 7))
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
        *_ranks(selection),
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


def _ranks(selection: Selection) -> Iterator[tuple[str, str, str]]:
    """The sections with the rank of each layer, and of each head."""
    note = '<p class="note">1 is converted first; high ranks stay attention.</p>'
    layers, heads = (
        {n: r for n, r in selection.rankings.items() if r.unit == unit}
        for unit in UNITS
    )
    if layers:
        every = sorted(next(iter(layers.values())).order)
        rows = [
            [method, *(str(1 + ranking.order.index(i)) for i in every)]
            for method, ranking in layers.items()
        ]
        ranked = table(['method', *map(str, every)], rows, range(1, 1 + len(every)))
        yield 'ranks', 'Rank of each layer', f'<div class="card">{ranked}</div>{note}'
    if heads:
        every = sorted(next(iter(heads.values())).order)
        columns = sorted({head for _, head in every})
        cards = ''
        for method, ranking in heads.items():
            rows = [
                [
                    str(layer),
                    *(str(1 + ranking.order.index([layer, i])) for i in columns),
                ]
                for layer in sorted({layer for layer, _ in every})
            ]
            names = ['layer', *(f'head {i}' for i in columns)]
            ranked = table(names, rows, range(1, 1 + len(columns)))
            cards += f'<h3>{method}</h3><div class="card">{ranked}</div>'
        yield 'heads', 'Rank of each key-value head', cards + note
