"""Hooks that act every so many iterations."""

import pytest

from mmtransmamba.registry import HOOKS

HOOKS_AND_FIELDS = {
    'BranchShareHook': {},
    'LayerWeightsHook': {},
    'TermBalanceHook': dict(terms=['feature']),
    'TermGradientsHook': {},
}


@pytest.mark.parametrize('interval', [0, -5, 2.5, 50.0, '50', True, None])
@pytest.mark.parametrize('hook', HOOKS_AND_FIELDS)
def test_an_interval_is_a_whole_number_from_one_on(hook, interval):
    fields = dict(type=f'mmtransmamba.{hook}', interval=interval)
    with pytest.raises(ValueError) as error:
        HOOKS.build(fields | HOOKS_AND_FIELDS[hook])
    wanted = f'{hook}: interval={interval!r} must be a whole number of at least 1.'
    assert wanted in str(error.value)
