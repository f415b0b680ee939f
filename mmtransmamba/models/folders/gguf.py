"""Models in GGUF files, the format of llama.cpp."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

_NEEDED = ('gguf', 'accelerate')


def is_gguf(path: str | Path) -> bool:
    """Whether a path is that of a GGUF file, by its name."""
    return Path(path).suffix == '.gguf' and not Path(path).is_dir()


def load_gguf(path: str | Path) -> nn.Module:
    """The causal language model of a GGUF file, as an ordinary float32 model.

    Quantised weights are expanded, so the result is what the file stores, not the
    original model. The families are those that transformers supports.

    Raises:
        FileNotFoundError: The file does not exist.
        ImportError: ``gguf`` or ``accelerate`` is not installed.
        ValueError: The file is not GGUF, or its family is not supported by
            transformers.
    """
    from transformers import AutoModelForCausalLM

    model = _read(AutoModelForCausalLM, path)
    # transformers regards the model as quantised, and would not save it.
    model.hf_quantizer = None
    model.is_quantized = False
    model.quantization_method = None
    if hasattr(model.config, 'quantization_config'):
        del model.config.quantization_config
    return model.float().eval()


def load_gguf_tokenizer(path: str | Path) -> Any:
    """The tokenizer of a GGUF file, with its chat template.

    Raises:
        See :func:`load_gguf`.
    """
    from transformers import AutoTokenizer

    return _read(AutoTokenizer, path)


def _read(auto_class: Any, path: str | Path) -> Any:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'there is no file "{path}"')
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ImportError(
            f'reading GGUF needs {", ".join(missing)}: pip install {" ".join(missing)}'
        )
    with open(path, 'rb') as file:
        if file.read(4) != b'GGUF':
            raise ValueError(f'"{path}" is not a GGUF file')
    try:
        return auto_class.from_pretrained(
            str(path.parent),
            gguf_file=path.name,
            local_files_only=True,
            trust_remote_code=False,
        )
    except Exception as error:  # readers raise arbitrary errors on a broken file
        reason = str(error).strip().partition('\n')[0] or type(error).__name__
        raise ValueError(f'"{path}" cannot be read: {reason}') from error
