"""Evaluation mode for a while."""

import pytest
from torch import nn

from mmtransmamba.utils.evaluation_mode import evaluating


@pytest.mark.parametrize('error', [False, True])
def test_each_module_has_its_own_mode_again(error):
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Linear(1, 1), nn.Dropout()))
    model[1][1].eval()
    before = [module.training for module in model.modules()]
    assert len(set(before)) == 2
    try:
        with evaluating(model):
            assert not any(module.training for module in model.modules())
            if error:
                raise KeyError
    except KeyError:
        pass
    assert [module.training for module in model.modules()] == before
