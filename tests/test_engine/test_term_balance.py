"""Weights of terms by the size of their gradients."""

import dataclasses
import itertools
import re
from types import SimpleNamespace

import pytest
import torch
from kept_scalars import Scalars
from mmengine.logging import MessageHub, MMLogger
from mmengine.optim import OptimWrapper
from tiny_distillers import DIRECTION, FEATURE, LAYER, LOGITS, batch, build
from torch import nn

from mmtransmamba.engine.hooks import (
    TermBalanceHook,
    TermDecayHook,
    TermGradientsHook,
    term_gradients,
)
from mmtransmamba.transfer import LanguageDistiller

TERMS = dict(logits=LOGITS, feature=FEATURE, layer=LAYER, direction=DIRECTION)
_NUMBERS = itertools.count()


def runner(model, *hooks):
    """What the hook needs of a Runner."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return SimpleNamespace(
        model=model,
        hooks=hooks,
        visualizer=Scalars(),
        optim_wrapper=OptimWrapper(optimizer),
        message_hub=MessageHub.get_instance(f'term balance {next(_NUMBERS)}'),
        iter=0,
    )


def images():
    inputs, samples = batch(4)
    return dict(inputs=120 + 50 * inputs, data_samples=samples)


def norms(model):
    losses = model(**model.data_preprocessor(images(), True), mode='loss')
    found = term_gradients(losses, model.student)
    return {n.rsplit('/', 1)[1]: v for n, v in found.items() if '/norm/' in n}


@pytest.mark.parametrize('to', ['logits', 'task'])
def test_gradients_become_as_large_as_is_asked(to):
    model = build(TERMS).eval()
    before = norms(model)
    run = runner(model)
    hook = TermBalanceHook(dict(feature=1, direction=0.5), to=to)
    hook.before_train(run)
    hook.before_train_iter(run, 0, images())
    after = norms(model)
    assert after['feature'] == pytest.approx(after[to], rel=1e-4)
    assert after['direction'] == pytest.approx(0.5 * after[to], rel=1e-4)
    assert after['layer'] == before['layer'] and after[to] == before[to]
    assert run.visualizer.seen == {
        1: {
            f'term_balance/{name}': model.terms[name].scale
            for name in ('feature', 'direction')
        }
    }
    # Measured again, the scales stay as they are: those of before are taken out.
    scale = model.terms['feature'].scale
    run.iter = hook.interval
    hook.before_train_iter(run, 0, images())
    assert model.terms['feature'].scale == pytest.approx(scale, rel=1e-4)


def test_the_losses_of_a_segmentor_are_the_task():
    model = build(TERMS).eval()
    kind, step = model.student_kind, model.student_kind.step

    def with_two_heads(*args):
        found = step(*args)
        loss = found.losses['loss']
        losses = {'decode.loss_ce': 0.25 * loss, 'aux.loss_ce': [0.5 * loss, loss / 4]}
        return dataclasses.replace(found, losses=losses)

    before = norms(model)
    kind.step = with_two_heads
    run = runner(model)
    hook = TermBalanceHook(['feature'], to='task')
    hook.before_train(run)
    hook.before_train_iter(run, 0, images())
    del kind.step
    assert norms(model)['feature'] == pytest.approx(before['task'], rel=1e-4)


def test_the_loss_scale_changes_no_figure():
    scales = {}
    for scaler in (None, torch.amp.GradScaler('cpu', init_scale=2.0**12)):
        torch.manual_seed(0)
        model = build(TERMS).eval()
        run = runner(model)
        run.optim_wrapper.loss_scaler = scaler
        hook = TermBalanceHook(['feature', 'layer'])
        hook.before_train(run)
        hook.before_train_iter(run, 0, images())
        scales[scaler] = [model.terms[name].scale for name in hook.sizes]
    one, other = scales.values()
    assert one == pytest.approx(other, rel=1e-4) and one != [1, 1]


def test_the_weight_in_the_config_cancels_out():
    scaled = {}
    for weight in (1.0, 7.0):
        torch.manual_seed(0)
        model = build(dict(logits=LOGITS, feature=dict(FEATURE, weight=weight))).eval()
        run = runner(model)
        hook = TermBalanceHook(['feature'])
        hook.before_train(run)
        hook.before_train_iter(run, 0, images())
        scaled[weight] = model.terms['feature'].scale * weight
    assert scaled[7.0] == pytest.approx(scaled[1.0], rel=1e-4)


@pytest.fixture
def measured(monkeypatch):
    """A run whose norms come from a list, and a function that goes on with it."""
    model = build(dict(logits=LOGITS, feature=FEATURE))
    run = runner(model)

    def go_on(hook, *found):
        scales = []
        for feature, logits in found:
            monkeypatch.setattr(
                hook,
                '_measure',
                lambda *_, x=feature, y=logits: dict(feature=x, logits=y),
            )
            hook.before_train_iter(run, run.iter)
            scales.append(model.terms['feature'].scale)
            run.iter += 1
        return scales

    return run, go_on


def test_norms_are_running_means_within_the_bound(measured):
    _, go_on = measured
    hook = TermBalanceHook(['feature'], interval=1, momentum=0.75, most=30)
    found = go_on(hook, (1.0, 2.0), (5.0, 2.0), (5.0, 6.0))
    assert found == pytest.approx([2, 2 / 2, 3 / 2.75])
    (bounded,) = go_on(hook, (1e-9, 1e9))
    assert bounded == 30


@pytest.mark.parametrize('norm', [0.0, float('nan'), float('inf')])
def test_norms_that_say_nothing_change_nothing(norm, measured):
    _, go_on = measured
    hook = TermBalanceHook(['feature'], interval=1)
    assert go_on(hook, (norm, 4.0), (2.0, 4.0), (norm, 4.0)) == [1, 2, 2]
    assert go_on(hook, (2.0, norm)) == [2]


def test_it_measures_at_its_interval_alone(measured):
    _, go_on = measured
    hook = TermBalanceHook(['feature'], interval=3, momentum=0)
    found = go_on(hook, *((1.0, scale) for scale in (2.0, 3.0, 4.0, 5.0, 6.0)))
    assert found == [2, 2, 2, 5, 5]


def test_a_resumed_training_goes_on_with_the_norms(measured, tmp_path):
    run, go_on = measured
    go_on(TermBalanceHook(['feature'], interval=1), (1.0, 2.0), (3.0, 5.0))
    scale = run.model.terms['feature'].scale
    torch.save(run.message_hub.state_dict(), tmp_path / 'hub.pth')
    again = runner(build(dict(logits=LOGITS, feature=FEATURE)))
    again.message_hub.load_state_dict(
        torch.load(tmp_path / 'hub.pth', weights_only=False)
    )
    TermBalanceHook(['feature']).before_train(again)
    assert again.model.terms['feature'].scale == scale != 1


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(terms=[]), r'terms=\[\] must be a list of names, one at least'),
        (dict(terms='feature'), "terms='feature' must be a list of names"),
        (dict(terms=None), 'terms=None must be a list of names'),
        (dict(terms=[2]), r'terms=\[2\] must be a list of names'),
        (dict(terms=['logits']), "must not name to='logits'"),
        (dict(terms=dict(feature=0)), r"terms\['feature'\]=0 must be a number above"),
        (dict(terms=dict(feature='1')), r"terms\['feature'\]='1' must be a number"),
        (dict(terms=['feature'], momentum=1), r'momentum=1 must be in \[0, 1\)'),
        (dict(terms=['feature'], most=0), 'most=0 must be above 0'),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        TermBalanceHook(**arguments)


def test_mistakes_at_the_start():
    with pytest.raises(ValueError, match='TermBalanceHook: the model is not a dist'):
        TermBalanceHook(['feature']).before_train(SimpleNamespace(model=nn.Identity()))
    run = runner(build(dict(logits=LOGITS, feature=FEATURE)))
    for hook in (TermBalanceHook(['layer']), TermBalanceHook(['feature'], to='layer')):
        with pytest.raises(ValueError, match=r"names \['layer'\], the model has"):
            hook.before_train(run)
    run.hooks = [TermDecayHook(['feature'])]
    with pytest.raises(ValueError, match=r"\['feature'\] fade by TermDecayHook too"):
        TermBalanceHook(['feature']).before_train(run)
    run.hooks = [TermDecayHook(['logits'])]
    with pytest.raises(ValueError, match=r"\['logits'\] fade by TermDecayHook too"):
        TermBalanceHook(['feature']).before_train(run)


@pytest.mark.parametrize(
    'one, other, both',
    [
        (dict(terms=['feature']), dict(terms=['feature'], to='task'), ['feature']),
        (dict(terms=['feature']), dict(terms=['logits'], to='task'), ['logits']),
        (dict(terms=['logits'], to='task'), dict(terms=['feature']), ['logits']),
    ],
)
def test_two_hooks_share_no_term(one, other, both):
    hooks = TermBalanceHook(**one), TermBalanceHook(**other)
    run = runner(build(dict(logits=LOGITS, feature=FEATURE)), *hooks)
    for hook in hooks:
        with pytest.raises(ValueError, match=re.escape(f'{both} are scaled by one')):
            hook.before_train(run)


def test_two_hooks_of_other_terms_do_not_meet():
    hooks = TermBalanceHook(['feature']), TermBalanceHook(['layer'])
    run = runner(build(TERMS).eval(), *hooks)
    for hook in hooks:
        hook.before_train(run)
    for hook in hooks:
        hook.before_train_iter(run, 0, images())
    found = norms(run.model)
    assert found['feature'] == pytest.approx(found['logits'], rel=1e-3)
    assert found['layer'] == pytest.approx(found['logits'], rel=1e-3)


@pytest.mark.parametrize('hook', [TermBalanceHook(['feature']), TermGradientsHook()])
def test_a_frozen_student_has_no_gradients(hook):
    run = runner(build(dict(logits=LOGITS, feature=FEATURE)))
    run.model.student.requires_grad_(False)
    with pytest.raises(ValueError, match='parameters of the student are frozen'):
        hook.before_train(run)


def test_the_task_is_a_reference_where_there_is_one():
    model = LanguageDistiller.__new__(LanguageDistiller)
    nn.Module.__init__(model)
    model.student, model.terms = nn.Linear(2, 2), nn.ModuleDict(dict(a=nn.Identity()))
    run = runner(model)
    with pytest.raises(ValueError, match=r"names \['task'\], the model has \['a'\]"):
        TermBalanceHook(['a'], to='task').before_train(run)


@pytest.mark.parametrize('weighed', ['feature', 'logits'])
def test_a_term_without_gradient_is_told(weighed, caplog):
    terms = dict(logits=LOGITS, feature=FEATURE)
    run = runner(build(terms | {weighed: dict(terms[weighed], weight=0)}))
    hook = TermBalanceHook(['feature'])
    hook.before_train(run)
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    hook.before_train_iter(run, 0, images())
    logger.removeHandler(caplog.handler)
    assert f'{weighed} has no gradient in iteration 1' in caplog.text
    assert run.model.terms['feature'].scale == 1
