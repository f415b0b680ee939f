"""Order of the layers, or of their heads, by the cost of converting them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmtransmamba.utils.choices import UNITS
from mmtransmamba.utils.text_files import read_json


@dataclass
class LayerRanking:
    """Layers, or heads, in the order in which they should be converted.

    Attributes:
        method: Ranking method, see :func:`.rank_layers`.
        init: Initialisation of the mixers.
        order: Layers, the one that costs least first; for heads, pairs of a layer and
            one of its key-value heads, with whose query heads it is converted.
        kl: Per-token KL divergence from the teacher in nats: with ``'single'`` for that
            layer alone, with ``'greedy'`` for it and all layers before it.
        tokens: Number of tokens used for the measurement.
        on: ``'text'``, or ``'recall'``: synthetic rows whose second half repeats the
            first.
        scores: What the order is by, where it is not the KL: with ``'recall'`` the loss
            of recall for each nat of KL on text, with ``'gates'`` the learned share of
            the attention. Layers with high scores should stay attention.
        unit: ``'layers'`` or ``'heads'``. Older files do not have it.
    """

    method: str
    init: str
    order: list[Any] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    tokens: int = 0
    on: str = 'text'
    scores: list[float] = field(default_factory=list)
    unit: str = 'layers'

    def save(self, path: str | Path) -> None:
        """Write the ranking as JSON."""
        Path(path).write_text(json.dumps(self.__dict__, indent=1) + '\n')

    @classmethod
    def load(cls, path: str | Path) -> LayerRanking:
        """Read a file of :meth:`save`.

        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: It is not a ranking.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f'No ranking of layers at {path}.')
        record = read_json(path)
        fields = {f.name for f in dataclasses.fields(cls)}
        if not isinstance(record, dict) or not record.keys() <= fields:
            raise ValueError(f'{path} is not a ranking of layers.')
        ranking = cls(**{'method': '', 'init': ''} | record)
        layers = set(map(repr, ranking.order))
        whole = {len(ranking.kl) or len(layers), len(ranking.scores) or len(layers)}
        if len(layers) != len(ranking.order) or not layers or whole != {len(layers)}:
            raise ValueError(f'{path} is not a ranking of layers: {ranking.order}.')
        if ranking.unit not in UNITS:
            raise ValueError(
                f'{path}: unit={ranking.unit!r} must be one of {", ".join(UNITS)}.'
            )
        if ranking.unit == 'heads' and not all(map(_is_head, ranking.order)):
            raise ValueError(
                f'{path} is not a ranking of heads, which has pairs such as [2, 0] of '
                f'a layer and a key-value head: {ranking.order}.'
            )
        return ranking

    def first(self, count: int) -> list[Any]:
        """The layers, or heads, to convert first, sorted.

        Raises:
            ValueError: Fewer are ranked.
        """
        if count > len(self.order):
            raise ValueError(
                f'The ranking has {len(self.order)} {self.unit}, but {count} are to be '
                'converted.'
            )
        return sorted(self.order[:count])

    def note_in(self, config: Any) -> None:
        """Record in the hybrid's config how its layers were chosen.

        Args:
            config: Config of a language model, or of a vision-language model around it.
        """
        config.get_text_config().layer_ranking = asdict(self)

    def __str__(self) -> str:
        meaning = 'with those above' if self.method == 'greedy' else 'alone'
        by = {
            'recall': 'recall that is lost for each nat of KL on text',
            'gates': 'learned share of the attention',
        }.get(self.method, 'KL per token of converting them')
        where = '' if self.on == 'text' else f', on synthetic {self.on}'
        named, title = 'layer', 'Layers'
        if self.unit == 'heads':
            named, title = ' head', 'Key-value heads (LAYER.HEAD)'
        lines = [
            f'{title} by the {by} ({meaning}; init={self.init}, {self.tokens:,} tokens'
            f'{where}):',
            f'rank  {named}  KL (nats)' + ('      score' if self.scores else ''),
        ]
        for rank, layer in enumerate(self.order):
            if self.unit == 'heads':
                layer = f'{layer[0]}.{layer[1]}'
            kl = f'{self.kl[rank]:9.4f}' if self.kl else f'{"–":>9}'
            score = f'  {self.scores[rank]:9.4f}' if self.scores else ''
            lines.append(f'{rank + 1:4}  {layer:>5}  {kl}{score}')
        return '\n'.join(lines)


def _is_head(pair: Any) -> bool:
    return isinstance(pair, list) and [type(n) for n in pair] == [int, int]
