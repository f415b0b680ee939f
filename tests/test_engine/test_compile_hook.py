"""Compilation of a distiller's step by the hook."""

from types import SimpleNamespace

import language_models
import pytest
import tiny_distillers
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from mmtransmamba.registry import HOOKS
from mmtransmamba.transfer import LanguageDistiller


def compiled(model: nn.Module, **options) -> nn.Module:
    """The model after the hook ran."""
    torch.compiler.reset()
    hook = HOOKS.build(dict(type='mmtransmamba.CompileHook', **options))
    hook.before_train(SimpleNamespace(model=model))
    return model


def classification():
    """A distiller with every kind of term, and a batch."""
    terms = dict(
        logits=tiny_distillers.LOGITS,
        feature=tiny_distillers.FEATURE,
        layer=tiny_distillers.LAYER,
        direction=tiny_distillers.DIRECTION,
    )
    inputs, samples = tiny_distillers.batch()
    return tiny_distillers.build(terms), dict(inputs=inputs, data_samples=samples)


def language():
    """A distiller with terms on logits and layers, and a batch."""
    teacher = language_models.make_teacher()
    terms = dict(
        kl=dict(type='mmtransmamba.TokenKLTerm'),
        hidden=dict(type='mmtransmamba.HiddenStatesTerm'),
    )
    student = language_models.make_hybrid(teacher)
    return LanguageDistiller(student, teacher, terms), language_models.tokens()


def losses_and_gradients(model, batch):
    torch.manual_seed(0)
    losses = model(**batch, mode='loss')
    sum(losses.values()).backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {key: loss.detach() for key, loss in losses.items()}, gradients


@pytest.mark.usefixtures('compilable')
@pytest.mark.parametrize(
    'build, teacher', [(classification, False), (language, False), (language, True)]
)
def test_a_compiled_step_has_one_graph_per_model_and_the_same_gradients(build, teacher):
    expected = losses_and_gradients(*(part for part in build()))
    model, batch = build()
    names, counter = list(model.state_dict()), CompileCounter()
    compiled(model.train(), teacher=teacher, backend=counter, fullgraph=True)
    for _ in range(2):
        model.zero_grad()
        actual = losses_and_gradients(model, batch)
        torch.testing.assert_close(actual, expected)
    assert counter.frame_count == 1 + teacher
    assert list(model.state_dict()) == names


def test_a_plain_classifier_is_compiled_too():
    student = classification()[0].student.train()
    counter = CompileCounter()
    compiled(student, backend=counter)
    student(*tiny_distillers.batch(), mode='loss')
    assert counter.frame_count == 1


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(backnd='eager'), "CompileHook: backnd='eager' is unknown"),
        (dict(teacher=True), 'CompileHook: teacher=True needs a teacher'),
    ],
)
def test_a_mistake_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        compiled(classification()[0].student, **options)
