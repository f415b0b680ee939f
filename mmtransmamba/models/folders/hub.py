"""Model folders that may first be downloaded from Hugging Face's hub."""

from __future__ import annotations

import re
from pathlib import Path

_HUB_ID = re.compile(r'\w[\w.-]*/\w[\w.-]*')
# Neither code nor weights in other formats.
_FILES = ('*.json', '*.jinja', '*.txt', '*.model', '*.safetensors')


def model_folder(name: str | Path) -> Path:
    """The folder of a model, downloaded first if the name is one on the hub.

    Args:
        name: A folder; if it does not exist, ``OWNER/NAME`` on Hugging Face's hub,
            whose files are read from its local cache if they are there.

    Raises:
        FileNotFoundError: The folder does not exist, and the hub has no such model or
            cannot be reached.
    """
    if Path(name).is_dir():
        return Path(name)
    if Path(name).is_file():
        raise FileNotFoundError(
            f'"{name}" is a file; give the folder of a transformers model.'
        )
    if not _HUB_ID.fullmatch(str(name)):
        raise FileNotFoundError(
            f'There is no model folder "{name}", and no model on the hub has such a '
            'name (OWNER/NAME).'
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        folder = Path(snapshot_download(str(name), allow_patterns=_FILES))
        if not any(folder.glob('*.safetensors')):
            patterns = [*_FILES, '*.bin']
            folder = Path(snapshot_download(str(name), allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise FileNotFoundError(
            f'There is no folder "{name}" here, and no model of that name could be '
            f'had from the hub (offline, not public, or misspelt?): {error}'
        ) from error
    return folder
