"""The share of each branch of a window mixer, as the log has it."""

from types import SimpleNamespace

import pytest
import torch
from kept_scalars import Scalars
from language_models import make_hybrid, make_teacher, tokens

from mmtransmamba.engine.hooks import BranchShareHook


def train(model, hook, steps=4):
    runner = SimpleNamespace(model=model, visualizer=Scalars(), iter=0)
    hook.before_train(runner)
    for step in range(steps):
        runner.iter = step
        hook.before_train_iter(runner, step)
        model(**tokens()).loss.backward()
        hook.after_train_iter(runner, step)
    return runner.visualizer.seen


def test_every_second_iteration_has_the_share_of_each_layer():
    model = make_hybrid(make_teacher(), init='vkq', mixer='WindowGatedDeltaNet')
    with torch.no_grad():
        model.model.layers[2].self_attn.norm.weight.zero_()
    seen = train(model, BranchShareHook(interval=2))
    assert list(seen) == [2, 4]
    for scalars in seen.values():
        assert list(scalars) == ['branch_share/0', 'branch_share/2']
        assert 0 < scalars['branch_share/0'] < 1
        assert scalars['branch_share/2'] == 0  # bypassed
    assert model.model.layers[0].self_attn.watched is None


def test_a_model_without_branches_is_refused():
    model = make_hybrid(make_teacher())
    with pytest.raises(ValueError, match='BranchShareHook: the model has no mixer'):
        train(model, BranchShareHook())
