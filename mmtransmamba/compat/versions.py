"""Which distributions are installed, and which releases the tests have run with."""

import functools
import re
import warnings
from importlib import metadata

# The oldest and the newest release that the tests have run with, by series. The tests
# compare these with requirements/oldest.txt and requirements/constraints.txt.
TESTED = {
    'torch': ('2.6', '2.15'),
    'transformers': ('5.21', '5.24'),
    'onedl-mmengine': ('0.10', '0.10'),
    'onedl-mmpretrain': ('1.3', '1.3'),
}

# Distributions whose maintained fork installs into the same folder.
FORKS = {
    'mmengine': 'onedl-mmengine',
    'mmengine-lite': 'onedl-mmengine',
    'mmcv': 'onedl-mmcv',
    'mmcv-lite': 'onedl-mmcv',
    'mmcv-full': 'onedl-mmcv',
    'mmpretrain': 'onedl-mmpretrain',
    'mmdet': 'onedl-mmdetection',
    'mmsegmentation': 'onedl-mmsegmentation',
}


def _installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def check_distributions() -> None:
    """Check that no package is installed together with its own fork.

    The ``onedl-*`` forks keep the import names of the original OpenMMLab packages. If
    both are installed, the files of one have overwritten those of the other, and
    imports get a mixture.

    Raises:
        ImportError: If an original and its fork are both installed; the message
            gives the pip commands that repair it.
    """
    mixed = {
        original: fork
        for original, fork in FORKS.items()
        if _installed(original) and _installed(fork)
    }
    if not mixed:
        return
    forks = sorted(set(mixed.values()))
    raise ImportError(
        'mmtransmamba needs the maintained forks of the OpenMMLab packages, but '
        + ', '.join(f'"{original}"' for original in mixed)
        + ' is installed beside '
        + ', '.join(f'"{fork}"' for fork in forks)
        + ', and they share one folder. Run:\n'
        f'  pip uninstall -y {" ".join([*mixed, *forks])}\n'
        f'  pip install {" ".join(forks)}'
    )


@functools.cache
def check_tested_versions() -> None:
    """Warn once about each package whose release is outside :data:`TESTED`.

    A release is compared by its series, so a newer patch of a tested one is inside.
    Nothing is imported.
    """
    for package, (oldest, newest) in TESTED.items():
        if not _installed(package):
            continue
        version = metadata.version(package)
        if release(oldest) <= release(version) <= release(newest):
            continue
        warnings.warn(
            f'{package} {version} is outside the range that mmtransmamba is tested '
            f'with, {oldest} to {newest}: expect errors or other results. Inside is '
            f'pip install "{package}=={newest}.*"',
            stacklevel=3,
        )


def release(version: str) -> tuple[int, ...]:
    """Major and minor number of a version, such as 2.15rc1 or 2.14.1+cu130."""
    numbers = re.match(r'v?(?:\d+!)?(\d+)(?:\.(\d+))?', version)
    if numbers is None:
        raise ValueError(f'{version!r} is not a version number')
    return tuple(int(number or 0) for number in numbers.groups())
