"""Recording a language teacher's outputs on a data set once, for many trainings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from mmtransmamba.models.teachers.fingerprints import (
    config_hash,
    tokenizer_hash,
    weights_hash,
)
from mmtransmamba.models.teachers.token_cache import (
    DTYPES,
    MANIFEST,
    TokenManifest,
    dataset_hash,
    read_manifest,
    sample_key,
    top_logits,
)
from mmtransmamba.registry import DATASETS, MODELS
from mmtransmamba.transfer.vocabulary import read_tokens
from mmtransmamba.utils.recordings import check_same_recording

TERM = 'mmtransmamba.TokenKLTerm'
_RECORDED = {'input_ids', 'labels', 'attention_mask'}


def record_tokens(
    dataset: Any,
    teacher: nn.Module,
    folder: str | Path,
    k: int = 64,
    dtype: str = 'float16',
    temperature: float = 1.0,
    tokenizer: str | None = None,
    shard_samples: int = 256,
    on_shard: Callable[[TokenManifest], None] | None = None,
) -> TokenManifest:
    """Write a teacher's k most likely next tokens at each position of a data set.

    An interrupted recording continues after its last complete shard; a finished one is
    left unchanged.

    Args:
        dataset: Samples of
            :func:`~mmtransmamba.datasets.token_collate.token_sample`.
        teacher: Causal language model of transformers.
        folder: Folder of the cache, see
            :mod:`~mmtransmamba.models.teachers.token_cache`.
        k: Number of tokens per position, at most the teacher's vocabulary.
        dtype: Dtype of their logits: ``'float32'``, ``'float16'`` or ``'bfloat16'``.
        temperature: Temperature of the training. With k = V, any other can be used too.
        tokenizer: Hash of the teacher's tokenizer, None without one.
        shard_samples: Number of samples per shard.
        on_shard: Called with the manifest after each shard.

    Raises:
        ValueError: ``folder`` holds another recording, or an argument is not accepted.
    """
    folder = Path(folder)
    vocabulary = teacher.config.get_text_config().vocab_size
    if not 1 <= k <= vocabulary:
        raise ValueError(f'k={k} must lie in [1, {vocabulary}], the vocabulary.')
    if dtype not in DTYPES:
        raise ValueError(f'dtype={dtype!r} must be one of {", ".join(DTYPES)}.')
    if not temperature > 0:
        raise ValueError(f'temperature={temperature} must be greater than 0.')
    keys = [_key_of(dataset[i], i) for i in range(len(dataset))]
    manifest = TokenManifest(
        k=k,
        dtype=dtype,
        temperature=float(temperature),
        vocabulary=vocabulary,
        samples=len(keys),
        hashes=dict(
            config=config_hash(teacher),
            weights=weights_hash(teacher),
            tokenizer=tokenizer,
            dataset=dataset_hash(keys),
        ),
    )
    if (folder / MANIFEST).is_file():
        found = read_manifest(folder)
        described = [
            {k: v for k, v in vars(m).items() if k not in ('shards', 'hashes')}
            | {f'hashes.{k}': v for k, v in m.hashes.items()}
            for m in (found, manifest)
        ]
        check_same_recording('record_tokens', folder, *described)
        manifest = found
    else:
        manifest.save(folder)
    teacher.eval()
    for start in range(manifest.done, len(keys), shard_samples):
        numbers = range(start, min(start + shard_samples, len(keys)))
        recorded = [_record(teacher, dataset[i], manifest) for i in numbers]
        manifest.add_shard(folder, keys[start : numbers.stop], recorded)
        if on_shard is not None:
            on_shard(manifest)
    return manifest


def _key_of(sample: dict, number: int) -> str:
    """The key of a sample, which must be tokens alone.

    Raises:
        ValueError: It has other inputs, such as images, or the positions of several
            sequences in a row.
    """
    more = sorted(set(sample) - _RECORDED)
    if more:
        raise ValueError(
            f'Sample {number} has {", ".join(more)}; only samples of single sequences '
            'of tokens can be recorded.'
        )
    return sample_key(sample['input_ids'])


@torch.no_grad()
def _record(teacher: nn.Module, sample: dict, manifest: TokenManifest) -> Any:
    """Record one sample at a time, so that padding cannot change the rounding."""
    ids = sample['input_ids'][None].to(teacher.device)
    logits = teacher(input_ids=ids, use_cache=False).logits[0].cpu()
    return top_logits(logits, manifest.k, manifest.dtype, manifest.temperature)


def record_config(cfg: Config, folder: str | Path, **options: Any) -> TokenManifest:
    """Record the teacher and the training data of a distiller's config.

    Args:
        cfg: Config with ``model.teacher`` and ``train_dataloader.dataset``.
        folder, **options: See :func:`record_tokens`; the temperature is that of the
            config's ``TokenKLTerm``.

    Raises:
        ValueError: The config has no language teacher that can be recorded.
    """
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    model = cfg.get('model') or {}
    if model.get('type') not in ('LanguageDistiller', 'mmtransmamba.LanguageDistiller'):
        raise ValueError(
            f'model.type={model.get("type")!r} must be mmtransmamba.LanguageDistiller, '
            'whose teacher is recorded.'
        )
    terms = (model.get('terms') or {}).values()
    found = {t.get('temperature', 1.0) for t in terms if t and t.get('type') == TERM}
    if len(found) != 1:
        raise ValueError(
            f'model.terms has {len(found)} temperatures of TokenKLTerm; a cache is '
            'recorded for one.'
        )
    built = MODELS.build(model['teacher'])
    if not hasattr(built, 'lm'):
        raise ValueError(
            f'model.teacher.type={model["teacher"]["type"]!r} is not a model to record.'
        )
    try:
        tokenizer = tokenizer_hash(read_tokens(built.lm, built.companions))
    except ValueError:
        tokenizer = None
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return record_tokens(
        DATASETS.build(cfg.train_dataloader.dataset),
        built.lm.to(device),
        folder,
        temperature=found.pop(),
        tokenizer=tokenizer,
        **options,
    )
