"""Sources from which the weights of a model are read, one tensor at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from mmtransmamba.models.checkpoint import CheckpointError, read_state_dict
from mmtransmamba.utils.text_files import read_json

INDEX = 'model.safetensors.index.json'
BIN_INDEX = 'pytorch_model.bin.index.json'


class TensorSource(Mapping[str, Tensor]):
    """Tensors by name, whose shapes are known without reading them."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return tuple(self[name].shape)

    def is_real(self, name: str) -> bool:
        """Whether a tensor has a floating-point dtype, not integers."""
        return self[name].is_floating_point()


class StateDictSource(TensorSource):
    """The tensors of a state dict.

    Args:
        state: Tensors by name.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._state = state

    def __getitem__(self, name: str) -> Tensor:
        return self._state[name].detach()

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)


def read_index(path: Path) -> dict[str, str]:
    """The file of each tensor, according to an index of shards.

    Raises:
        CheckpointError: The file is not such an index.
    """
    content = read_json(path)
    names = content.get('weight_map') if isinstance(content, dict) else None
    if not isinstance(names, dict) or not all(
        isinstance(file, str) for file in names.values()
    ):
        raise CheckpointError(
            f'{path} is not an index of shards: it needs '
            '{"weight_map": {tensor: file}}'
        )
    return names


def files_in_index(path: Path) -> dict[str, str]:
    """The file of each tensor, according to an index of shards that all exist.

    Raises:
        CheckpointError: The file is not an index, or a shard is missing.
    """
    names = read_index(path)
    missing = sorted({f for f in names.values() if not (path.parent / f).is_file()})
    if missing:
        raise CheckpointError(
            f'{path} names shards that are not there: {", ".join(missing)}.'
        )
    return names


class SafetensorsSource(TensorSource):
    """The tensors of a folder's ``.safetensors`` shards, read on access.

    Args:
        folder: Folder with ``model.safetensors``, or with shards and their index.

    Raises:
        CheckpointError: A shard in the index is missing, or cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        index = folder / INDEX
        if index.is_file():
            names = files_in_index(index)
            self._file_of = {key: folder / file for key, file in names.items()}
        else:
            files = sorted(folder.glob('*.safetensors'))
            self._file_of = {
                key: file for file in files for key in self._open(file).keys()
            }

    @staticmethod
    def _open(file: Path):
        from safetensors import SafetensorError, safe_open

        try:
            return safe_open(file, framework='pt')
        except SafetensorError as error:
            raise CheckpointError(
                f'{file} cannot be read as safetensors: {error}'
            ) from error

    def __getitem__(self, name: str) -> Tensor:
        # Opened anew each time: the file is memory-mapped, and the parts already read
        # would otherwise stay in memory.
        return self._shard_with(name).get_tensor(name)

    def _shard_with(self, name: str):
        file = self._file_of[name]
        shard = self._open(file)
        if name not in shard.keys():  # noqa: SIM118  (not a mapping)
            raise CheckpointError(
                f'{file} does not contain {name}, although {INDEX} says so.'
            )
        return shard

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._shard_with(name).get_slice(name).get_shape())

    def is_real(self, name: str) -> bool:
        dtype = self._shard_with(name).get_slice(name).get_dtype()
        return dtype.startswith(('F', 'BF'))

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)


class JoinedSource(TensorSource):
    """The tensors of several sources.

    Args:
        sources: Sources by the prefix that their names have here only.
    """

    def __init__(self, sources: Mapping[str, TensorSource]) -> None:
        self._origin = {
            prefix + name: (source, name)
            for prefix, source in sources.items()
            for name in source
        }

    def __getitem__(self, name: str) -> Tensor:
        source, inner = self._origin[name]
        return source[inner]

    def shape(self, name: str) -> tuple[int, ...]:
        source, inner = self._origin[name]
        return source.shape(inner)

    def is_real(self, name: str) -> bool:
        source, inner = self._origin[name]
        return source.is_real(inner)

    def __iter__(self) -> Iterator[str]:
        return iter(self._origin)

    def __len__(self) -> int:
        return len(self._origin)


class InternLM2Source(TensorSource):
    """An InternLM2-style decoder under Llama's names.

    Its ``wqkv`` contains, for each key-value head, the query heads that it serves, the
    key head and the value head: ``[KV * (H / KV + 2) * head_dim, C]``.

    Args:
        source: Tensors under InternLM2's names.
        num_heads: Query heads H.
        num_kv_heads: Key-value heads KV.
    """

    _PARTS = (
        ('model.tok_embeddings.', 'model.embed_tokens.'),
        ('output.', 'lm_head.'),
        ('.attention.wo.', '.self_attn.o_proj.'),
        ('.feed_forward.w1.', '.mlp.gate_proj.'),
        ('.feed_forward.w3.', '.mlp.up_proj.'),
        ('.feed_forward.w2.', '.mlp.down_proj.'),
        ('.attention_norm.', '.input_layernorm.'),
        ('.ffn_norm.', '.post_attention_layernorm.'),
    )

    def __init__(self, source: TensorSource, num_heads: int, num_kv_heads: int) -> None:
        self._source = source
        self._groups = num_kv_heads
        self._group_size = num_heads // num_kv_heads
        self._origin: dict[str, tuple[str, str | None]] = {}
        for name in source:
            new = name
            for old, here in self._PARTS:
                new = new.replace(old, here)
            if '.attention.wqkv.' in name:
                for part in 'qkv':
                    key = name.replace('.attention.wqkv.', f'.self_attn.{part}_proj.')
                    self._origin[key] = (name, part)
            else:
                self._origin[new] = (name, None)

    def __getitem__(self, name: str) -> Tensor:
        origin, part = self._origin[name]
        tensor = self._source[origin]
        if part is None:
            return tensor
        heads = tensor.unflatten(0, (self._groups, self._group_size + 2, -1))
        chosen = {
            'q': heads[:, : self._group_size],
            'k': heads[:, -2:-1],
            'v': heads[:, -1:],
        }
        return chosen[part].flatten(0, 2)

    def shape(self, name: str) -> tuple[int, ...]:
        origin, part = self._origin[name]
        rows, *rest = self._source.shape(origin)
        if part is not None:
            heads = self._groups * (self._group_size if part == 'q' else 1)
            rows = rows // (self._groups * (self._group_size + 2)) * heads
        return (rows, *rest)

    def is_real(self, name: str) -> bool:
        return self._source.is_real(self._origin[name][0])

    def __iter__(self) -> Iterator[str]:
        return iter(self._origin)

    def __len__(self) -> int:
        return len(self._origin)


def open_folder(folder: str | Path) -> TensorSource:
    """The weights in a folder of a transformers model.

    Raises:
        FileNotFoundError: The folder does not exist or contains no weights.
        CheckpointError: The weights cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f'No model folder at {folder}.')
    if any(folder.glob('*.safetensors')):
        return SafetensorsSource(folder)
    files = sorted(folder.glob('pytorch_model*.bin'))
    if not files:
        raise FileNotFoundError(
            f'{folder} holds no weights: expected model.safetensors, shards with '
            f'{INDEX}, or pytorch_model*.bin.'
        )
    if (folder / BIN_INDEX).is_file():
        files_in_index(folder / BIN_INDEX)
    state: dict[str, Tensor] = {}
    for file in files:
        state |= read_state_dict(file)
    return StateDictSource(state)
