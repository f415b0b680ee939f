"""Which releases of Triton the kernels run with."""

import pytest

from mmtransmamba.ops import triton_runtime as module


@pytest.mark.parametrize(
    ('version', 'reason'),
    [('3.5.1', 'triton >= 3.6, version 3.5.1'), ('3.6.0', None), ('3.10.0', None)],
)
def test_old_versions_are_refused(monkeypatch, version, reason):
    monkeypatch.setattr(module.importlib.util, 'find_spec', lambda name: object())
    monkeypatch.setattr(module.importlib.metadata, 'version', lambda name: version)
    found = module.unavailable()
    assert found is None if reason is None else reason in found


def test_without_triton_the_reason_says_so(monkeypatch):
    monkeypatch.setattr(module.importlib.util, 'find_spec', lambda name: None)
    assert 'triton is not installed' in module.unavailable()
