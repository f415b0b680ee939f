"""Fading terms of a distiller."""

from types import SimpleNamespace

import pytest

from mmtransmamba.registry import HOOKS


def runner(*terms, max_iters=100):
    model = SimpleNamespace(terms={name: SimpleNamespace(scale=1.0) for name in terms})
    return SimpleNamespace(model=model, iter=0, max_iters=max_iters)


def build(**kwargs):
    return HOOKS.build(dict(type='mmtransmamba.TermDecayHook', **kwargs))


def test_falls_linearly_between_begin_and_end():
    hook, run = (
        build(terms=['feature'], begin=0.2, end=0.6),
        runner('feature', 'logits'),
    )
    hook.before_train(run)
    scales = []
    for run.iter in (0, 20, 40, 50, 60, 99):
        hook.before_train_iter(run, run.iter)
        scales.append(run.model.terms['feature'].scale)
    assert scales == pytest.approx([1, 1, 0.5, 0.25, 0, 0])
    assert run.model.terms['logits'].scale == 1


def test_unknown_term():
    with pytest.raises(ValueError, match=r"names \['direction'\], the model has"):
        build(terms=['direction']).before_train(runner('logits'))


@pytest.mark.parametrize('begin, end', [(0.5, 0.5), (-0.1, 1), (0, 1.1)])
def test_bad_range(begin, end):
    with pytest.raises(ValueError, match='0 <= begin < end <= 1'):
        build(terms=['logits'], begin=begin, end=end)


@pytest.mark.parametrize('terms', [[], 'logits', None, [1]])
def test_terms_are_a_list_of_names(terms):
    with pytest.raises(ValueError, match='must be a list of names, one at least'):
        build(terms=terms)
