"""The backends for GPUs: why they refuse, and what they pass to their packages.

The packages' functions are replaced by their formulas, so that this runs anywhere.
"""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from scan_cases import assert_close, outputs_and_gradients
from ssd_cases import operands

from mmtransmamba.ops import backends, ssd_scan
from mmtransmamba.ops.ssd import fla, mamba_ssm

FUNCTIONS = {
    fla: ('fla.ops.simple_gla', 'chunk_simple_gla'),
    mamba_ssm: ('mamba_ssm.ops.triton.ssd_combined', 'mamba_chunk_scan_combined'),
}
LOADERS = {
    fla: fla._chunk_simple_gla,
    mamba_ssm: mamba_ssm._mamba_chunk_scan_combined,
}
each = pytest.mark.parametrize('module', FUNCTIONS)


def simple_gla(
    q, k, v, g=None, g_gamma=None, scale=None, initial_state=None, **options
):
    """flash-linear-attention's simple GLA: ``S = exp(g) S + k v^T``, ``o = S^T q``."""
    assert options == {'output_final_state': True}
    assert q.dtype == k.dtype == v.dtype and g.dtype == torch.float32
    assert g_gamma is None and q.shape == k.shape
    scale = k.shape[-1] ** -0.5 if scale is None else scale
    state = torch.zeros(*q.shape[::2], q.shape[-1], v.shape[-1])
    if initial_state is not None:
        assert initial_state.dtype == torch.float32
        state = initial_state
    outputs = []
    for t in range(q.shape[1]):
        added = torch.einsum('bhk,bhv->bhkv', k[:, t].float(), v[:, t].float())
        state = g[:, t, :, None, None].exp() * state + added
        outputs.append(torch.einsum('bhk,bhkv->bhv', q[:, t].float() * scale, state))
    return torch.stack(outputs, dim=1).to(q.dtype), state


def chunk_scan_combined(
    x,
    dt,
    A,
    B,
    C,
    chunk_size,
    D=None,
    z=None,
    dt_bias=None,
    initial_states=None,
    seq_idx=None,
    cu_seqlens=None,
    dt_softplus=False,
    dt_limit=(0.0, float('inf')),
    return_final_states=False,
):
    """``mamba_ssm``'s SSD, as far as it is used."""
    assert z is None and dt_bias is None and not dt_softplus and return_final_states
    assert chunk_size & (chunk_size - 1) == 0
    assert x.dtype == B.dtype == C.dtype and dt.dtype == A.dtype == torch.float32
    y, state = ssd_scan(
        x, dt, A, B, C, D, initial_state=initial_states, backend='reference'
    )
    return y, state


@pytest.fixture(autouse=True)
def packages(monkeypatch):
    """The two packages with their formulas in place of their kernels."""
    for module, fake in ((fla, simple_gla), (mamba_ssm, chunk_scan_combined)):
        path, name = FUNCTIONS[module]
        parts = path.split('.')
        for i in range(1, len(parts) + 1):
            monkeypatch.setitem(sys.modules, '.'.join(parts[:i]), ModuleType('fake'))
        setattr(sys.modules[path], name, fake)
        LOADERS[module].cache_clear()
    yield
    for loader in LOADERS.values():
        loader.cache_clear()


@each
@pytest.mark.parametrize('optional', [True, False])
def test_arguments_are_mapped(module, optional):
    assert module.unavailable() is None
    case = operands(length=9, heads=6, groups=3, optional=optional)
    assert_close(
        outputs_and_gradients(
            lambda **named: module.scan(**named), case, torch.float32
        ),
        outputs_and_gradients(
            lambda **named: ssd_scan(**named, backend='reference'), case, torch.float64
        ),
        1e-5,
    )


@each
def test_half_precision_goes_to_the_kernel_as_it_is(module):
    case = operands(length=9)
    mixed = {k: case[k].bfloat16() if k in 'xB' else case[k] for k in case}
    y, last_state = module.scan(**mixed)
    expected, expected_state = ssd_scan(**mixed, backend='reference')
    assert last_state.dtype == torch.float32
    torch.testing.assert_close(y.to(expected), expected, rtol=0.05, atol=0.1)
    torch.testing.assert_close(last_state, expected_state, rtol=0.05, atol=0.1)


@each
def test_what_is_refused(module):
    case = operands()
    assert module.refuses(case) == 'it runs on CUDA, x is on cpu'
    on_gpu = SimpleNamespace(type='cuda')

    def there(x, dtype=torch.float32, size=1):
        return SimpleNamespace(device=on_gpu, dtype=dtype, numel=lambda: size)

    moved = {k: there(x) for k, x in case.items()} | {'D': None}
    assert module.refuses(moved) is None
    assert 'empty batch' in module.refuses(moved | {'x': there(None, size=0)})
    double = module.refuses(moved | {'A': there(None, torch.float64)})
    assert double == 'it has a float32 state, A is in torch.float64'


@each
def test_the_choice_says_why(module, monkeypatch):
    name = module.__name__.rpartition('.')[2]
    backends._reason.cache_clear()
    with pytest.raises(ValueError, match=f'{name}.* it runs on CUDA, x is on cpu'):
        ssd_scan(**operands(), backend=name)
    for part in (name, FUNCTIONS[module][0]):
        monkeypatch.setitem(sys.modules, part, None)
    LOADERS[module].cache_clear()
    backends._reason.cache_clear()
    with pytest.raises(RuntimeError, match=f"'{name}' of ssd.* is not available: .*"):
        ssd_scan(**operands(), backend=name)
    backends._reason.cache_clear()
