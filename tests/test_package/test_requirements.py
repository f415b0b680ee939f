"""Requirements, extras and what the code really imports."""

import ast
import importlib.util
import re
import sys
import tomllib
from unittest import mock

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from mmtransmamba.compat import TESTED, release

# Names under which distributions are imported, where they differ.
MODULES = {
    'onedl-mmcv': 'mmcv',
    'onedl-mmengine': 'mmengine',
    'onedl-mmpretrain': 'mmpretrain',
    'opencv-python': 'cv2',
    'pillow': 'PIL',
    'scikit-learn': 'sklearn',
}


@pytest.fixture(scope='module')
def arguments(repo_dir):
    """The arguments that ``setup.py`` gives to setuptools."""
    spec = importlib.util.spec_from_file_location('setup', repo_dir / 'setup.py')
    module = importlib.util.module_from_spec(spec)
    with mock.patch('setuptools.setup') as setup:
        spec.loader.exec_module(module)
    return setup.call_args.kwargs


def distribution_of(requirement):
    return re.match(r'[\w.-]+', requirement).group()


def lines_of(path):
    lines = (line.split('#')[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def test_runtime_requirements(arguments, repo_dir):
    expected = lines_of(repo_dir / 'requirements' / 'runtime.txt')
    assert arguments['install_requires'] == expected
    assert {'torch>=2.6', 'onedl-mmengine>=0.10.12'} <= set(expected)


OPTIONAL = (
    *('cuda', 'fla', 'timm', 'video', 'det', 'seg', 'eval', 'export', 'gguf'),
    'parquet',
)


def test_extras(arguments, repo_dir):
    extras = arguments['extras_require']
    optional = set(OPTIONAL)
    assert set(extras) == optional | {'tests', 'docs'}
    assert all(extras.values())
    assert [distribution_of(r) for r in extras['cuda']] == [
        'causal-conv1d',
        'mamba-ssm',
    ]
    in_file = lines_of(repo_dir / 'requirements' / 'optional.txt')
    assert sorted(in_file) == sorted(r for name in optional for r in extras[name])
    for name in ('tests', 'docs'):
        assert extras[name] == lines_of(repo_dir / 'requirements' / f'{name}.txt')


def test_no_optional_package_is_installed_by_default(arguments):
    runtime = {distribution_of(r) for r in arguments['install_requires']}
    for name in OPTIONAL:
        extra = {distribution_of(r) for r in arguments['extras_require'][name]}
        assert runtime.isdisjoint(extra)


def test_build_requirements(repo_dir):
    pyproject = tomllib.loads((repo_dir / 'pyproject.toml').read_text())
    expected = lines_of(repo_dir / 'requirements' / 'build.txt')
    assert pyproject['build-system']['requires'] == expected


def test_ruff_of_the_commit_hook_is_that_of_the_tests(repo_dir):
    (ruff,) = (
        line
        for line in lines_of(repo_dir / 'requirements' / 'tests.txt')
        if line.startswith('ruff')
    )
    hooks = (repo_dir / '.pre-commit-config.yaml').read_text()
    assert set(re.findall(r'ruff==[\w.*]+', hooks)) == {ruff}


def pins(path):
    """The version of each package for this Python."""
    requirements = map(Requirement, lines_of(path))
    return {
        canonicalize_name(requirement.name): str(requirement.specifier)[2:]
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate()
    }


def pinned_of(repo_dir, name, pinned):
    """The requirements of a file, each with its version in a list of pins."""
    for line in lines_of(repo_dir / 'requirements' / f'{name}.txt'):
        requirement = Requirement(line)
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f'{line} is not pinned'
        yield requirement, version


@pytest.fixture(scope='module')
def constraints(repo_dir):
    """The tested version of each package for this Python."""
    return pins(repo_dir / 'requirements' / 'constraints.txt')


@pytest.mark.parametrize('name', ['runtime', 'tests', 'docs', 'build'])
def test_every_requirement_is_pinned_within_its_range(name, constraints, repo_dir):
    for requirement, pinned in pinned_of(repo_dir, name, constraints):
        assert requirement.specifier.contains(pinned), f'{requirement} is {pinned}'


@pytest.fixture(scope='module')
def oldest(repo_dir):
    """The version of each package that CI tests at the lower bounds."""
    return pins(repo_dir / 'requirements' / 'oldest.txt')


@pytest.mark.parametrize('name', ['runtime', 'tests', 'build'])
def test_oldest_versions_are_the_declared_lower_bounds(name, oldest, repo_dir):
    for requirement, pinned in pinned_of(repo_dir, name, oldest):
        assert requirement.specifier.contains(pinned), f'{requirement} is {pinned}'
        for bound in requirement.specifier:
            if bound.operator == '>=':
                assert Version(pinned) == Version(bound.version), requirement


@pytest.mark.parametrize('package', TESTED)
def test_the_warned_range_starts_at_the_oldest_versions(package, oldest):
    assert release(oldest[package]) == release(TESTED[package][0])


@pytest.mark.parametrize('package', TESTED)
def test_the_warned_range_goes_up_to_the_constraints_at_least(package, constraints):
    assert release(constraints[package]) <= release(TESTED[package][1])


def test_versions_of_python(arguments):
    supported = {
        classifier.split(' :: ')[-1]
        for classifier in arguments['classifiers']
        if classifier.startswith('Programming Language :: Python :: 3.')
    }
    assert supported == {'3.11', '3.12', '3.13'}
    assert arguments['python_requires'] == '>=3.11'


def imported_at_import(path):
    """Top-level names of the modules a file imports when it is imported itself."""
    pending = list(ast.parse(path.read_text(encoding='utf-8')).body)
    names = set()
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name.split('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split('.')[0])
        elif isinstance(node, ast.Try):
            # An import that may fail is optional.
            pending += [*node.orelse, *node.finalbody]
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending += [
                child
                for child in ast.iter_child_nodes(node)
                if hasattr(child, 'lineno')
            ]
    return names


# Files that are imported only where the package is there.
PLUGINS = {'mmtransmamba/apis/lmms/model.py': 'lmms_eval'}
KERNELS = 'mmtransmamba/ops/*/triton_*.py'


def test_imports_are_declared(arguments, repo_dir):
    declared = {
        MODULES.get(name, name)
        for name in map(distribution_of, arguments['install_requires'])
    }
    undeclared = {
        (path.relative_to(repo_dir).as_posix(), name)
        for path in [
            *(repo_dir / 'mmtransmamba').rglob('*.py'),
            *(repo_dir / 'tools').glob('*.py'),
        ]
        for name in imported_at_import(path)
        - declared
        - set(sys.stdlib_module_names)
        # The tools' own module lies beside them.
        - {'mmtransmamba', '_tool'}
    }
    kernels = {
        (path.relative_to(repo_dir).as_posix(), 'triton')
        for path in repo_dir.glob(KERNELS)
    }
    assert undeclared - kernels == set(PLUGINS.items())


def test_the_plugin_of_vllm_imports_nothing_but_vllm(repo_dir):
    """In vLLM's environment there are no dependencies of this package."""
    paths = list((repo_dir / 'mmtransmamba_vllm').glob('*.py'))
    assert paths
    names = {
        name.name if isinstance(node, ast.Import) else node.module
        for path in paths
        for node in ast.walk(ast.parse(path.read_text('utf-8')))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    found = {name.split('.')[0] for name in names} - set(sys.stdlib_module_names)
    assert found == {'mmtransmamba_vllm', 'torch', 'transformers', 'vllm'}
