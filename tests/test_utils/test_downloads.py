"""Files of the internet, kept by their names."""

from pathlib import Path

import pytest
from torch import hub

from mmtransmamba.utils.downloads import fetch


@pytest.fixture
def asked(monkeypatch):
    """URLs that were downloaded; a file has its URL as content."""
    urls = []

    def download(url, path, prefix, progress):
        urls.append(url)
        Path(path).write_text(url)

    monkeypatch.setattr(hub, 'download_url_to_file', download)
    return urls


def test_one_name_at_two_urls_is_two_files(asked, tmp_path):
    one, other = (f'https://a.invalid/{m}/model.safetensors' for m in 'xy')
    for url in (one, other, one, other):
        path = Path(fetch(url, str(tmp_path)))
        assert path.read_text() == url and path.suffix == '.safetensors'
    assert asked == [one, other]


def test_a_file_that_was_there_before_is_used(asked, tmp_path):
    (tmp_path / 'model.pth').write_text('own')
    path = fetch('https://a.invalid/model.pth', str(tmp_path))
    assert Path(path).read_text() == 'own' and not asked
