"""The model card of a converted model: its ``README.md``, as model hubs read it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CARD = 'README.md'
TAGS = ('mmtransmamba', 'hybrid')
_FIELDS = ('license', 'base_model', 'language')
_HUB_ID = re.compile(r'[\w-][\w.-]*/[\w-][\w.-]*')
_BASE = re.compile(r'converted from `([^`\n]+)` with mmtransmamba\.')
_ROW = re.compile(r'\| (.+?) \| (.+) \|')
_OWN_ROWS = ('layers', 'mixer', 'history')

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
{use}
```

{readers}

The terms of the teacher's licence apply to this model as well{licence}.
"""

_AUTO = """from transformers import {auto}  # with mmtransmamba installed

model = {auto}.from_pretrained('{name}')"""
_LOAD = """import mmtransmamba

model = mmtransmamba.load('{name}')"""

_AUTO_CLASSES = {
    'ForCausalLM': 'AutoModelForCausalLM',
    'ForConditionalGeneration': 'AutoModelForImageTextToText',
    'ForImageClassification': 'AutoModelForImageClassification',
    'ForSequenceClassification': 'AutoModelForSequenceClassification',
    'ForTokenClassification': 'AutoModelForTokenClassification',
    'ForQuestionAnswering': 'AutoModelForQuestionAnswering',
    'Model': 'AutoModel',
}
"""Classes of transformers that read a model, by the end of its class's name."""

_EXPORT_LM = """`mmtransmamba.load` reads the folder too. `tools/export_lm.py`
writes it for programs without this package, if its mixers have an equal there."""
_EXPORT = """`mmtransmamba.load` reads the folder too. Programs without this package
read what `mmtransmamba.export(model, 'model.pt2', format='torch_export')` writes."""
_READ = '`mmtransmamba.load` reads the folder too.'


@dataclass
class CardFacts:
    """What a card says beyond the config.

    Attributes:
        teacher: Folder or name of the model it was made from, whose card has the
            licence. Of a folder, only the name is written.
        rows: Further rows of the table, by label.
    """

    teacher: str | Path | None = None
    rows: dict[str, str] = field(default_factory=dict)


def read_card(folder: str | Path | None) -> dict[str, str]:
    """Licence, base model and language in a folder's card.

    They are in the front matter; a card of this package also names a base model that
    is not on a hub in its text. Only simple values are read; what is missing or
    structured is left out.
    """
    text = _text_of(folder)
    matter = re.match(r'---\r?\n(.*?)\r?\n---', text, re.DOTALL)
    lines = matter[1].splitlines() if matter else ()
    pairs = (line.partition(':') for line in lines)
    found = {key.strip(): value.strip().strip('\'"') for key, _, value in pairs}
    known = {key: found[key] for key in _FIELDS if found.get(key)}
    base = _BASE.search(text)
    return dict(base_model=base[1]) | known if base else known


def read_rows(folder: str | Path | None) -> dict[str, str]:
    """The further rows of a card of this package, none of any other card."""
    if not has_card(folder):
        return {}
    text = _text_of(folder)
    table = text.partition('|---|---|\n')[2].partition('\n\n')[0]
    rows = dict(found.groups() for found in map(_ROW.fullmatch, table.splitlines()))
    return {label: text for label, text in rows.items() if label not in _OWN_ROWS}


def has_card(folder: str | Path | None) -> bool:
    """Whether a folder has a card of this package."""
    return _BASE.search(_text_of(folder)) is not None


def add_rows(folder: str | Path, rows: Mapping[str, str]) -> None:
    """Add rows to the table of a card, in place of earlier ones of the same labels.

    Raises:
        ValueError: The folder has no card of this package.
    """
    text = _text_of(folder)
    if not has_card(folder):
        raise ValueError(
            f'{folder} has no {CARD} that mmtransmamba wrote, so nothing is added to it'
        )
    before, mark, rest = text.partition('|---|---|\n')
    table, gap, after = rest.partition('\n\n')
    lines = {_label(line): line for line in table.splitlines()}
    lines |= {label: f'| {label} | {value} |' for label, value in rows.items()}
    text = before + mark + '\n'.join(lines.values()) + gap + after
    (Path(folder) / CARD).write_text(text, encoding='utf-8')


