"""Which distributions and releases are accepted."""

from importlib import metadata

import pytest

from mmtransmamba.compat import versions


def _install_distribution(folder, name):
    info = folder / f'{name.replace("-", "_")}-1.0.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text(
        f'Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n'
    )


def test_original_beside_its_fork_is_an_error(tmp_path, monkeypatch):
    _install_distribution(tmp_path, 'mmcv')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError) as error:
        versions.check_distributions()
    message = str(error.value)
    assert '"mmcv" is installed beside "onedl-mmcv"' in message
    assert 'pip uninstall -y mmcv onedl-mmcv\n  pip install onedl-mmcv' in message


def test_forks_alone_are_no_error():
    versions.check_distributions()


@pytest.mark.parametrize(
    ('version', 'warned'),
    [
        ('5.20.2', True),
        ('5.21.0', False),
        ('5.24.9', False),
        ('5.25.0', True),
        ('6.0.0.dev0', True),
    ],
)
def test_a_release_outside_the_tested_range_is_warned_of_once(
    version, warned, monkeypatch, recwarn
):
    releases = {'transformers': version}
    find = metadata.version
    monkeypatch.setattr(
        versions.metadata, 'version', lambda name: releases.get(name) or find(name)
    )
    versions.check_tested_versions.cache_clear()
    versions.check_tested_versions()
    versions.check_tested_versions()
    told = [str(w.message) for w in recwarn if 'tested' in str(w.message)]
    assert len(told) == warned
    if warned:
        assert f'transformers {version} is outside' in told[0]
        assert '5.21 to 5.24' in told[0]


@pytest.mark.parametrize(
    'version, expected',
    [
        ('2.15.0', (2, 15)),
        ('2.15rc1', (2, 15)),
        ('2.15a0', (2, 15)),
        ('2.15+cu130', (2, 15)),
        ('2.15.0a0+git123', (2, 15)),
        ('2.14.1.post1', (2, 14)),
        ('1!2.15', (2, 15)),
        ('v3', (3, 0)),
        ('3.dev0', (3, 0)),
    ],
)
def test_a_release_is_read_from_every_form_of_version(version, expected):
    assert versions.release(version) == expected


def test_what_is_no_version_is_named():
    with pytest.raises(ValueError, match="'unknown' is not a version"):
        versions.release('unknown')
