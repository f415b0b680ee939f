"""Specification of the conversion of a vision encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from mmengine.registry import Registry

from mmtransmamba.registry import ENCODER_MIXERS
from mmtransmamba.transfer.convert.spec import Conversion


@dataclass(frozen=True)
class EncoderConversion(Conversion):
    """As :class:`Conversion`, for a vision encoder.

    The mixers are those of :data:`~mmtransmamba.registry.ENCODER_MIXERS`, and the
    calibration data are images.

    Attributes:
        init: Initialisation of the mixers; those of this package declare

            * ``'mimic'``: x, B, C (v, k, q) and out_proj from v, k, q and o, with
              fixed decays and an open gate, neither dependent on the input;
            * ``'calibrate'``: the same projections, then fitted to the attention on
              ``calibration``, see
              :func:`~mmtransmamba.transfer.convert.calibrating.fit_mixers`;
            * ``'vkq'``: the same projections, otherwise like a new mixer;
            * ``'scratch'``: nothing from the attention.
        calibration: Batches of normalised images ``[B, 3, H, W]`` (``pixel_values``),
            or a folder of image files, which the teacher's image processor reads. With
            any initialisation, an eighth of them is held out to compare the hybrid with
            its teacher.
        calibration_images: Number of images to read from a folder.

    Raises:
        ValueError: As for :class:`Conversion`; or an option is for language models.
    """

    mixers: ClassVar[Registry] = ENCODER_MIXERS
    mixers_of_inits: ClassVar[Mapping[str, str]] = MappingProxyType({})
    calibration_images: int = 64

    def __post_init__(self) -> None:
        if self.layers == 'auto':
            raise ValueError(
                "layers='auto' ranks layers by a text; for a vision encoder give a "
                'position or a list of layers.'
            )
        for name, default in (
            ('mamba_checkpoint', None),
            ('calibration_tokens', Conversion.calibration_tokens),
            ('ranking', Conversion.ranking),
            ('fields', {}),
        ):
            given = getattr(self, name)
            if given != default:
                shown = ', '.join(given) if name == 'fields' else name
                raise ValueError(
                    f'{shown} is not an option for vision encoders; the options are '
                    'layers, ratio, init, seed, mixer, calibration, '
                    'calibration_images and calibration_steps.'
                )
        count = self.calibration_images
        if type(count) is not int or count < 2:
            raise ValueError(f'calibration_images={count!r} must be 2 or more.')
        if isinstance(self.calibration, str | Path):
            if not Path(self.calibration).is_dir():
                raise FileNotFoundError(
                    f'calibration: no folder of images at {self.calibration}.'
                )
        elif not all(
            getattr(batch, 'ndim', 0) == 4 and batch.is_floating_point()
            for batch in self.calibration
        ):
            raise ValueError(
                'calibration must be a folder of images, or batches of normalised '
                'images [B, 3, H, W].'
            )
        if self.initialisation.calibrated and not self.calibration:
            raise ValueError(f'init={self.init!r} needs calibration images.')
        super().__post_init__()
