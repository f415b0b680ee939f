"""Gradients of a distiller's terms: their figures, and that training ignores them."""

import math
from types import SimpleNamespace

import pytest
import torch
from kept_scalars import Scalars
from mmengine.optim import OptimWrapper
from tiny_distillers import (
    DIRECTION,
    FEATURE,
    LAYER,
    LOGITS,
    batch,
    build,
    student_config,
)
from torch import nn

from mmtransmamba.engine.hooks import TermGradientsHook, term_gradients

TERMS = dict(logits=LOGITS, feature=FEATURE, layer=LAYER, direction=DIRECTION)


def train(model, hook, steps=3):
    """The training loop of a Runner with one hook."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    runner = SimpleNamespace(
        model=model, visualizer=Scalars(), optim_wrapper=OptimWrapper(optimizer)
    )
    if hook is not None:
        hook.before_train(runner)
    torch.manual_seed(0)
    for runner.iter in range(steps):
        data = images(shift=runner.iter)
        if hook is not None:
            hook.before_train_iter(runner, runner.iter, data)
        model.train_step(data, runner.optim_wrapper)
    return runner.visualizer.seen


def distiller():
    """Its student drops branches, and its terms compare tokens, at random."""
    student = student_config()
    student['backbone']['arch']['drop_path_rate'] = 0.5
    return build(TERMS, student, num_tokens=3).train()


def images(shift=0):
    inputs, samples = batch(4)
    return dict(inputs=120 + 50 * inputs + shift, data_samples=samples)


def squares(scalars):
    """The square of the sum's norm, from norms and cosines."""
    norms, cosines = {}, {}
    for name, value in scalars.items():
        kind, _, terms = name.removeprefix('term_gradient/').partition('/')
        (norms if kind == 'norm' else cosines)[terms] = value
    total = sum(norm**2 for norm in norms.values())
    for pair, cosine in cosines.items():
        one, other = pair.split(',')
        total += 2 * cosine * norms[one] * norms[other]
    return total


def test_figures_add_up_to_the_gradient_of_the_whole():
    model = distiller()
    scalars = train(model, TermGradientsHook(interval=2), steps=1)[1]
    assert {n for n in scalars if '/norm/' in n} == {
        f'term_gradient/norm/{term}' for term in ('task', *TERMS)
    }
    assert sum('/cosine/' in name for name in scalars) == 10
    model = distiller()
    torch.manual_seed(0)
    losses = model(**model.data_preprocessor(images(), True), mode='loss')
    model.parse_losses(losses)[0].backward()
    gradients = [p.grad for p in model.student.parameters() if p.grad is not None]
    whole = sum(g.square().sum() for g in gradients)
    assert squares(scalars) == pytest.approx(whole.item(), rel=1e-4)


def test_training_is_the_same_with_and_without():
    with_hook, without = distiller(), distiller()
    seen = train(with_hook, TermGradientsHook(interval=2))
    assert list(seen) == [1, 3]
    train(without, None)
    for (name, one), other in zip(
        with_hook.state_dict().items(), without.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name


def test_closed_form():
    student = nn.Linear(2, 1, bias=False)
    nn.init.constant_(student.weight, 2.0)
    x, y = torch.tensor([[3.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    scalars = term_gradients(
        {
            'loss_task': student(x).sum(),
            'loss_logits': -student(y).sum(),
            'loss_gone': torch.zeros(()),
            'loss_levels': [student(x), student(y)],
            'accuracy': torch.ones(()),
        },
        student,
    )
    norm, cosine = 'term_gradient/norm/', 'term_gradient/cosine/'
    assert scalars == pytest.approx(
        {
            f'{norm}task': 3,
            f'{norm}logits': 5,
            f'{norm}gone': 0,
            f'{norm}levels': 52**0.5,
            f'{cosine}task,logits': -0.6,
            f'{cosine}task,levels': 18 / 3 / 52**0.5,
            f'{cosine}logits,levels': -(18 + 16) / 5 / 52**0.5,
        }
    )


@pytest.mark.parametrize(
    'scale, norm', [(1.0, 0.0), (2.0**14, 3 * 2.0**-26), (2.0**30, math.nan)]
)
def test_the_scale_of_a_training_in_float16(scale, norm):
    student = nn.Linear(2, 1, bias=False)
    x = torch.tensor([[3.0, 0.0]])
    with torch.autocast('cpu', torch.float16):
        losses = dict(loss_task=student(x).sum() * 2.0**-26, loss_a=student(x).sum())
        found = term_gradients(losses, student, scale)
    assert found['term_gradient/norm/task'] == pytest.approx(norm, nan_ok=True)
    # What overflows has no direction, and zero has none.
    assert ('term_gradient/cosine/task,a' in found) == (scale == 2.0**14)


def test_the_scale_comes_from_the_trainings_wrapper():
    class Scaled(OptimWrapper):
        """Of mixed precision, on a CPU."""

        loss_scaler = torch.amp.GradScaler('cpu', init_scale=2.0**10)

        def optim_context(self, model):
            return torch.autocast('cpu', torch.float16)

    scalars = {}
    for wrapper in (OptimWrapper, Scaled):
        model = distiller().eval()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        runner = SimpleNamespace(
            model=model, visualizer=Scalars(), optim_wrapper=wrapper(optimizer), iter=0
        )
        torch.manual_seed(0)
        TermGradientsHook().before_train_iter(runner, 0, images())
        scalars[wrapper] = runner.visualizer.seen[1]
    for name, value in scalars[OptimWrapper].items():
        if '/norm/' in name:
            assert scalars[Scaled][name] == pytest.approx(value, rel=0.02), name


def test_mistakes():
    with pytest.raises(ValueError, match='is not a distiller'):
        TermGradientsHook().before_train(SimpleNamespace(model=nn.Linear(1, 1)))
    model = distiller()
    model._is_fsdp_managed_module = True
    with pytest.raises(ValueError, match='parameters are sharded'):
        TermGradientsHook().before_train(SimpleNamespace(model=model))
