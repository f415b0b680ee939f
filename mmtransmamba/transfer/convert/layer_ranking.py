"""Order of the layers by the cost of converting them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class LayerRanking:
    """Layers in the order in which they should be converted.

    Attributes:
        method: Ranking method, see :func:`.rank_layers`.
        init: Initialisation of the mixers.
        order: Layers, the one that costs least first.
        kl: Per-token KL divergence from the teacher in nats: with ``'single'`` for that
            layer alone, with ``'greedy'`` for it and all layers before it.
        tokens: Number of tokens used for the measurement.
    """

    method: str
    init: str
    order: list[int] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    tokens: int = 0

    def save(self, path: str | Path) -> None:
        """Write the ranking as JSON."""
        Path(path).write_text(json.dumps(self.__dict__, indent=1) + '\n')

    def note_in(self, config: Any) -> None:
        """Record in the hybrid's config how its layers were chosen.

        Args:
            config: Config of a language model, or of a vision-language model around it.
        """
        config.get_text_config().layer_ranking = asdict(self)

    def __str__(self) -> str:
        meaning = 'alone' if self.method == 'single' else 'with those above'
        lines = [
            f'Layers by the KL per token of converting them ({meaning}; '
            f'init={self.init}, {self.tokens:,} tokens):',
            'rank  layer  KL (nats)',
        ]
        for rank, (layer, kl) in enumerate(zip(self.order, self.kl, strict=True), 1):
            lines.append(f'{rank:4}  {layer:5}  {kl:9.4f}')
        return '\n'.join(lines)
