"""Fetching a checkpoint from the internet, without reading it."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from urllib.parse import urlparse


def fetch(
    url: str,
    folder: str | None = None,
    progress: bool = True,
    check_hash: bool = False,
    file_name: str | None = None,
) -> str:
    """Path of the file behind a URL, which is downloaded unless it exists already.

    Files of one name at several URLs have a part of the URL's hash in theirs; beside
    each file, ``NAME.url`` says where it is from.

    Args:
        url: The URL.
        folder: Target folder; by default torch's folder of checkpoints.
        progress: Show a bar.
        check_hash: Compare with the hash in the file's name, as torch's hub does.
        file_name: Name of the file, the URL's by default.

    Raises:
        OSError: The file cannot be downloaded.
    """
    from torch import hub

    target = Path(folder or Path(hub.get_dir()) / 'checkpoints')
    path = target / (file_name or os.path.basename(urlparse(url).path))
    source = path.with_name(f'{path.name}.url')
    if source.is_file() and source.read_text() != url:
        digest = hashlib.sha256(url.encode()).hexdigest()[:8]
        path = path.with_name(f'{path.stem}-{digest}{path.suffix}')
        source = path.with_name(f'{path.name}.url')
    if not path.exists():
        target.mkdir(parents=True, exist_ok=True)
        print(f'Downloading: "{url}" to {path}', file=sys.stderr)
        found = hub.HASH_REGEX.search(path.name) if check_hash else None
        prefix = found.group(1) if found else None
        hub.download_url_to_file(url, str(path), prefix, progress)
        source.write_text(url)
    return str(path)
