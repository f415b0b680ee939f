"""The fused term of a distiller beside the plain ones."""

import copy
from types import SimpleNamespace

import pytest
import torch
from language_models import make_hybrid, make_teacher, padded, tokens
from torch import nn

from mmtransmamba.engine.hooks import TermBalanceHook, TermGradientsHook
from mmtransmamba.models import fused_linear
from mmtransmamba.models.divergence import DIVERGENCES
from mmtransmamba.models.trainable.step_average import BATCHES, KEPT, PREDICTED
from mmtransmamba.transfer import LanguageDistiller

KL = dict(type='mmtransmamba.TokenKLTerm')
TASK = dict(type='mmtransmamba.NextTokenTerm')
HIDDEN = dict(type='mmtransmamba.HiddenStatesTerm')
LAYER = dict(type='mmtransmamba.ForcedLayerTerm')


def distiller_of(terms, family='llama', teacher=None, student=None, **kwargs):
    teacher = teacher or make_teacher(family)
    return LanguageDistiller(student or make_hybrid(teacher), teacher, terms, **kwargs)


def losses_and_gradients(distiller, batch):
    losses = distiller(**batch, mode='loss')
    sum(losses.values()).backward()
    return (
        {name: loss.detach() for name, loss in losses.items()},
        {n: p.grad for n, p in distiller.named_parameters() if p.grad is not None},
    )


def learned_batch():
    batch = padded(tokens(2, 12), 3, 'left')
    batch['labels'][:, :6] = -100  # a prompt
    return batch


@pytest.mark.parametrize('divergence', DIVERGENCES)
@pytest.mark.parametrize('family', ['llama', 'phi', 'qwen3'])
def test_losses_and_all_gradients_are_those_of_the_plain_terms(
    family, divergence, monkeypatch
):
    """Tied embeddings, a head with a bias, an untied one; several chunks."""
    monkeypatch.setattr(fused_linear, 'CHUNK', 3)
    kl = dict(KL, weight=0.7, temperature=2.0, divergence=divergence)
    batch, teacher = learned_batch(), make_teacher(family)
    found, gradients = losses_and_gradients(
        distiller_of(
            dict(kl=dict(kl, task_weight=0.4, fused=True), layer=LAYER, hidden=HIDDEN),
            teacher=teacher,
        ),
        batch,
    )
    expected, wanted = losses_and_gradients(
        distiller_of(
            dict(kl=kl, task=dict(TASK, weight=0.4), layer=LAYER, hidden=HIDDEN),
            teacher=teacher,
        ),
        batch,
    )
    expected['loss_kl_task'] = expected.pop('loss_task')
    assert found['loss_kl_task'] > 0
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients, wanted, rtol=2e-4, atol=2e-6)


def test_the_unfused_term_has_the_task_loss_too():
    teacher, batch = make_teacher(), learned_batch()
    found, gradients = losses_and_gradients(
        distiller_of(dict(kl=dict(KL, task_weight=0.4)), teacher=teacher), batch
    )
    expected, wanted = losses_and_gradients(
        distiller_of(dict(kl=KL, task=dict(TASK, weight=0.4)), teacher=teacher), batch
    )
    assert found['loss_kl_task'] == expected['loss_task']
    torch.testing.assert_close(gradients, wanted)


@pytest.mark.parametrize('extra', [-6, 6])
def test_a_prefix_of_the_vocabulary_is_compared(extra):
    """The cross-entropy still is over all of the student's ids."""
    teacher = make_teacher(vocab_size=40 + extra)
    source, batch = make_teacher(seed=1, vocab_size=40), learned_batch()
    results = []
    for fused in (False, True):
        kl = dict(KL, vocabulary='shared', task_weight=0.5, fused=fused)
        distiller = distiller_of(
            dict(kl=kl), teacher=teacher, student=make_hybrid(source)
        )
        results.append(losses_and_gradients(distiller, batch))
    torch.testing.assert_close(*results, rtol=2e-4, atol=2e-6)


def test_no_logits_of_all_tokens_are_made():
    distiller, rows = distiller_of(dict(kl=dict(KL, fused=True))), []
    for model in (distiller.student, distiller.teacher):
        model.lm_head.register_forward_hook(
            lambda module, args, output: rows.append(output.shape[1])
        )
    distiller(**tokens(), mode='loss')
    assert rows == [1, 1]


def test_scaled_logits_are_compared_as_they_are():
    teacher = make_teacher()
    from transformers import AutoModelForCausalLM, GraniteConfig

    fields = teacher.config.to_dict() | dict(logits_scaling=3.0)
    fields = {
        k: v for k, v in fields.items() if k not in ('model_type', 'architectures')
    }
    granite = AutoModelForCausalLM.from_config(GraniteConfig(**fields)).eval()
    student, batch, results = make_hybrid(teacher), learned_batch(), []
    for fused in (False, True):
        distiller = distiller_of(
            dict(kl=dict(KL, fused=fused)), teacher=granite, student=student
        )
        results.append(distiller(**batch, mode='loss')['loss_kl'])
    torch.testing.assert_close(*results)


