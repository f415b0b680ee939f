"""Build and installation of mmtransmamba.

Beside the Python code the package carries the native CPU kernels, compiled here
when there is a C++ compiler, in ``mmtransmamba/.mim`` the configs and tools, where
``mim`` and ``mmengine.hub`` look for them, a ``.pth`` file by which transformers finds
the package's models, and a plugin of vLLM.
"""

import importlib.util
import os
import re
import shutil
from pathlib import Path

from setuptools import Command, Distribution, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
PACKAGE = 'mmtransmamba'
VLLM_PLUGIN = 'mmtransmamba_vllm'
AUTOLOAD = '_mmtransmamba_autoload'
# What Python executes at its start. A checkout that was removed must not matter.
PTH = f"import sys; exec('try: import {AUTOLOAD}\\nexcept ImportError: pass')\n"
MIM_ITEMS = ('configs', 'tools', 'model-index.yml')


def read_version() -> str:
    namespace = {}
    exec((ROOT / PACKAGE / 'version.py').read_text(encoding='utf-8'), namespace)
    return namespace['__version__']


def read_blocks(name: str) -> dict[str, list[str]]:
    """Read ``requirements/NAME.txt``.

    Returns:
        The requirements per block. A block starts with a line ``# [block] …``;
        what comes before the first one is in the block ``''``.
    """
    blocks = {'': []}
    block = ''
    text = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8')
    for line in text.splitlines():
        header = re.match(r'#\s*\[(\w+)\]', line)
        if header:
            block = header.group(1)
            blocks[block] = []
        requirement = line.split('#')[0].strip()
        if requirement:
            blocks[block].append(requirement)
    return blocks


def read_requirements(name: str) -> list[str]:
    return read_blocks(name)['']


def read_extras() -> dict[str, list[str]]:
    extras = read_blocks('optional')
    del extras['']
    return extras | {name: read_requirements(name) for name in ('tests', 'docs')}


class PackageStep(Command):
    """A build step that adds files to the package.

    In an editable install they are added to the source tree.
    """

    user_options = []
    editable_mode = False

    def initialize_options(self) -> None:
        self.build_lib = None

    def finalize_options(self) -> None:
        self.set_undefined_options('build_py', ('build_lib', 'build_lib'))

    @property
    def package_dir(self) -> Path:
        return (ROOT if self.editable_mode else Path(self.build_lib)) / PACKAGE

    def get_source_files(self) -> list[str]:
        return []

    def get_outputs(self) -> list[str]:
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class BuildMim(PackageStep):
    """Put configs, tools and the model index into ``mmtransmamba/.mim``."""

    description = 'ship configs and tools inside the package'

    def run(self) -> None:
        mim_dir = self.package_dir / '.mim'
        if mim_dir.exists():
            shutil.rmtree(mim_dir)
        mim_dir.mkdir(parents=True)
        for item in MIM_ITEMS:
            source, target = ROOT / item, mim_dir / item
            if not source.exists():
                raise FileNotFoundError(f'{source}: the package must contain "{item}"')
            if self.editable_mode:
                target.symlink_to(os.path.relpath(source, mim_dir))
            elif source.is_dir():
                ignore = shutil.ignore_patterns('__pycache__', '*.py[cod]')
                shutil.copytree(source, target, ignore=ignore)
            else:
                shutil.copyfile(source, target)


class BuildNative(PackageStep):
    """Compile the native kernels; without them the package runs, but slower."""

    description = 'compile the native CPU kernels'

    def run(self) -> None:
        script = ROOT / PACKAGE / 'ops' / 'native' / 'build.py'
        try:
            spec = importlib.util.spec_from_file_location('native_build', script)
            native_build = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(native_build)
            library = native_build.build(self.package_dir / 'ops' / 'native')
        except Exception as error:
            self.warn(
                f'the native CPU kernels were not built: {error}\n'
                'The installation goes on; the slower "reference" kernels will run.'
            )
        else:
            self.announce(f'built the native CPU kernels: {library}', level=2)


class BuildPth(PackageStep):
    """Have Python import the autoload module at its start."""

    description = 'announce the models to transformers'

    def run(self) -> None:
        if not self.editable_mode:
            (Path(self.build_lib) / f'{AUTOLOAD}.pth').write_text(PTH)


class EditableWheel(editable_wheel):
    """An editable installation with the ``.pth`` file of a real one."""

    def _select_strategy(self, *args):
        strategy = super()._select_strategy(*args)

        class WithPth(type(strategy)):
            def __call__(self, wheel, files, mapping) -> None:
                super().__call__(wheel, files, mapping)
                wheel.writestr(f'{AUTOLOAD}.pth', PTH)

        strategy.__class__ = WithPth
        return strategy


class Build(build):
    """The standard build with the steps above, never mixed with an old one."""

    sub_commands = [
        *build.sub_commands,
        ('build_mim', None),
        ('build_native', None),
        ('build_pth', None),
    ]

    def run(self) -> None:
        shutil.rmtree(Path(self.build_lib) / PACKAGE, ignore_errors=True)
        super().run()


class PlatformDistribution(Distribution):
    """A distribution that is not pure Python, though it has no extension module."""

    def has_ext_modules(self) -> bool:
        return True


class BdistWheel(bdist_wheel):
    """A wheel for this platform and any Python: the library has no Python ABI."""

    def get_tag(self) -> tuple[str, str, str]:
        return 'py3', 'none', super().get_tag()[2]


setup(
    name=PACKAGE,
    version=read_version(),
    description='Transfer pre-trained Transformers into Mamba-family models',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    keywords='computer vision, knowledge distillation, Mamba, state space models',
    license='Apache-2.0',
    license_files=['LICENSE'],
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Science/Research',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    packages=[*find_packages(include=[PACKAGE, f'{PACKAGE}.*']), VLLM_PLUGIN],
    py_modules=[AUTOLOAD],
    package_data={PACKAGE: ['ops/native/**/*.cpp', 'ops/native/**/*.h']},
    include_package_data=False,
    python_requires='>=3.11',
    install_requires=read_requirements('runtime'),
    extras_require=read_extras(),
    entry_points={
        'lmms_eval.models': ['mmtransmamba = mmtransmamba.apis.lmms:manifest'],
        'vllm.general_plugins': [f'mmtransmamba = {VLLM_PLUGIN}:register'],
    },
    distclass=PlatformDistribution,
    cmdclass={
        'bdist_wheel': BdistWheel,
        'build': Build,
        'build_mim': BuildMim,
        'build_native': BuildNative,
        'build_pth': BuildPth,
        'editable_wheel': EditableWheel,
    },
    zip_safe=False,
)
