"""Recording the outputs of a student's taps during one training step."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mmtransmamba.models.taps import (
    DirectionFeature,
    DirectionTap,
    LayerFeature,
    LayerTap,
)


@dataclass
class TapRecord:
    """Features of one forward pass, in the order of the blocks.

    Attributes:
        layers: One entry per :class:`LayerTap`.
        directions: One entry per :class:`DirectionTap`.
    """

    layers: list[LayerFeature] = field(default_factory=list)
    directions: list[DirectionFeature] = field(default_factory=list)


class TapRecorder:
    """Listens to the taps of a student.

    ``start`` opens the taps and ``stop`` ends the recording. Until ``close``, the
    mixers continue to compute the tapped outputs: activation checkpointing runs the
    blocks again in the backward pass and must find the same computation.

    Args:
        student: Model with :class:`LayerTap` and :class:`DirectionTap` modules.
        num_tokens: Number of tokens whose direction outputs are read, drawn anew in
            every step; None reads all. The losses are means over tokens, so a random
            subset estimates them without bias at a fraction of the cost.
        directions: Whether direction features will be asked for.

    Raises:
        ValueError: The student lacks taps of a requested kind.
    """

    def __init__(
        self,
        student: nn.Module,
        num_tokens: int | None = None,
        directions: bool = True,
    ) -> None:
        self.layer_taps = [m for m in student.modules() if isinstance(m, LayerTap)]
        self.direction_taps = [
            m for m in student.modules() if isinstance(m, DirectionTap)
        ]
        self.num_tokens = num_tokens
        for wanted, taps, kind in (
            (True, self.layer_taps, 'LayerTap'),
            (directions, self.direction_taps, 'DirectionTap'),
        ):
            if wanted and not taps:
                raise ValueError(
                    f'The student {type(student).__name__} has no {kind}, which the '
                    'configured distillation terms read. Place one after each block '
                    '(LayerTap) or beside each scan (DirectionTap), see '
                    'mmtransmamba.models.taps.'
                )
        self._record: TapRecord | None = None
        self._draw: dict[int, Tensor] = {}

    def start(self, directions: bool = True) -> None:
        """Open the taps for one forward pass.

        Args:
            directions: Whether this pass records direction features, too.
        """
        self.close()
        self._record = TapRecord()
        self._draw = {}
        for tap in self.layer_taps:
            tap.listener = self._on_layer
        if directions:
            for tap in self.direction_taps:
                tap.listener = self._on_direction
                tap.select = self._select

    def stop(self) -> TapRecord:
        """End the recording and return it."""
        record, self._record = self._record, None
        return record

    def close(self) -> None:
        """Detach from the taps, which then have no cost."""
        for tap in self.layer_taps:
            tap.listener = None
        for tap in self.direction_taps:
            tap.listener = None
            tap.select = None

    def token_index(self, num_patches: int, device: torch.device) -> Tensor | None:
        """Raster indices ``[M]`` of this step's tokens, the same in all layers.

        None stands for all of them.
        """
        if self.num_tokens is None or self.num_tokens >= num_patches:
            return None
        if num_patches not in self._draw:
            index = torch.randperm(num_patches)[: self.num_tokens].sort().values
            self._draw[num_patches] = index.to(device)
        return self._draw[num_patches]

    def _select(self, scan_order: Tensor) -> Tensor:
        """Steps at which each scan ``[K, L]`` reads the drawn tokens: ``[K, M]``."""
        num_directions, num_patches = scan_order.shape
        tokens = self.token_index(num_patches, scan_order.device)
        if tokens is None:
            steps = torch.arange(num_patches, device=scan_order.device)
            return steps.expand(num_directions, -1)
        step_of_token = scan_order.argsort(dim=1)
        return step_of_token[:, tokens].sort(dim=1).values

    def _on_layer(self, feature: LayerFeature) -> None:
        if self._record is not None:
            self._record.layers.append(feature)

    def _on_direction(self, feature: DirectionFeature) -> None:
        if self._record is not None:
            self._record.directions.append(feature)
