"""A language teacher's most likely next tokens, recorded on disk.

A folder has ``manifest.json`` and shards ``shard-NNNNN.safetensors``. For n samples
with T tokens altogether, a shard holds ``keys``, uint8 ``[n, 32]``; ``starts``, int64
``[n + 1]``; ``ids``, int32 ``[T, k]``; ``logits``, ``[T, k]``; and ``rest``, float32
``[T]``, the logarithm of the sum of exp(logit / temperature) over all other tokens.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from mmtransmamba.models.divergence import Divergence
from mmtransmamba.models.teachers.fingerprints import file_hash
from mmtransmamba.utils.checkpoint_files import write
from mmtransmamba.utils.text_files import read_json

MANIFEST = 'manifest.json'
DTYPES = ('float32', 'float16', 'bfloat16')


@dataclass
class TopLogits:
    """A teacher's k most likely next tokens at each position.

    Attributes:
        ids: int64 ``[..., k]``.
        logits: Their logits ``[..., k]``, up to a constant per position.
        rest: Logarithm of the sum of exp(logit / temperature) of all other tokens,
            float32 ``[...]``; -inf if there are none.
    """

    ids: Tensor
    logits: Tensor
    rest: Tensor

    def __getitem__(self, where: Any) -> TopLogits:
        return TopLogits(self.ids[where], self.logits[where], self.rest[where])


def top_logits(logits: Tensor, k: int, dtype: str, temperature: float) -> TopLogits:
    """The k most likely tokens of logits ``[T, V]``, and the sum over the others.

    Float32 keeps the logits unchanged. With 16 bits, the largest one of each position
    is subtracted first, so that rounding changes the likely tokens least.
    """
    logits = logits.float()
    if dtype != 'float32':
        logits = logits - logits.amax(-1, keepdim=True)
    best = logits.topk(k, dim=-1)
    rest = (logits / temperature).scatter(-1, best.indices, -torch.inf)
    return TopLogits(
        best.indices, best.values.to(getattr(torch, dtype)), rest.logsumexp(-1)
    )


def top_divergence(
    divergence: Divergence, student: Tensor, top: TopLogits, vocabulary: int
) -> Tensor:
    """The divergence from recorded logits, per token.

    With k = V, it is the divergence of all logits. Otherwise, all tokens that are not
    recorded form one outcome. The result never exceeds the divergence of all logits.
    For the forward KL, the difference is the teacher's probability of these tokens
    times the KL of the two distributions over them.

    Args:
        divergence: The divergence.
        student: Logits ``[m, V]``.
        top: The recorded outputs for the same tokens.
        vocabulary: Number V of the teacher's tokens.

    Returns:
        ``[m]``, float32.
    """
    if top.ids.shape[-1] == vocabulary:
        dense = torch.empty_like(top.logits).scatter(-1, top.ids, top.logits)
        return divergence(student, dense)
    student = student.float() / divergence.temperature
    rest = student.scatter(-1, top.ids, -torch.inf).logsumexp(-1, keepdim=True)
    student = torch.cat([student.gather(-1, top.ids), rest], -1)
    teacher = torch.cat(
        [top.logits.float() / divergence.temperature, top.rest[..., None]], -1
    )
    return divergence.of_log_probs(
        F.log_softmax(student, -1), F.log_softmax(teacher, -1)
    )


def sample_key(tokens: Tensor) -> bytes:
    """Identifies a sample by its token ids ``[L]``."""
    return hashlib.sha256(tokens.long().cpu().numpy().tobytes()).digest()


def dataset_hash(keys: list[bytes]) -> str:
    """Identifies a data set by the keys of its samples, in any order."""
    return hashlib.sha256(b''.join(sorted(keys))).hexdigest()


@dataclass
class TokenManifest:
    """Contents of a cache.

    Attributes:
        k: Number of recorded tokens per position.
        dtype: Dtype of their logits.
        temperature: Temperature of the sum over all others.
        vocabulary: Number of the teacher's tokens.
        samples: Number of samples of the data set.
        hashes: SHA-256 of the teacher's ``config`` and ``weights``, the ``tokenizer``
            (None without one) and the ``dataset``.
        shards: Complete shards: ``file``, ``samples`` and ``sha256`` of each.
    """

    k: int
    dtype: str
    temperature: float
    vocabulary: int
    samples: int
    hashes: dict[str, str | None]
    shards: list[dict[str, Any]] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Number of samples in complete shards."""
        return sum(shard['samples'] for shard in self.shards)

    def add_shard(
        self, folder: Path, keys: list[bytes], recorded: list[TopLogits]
    ) -> None:
        """Write a shard, and then the manifest that lists it."""
        lengths = torch.tensor([0, *(len(r.rest) for r in recorded)])
        content = to_bytes(
            dict(
                keys=torch.tensor([list(key) for key in keys], dtype=torch.uint8),
                starts=lengths.cumsum(0),
                ids=torch.cat([r.ids for r in recorded]).int(),
                logits=torch.cat([r.logits for r in recorded]),
                rest=torch.cat([r.rest for r in recorded]),
            )
        )
        name = f'shard-{len(self.shards):05}.safetensors'
        write(folder / name, content)
        digest = hashlib.sha256(content).hexdigest()
        self.shards.append(dict(file=name, samples=len(keys), sha256=digest))
        self.save(folder)

    def save(self, folder: Path) -> None:
        """Write it completely or not at all."""
        write(folder / MANIFEST, json.dumps(asdict(self), indent=1).encode())


