"""Writing a converted model without holding it in memory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from mmtransmamba.models.language import HYBRIDS
from mmtransmamba.transfer.language.plan import ConversionPlan

REPORT_FILE = 'conversion_report.json'
_COPIED = ('tokenizer*', 'vocab*', 'merges.txt', 'special_tokens*', '*.model')
_ALSO_COPIED = ('generation_config.json', 'chat_template*', 'added_tokens.json')


def write_model(
    plan: ConversionPlan,
    folder: str | Path,
    teacher: str | Path | None = None,
    max_shard_bytes: int = 5 * 10**9,
    overwrite: bool = False,
) -> Path:
    """Carry a plan out tensor by tensor into a folder ``from_pretrained`` can read.

    At no time is more than one shard of the new weights in memory. The folder appears
    under its name when it is complete.

    Args:
        plan: What to write.
        folder: Folder to create.
        teacher: Folder of the teacher, whose tokenizer and generation config are
            copied.
        max_shard_bytes: Size of a shard.
        overwrite: Replace the folder if it exists.

    Raises:
        FileExistsError: The folder exists and is not to be replaced.
    """
    folder = Path(folder)
    if folder.exists() and not overwrite:
        raise FileExistsError(
            f'{folder} exists; give another folder, or allow overwriting.'
        )
    partial = folder.with_name(folder.name + '.partial')
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _write_shards(plan, partial, max_shard_bytes)
    config = plan.config
    config.architectures = [HYBRIDS[config.model_type[7:]][2].__name__]
    config.save_pretrained(partial)
    plan.report().save(partial / REPORT_FILE)
    if teacher is not None:
        for pattern in (*_COPIED, *_ALSO_COPIED):
            for file in Path(teacher).glob(pattern):
                shutil.copy(file, partial)
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)
    return folder


def _write_shards(plan: ConversionPlan, folder: Path, limit: int) -> None:
    shards: list[list[str]] = [[]]
    pending: dict[str, Tensor] = {}
    size = total = 0

    def flush() -> None:
        save_file(pending, folder / f'shard-{len(shards)}', metadata={'format': 'pt'})
        pending.clear()

    keep = HYBRIDS[plan.config.model_type[7:]][2]._keep_in_fp32_modules_strict
    dtype = None
    for name, step in tqdm(plan, total=len(plan.steps), desc='converting'):
        tensor = step.make()
        if step.entry.source == name and dtype is None:
            dtype = tensor.dtype  # the embedding's, which comes first
        wanted = torch.float32 if name.rsplit('.', 1)[-1] in keep else dtype
        tensor = tensor.to(wanted).contiguous().clone()
        if pending and size + tensor.nbytes > limit:
            flush()
            shards.append([])
            size = 0
        pending[name] = tensor
        shards[-1].append(name)
        size += tensor.nbytes
        total += tensor.nbytes
    flush()
    if len(shards) == 1:
        (folder / 'shard-1').rename(folder / 'model.safetensors')
        return
    names = {}
    for number, keys in enumerate(shards, 1):
        file = f'model-{number:05}-of-{len(shards):05}.safetensors'
        (folder / f'shard-{number}').rename(folder / file)
        names |= dict.fromkeys(keys, file)
    index = {'metadata': {'total_size': total}, 'weight_map': names}
    (folder / 'model.safetensors.index.json').write_text(json.dumps(index, indent=2))
