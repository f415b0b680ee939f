"""Low-rank adapters: what is trained, and what is left of them afterwards."""

import sys

import pytest
import torch
from language_models import make_hybrid, make_teacher, tokens
from mmengine.config import Config

from mmtransmamba.apis.loading import load_trained
from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.models.trainable.adapters import (
    add_adapters,
    has_adapters,
    without_adapters,
)
from mmtransmamba.models.trainable.stages import StageError
from mmtransmamba.registry import MODELS
from mmtransmamba.transfer import LanguageDistiller
from mmtransmamba.transfer.convert import convert

KL = dict(kl=dict(type='mmtransmamba.TokenKLTerm'))


@pytest.fixture
def student():
    return make_hybrid(make_teacher())


def test_only_adapters_of_the_groups_are_trained(student):
    ids = tokens()['input_ids']
    before = student(ids).logits
    table = add_adapters(student, ['qkv', 'out_proj'], rank=2)
    trained = {name for name, p in student.named_parameters() if p.requires_grad}
    assert trained and all('.lora_' in name for name in trained)
    # Two mixers with x, B, C and the output projection.
    assert len(trained) == 2 * 4 * 2 and '8 linear layers (out_proj, qkv)' in table
    assert not any(
        '.layers.1.' in name for name in trained
    )  # the attention that is left
    torch.testing.assert_close(student(ids).logits, before)


def test_merged_they_are_the_same_model_without_their_names(student):
    names = list(student.state_dict())
    add_adapters(student, None, rank=2, alpha=8)
    with torch.no_grad():
        for parameter in student.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)
    merged = without_adapters(student.eval())
    assert list(merged.state_dict()) == names
    assert has_adapters(student) and not has_adapters(merged)
    ids = tokens()['input_ids']
    torch.testing.assert_close(
        merged(ids).logits, student(ids).logits, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    'term',
    [
        dict(type='mmtransmamba.HiddenStatesTerm'),
        dict(type='mmtransmamba.ForcedLayerTerm'),
        dict(type='mmtransmamba.MixerOutputTerm', at='heads'),
        dict(type='mmtransmamba.MixerOutputTerm'),
    ],
    ids=lambda term: ' '.join(term.values()),
)
def test_terms_see_projections_with_adapters(student, term):
    """Which start as zero: the losses are those without them."""
    expected = LanguageDistiller(student, make_teacher(), dict(term=term))
    expected = expected(**tokens(), mode='loss')
    adapted = LanguageDistiller(
        student, make_teacher(), dict(term=term), adapters=dict(rank=2)
    )
    losses = adapted(**tokens(), mode='loss')
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name])


@pytest.mark.parametrize('family', ['llama', 'qwen3', 'phi'])
def test_growing_logits_are_scaled_with_the_adapter_and_after_it(family):
    teacher = make_teacher(family)
    fields = dict(attention_logit_scaling=2.0)
    student, _ = convert(teacher, [1], **fields)
    ids = tokens()['input_ids']
    before = student.eval()(ids).logits
    add_adapters(student, ['attention'], rank=4)
    torch.testing.assert_close(student(ids).logits, before, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if 'lora_B' in name:
                parameter.normal_(std=0.3)
    changed = student(ids).logits
    merged = without_adapters(student)
    torch.testing.assert_close(merged(ids).logits, changed, rtol=1e-4, atol=1e-4)
    again, _ = convert(teacher, [1], **fields)
    again.load_state_dict(merged.state_dict())
    assert torch.equal(again.eval()(ids).logits, merged(ids).logits)


def test_a_distiller_trains_them(student):
    distiller = LanguageDistiller(
        student, make_teacher(), KL, trains=['qkv'], adapters=dict(rank=2)
    )
    frozen = {n: p.clone() for n, p in student.named_parameters() if 'lora' not in n}
    optimizer = torch.optim.SGD(
        [p for p in distiller.parameters() if p.requires_grad], lr=1.0
    )
    for _ in range(2):
        sum(distiller(**tokens(), mode='loss').values()).backward()
        optimizer.step()
    now = dict(student.named_parameters())
    assert all(torch.equal(now[name], value) for name, value in frozen.items())
    assert any(p.abs().sum() > 0 for n, p in now.items() if 'lora_B' in n)


@pytest.mark.parametrize(
    ('trains', 'options', 'error', 'words'),
    [
        (['norms'], {}, StageError, r"no linear layer in \['norms'\]"),
        (['qvk'], {}, StageError, 'qvk'),
        (['qkv'], dict(rank=0), ValueError, 'rank=0'),
        (['qkv'], dict(alpha=-1), ValueError, 'alpha=-1'),
    ],
)
def test_what_cannot_be_adapted_is_named(student, trains, options, error, words):
    with pytest.raises(error, match=words):
        add_adapters(student, trains, **options)


def test_a_missing_peft_is_named(student, monkeypatch):
    monkeypatch.setitem(sys.modules, 'peft', None)
    with pytest.raises(ImportError, match='pip install peft'):
        add_adapters(student, None)


@pytest.mark.parametrize('alpha', [None, 3.0], ids=['default', 'given'])
def test_a_checkpoint_of_their_training_is_loaded_without_them(alpha, tmp_path):
    make_teacher().save_pretrained(tmp_path / 'teacher')
    lm = dict(type='mmtransmamba.CausalLM', path=str(tmp_path / 'teacher'))
    adapters = dict(rank=2) if alpha is None else dict(rank=2, alpha=alpha)
    settings = dict(
        type='mmtransmamba.LanguageDistiller',
        student=dict(lm, convert=dict(layers='interleaved')),
        teacher=lm,
        terms=KL,
        trains=['qkv', 'out_proj'],
        adapters=adapters,
    )
    config = Config(dict(model=settings))
    distiller = MODELS.build(settings).eval()
    with torch.no_grad():
        for name, parameter in distiller.student.named_parameters():
            if 'lora_B' in name:
                parameter.normal_(std=0.2)
    state = distiller.state_dict()
    torch.save({'state_dict': state}, tmp_path / 'trained.pth')
    ids = tokens()['input_ids']
    expected = distiller.student(ids).logits

    loaded = load_trained(config, tmp_path / 'trained.pth').lm
    assert not has_adapters(loaded)
    torch.testing.assert_close(loaded(ids).logits, expected, rtol=1e-4, atol=1e-4)

    # A student whose adapters were merged before has nothing to merge.
    torch.save(loaded.state_dict(), tmp_path / 'merged.pth')
    again = load_trained(config, tmp_path / 'merged.pth').lm
    torch.testing.assert_close(again(ids).logits, loaded(ids).logits)

    half = next(name for name in state if 'lora_B' in name)
    torch.save(
        {k: v for k, v in state.items() if k != half}, tmp_path / 'half_of_one.pth'
    )
    with pytest.raises(CheckpointError, match='half_of_one.*lora_A'):
        load_trained(config, tmp_path / 'half_of_one.pth')