class Adapted(nn.Linear):
    """Stands for a quantised or adapted head."""


def test_what_cannot_be_fused_is_refused():
    fused = dict(KL, fused=True)
    with pytest.raises(
        ValueError, match=r'terms.kl has fused=True .* terms.task needs'
    ):
        distiller_of(dict(kl=fused, task=TASK))
    teacher = make_teacher()
    student = make_hybrid(teacher)
    teacher.lm_head = Adapted(16, 29, bias=False)
    with pytest.raises(
        ValueError, match='terms.kl.fused=True .*head .*Adapted; it must'
    ):
        distiller_of(dict(kl=fused), teacher=teacher, student=student)
    teacher = make_teacher()
    teacher.config.final_logit_softcapping = 30.0
    with pytest.raises(ValueError, match='not linear: final_logit_softcapping=30.0'):
        distiller_of(dict(kl=fused), teacher=teacher, student=student)


def test_an_adapted_head_is_refused_before_the_first_step():
    fused = dict(kl=dict(KL, fused=True))
    with pytest.raises(ValueError, match=r'is a peft\..*Linear without an adapter'):
        distiller_of(fused, 'qwen3', adapters=dict(rank=2))
    trains = ['ssm', 'qkv']
    distiller = distiller_of(fused, 'qwen3', trains=trains, adapters=dict(rank=2))
    assert float(distiller(**learned_batch(), mode='loss')['loss_kl']) > 0


def test_logits_that_are_changed_after_the_head_are_refused():
    distiller = distiller_of(dict(kl=dict(KL, fused=True)))
    forward = distiller.teacher.forward

    def changed(**inputs):
        output = forward(**inputs)
        output.logits = output.logits * 1.1
        return output

    distiller.teacher.forward = changed
    with pytest.raises(ValueError, match='the logits of LlamaForCausalLM are not what'):
        distiller(**tokens(), mode='loss')


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(divergence='tvd'), "TokenKLTerm: divergence='tvd' must be one of"),
        (dict(beta=0.3), 'TokenKLTerm: beta=0.3 has no effect'),
        (dict(temperature=0), 'TokenKLTerm: temperature=0 must be greater'),
        (dict(task_weight=-1), 'TokenKLTerm: task_weight=-1 must be a number'),
    ],
)
def test_wrong_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        distiller_of(dict(kl=KL | options))


def test_both_parts_are_means_over_predicted_tokens():
    distiller = distiller_of(dict(kl=dict(KL, fused=True, task_weight=1.0)))
    batch = tokens()
    share = {PREDICTED: torch.tensor(0.5), KEPT: torch.tensor(7.0)}
    share[BATCHES] = torch.tensor(7.0)
    whole = distiller(**batch, mode='loss')
    inputs = {k: v for k, v in batch.items() if k != 'labels'}
    part = distiller.losses(inputs, batch['labels'], share=share)
    for name, loss in whole.items():
        assert part[name].item() == pytest.approx(loss.item() / 2, rel=1e-5)


@pytest.mark.parametrize('scale', [0.0, 0.3, 1.0])
def test_a_schedule_scales_the_divergence_and_not_the_task(scale):
    teacher, student = make_teacher(), make_hybrid(make_teacher())
    kl, batch = dict(KL, weight=0.7, task_weight=0.4), learned_batch()
    apart = dict(kl=dict(KL, weight=0.7 * scale), kl_task=dict(TASK, weight=0.4))
    expected, wanted = losses_and_gradients(
        distiller_of(apart, teacher=teacher, student=copy.deepcopy(student)), batch
    )
    for fused in (False, True):
        distiller = distiller_of(
            dict(kl=dict(kl, fused=fused)),
            teacher=teacher,
            student=copy.deepcopy(student),
        )
        distiller.terms['kl'].scale = scale
        found, gradients = losses_and_gradients(distiller, batch)
        for name, loss in expected.items():
            torch.testing.assert_close(found[name], loss)
        for name, gradient in wanted.items():
            torch.testing.assert_close(gradients[name], gradient)


def test_a_copy_shares_the_teacher_and_not_the_student():
    distiller = distiller_of(dict(kl=dict(KL, fused=True)))
    copied = copy.deepcopy(distiller)
    assert copied._teacher_last.model is distiller.teacher is copied.teacher
    assert copied._student_last.model is copied.student is not distiller.student


@pytest.mark.parametrize('hook', [TermGradientsHook(), TermBalanceHook(['kl'], 'l')])
def test_hooks_on_gradients_refuse_a_term_with_one_for_two_losses(hook):
    terms = dict(kl=dict(KL, fused=True, task_weight=1.0), l=LAYER)
    runner = SimpleNamespace(model=distiller_of(terms), hooks=[hook])
    with pytest.raises(ValueError, match='terms.kl computes the gradients of diver'):
        hook.before_train(runner)
