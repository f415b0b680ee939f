"""Origin of the weights of a trained model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import nn

from mmtransmamba.models.folders.assemble_llava import assemble_llava
from mmtransmamba.models.folders.companions import Companions
from mmtransmamba.models.folders.encoder import is_encoder, load_encoder
from mmtransmamba.models.folders.lm import load_lm
from mmtransmamba.models.folders.vlm import is_vision_language, load_vlm
from mmtransmamba.registry import CONVERSIONS


@dataclass(frozen=True)
class Kind:
    """A kind of transformers model.

    Attributes:
        auto_class: Name of transformers' class that builds the model from a config.
        load: Function that reads the model from a folder.
        has_vision: Whether it is a vision-language model, which can be assembled from
            two models.
    """

    auto_class: str
    load: Callable[[str], nn.Module]
    has_vision: bool = False


LANGUAGE = Kind('AutoModelForCausalLM', load_lm)
VISION_LANGUAGE = Kind('AutoModelForImageTextToText', load_vlm, has_vision=True)
ENCODER = Kind('AutoModelForImageClassification', load_encoder)


@dataclass(frozen=True)
class Origin:
    """Origin of a model's weights: exactly one of folder, config and two folders.

    Attributes:
        owner: Name of the class that uses it, for messages.
        kind: Kind of the model.
        path: Folder of a transformers model.
        config: Fields of a transformers config, including ``model_type``, for a model
            with random weights.
        vision, language: Folders of a vision tower and of a causal language model,
            from which a LLaVA is assembled.
        seed: Seed of the random weights.
        convert: Arguments of the conversion to a hybrid; None for no conversion.
        processor: Folder of the tokenizer or processor, by default ``path``.

    Raises:
        FileNotFoundError: A folder does not exist.
        ValueError: Not exactly one of the three is given.
    """

    owner: str
    kind: Kind
    path: str | None = None
    config: dict[str, Any] | None = None
    vision: str | None = None
    language: str | None = None
    seed: int = 0
    convert: dict[str, Any] | None = None
    processor: str | None = None

    def __post_init__(self) -> None:
        halves = [self.vision, self.language]
        given = [self.path, self.config, next(filter(None, halves), None)]
        if sum(v is not None for v in given) != 1 or halves.count(None) == 1:
            others = ', or both vision and language' if self.kind.has_vision else ''
            raise ValueError(
                f'{self.owner}: give either path, a folder, or config{others}.'
            )
        for folder in (self.path, *halves, self.processor):
            if folder is not None and not Path(folder).is_dir():
                raise FileNotFoundError(
                    f'{self.owner}: no folder "{folder}" with a transformers model.'
                )

    def build(self) -> tuple[nn.Module, Companions]:
        """The model, and its tokenizer or processor.

        Raises:
            CheckpointError: A folder's weights do not fit its config.
            ValueError: The config's ``model_type`` is unknown, or the model does not
                support the conversion.
        """
        companions = Companions(self.processor or self.path)
        if self.vision is not None:
            model, made = assemble_llava(self.vision, self.language, seed=self.seed)
            companions = Companions(self.processor, made)
        elif self.config is not None:
            model = random_model(self.config, self.seed, self.kind.auto_class)
        else:
            # A conversion reads the folder itself, one tensor at a time.
            model = self.path if self.convert is not None else self._load()
        if self.convert is not None:
            self._check_kind(model)
            model, report = CONVERSIONS.get('hybrid')(model, **self.convert)
            print_log(f'\n{report}', logger='current')
        return model, companions

    def _check_kind(self, model: nn.Module | str) -> None:
        if is_encoder(model) != (self.kind is ENCODER):
            found, other = 'is a vision encoder', 'EncoderClassifier'
            if self.kind is ENCODER:
                found = 'is not a vision encoder'
                other = 'CausalLM or VisionLanguageModel'
            raise ValueError(
                f'{self.owner}: the model to convert {found}; use {other}.'
            )
        if self.kind is ENCODER:
            return
        if is_vision_language(model) != self.kind.has_vision:
            found, other = ('a language', 'CausalLM')
            if not self.kind.has_vision:
                found, other = ('a vision-language', 'VisionLanguageModel')
            raise ValueError(
                f'{self.owner}: the model to convert is {found} model; use {other}.'
            )

    def _load(self) -> nn.Module:
        return self.kind.load(self.path)


def random_model(config: dict[str, Any], seed: int, auto_class: str) -> nn.Module:
    """A transformers model with random weights.

    Args:
        config: Fields of its config, including ``model_type``.
        seed: Seed of the weights.
        auto_class: Name of transformers' class that builds it.

    Raises:
        ValueError: The ``model_type`` is missing or unknown to transformers.
    """
    import transformers

    fields = dict(config)
    kind = fields.pop('model_type', None)
    if kind not in transformers.CONFIG_MAPPING:
        raise ValueError(
            f'config: model_type={kind!r} must be one of transformers, such as '
            '"llama" or "llava", or of this package, such as "hybrid_llama".'
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = transformers.AutoConfig.for_model(kind, **fields)
        # A transfer history in the config belongs to other weights.
        text = built.get_text_config()
        if hasattr(text, 'transfer_history'):
            text.transfer_history = []
        return getattr(transformers, auto_class).from_config(built)
