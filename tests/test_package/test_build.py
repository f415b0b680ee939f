"""Contents of a source distribution, a wheel and an editable install."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile

import pytest
import yaml
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

import _mmtransmamba_autoload
import mmtransmamba.models  # noqa: F401  (registers)
from mmtransmamba.ops.native.build import LIBRARY_NAME
from mmtransmamba.version import __version__

AUTOLOAD = '_mmtransmamba_autoload'
PLUGIN = 'mmtransmamba_vllm'
LIBRARY = f'mmtransmamba/ops/native/{LIBRARY_NAME}'
NOT_SOURCE = (
    '.*',
    '__pycache__',
    'build',
    'dist',
    'tests',
    'work_dirs',
    'data',
    '*.so',
    '*.dylib',
    '*.egg-info',
)


def call_backend(source, call, **env):
    """Call setuptools as pip does, in its own process; returns what it printed."""
    code = f'from setuptools import build_meta; build_meta.{call}'
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=source,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def copy_source(repo_dir, folder):
    ignore = shutil.ignore_patterns(*NOT_SOURCE)
    shutil.copytree(repo_dir, folder, ignore=ignore)
    return folder


def files_below(folder, *patterns):
    return {
        path.relative_to(folder).as_posix()
        for pattern in patterns
        for path in folder.rglob(pattern)
        if path.is_file() and '__pycache__' not in path.parts
    }


@pytest.fixture(scope='module')
def source(repo_dir, tmp_path_factory):
    """A copy of the source tree without anything built in it."""
    return copy_source(repo_dir, tmp_path_factory.mktemp('copy') / 'source')


@pytest.fixture(scope='module')
def sdist(source, tmp_path_factory):
    """The unpacked source distribution."""
    folder = tmp_path_factory.mktemp('sdist')
    call_backend(source, f'build_sdist({str(folder)!r})')
    (archive,) = folder.iterdir()
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter='data')
    return folder / f'mmtransmamba-{__version__}'


@pytest.fixture(scope='module')
def wheel(sdist, tmp_path_factory):
    """The wheel made from the source distribution."""
    folder = tmp_path_factory.mktemp('wheel')
    call_backend(sdist, f'build_wheel({str(folder)!r})')
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
    """A folder for PYTHONPATH with the package as ``pip install .`` leaves it."""
    folder = tmp_path_factory.mktemp('installed')
    pip = [sys.executable, '-m', 'pip', 'install', '--no-deps', '--no-compile']
    subprocess.run(
        [*pip, '--quiet', '--target', str(folder), str(wheel)], check=True, timeout=120
    )
    return folder


def run_installed(installed, cwd, *command):
    """Run Python on the installed package, from a folder that has nothing to do."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env={**os.environ, 'PYTHONPATH': str(installed)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def package_files(source):
    names = files_below(source / 'mmtransmamba', '*.py', '*.cpp', '*.h')
    assert 'ops/native/build.py' in names
    plugin = files_below(source / PLUGIN, '*.py')
    assert plugin
    return {f'mmtransmamba/{n}' for n in names} | {f'{PLUGIN}/{n}' for n in plugin}


def test_sdist_is_complete(source, sdist):
    expected = package_files(source)
    expected |= {f'configs/{name}' for name in files_below(source / 'configs', '*')}
    expected |= {f'tools/{name}' for name in files_below(source / 'tools', '*')}
    expected |= {
        f'requirements/{name}' for name in files_below(source / 'requirements', '*')
    }
    expected |= {
        'LICENSE',
        'README.md',
        'model-index.yml',
        'pyproject.toml',
        'setup.py',
    }
    assert expected <= files_below(sdist, '*')


