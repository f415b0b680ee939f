"""Writing a converted language model for programs without this package."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from mmtransmamba.apis.loading import find_model_folder, load
from mmtransmamba.apis.serving.bamba import to_bamba
from mmtransmamba.apis.serving.granite import to_granite
from mmtransmamba.compat import release
from mmtransmamba.models.card import CardFacts, front_matter, origin, read_rows
from mmtransmamba.models.folders.companions import copy_companions
from mmtransmamba.models.language.cache_names import as_argument, returned_cache
from mmtransmamba.utils.checkpoint_files import put_in_place
from mmtransmamba.utils.evaluation_mode import evaluating

FORMATS = {'granite': 'granitemoehybrid', 'bamba': 'bamba'}
"""``model_type`` by format."""
GROUPED_SINCE = (5, 23)
"""The first transformers whose Granite and Bamba normalise each group alone."""

TOLERANCE = 1e-4
PROMPT, ANSWER = 33, 16  # numbers of tokens in the check

MARK = 'mmtransmamba_export'
"""Entry in the config of what is written here, by which it may be replaced."""

_NOTE = """# {name}

A hybrid of {mamba} Mamba-2 and {attention} attention layers, converted from `{base}`
with mmtransmamba and written as `{kind}`.

| | |
|---|---|
| history | {history} |
{rows}
{use}
The terms of the original model's licence apply to this model as well{licence}.
"""

_USES = {
    'granite': """It is read by transformers 5.23 or later, vLLM and SGLang, without
further code. Earlier releases of transformers, and mlx-lm, load it without an error but
normalise over all channels of the mixers instead of each head alone: their output is
wrong.

vLLM keeps the recurrent state in the model's dtype; `--mamba-ssm-cache-dtype float32`
keeps it in float32.
""",
    'bamba': """It is converted to GGUF by llama.cpp's `convert_hf_to_gguf.py`, and read
