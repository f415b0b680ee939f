"""The backends for GPUs: why they refuse, and what they pass to their packages.

The packages' functions are replaced by their formulas, so that this runs anywhere.
"""

import math
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from scan_cases import assert_close, outputs_and_gradients
from ssd_cases import operands

from mmtransmamba.ops import backends, ssd_scan
from mmtransmamba.ops.ssd import fla, mamba_ssm, triton

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


def on_gpu(batch=2, length=64, heads=4, channels=64, groups=2, states=64, **dtypes):
    """The attributes that backends check, of operands on a GPU."""
    shapes = dict(
        x=(batch, length, heads, channels),
        dt=(batch, length, heads),
        A=(heads,),
        B=(batch, length, groups, states),
        C=(batch, length, groups, states),
    )
    return {
        name: SimpleNamespace(
            device=SimpleNamespace(type='cuda'),
            dtype=dtypes.get(name, torch.float32),
            shape=shape,
            numel=lambda shape=shape: math.prod(shape),
        )
        for name, shape in shapes.items()
    } | dict(D=None, initial_state=None)


TOO_SMALL = 'heads of at least 16 channels and 16 states'
EIGHTS = 'multiples of 8 channels and states'


@pytest.mark.parametrize(
    'sizes, of_fla, of_mamba_ssm',
    [
        (dict(), None, None),
        (dict(channels=80, states=80), None, None),  # Phi-2
        (dict(channels=128, states=128), None, None),
        (dict(channels=16, states=16), None, None),
        (dict(channels=8), f'{TOO_SMALL}, x has 8 and B 64', None),
        (dict(states=8), f'{TOO_SMALL}, x has 64 and B 8', None),
        (dict(channels=15), f'{TOO_SMALL}, x has 15', f'{EIGHTS}, x has 15 and B 64'),
        (dict(states=20), None, f'{EIGHTS}, x has 64 and B 20'),
        (dict(states=512), None, 'at most 256 states, B has 512'),
        (dict(length=1), 'at least 9 steps, x has 1', None),
        (dict(length=8), 'at least 9 steps, x has 8', None),
        (dict(length=9), None, None),
        (dict(length=63), None, None),
        (dict(batch=0), 'no empty batch', 'no empty batch'),
        (dict(length=0), 'no empty batch', 'no empty batch'),
        (dict(x=torch.bfloat16), None, None),
        (dict(A=torch.float64), 'float32 state, A is', 'float32 state, A is'),
    ],
    ids=str,
)
def test_what_is_refused(sizes, of_fla, of_mamba_ssm):
    for module, reason in ((fla, of_fla), (mamba_ssm, of_mamba_ssm)):
        found = module.refuses(on_gpu(**sizes))
        assert (found is None) if reason is None else (reason in found)


@each
@pytest.mark.parametrize('device', ['cpu', 'meta'])
def test_other_devices_are_refused(module, device):
    case = {k: None if v is None else v.to(device) for k, v in operands().items()}
    assert module.refuses(case) == f'it runs on CUDA, x is on {device}'


@pytest.mark.parametrize(
    'sizes, chosen',
    [
        (dict(), 'mamba_ssm'),
        (dict(states=20), 'fla'),
        (dict(channels=12), 'chunked'),
        (dict(states=4, length=3), 'chunked'),
        (dict(batch=0), 'chunked'),
    ],
    ids=str,
)
def test_the_next_backend_takes_over(sizes, chosen, monkeypatch):
    monkeypatch.setattr(triton, 'unavailable', lambda: 'it is not installed')
    backends._reason.cache_clear()
    module = backends.resolve('ssd', on_gpu(**sizes))
    assert module.__name__.rpartition('.')[2] == chosen
    backends._reason.cache_clear()


@pytest.mark.parametrize(
    'sizes',
    [dict(), dict(channels=12, states=4, length=3), dict(batch=0)],
    ids=str,
)
def test_triton_is_taken_before_the_packages(sizes, monkeypatch):
    monkeypatch.setattr(triton, 'unavailable', lambda: None)
    backends._reason.cache_clear()
    assert backends.resolve('ssd', on_gpu(**sizes)) is triton
    backends._reason.cache_clear()


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
