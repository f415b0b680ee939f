"""Token sequences of one length from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mmtransmamba.datasets.token_collate import token_sample
from mmtransmamba.registry import DATASETS
from mmtransmamba.utils.array_files import open_arrays


@DATASETS.register_module()
class TokenSamples(Dataset):
    """Rows of an ``.npz`` file's array ``tokens`` ``[N, L]``, of an integer type.

    Args:
        file: The file.
        num_samples: Keep only the first rows, this many.
        length: Keep only this many tokens of each row.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The array is missing or smaller than requested, has no rows, or its
            rows have less than two tokens, so nothing can be predicted.
    """

    metainfo: dict = {}

    def __init__(
        self, file: str, num_samples: int | None = None, length: int | None = None
    ) -> None:
        path = Path(file)
        if not path.is_file():
            raise FileNotFoundError(
                f'TokenSamples: no file "{path}"; expected an .npz with an array '
                '"tokens" of token ids [N, L].'
            )
        with open_arrays(path) as content:
            if 'tokens' not in content:
                raise ValueError(
                    f'TokenSamples: {path} has {list(content)}, but no array "tokens".'
                )
            tokens = content['tokens']
        if tokens.ndim != 2 or not np.issubdtype(tokens.dtype, np.integer):
            raise ValueError(
                f'TokenSamples: "tokens" in {path} is {tokens.dtype} '
                f'{list(tokens.shape)}; it must be an integer array [N, L].'
            )
        for name, wanted, there in (
            ('num_samples', num_samples, tokens.shape[0]),
            ('length', length, tokens.shape[1]),
        ):
            if wanted is not None and not 0 < wanted <= there:
                raise ValueError(
                    f'TokenSamples: {name}={wanted}, but "tokens" in {path} is '
                    f'{list(tokens.shape)}.'
                )
        rows, width = tokens.shape[0], tokens.shape[1] if length is None else length
        if rows == 0 or width < 2:
            raise ValueError(
                f'TokenSamples: "tokens" in {path} is {list(tokens.shape)}'
                f'{"" if length is None else f", of which length={length} is kept"}; '
                'there must be a row, and two tokens in it at least: the second is '
                'predicted from the first.'
            )
        self.tokens = tokens[:num_samples, :length]

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return token_sample(torch.from_numpy(self.tokens[index].astype(np.int64)))