def read_manifest(folder: str | Path) -> TokenManifest:
    """The manifest of a cache.

    Raises:
        FileNotFoundError: The folder has no manifest.
        ValueError: It is not one.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f'"{folder}" holds no teacher cache: no {MANIFEST}')
    try:
        return TokenManifest(**read_json(path))
    except TypeError as error:
        raise ValueError(f'"{path}" describes no teacher cache: {error}') from error


class TokenCache:
    """Reads a complete cache.

    Args:
        folder: The folder.
        verify: Compare the checksums of all shards.

    Raises:
        FileNotFoundError: The folder does not contain a cache, or lacks a shard.
        ValueError: The cache is incomplete, or a shard has changed.
    """

    def __init__(self, folder: str | Path, verify: bool = True) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(folder)
        if self.manifest.done < self.manifest.samples:
            raise ValueError(
                f'"{folder}" has {self.manifest.done} of {self.manifest.samples} '
                'samples; let tools/cache_teacher.py finish first'
            )
        self._places: dict[bytes, tuple[int, int, int]] = {}
        self._files = []
        for number, shard in enumerate(self.manifest.shards):
            path = self.folder / shard['file']
            if not path.is_file():
                raise FileNotFoundError(f'"{folder}" lacks {shard["file"]}')
            if verify and file_hash(path) != shard['sha256']:
                raise ValueError(
                    f'"{path}" has changed since it was recorded: its SHA-256 is not '
                    f'that of {MANIFEST}'
                )
            file = safe_open(path, 'pt')
            self._files.append(file)
            starts = file.get_tensor('starts').tolist()
            for i, key in enumerate(file.get_tensor('keys').numpy()):
                self._places[key.tobytes()] = number, starts[i], starts[i + 1]

    def read(self, tokens: Tensor) -> TopLogits:
        """The recorded outputs for a sample.

        Args:
            tokens: Its token ids ``[L]``.

        Raises:
            ValueError: The sample is not in the cache.
        """
        place = self._places.get(sample_key(tokens))
        if place is None:
            raise ValueError(
                f'a sample of {len(tokens)} tokens, first {tokens[:8].tolist()}, is '
                f'not in the teacher cache "{self.folder}"; record the cache from this '
                'data set'
            )
        number, start, end = place
        file = self._files[number]
        ids, logits, rest = (
            file.get_slice(name)[start:end] for name in ('ids', 'logits', 'rest')
        )
        return TopLogits(ids.long(), logits, rest)
