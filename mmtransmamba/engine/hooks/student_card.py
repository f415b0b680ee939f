"""What a training adds to the model card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.runner import Runner
from torch import nn

from mmtransmamba.models.card import CardFacts, read_rows

_MEASURED = ' (last validation)'
_FILES = ('files', 'file', 'ann_file', 'data_root')
"""Arguments of data sets that name their files, the most specific first."""


def trained_facts(
    runner: Runner, model: nn.Module, source: str | None, stage: str
) -> CardFacts:
    """The facts of the model before the training, its data and the last validation.

    Args:
        runner: The Runner of the training.
        model: The trained transformers model.
        source: Folder that it was read from, if any.
        stage: Name of the training.
    """
    before = getattr(model, 'card', None) or CardFacts(source, read_rows(source))
    kept = {k: v for k, v in before.rows.items() if not v.endswith(_MEASURED)}
    loader = runner.cfg.get('train_dataloader') or {}
    dataset = loader.get('dataset')
    if dataset is None:  # the Runner was not built from a config
        dataset = dict(type=type(runner.train_dataloader.dataset).__name__)
    kept[f'data of {stage}'] = ', '.join(dict.fromkeys(_data_of(dataset)))
    return CardFacts(before.teacher, kept | _figures(runner))


def _data_of(dataset: Mapping[str, Any]) -> Iterator[str]:
    """Names of a data set's files, or of its class; of those that it consists of."""
    inner = dataset.get('dataset') or dataset.get('datasets')
    if inner:
        for part in [inner] if isinstance(inner, Mapping) else inner:
            yield from _data_of(part)
        return
    given = next(filter(None, map(dataset.get, _FILES)), None)
    if given is None:
        yield str(dataset.get('type', '')).rpartition('.')[2]
        return
    single = isinstance(given, Mapping) or not isinstance(given, Sequence)
    for item in [given] if single or isinstance(given, str) else given:
        path = item.get('file', '') if isinstance(item, Mapping) else item
        yield f'`{Path(str(path)).name}`'


def _figures(runner: Runner) -> dict[str, str]:
    """The last validation."""
    scalars = runner.message_hub.log_scalars
    return {
        name.removeprefix('val/'): f'{buffer.current():.4g}{_MEASURED}'
        for name, buffer in scalars.items()
        if name.startswith('val/') and not name.endswith('time')
    }
