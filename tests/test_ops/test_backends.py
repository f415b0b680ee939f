"""Choosing a backend: order of preference, overrides and clear refusals."""

from types import SimpleNamespace

import pytest
import torch
from scan_cases import plain_operands

from mmtransmamba.ops import backends, selective_scan_fn


def fake_backend(unavailable=None, refusal=None):
    return SimpleNamespace(unavailable=lambda: unavailable, refuses=lambda _: refusal)


@pytest.fixture
def table(monkeypatch):
    """An op with one backend of each kind."""
    table = {
        'absent': fake_backend(unavailable='it is not installed'),
        'choosy': fake_backend(refusal='it wants integers'),
        'plain': fake_backend(),
    }
    monkeypatch.delenv(backends.ENV_VAR, raising=False)
    monkeypatch.setattr(backends, '_TABLE', dict(backends._TABLE))
    backends._reason.cache_clear()
    backends.register('toy', table)
    yield table
    backends._reason.cache_clear()


def test_available_gives_reasons(table):
    assert backends.available('toy') == {
        'absent': 'it is not installed',
        'choosy': None,
        'plain': None,
    }


def test_reference_of_the_selective_scan_is_always_available():
    assert backends.available('selective_scan')['reference'] is None


def test_the_first_that_takes_the_tensors_runs(table):
    assert backends.resolve('toy', {}) is table['plain']


def test_argument_beats_context_beats_environment(table, monkeypatch):
    table['a'], table['b'], table['c'] = (fake_backend() for _ in range(3))
    monkeypatch.setenv(backends.ENV_VAR, 'a')
    assert backends.resolve('toy', {}) is table['a']
    with backends.use_backend('b'):
        assert backends.resolve('toy', {}) is table['b']
        assert backends.resolve('toy', {}, 'c') is table['c']
    assert backends.resolve('toy', {}) is table['a']


def test_use_backend_ends_with_an_error_inside(table):
    with pytest.raises(KeyError), backends.use_backend('choosy'):
        raise KeyError
    assert backends.resolve('toy', {}) is table['plain']


@pytest.mark.parametrize(
    ('name', 'error', 'message'),
    [
        ('nope', ValueError, "no backend 'nope'.*accepted: absent, choosy, plain"),
        ('absent', RuntimeError, 'not available: it is not installed'),
        ('choosy', ValueError, 'cannot take these tensors: it wants integers'),
    ],
)
def test_refusals_say_why(table, name, error, message):
    with pytest.raises(error, match=message):
        backends.resolve('toy', {}, name)


def test_environment_is_named_when_it_is_wrong(table, monkeypatch):
    monkeypatch.setenv(backends.ENV_VAR, 'nope')
    with pytest.raises(ValueError, match=backends.ENV_VAR):
        backends.resolve('toy', {})


def test_an_op_that_accompanies_others_leaves_their_backends_to_them(
    table, monkeypatch
):
    assert backends.resolve_known('toy', {}) is table['plain']
    with backends.use_backend('native'):  # of the scans
        assert backends.resolve_known('toy', {}) is table['plain']
    with backends.use_backend('choosy'):
        with pytest.raises(ValueError, match='it wants integers'):
            backends.resolve_known('toy', {})
    monkeypatch.setenv(backends.ENV_VAR, 'refrence')
    with pytest.raises(ValueError, match=f"'refrence' .*{backends.ENV_VAR}.* unknown"):
        backends.resolve_known('toy', {})


def test_nothing_takes_the_tensors(table):
    del table['plain']
    with pytest.raises(RuntimeError, match='absent: it is not.*choosy: it wants'):
        backends.resolve('toy', {})


def test_unknown_names(table):
    with pytest.raises(ValueError, match="op 'nope' is unknown; accepted: .*toy"):
        backends.available('nope')
    with pytest.raises(ValueError, match="backend 'nope' is unknown"):
        with backends.use_backend('nope'):
            pass


def test_the_op_passes_the_choice_on():
    operands = plain_operands()
    with pytest.raises(ValueError, match="no backend 'nope'"):
        selective_scan_fn(**operands, backend='nope')
    with backends.use_backend('reference'):
        by_context = selective_scan_fn(**operands, delta_softplus=True)
    by_argument = selective_scan_fn(
        **operands, delta_softplus=True, backend='reference'
    )
    assert torch.equal(by_context, by_argument)