def write_card(
    folder: str | Path,
    name: str,
    config: Any,
    teacher: str | Path | None,
    figures: Mapping[str, str] | None = None,
    *,
    tags: tuple[str, ...] = (),
    replace: bool = False,
) -> None:
    """Write the card of a converted model, unless its folder has one.

    Args:
        folder: The model's folder.
        name: Its name, for the title and for the code that loads it.
        config: Its config, whose ``architectures`` tell how it is loaded.
        teacher, figures: See :class:`CardFacts`.
        tags: Tags besides :data:`TAGS`.
        replace: Whether to replace a card that is there.
    """
    path = Path(folder) / CARD
    if path.exists() and not replace:
        return
    path.write_text(
        front_matter(teacher, tags)
        + _TEXT.format(
            name=name,
            **origin(teacher),
            rows=''.join(f'| {k} | {v} |\n' for k, v in (figures or {}).items()),
            **_use(config, name),
            **_described(config.get_text_config()),
        ),
        encoding='utf-8',
    )


def front_matter(teacher: str | Path | None, tags: tuple[str, ...] = ()) -> str:
    """The beginning of a card, which hubs read: licence, base model and tags.

    Args:
        teacher: See :class:`CardFacts`.
        tags: Tags besides :data:`TAGS`.
    """
    known = read_card(teacher)
    base = known.pop('base_model', None) or _name_of(teacher)
    fields = {
        'library_name': 'transformers',
        'tags': f'[{", ".join(dict.fromkeys((*TAGS, *tags)))}]',
        **known,
    }
    if _HUB_ID.fullmatch(base):  # a hub refuses other values
        fields['base_model'] = base
    lines = ['---', *(f'{key}: {value}' for key, value in fields.items()), '---']
    return '\n'.join([*lines, '', ''])


def origin(teacher: str | Path | None) -> dict[str, str]:
    """The base model and its licence, as the text of a card names them."""
    known = read_card(teacher)
    licence = known.get('license')
    return dict(
        base=known.get('base_model') or _name_of(teacher),
        licence=f' ({licence})' if licence else '; its card names none here',
    )


def _text_of(folder: str | Path | None) -> str:
    path = None if folder is None else Path(folder) / CARD
    if path is None or not path.is_file():
        return ''
    return path.read_text(encoding='utf-8', errors='replace')


def _label(line: str) -> str:
    found = _ROW.fullmatch(line)
    return found[1] if found else line


def _name_of(teacher: str | Path | None) -> str:
    """A model's name: that on a hub, or of its folder or file."""
    if not teacher:
        return 'a model'
    on_hub = _HUB_ID.fullmatch(str(teacher)) and not Path(teacher).exists()
    return str(teacher) if on_hub else Path(teacher).absolute().name


def _use(config: Any, name: str) -> dict[str, str]:
    """The code that loads a model, and other ways to read it."""
    architecture = (getattr(config, 'architectures', None) or [''])[0]
    ends = (end for end in _AUTO_CLASSES if architecture.endswith(end))
    auto = _AUTO_CLASSES.get(next(ends, None))
    readers = _READ
    if auto == 'AutoModelForCausalLM':
        readers = _EXPORT_LM
    elif not getattr(config, 'decodes', True):
        readers = _EXPORT
    use = (_AUTO if auto else _LOAD).format(name=name, auto=auto)
    return dict(use=use, readers=readers)


def _described(config: Any) -> dict[str, str]:
    kinds = getattr(config, 'layer_types', None) or []
    chosen = list(getattr(config, 'mamba_layers', None) or ())
    if not chosen:
        kind = 'A Transformer'
    elif len(chosen) == len(kinds) and not getattr(config, 'key_layers', None):
        kind = 'A model without attention'
    else:
        kind = 'A hybrid of attention and linear-time layers'
    mixer = dict(getattr(config, 'mixer', None) or {})
    named = mixer.pop('type', 'none')
    fields = ', '.join(f'{key}={value}' for key, value in mixer.items())
    named = f'{named} ({fields})' if fields else named
    for layer, other in (getattr(config, 'layer_mixers', None) or {}).items():
        named += f', in layer {layer} {other["type"]}'
        if other.get('attention_kv_heads'):
            heads = ', '.join(map(str, other['attention_kv_heads']))
            named += f' (attention in the key-value heads {heads})'
    return dict(
        kind=kind,
        layers=f'{len(chosen)} of {len(kinds)} converted: {", ".join(map(str, chosen))}'
        if chosen
        else 'all as in the teacher',
        mixer=named,
        history=', '.join(getattr(config, 'transfer_history', None) or ['none']),
    )
