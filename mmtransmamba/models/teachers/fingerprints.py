"""Hashes that identify a teacher, its tokenizer and its files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from torch import nn


def config_hash(model: nn.Module) -> str:
    """SHA-256 of a model's config and dtype, without paths and versions."""
    fields = model.config.to_dict()
    for name in ('_name_or_path', 'transformers_version', 'dtype', 'torch_dtype'):
        fields.pop(name, None)
    text = json.dumps([fields, str(model.dtype)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def weights_hash(model: nn.Module) -> str:
    """SHA-256 of the names, dtypes, shapes and values of a model's tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f'{name} {tensor.dtype} {list(tensor.shape)}\n'.encode())
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(memoryview(content.numpy()))
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, which is read in blocks."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def tokenizer_hash(tokens: dict[int, str]) -> str:
    """SHA-256 of a tokenizer's tokens by their ids."""
    text = json.dumps(sorted(tokens.items()), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
