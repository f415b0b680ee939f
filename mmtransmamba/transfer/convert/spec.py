"""Specification of a conversion."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from mmengine.registry import Registry
from torch import Tensor

from mmtransmamba.models.language.mixers import Init, mixer_class
from mmtransmamba.models.language.mixers.fields import (
    DEFAULT,
    as_fields,
    check_fields,
    name_of,
)
from mmtransmamba.registry import DECODER_MIXERS
from mmtransmamba.utils.choices import RANKINGS

_MIXER_OF = {'subclone': 'Mamba'}
"""The mixer of the paper that an initialisation comes from, where it is not Mamba-2."""


@dataclass(frozen=True)
class Conversion:
    """Which layers of a model are converted, to which mixers, and their initialisation.

    Attributes:
        layers: Choice of layers, see
            :func:`~mmtransmamba.models.language.choose_layers`; or ``'auto'``: those
            that cost least, measured on ``calibration``, see
            :func:`~mmtransmamba.transfer.convert.rank_layers`; or the ``.json`` file
            of a ranking, of which the first layers are converted.
        ratio: Share of the layers that become Mamba, in (0, 1], unless ``layers`` lists
            them.
        init: Initialisation of the mixers; a mixer declares the names it supports.
            Those of this package are

            * ``'mimic'`` (mmMamba): Mamba-2 whose x, B, C and out_proj are v, k, q and
              o, with a decay close to 1, an identity convolution and a small gate;
            * ``'inherit'``: the same projections, otherwise like a new Mamba-2
              (mmMamba, Table 4);
            * ``'vkq'`` (MaTVLM): the same projections in the original Mamba-2 mixer;
            * ``'calibrate'``: the same projections in Mamba-2, Gated DeltaNet or KDA,
              then fitted to the attention on ``calibration``, see
              :func:`~mmtransmamba.transfer.convert.calibrating.calibrate`;
            * ``'subclone'`` (TransMamba): Mamba-1 mixers from ``mamba_checkpoint``,
              with a convolution drawn from a normal distribution. The student may be
              shallower (it has the first layers) and narrower (it has the top-left
              blocks) than the teacher;
            * ``'scratch'``: nothing from the attention, like a new Mamba-2.
        seed: Seed of random values.
        mixer: The mixer's type, or fields (with or without ``type``) that differ from
            the defaults of ``init``. By default the mixer of the paper of ``init``.
        mamba_checkpoint: File or folder of a Mamba-1 model, for ``'subclone'``.
        calibration: Text for ``'auto'`` and ``'calibrate'``. With any initialisation, a
            part of it is held out to compare the hybrid with its teacher. Batches of
            token ids ``[B, L]``, or a file for
            :func:`~mmtransmamba.transfer.convert.read_calibration`.
        calibration_tokens: Number of tokens to read from a file.
        calibration_steps: Number of training steps by which ``'calibrate'`` fits each
            mixer to its attention, ``CALIBRATION_STEPS`` by default; 0 for the closed
            forms alone.
        ranking: Ranking method of ``'auto'``, see
            :func:`~mmtransmamba.transfer.convert.rank_layers`.
        fields: Fields of the student's config that differ from the teacher's, such as
            ``num_hidden_layers``.

    Raises:
        ValueError: The mixer, one of its fields, the initialisation or the ranking is
            unknown, ``'auto'`` has no calibration text, or the initialisation does not
            support a checkpoint.
    """

    mixers: ClassVar[Registry] = DECODER_MIXERS
    """Where the types of mixers are registered."""

    mixers_of_inits: ClassVar[Mapping[str, str]] = _MIXER_OF
    """The mixer that goes with an initialisation, where it is not Mamba-2."""

    layers: str | Path | Sequence[int] = 'evenly'
    ratio: float = 1.0
    init: str = 'mimic'
    seed: int = 0
    mixer: str | Mapping[str, Any] | None = None
    mamba_checkpoint: str | Path | None = None
    calibration: Sequence[Tensor] | str | Path = ()
    calibration_tokens: int = 8192
    calibration_steps: int | None = None
    ranking: str = 'single'
    fields: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, **options: Any) -> Conversion:
        """A conversion from keywords; unknown ones become ``fields``."""
        own = {f.name for f in dataclasses.fields(cls)} - {'fields'}
        fields = {name: options[name] for name in options if name not in own}
        return cls(**{n: options[n] for n in options if n in own}, fields=fields)

    def __post_init__(self) -> None:
        if isinstance(self.layers, Path):
            object.__setattr__(self, 'layers', str(self.layers))
        check_fields(mixer_class(self.mixer_type, self.mixers), self.mixer_fields)
        how = self.initialisation
        if self.mamba_checkpoint is not None and not how.from_checkpoint:
            raise ValueError(
                "mamba_checkpoint needs init='subclone' with a mixer that has "
                'checkpoints, such as Mamba.'
            )
        if self.ranking not in RANKINGS:
            raise ValueError(
                f'ranking={self.ranking!r} must be one of {", ".join(RANKINGS)}.'
            )
        if self.layers == 'auto' and not self.calibration:
            raise ValueError('Ranking layers needs calibration text; there is none.')
        if how.calibrated and not self.calibration:
            raise ValueError(
                f'init={self.init!r} needs calibration text; there is none.'
            )
        steps = self.calibration_steps
        if steps is not None and not how.calibrated:
            raise ValueError(
                f"calibration_steps goes with init='calibrate', not {self.init!r}."
            )
        if steps is not None and (type(steps) is not int or steps < 0):
            raise ValueError(f'calibration_steps={steps!r} must be 0 or more.')

    @property
    def mixer_type(self) -> str:
        """The mixer's short name."""
        kind = self._given_mixer.get(
            'type', self.mixers_of_inits.get(self.init, DEFAULT)
        )
        return name_of(mixer_class(kind, self.mixers))

    @property
    def mixer_fields(self) -> dict[str, Any]:
        """Fields of the mixer that are set explicitly."""
        return {k: v for k, v in self._given_mixer.items() if k != 'type'}

    @property
    def initialisation(self) -> Init:
        """The mixer's declaration of ``init``."""
        return init_of(self.mixer_type, self.init, self.mixers)

    @property
    def _given_mixer(self) -> dict[str, Any]:
        return as_fields(self.mixer or {})


def init_of(mixer: str, init: str, registry: Registry = DECODER_MIXERS) -> Init:
    """A mixer's initialisation with a name.

    Args:
        mixer: The mixer's type.
        init: Name of the initialisation.
        registry: Where the types of mixers are registered.

    Raises:
        ValueError: The mixer has no initialisation with this name.
    """
    cls = mixer_class(mixer, registry)
    if init in cls.inits:
        return cls.inits[init]
    others = [
        name for name, other in registry.module_dict.items() if init in other.inits
    ]
    hint = f' init={init!r} is for mixer={" or ".join(map(repr, others))}.'
    raise ValueError(
        f'init={init!r} must be one of {", ".join(cls.inits)} for '
        f'mixer={name_of(cls)!r}.' + (hint if others else '')
    )
