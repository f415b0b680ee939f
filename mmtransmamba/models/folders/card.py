"""The model card of a converted model: its ``README.md``, as model hubs read it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmtransmamba.models.language.config import MAMBA

CARD = 'README.md'
_FIELDS = ('license', 'base_model', 'language')

_TEXT = """# {name}

{kind}, converted from `{base}` with mmtransmamba.

| | |
|---|---|
| layers | {layers} |
| mixer | {mixer} |
| history | {history} |
{rows}
## Use

```python
from transformers import AutoModelForCausalLM  # with mmtransmamba installed

model = AutoModelForCausalLM.from_pretrained('{name}')
```

`mmtransmamba.load` reads the folder too. `tools/export_lm.py` writes it for programs
without this package, if its mixers have an equal there.

The terms of the teacher's licence apply to this model as well{licence}.
"""


def read_card(folder: str | Path | None) -> dict[str, str]:
    """Licence, base model and language in the front matter of a folder's card.

    Only simple values are read; what is missing or structured is left out.
    """
    path = None if folder is None else Path(folder) / CARD
    if path is None or not path.is_file():
        return {}
    text = path.read_text(encoding='utf-8', errors='replace')
    matter = re.match(r'---\r?\n(.*?)\r?\n---', text, re.DOTALL)
    lines = matter[1].splitlines() if matter else ()
    pairs = (line.partition(':') for line in lines)
    found = {key.strip(): value.strip().strip('\'"') for key, _, value in pairs}
    return {key: found[key] for key in _FIELDS if found.get(key)}


def write_card(
    folder: str | Path,
    name: str,
    config: Any,
    teacher: str | Path | None,
    figures: Mapping[str, str] | None = None,
) -> None:
    """Write the card of a converted model, unless its folder has one.

    Args:
        folder: The model's folder.
        name: Its name, for the title.
        config: Config of the hybrid.
        teacher: Folder of the model it was made from, whose card has the licence. Only
            the folder's name is written.
        figures: Further rows of the table, by label.
    """
    path = Path(folder) / CARD
    if path.exists():
        return
    known = read_card(teacher)
    base = known.get('base_model') or (Path(teacher).name if teacher else 'a model')
    front = {
        'library_name': 'transformers',
        'tags': '[mmtransmamba, hybrid]',
        **known,
        'base_model': base,
    }
    licence = known.get('license')
    path.write_text(
        '\n'.join(['---', *(f'{k}: {v}' for k, v in front.items()), '---', '', ''])
        + _TEXT.format(
            name=name,
            base=base,
            licence=f' ({licence})' if licence else '; its card names none here',
            rows=''.join(f'| {k} | {v} |\n' for k, v in (figures or {}).items()),
            **_described(config.get_text_config()),
        ),
        encoding='utf-8',
    )


def _described(config: Any) -> dict[str, str]:
    kinds = getattr(config, 'layer_types', None) or []
    chosen = [i for i, kind in enumerate(kinds) if kind == MAMBA]
    if not chosen:
        kind = 'A Transformer'
    elif len(chosen) == len(kinds):
        kind = 'A model without attention'
    else:
        kind = 'A hybrid of attention and linear-time layers'
    mixer = dict(getattr(config, 'mixer', None) or {})
    named = mixer.pop('type', 'none')
    fields = ', '.join(f'{key}={value}' for key, value in mixer.items())
    named = f'{named} ({fields})' if fields else named
    for layer, other in (getattr(config, 'layer_mixers', None) or {}).items():
        named += f', in layer {layer} {other["type"]}'
    return dict(
        kind=kind,
        layers=f'{len(chosen)} of {len(kinds)} converted: {", ".join(map(str, chosen))}'
        if chosen
        else 'all as in the teacher',
        mixer=named,
        history=', '.join(getattr(config, 'transfer_history', None) or ['none']),
    )
