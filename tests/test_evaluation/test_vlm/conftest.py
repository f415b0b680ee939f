import gzip
import json
from pathlib import Path

import pytest


@pytest.fixture(scope='session')
def vlm_eval(shared_dir) -> Path:
    """Question files, gold answers and the real answers of LLaVA-1.5-13B."""
    path = shared_dir / 'data' / 'vlm_eval'
    if not path.is_dir():
        pytest.skip('no question files of benchmarks in the shared data')
    return path


@pytest.fixture(scope='session')
def write():
    """Write a file: text, JSON Lines of a list of dicts, or a JSON document."""

    def write_file(path, content):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, str):
            lines = 'jsonl' in path.name
            content = (
                '\n'.join(json.dumps(row) for row in content) + '\n'
                if lines
                else json.dumps(content)
            )
        data = content.encode()
        path.write_bytes(gzip.compress(data) if path.suffix == '.gz' else data)
        return path

    return write_file
