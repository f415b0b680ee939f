import math

import pytest
import torch
import torch.nn.functional as F

from mmtransmamba.transfer.subclone.fresh import (
    RULES,
    describe_rule,
    draw,
    resolve_rule,
)


def make(kind, shape, seed=0, **arguments):
    rule = resolve_rule('x', dict(type=kind), arguments or None)
    return draw(rule, shape, torch.Generator().manual_seed(seed))


def test_normal_keeps_the_variance_of_what_a_convolution_reads():
    weight = make('normal', (4000, 1, 7, 7))
    assert weight.std().item() == pytest.approx(1 / 7, rel=0.02)
    assert weight.mean().item() == pytest.approx(0, abs=1e-3)
    assert make('normal', (400, 100), std=0.3).std().item() == pytest.approx(
        0.3, rel=0.02
    )


def test_trunc_normal_is_cut_at_two_deviations():
    weight = make('trunc_normal', (300, 300), std=0.1)
    assert weight.abs().max() <= 0.2
    # The deviation of a normal distribution cut at two of its own.
    assert weight.std().item() == pytest.approx(0.1 * 0.8796, rel=0.02)


def test_mamba_a_is_s4d_real():
    assert torch.equal(
        -make('mamba_a_log', (3, 4)).exp().round(),
        -torch.tensor([1.0, 2, 3, 4]).expand(3, 4),
    )


def test_mamba_dt():
    dt = F.softplus(make('mamba_dt_bias', (20000,)))
    assert 1e-3 <= dt.min() < 1.1e-3 and 0.09 < dt.max() <= 0.1 + 1e-6
    assert dt.log().mean().item() == pytest.approx(math.log(1e-2), abs=0.03)
    assert F.softplus(make('mamba_dt_bias', (99,), dt_floor=0.05)).min() >= 0.05 - 1e-6
    doubled = F.softplus(2 * make('mamba_dt_bias', (20000,), scale=0.5))
    torch.testing.assert_close(doubled, dt)
    weight = make('mamba_dt_weight', (1000, 16))
    assert 0.24 < weight.abs().max() <= 0.25 and weight.min() < -0.24


def test_constants():
    assert torch.equal(make('ones', (2, 3)), torch.ones(2, 3))
    assert torch.equal(make('zeros', (2, 3)), torch.zeros(2, 3))


@pytest.mark.parametrize('kind', RULES)
def test_a_seed_fixes_the_values(kind):
    assert torch.equal(make(kind, (6, 4), seed=3), make(kind, (6, 4), seed=3))


def test_changes_to_a_rule():
    default = dict(type='normal', std=0.02)
    assert resolve_rule('conv', default, None) == default
    assert resolve_rule('conv', default, dict(std=1)) == dict(type='normal', std=1)
    assert resolve_rule('conv', default, dict(type='ones')) == dict(type='ones')
    assert resolve_rule('conv', default, 'keep') is None


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ('drop', r"fresh\['conv'\]='drop' must be a dict or 'keep'"),
        (dict(type='xavier'), r"type='xavier' must be one of \['mamba_a_log'"),
        (dict(sdt=1), r"normal takes no \['sdt'\], only \['std'\]"),
    ],
)
def test_bad_changes(change, message):
    with pytest.raises(ValueError, match=message):
        resolve_rule('conv', dict(type='normal', std=0.02), change)


def test_description_states_the_number():
    rule = resolve_rule('conv', dict(type='normal'), None)
    assert describe_rule(rule, (8, 1, 7, 7)) == 'normal(std=0.1429)'
    assert describe_rule(dict(type='ones'), (8,)) == 'ones'