def test_wheel_is_complete(source, wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    mim = 'mmtransmamba/.mim'
    expected = package_files(source) | {LIBRARY, f'{mim}/model-index.yml'}
    expected |= {f'{AUTOLOAD}.py', f'{AUTOLOAD}.pth'}
    for folder in ('configs', 'tools'):
        expected |= {
            f'{mim}/{folder}/{name}' for name in files_below(source / folder, '*')
        }
    info = f'mmtransmamba-{__version__}.dist-info/'
    assert {name for name in names if not name.startswith(info)} == expected
    assert f'{info}licenses/LICENSE' in names
    points = zipfile.ZipFile(wheel).read(f'{info}entry_points.txt').decode()
    assert f'[vllm.general_plugins]\nmmtransmamba = {PLUGIN}:register' in points


def test_wheel_fits_any_python_of_this_platform(wheel):
    tag = wheel.stem.split('-', 2)[2]
    assert tag.startswith('py3-none-')
    assert not tag.endswith('-any')


def test_build_without_a_compiler(source, tmp_path):
    output = call_backend(
        source, f'build_wheel({str(tmp_path)!r})', CXX='no-such-compiler'
    )
    assert 'the native CPU kernels were not built' in output
    assert "the C++ compiler 'no-such-compiler' does not exist" in output
    (path,) = tmp_path.iterdir()
    names = zipfile.ZipFile(path).namelist()
    assert LIBRARY not in names
    assert 'mmtransmamba/ops/native/build.py' in names


def test_rebuilding_leaves_out_deleted_files(repo_dir, tmp_path):
    source = copy_source(repo_dir, tmp_path / 'source')
    extra = source / 'mmtransmamba' / 'deleted_later.py'
    extra.write_text('')
    wheels = []
    for name in ('first', 'second'):
        (tmp_path / name).mkdir()
        call_backend(source, f'build_wheel({str(tmp_path / name)!r})', CXX='none')
        (path,) = (tmp_path / name).iterdir()
        wheels.append(zipfile.ZipFile(path).namelist())
        extra.unlink(missing_ok=True)
    assert 'mmtransmamba/deleted_later.py' in wheels[0]
    assert 'mmtransmamba/deleted_later.py' not in wheels[1]


def test_editable_install_links_configs_and_tools(repo_dir, tmp_path):
    source = copy_source(repo_dir, tmp_path / 'source')
    call_backend(source, f'build_editable({str(tmp_path)!r})', CXX='none')
    mim = source / 'mmtransmamba' / '.mim'
    for name in ('configs', 'tools', 'model-index.yml'):
        assert (mim / name).is_symlink()
        assert (mim / name).resolve() == (source / name).resolve()
    # Again over the links, as after an update of the checkout.
    call_backend(source, f'build_editable({str(tmp_path)!r})', CXX='none')
    assert (mim / 'tools' / 'train.py').is_file()
    assert (source / 'tools' / 'train.py').is_file()
    (wheel,) = tmp_path.glob('*.whl')
    assert f'{AUTOLOAD}.pth' in zipfile.ZipFile(wheel).namelist()


HUB = """
import json
import mmtransmamba
from mmengine.config import Config
from mmengine.hub import get_config, get_model

from mmengine.registry import MODELS

listed = get_config('mmtransmamba::{listed}')
based = Config.fromfile('based.py')
models = [get_model('mmtransmamba::{listed}'), MODELS.build(based.model)]
print(json.dumps(dict(
    package=mmtransmamba.__file__,
    config=listed.filename,
    work_dir=based.work_dir,
    types=[type(model).__name__ for model in models],
    sizes=[sum(p.numel() for p in model.parameters()) for model in models],
)))
"""


def first_listed_config(installed):
    """A config that the model index names, as mmengine.hub wants it."""
    mim = installed / 'mmtransmamba' / '.mim'
    index = yaml.safe_load((mim / 'model-index.yml').read_text())
    metafile = yaml.safe_load((mim / index['Import'][0]).read_text())
    return metafile['Models'][0]['Config'].removeprefix('configs/')


def test_hub_finds_configs_and_models(installed, tmp_path):
    listed = first_listed_config(installed)
    (tmp_path / 'based.py').write_text(
        f"_base_ = 'mmtransmamba::{listed}'\nwork_dir = 'mine'\n"
    )
    done = run_installed(installed, tmp_path, '-c', HUB.format(listed=listed))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report['package'].startswith(str(installed))
    assert report['config'].endswith(f'mmtransmamba/.mim/configs/{listed}')
    assert report['work_dir'] == 'mine'
    assert len(set(report['types'])) == len(set(report['sizes'])) == 1


AUTO_CONFIGS = """
import json, site, sys

sys.path.append({packages!r})
site.addsitedir({installed!r})  # as Python does at its start
from transformers import AutoConfig

early = 'mmtransmamba' in sys.modules
types = [type(AutoConfig.for_model(name)).model_type for name in {types!r}]
file = sys.modules['mmtransmamba'].__file__
print(json.dumps(dict(early=early, types=types, file=file)))
"""


def test_transformers_finds_the_models_without_an_import(installed, tmp_path):
    types = list(_mmtransmamba_autoload.MODEL_TYPES)
    code = AUTO_CONFIGS.format(
        packages=sysconfig.get_path('purelib'), installed=str(installed), types=types
    )
    done = subprocess.run(
        [sys.executable, '-S', '-c', code],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != 'PYTHONPATH'},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report['types'] == types
    assert report['file'].startswith(str(installed))
    assert not report['early']


def test_the_announced_types_are_those_that_are_registered():
    registered = {
        model_type
        for model_type, config in CONFIG_MAPPING._extra_content.items()
        if config.__module__.startswith('mmtransmamba.')
    }
    assert set(_mmtransmamba_autoload.MODEL_TYPES) == registered


def test_a_removed_checkout_does_not_disturb_python(wheel, tmp_path):
    text = zipfile.ZipFile(wheel).read(f'{AUTOLOAD}.pth').decode()
    (tmp_path / 'gone.pth').write_text(text.replace(AUTOLOAD, 'gone'))
    code = f'import site; site.addsitedir({str(tmp_path)!r}); print("started")'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ('started\n', '')


def test_every_config_of_the_model_index_exists(repo_dir):
    index = yaml.safe_load((repo_dir / 'model-index.yml').read_text())
    configs = []
    for metafile in index['Import']:
        models = yaml.safe_load((repo_dir / metafile).read_text())['Models']
        configs += [model['Config'] for model in models]
    assert configs
    assert [name for name in configs if not (repo_dir / name).is_file()] == []


def test_mim_finds_configs_by_unique_names(repo_dir):
    """``mim train mmtransmamba NAME.py`` refuses a name that occurs twice."""
    configs = repo_dir / 'configs'
    names = [
        path.name
        for path in configs.rglob('*.py')
        if '_base_' not in path.relative_to(configs).parts
    ]
    assert len(names) == len(set(names))


def test_installed_tools_train(installed, repo_dir, tmp_path):
    tool = installed / 'mmtransmamba' / '.mim' / 'tools' / 'train.py'
    config = repo_dir / 'tests' / 'test_tools' / 'tiny_vit.py'
    done = run_installed(installed, tmp_path, tool, config, '--work-dir', 'run')
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'run' / 'epoch_1.pth').is_file()
