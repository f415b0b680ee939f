"""Writing a converted model without holding it in memory."""

from __future__ import annotations

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from mmtransmamba.models.card import CARD, write_card
from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.models.folders.companions import COMPANIONS
from mmtransmamba.transfer.convert.card_facts import card_facts
from mmtransmamba.transfer.convert.plan import Plan
from mmtransmamba.utils.checkpoint_files import put_in_place

REPORT_FILE = 'conversion_report.json'
RANKING_FILE = 'layer_ranking.json'
_OWN = (
    'shard-*',
    'model*.safetensors',
    'model.safetensors.index.json',
    'config.json',
    REPORT_FILE,
    RANKING_FILE,
    CARD,
    *(pattern.partition('/')[0] for pattern in COMPANIONS),
)


def write_model(
    plan: Plan,
    folder: str | Path,
    max_shard_bytes: int = 5 * 10**9,
    overwrite: bool = False,
) -> Path:
    """Execute a plan tensor by tensor into a folder that ``from_pretrained`` can read.

    At most one shard of the new weights is in memory at a time. The folder gets its
    final name when it is complete.

    Args:
        plan: The plan to execute. Tokenizer, chat template and generation config in the
            teacher's folder or GGUF file are written too; the ranking of layers, if
            there is one, is written next to the weights.
        folder: Folder to create.
        max_shard_bytes: Size of a shard, positive.
        overwrite: Replace the folder if it exists and is a converted model.

    Raises:
        FileExistsError: The folder exists and may not be replaced, or it is the
            teacher's.
        ValueError: ``max_shard_bytes`` is not positive.
        CheckpointError: A weight of the teacher has NaN or infinity. The folder is then
            removed.
    """
    if max_shard_bytes < 1:
        raise ValueError(f'max_shard_bytes={max_shard_bytes} must be positive.')
    folder, teacher = Path(folder), plan.teacher.path
    check_replaceable(folder, teacher, overwrite)
    partial = folder.with_name(folder.name + '.partial')
    _remove_stale(partial)
    partial.mkdir(parents=True)
    try:
        _write_shards(plan, partial, max_shard_bytes)
    except CheckpointError:
        shutil.rmtree(partial)
        raise
    config = plan.config
    if plan.ranking is not None:
        plan.ranking.save(partial / RANKING_FILE)
    config.architectures = [plan.model_class.__name__]
    config.save_pretrained(partial)
    report = plan.report()
    report.save(partial / REPORT_FILE)
    plan.teacher.save_companions(partial)
    facts = card_facts(plan, report)
    write_card(partial, folder.name, config, facts.teacher, facts.rows)
    put_in_place(partial, folder)
    return folder


def check_replaceable(
    folder: Path, teacher: str | Path | None, overwrite: bool
) -> None:
    """Check that a converted model may be written to a folder.

    Raises:
        FileExistsError: See :func:`write_model`.
    """
    if not folder.exists():
        return
    if teacher is not None and folder.resolve() == Path(teacher).resolve():
        raise FileExistsError(f'{folder} is the teacher; give another folder.')
    if not overwrite:
        raise FileExistsError(
            f'{folder} exists; give another folder, or allow overwriting.'
        )
    if not (folder / REPORT_FILE).is_file():
        raise FileExistsError(
            f'{folder} has no {REPORT_FILE}, so it is not a converted model, and is '
            'not replaced; give another folder.'
        )


def _remove_stale(partial: Path) -> None:
    """Remove the remains of an interrupted conversion, but nothing else."""
    if not partial.exists():
        return
    for file in partial.iterdir():
        if not any(fnmatch(file.name, pattern) for pattern in _OWN):
            raise FileExistsError(
                f'{partial} is in the way, and {file.name} in it was not left by a '
                'conversion; move it away.'
            )
    shutil.rmtree(partial)


def _write_shards(plan: Plan, folder: Path, limit: int) -> None:
    shards: list[list[str]] = [[]]
    pending: dict[str, Tensor] = {}
    size = total = 0

    def flush() -> None:
        save_file(pending, folder / f'shard-{len(shards)}', metadata={'format': 'pt'})
        pending.clear()

    for name, tensor in tqdm(plan.tensors(), total=len(plan), desc='converting'):
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
