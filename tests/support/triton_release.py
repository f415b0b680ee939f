"""Marks of the tests that read machine code made by Triton."""

from importlib.metadata import PackageNotFoundError, version

import pytest


def triton_release():
    try:
        return tuple(map(int, version('triton').split('.')[:2]))
    except PackageNotFoundError:
        return ()


needs_current_triton = pytest.mark.skipif(
    triton_release() < (3, 7),
    reason='triton is not installed, or so old that it generates other code',
)
