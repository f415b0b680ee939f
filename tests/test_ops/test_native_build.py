"""Building and loading the native library, and what happens when that fails."""

import contextlib
import io
import shutil
import subprocess
import sys

import pytest

from mmtransmamba.ops.native import build, library


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """A library that was built for these tests, and what the build printed."""
    if not any(map(shutil.which, ('c++', 'g++', 'clang++'))):
        pytest.skip('no C++ compiler')
    folder = tmp_path_factory.mktemp('native')
    with contextlib.redirect_stdout(io.StringIO()) as output:
        path = build.build(folder, verbose=True)
    return path, output.getvalue()


def test_build_leaves_one_loadable_library(built, monkeypatch):
    monkeypatch.delenv(library.LEVEL_ENV_VAR, raising=False)
    path, output = built
    assert [p.name for p in path.parent.iterdir()] == [build.LIBRARY_NAME]
    assert 'selective_scan.cpp' in output
    loaded = library.Library(path)
    assert list(loaded.levels)[0] == 'baseline'
    assert loaded.level == list(loaded.levels)[-1]


@pytest.mark.skipif(
    not sys.platform.startswith('linux'), reason='reads /proc/self/maps'
)
def test_the_library_brings_no_openmp_and_no_fast_math(built):
    """A second OpenMP runtime or flush-to-zero would change the whole process."""
    code = (
        'import ctypes, sys\n'
        f'ctypes.CDLL({str(built[0])!r})\n'
        'maps = open("/proc/self/maps").read()\n'
        'assert "gomp" not in maps and "libomp" not in maps\n'
        'assert sys.float_info.min / 2 > 0\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True)


def test_missing_compiler(tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match="compiler 'no-such-cxx' does not exist"):
        build.build(tmp_path, cxx='no-such-cxx')
    monkeypatch.setenv('CXX', 'no-such-cxx -O2')
    with pytest.raises(RuntimeError, match='no-such-cxx -O2'):
        build.build(tmp_path)
    monkeypatch.delenv('CXX')
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(RuntimeError, match='no C\\+\\+ compiler found'):
        build.build(tmp_path)


def test_failing_compiler_shows_its_output(tmp_path):
    fake = tmp_path / 'broken-cxx'
    fake.write_text('#!/bin/sh\necho it hurts >&2\nexit 3\n')
    fake.chmod(0o755)
    with pytest.raises(RuntimeError, match='(?s)exit status 3.*it hurts'):
        build.build(tmp_path, cxx=str(fake))
    assert not (tmp_path / build.LIBRARY_NAME).exists()


def test_missing_and_foreign_libraries_are_told_apart(tmp_path):
    with pytest.raises(OSError, match='is missing'):
        library.Library(tmp_path / build.LIBRARY_NAME)
    (tmp_path / 'broken.so').write_text('not a library')
    with pytest.raises(OSError):
        library.Library(tmp_path / 'broken.so')


def test_library_of_other_sources_is_refused(built, tmp_path):
    source = tmp_path / 'old.cpp'
    path = tmp_path / 'old.so'
    source.write_text('extern "C" long long mmt_scan_args_size() { return 8; }')
    compiler = build._compiler(None)
    subprocess.run(
        [*compiler, '-shared', '-fPIC', str(source), '-o', str(path)], check=True
    )
    with pytest.raises(OSError, match='built from other sources'):
        library.Library(path)


def test_level_from_the_environment(built, monkeypatch):
    path, _ = built
    monkeypatch.setenv(library.LEVEL_ENV_VAR, 'baseline')
    assert library.Library(path).level == 'baseline'
    monkeypatch.setenv(library.LEVEL_ENV_VAR, 'nope')
    with pytest.raises(OSError, match='nope is not supported here; accepted: baseline'):
        library.Library(path)


def test_without_the_library_one_warning_and_the_reference(tmp_path):
    """In a process of its own, because availability is found out once."""
    code = (
        'import warnings\n'
        'from mmtransmamba.ops.native import build\n'
        'build.LIBRARY_NAME = "absent.so"\n'
        'import torch\n'
        'from mmtransmamba.ops import backends, selective_scan_fn\n'
        'x, A = torch.randn(2, 4, 5), -torch.rand(4, 3)\n'
        'B = torch.randn(2, 3, 5)\n'
        'with warnings.catch_warnings(record=True) as caught:\n'
        '    warnings.simplefilter("always")\n'
        '    y = selective_scan_fn(x, x.abs(), A, B, B)\n'
        '    selective_scan_fn(x, x.abs(), A, B, B)\n'
        'texts = [str(w.message) for w in caught]\n'
        'assert len(texts) == 1, texts\n'
        'assert "absent.so is missing" in texts[0]\n'
        'assert "python -m mmtransmamba.ops.native.build" in texts[0]\n'
        'assert y.shape == (2, 4, 5)\n'
        'try:\n'
        '    selective_scan_fn(x, x, A, B, B, backend="native")\n'
        'except RuntimeError as error:\n'
        '    assert "absent.so is missing" in str(error)\n'
        'else:\n'
        '    raise AssertionError\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True)