by transformers 5.23 or later. Earlier releases load it without an error but normalise
over all channels of the mixers instead of each head alone: their output is wrong.
""",
}


@dataclass(frozen=True)
class LanguageExportReport:
    """Report on an exported folder.

    Attributes:
        path: The folder.
        format: One of :data:`FORMATS`.
        difference: Largest difference of the logits relative to the largest logit; None
            if it was not checked.
        tokens: Greedily generated tokens that were compared, and are equal.
    """

    path: Path
    format: str
    difference: float | None = None
    tokens: int = 0


def export_language_model(
    model: nn.Module | str | Path,
    out: str | Path,
    format: str = 'granite',
    *,
    overwrite: bool = False,
    check: bool = True,
) -> LanguageExportReport:
    """Write a converted language model for programs that do not have this package.

    The folder gets its final name only when it is complete and has been checked. In
    float32, loaded with transformers' own class, its logits must equal the hybrid's
    within :data:`TOLERANCE`, relative to the largest, and its greedy tokens must be
    the same.

    Args:
        model: The hybrid, or its folder (or the work directory of its training). From
            a folder, tokenizer, chat template and generation settings are copied too.
        out: The folder to write.
        format: ``'granite'``, see :mod:`mmtransmamba.apis.serving.granite`, or
            ``'bamba'`` for llama.cpp's converter to GGUF, see
            :mod:`mmtransmamba.apis.serving.bamba`.
        overwrite: Replace the folder if it is an earlier export.
        check: Compare the folder with the hybrid. It needs both in float32.

    Raises:
        FileExistsError: The folder exists, and may not be replaced.
        ImportError: The check needs a later transformers.
        ValueError: The model has no equivalent in the format; the message lists every
            obstacle and its workaround.
    """
    if format not in FORMATS:
        raise ValueError(
            f'format {format!r} is unknown; accepted: {", ".join(FORMATS)}'
        )
    if check and release(transformers.__version__) < GROUPED_SINCE:
        raise ImportError(
            f'transformers {transformers.__version__} computes {format} differently: '
            'the check needs 5.23 or later. Install it, or leave out the check'
        )
    out = Path(out)
    _check_replaceable(out, overwrite)
    source = None
    if not isinstance(model, nn.Module):
        source, model = find_model_folder(Path(model)), load(model)
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        evaluating(model),
        TemporaryDirectory(prefix=f'{out.name}.', dir=out.parent) as folder,
    ):
        partial = Path(folder) / out.name
        equal = to_granite(model) if format == 'granite' else to_bamba(model)
        equal.save_pretrained(partial)
        _write_config(partial / 'config.json')
        (partial / 'README.md').write_text(
            _note(out.name, format, model, source), encoding='utf-8'
        )
        if source is not None:
            copy_companions(source, partial)
        difference = _difference(model, partial) if check else None
        put_in_place(partial, out)
    return LanguageExportReport(out, format, difference, ANSWER if check else 0)


def _check_replaceable(out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    if not overwrite:
        raise FileExistsError(f'{out} exists; give another folder, or overwrite it')
    config = out / 'config.json'
    text = config.read_text('utf-8') if config.is_file() else ''
    if f'"{MARK}": true' not in text:
        raise FileExistsError(
            f'{out} is not an earlier export, so it is not replaced; give another '
            'folder'
        )


def _note(name: str, format: str, model: nn.Module, source: Path | None) -> str:
    mamba = len(model.config.mamba_layers)
    facts = model.card_facts()
    if source is not None:  # unchanged since then
        facts = CardFacts(source, read_rows(source))
    return front_matter(facts.teacher, (FORMATS[format],)) + _NOTE.format(
        name=name,
        kind=FORMATS[format],
        use=_USES[format],
        mamba=mamba,
        attention=model.config.num_hidden_layers - mamba,
        history=', '.join(model.config.transfer_history) or 'none',
        rows=''.join(f'| {label} | {text} |\n' for label, text in facts.rows.items()),
        **origin(facts.teacher),
    )


def _write_config(path: Path) -> None:
    """Write settings in plain JSON, under names that every reader supports."""
    fields = json.loads(path.read_text(encoding='utf-8'))
    fields.pop('time_step_limit', None)  # the default; infinity is not JSON
    fields[MARK] = True
    if 'layer_types' in fields:
        _rename_fields(fields)
    path.write_text(json.dumps(fields, indent=2, sort_keys=True) + '\n', 'utf-8')


def _rename_fields(fields: dict[str, Any]) -> None:
    """Names of Granite's fields for older readers; transformers accepts them too.

    SGLang reads ``rope_theta`` and ``rope_scaling`` only, and older readers name layers
    'mamba' and 'attention'.
    """
    rope = dict(fields.pop('rope_parameters', None) or {})
    fields['rope_theta'] = rope.pop('rope_theta', 10000.0)
    scaled = rope.get('rope_type', 'default') != 'default'
    fields['rope_scaling'] = rope if scaled else None
    fields['layer_types'] = [
        'mamba' if kind == 'linear_attention' else 'attention'
        for kind in fields['layer_types']
    ]


@torch.no_grad()
def _difference(model: nn.Module, folder: Path) -> float:
    """Relative difference of the logits.

    Raises:
        ValueError: The difference is too large, or the greedy tokens differ.
    """
    other = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True
    ).eval()
    if any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        model = copy.deepcopy(model).float()
    generator = torch.Generator().manual_seed(0)
    limit = model.config.max_position_embeddings
    length = min(PROMPT, max(1, limit - ANSWER))
    ids = torch.randint(model.config.vocab_size, (2, length), generator=generator)
    expected, tokens = _greedy(model, ids, other.config.use_cache)
    actual, others = _greedy(other, ids, other.config.use_cache)
    gap = ((actual - expected).abs().max() / expected.abs().max()).item()
    if not gap <= TOLERANCE:
        raise ValueError(
            f'the logits of the folder differ by {gap:.1e} from the model (accepted: '
            f'{TOLERANCE:g}); it was not kept'
        )
    if not torch.equal(tokens, others):
        raise ValueError(
            'the folder generates other tokens than the model; it was not kept'
        )
    return gap


def _greedy(model: nn.Module, ids: Tensor, use_cache: bool) -> tuple[Tensor, Tensor]:
    """Logits of the prompt, and the most likely tokens after it.

    ``generate`` is not used, because a folder's settings may forbid or force tokens.
    """
    output = model(ids, use_cache=use_cache)
    logits, tokens = output.logits, []
    for _ in range(ANSWER):
        tokens.append(output.logits[:, -1].argmax(-1))
        ids = torch.cat((ids, tokens[-1][:, None]), dim=1)
        if use_cache:
            cache = as_argument(returned_cache(output))
            # A Bamba does not take it from the cache.
            position = torch.full((len(ids), 1), ids.shape[1] - 1)
            output = model(ids[:, -1:], position_ids=position, use_cache=True, **cache)
        else:
            output = model(ids, use_cache=False)
    return logits, torch.stack(tokens, dim=1)
