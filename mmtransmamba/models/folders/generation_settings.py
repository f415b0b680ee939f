"""Generation settings of the model in a folder."""

from __future__ import annotations

import copy
from pathlib import Path

from torch import nn
from transformers import GenerationConfig


def generation_config_of(model: nn.Module | str | Path) -> GenerationConfig | None:
    """Generation settings: stop tokens and sampling; None if not specified."""
    if isinstance(model, nn.Module):
        return copy.deepcopy(getattr(model, 'generation_config', None))
    if not (Path(model) / 'generation_config.json').is_file():
        return None
    return GenerationConfig.from_pretrained(str(model), local_files_only=True)
