"""Decoder-only vision-language models as Mamba hybrids: mmMamba's conversion."""

import re

import pytest
import torch
from tiny_patch_decoders import (
    FAMILIES,
    IMAGE,
    image_text_batch,
    save_tiny_patch_decoder,
    tiny_patch_decoder,
)
from torch.nn import functional as F
from transformers import AutoModelForImageTextToText, AutoProcessor

from mmtransmamba.models.language import MAMBA, Mamba2Mixer
from mmtransmamba.models.multimodal import PatchDecoderForConditionalGeneration
from mmtransmamba.transfer import LanguageDistiller
from mmtransmamba.transfer.convert import (
    Conversion,
    convert,
    plan_conversion,
    write_model,
)

MIXER = dict(mixer=dict(type='mmtransmamba.MixerOutputTerm'))
KL = dict(kl=dict(type='mmtransmamba.TokenKLTerm'))


def answers(seed: int = 0, side: str = 'right') -> dict:
    """A batch to learn from: the last four tokens of each row are the answer."""
    batch = image_text_batch(side=side, seed=seed)
    mask = batch['attention_mask']
    place = mask.cumsum(-1)
    answer = (place > mask.sum(-1, keepdim=True) - 4) & mask.bool()
    return dict(batch, labels=batch['input_ids'].masked_fill(~answer, -100))


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('ratio, layers', [(0.75, [1, 2, 3]), (1.0, [0, 1, 2, 3])])
def test_only_attention_is_replaced(family, ratio, layers):
    """Holistic layers and those of the language model alike."""
    teacher = tiny_patch_decoder(family=family)
    student, report = convert(teacher, 'interleaved', ratio)
    assert type(student) is PatchDecoderForConditionalGeneration
    text = student.config.get_text_config()
    assert text.mamba_layers == layers
    assert text.transfer_history == ['init:mimic']
    for name in ('image_size', 'patch_size', 'num_holistic_layers', 'image_token_id'):
        assert getattr(student.config, name) == getattr(teacher.config, name)
    ours, theirs = student.state_dict(), teacher.state_dict()
    replaced = tuple(
        f'model.language_model.layers.{i}.self_attn.' for i in text.mamba_layers
    )
    for name in ours.keys() | theirs.keys():
        if not name.startswith(replaced):
            assert torch.equal(ours[name], theirs[name]), name
    for i in layers:
        mixer = student.get_decoder().layers[i].self_attn
        attention = teacher.get_decoder().layers[i].self_attn
        assert isinstance(mixer, Mamba2Mixer)
        for here, there in (('C', 'q'), ('B', 'k'), ('x', 'v')):
            projection = getattr(mixer, f'{here}_proj')
            assert torch.equal(
                projection.weight, getattr(attention, f'{there}_proj').weight
            )
    assert {entry.target for entry in report.entries} == set(ours)
    assert student.generation_config.suppress_tokens == [IMAGE]
    batch = image_text_batch()
    with torch.no_grad():
        change = (student(**batch).logits - teacher(**batch).logits).abs().max()
    assert change > 1e-3
    out = student.generate(**batch, max_new_tokens=3, min_new_tokens=3)
    assert out.shape == (3, batch['input_ids'].shape[1] + 3)


def test_biases_of_phi_stay():
    teacher = tiny_patch_decoder(family='phi')
    torch.nn.init.normal_(teacher.lm_head.bias)
    student, _ = convert(teacher, ratio=1.0)
    assert torch.equal(student.lm_head.bias, teacher.lm_head.bias)
    assert student.get_decoder().layers[0].self_attn.x_proj.bias is not None


def test_tied_embeddings_stay_tied():
    teacher = tiny_patch_decoder(tie_word_embeddings=True)
    student, _ = convert(teacher, ratio=0.5)
    assert student.lm_head.weight is student.get_input_embeddings().weight


@pytest.mark.parametrize('shard', [20_000, 10**9])
def test_folders(shard, tmp_path):
    folder = save_tiny_patch_decoder(tmp_path / 'teacher')
    plan = plan_conversion(folder, Conversion('interleaved', 0.75))
    out = write_model(plan, tmp_path / 'out', max_shard_bytes=shard)
    written = AutoModelForImageTextToText.from_pretrained(out).eval()
    in_memory, _ = convert(tiny_patch_decoder(), 'interleaved', 0.75)
    for name, tensor in in_memory.state_dict().items():
        assert torch.equal(written.state_dict()[name], tensor), name
    assert written.config.text_config.layer_types[1] == MAMBA
    assert written.generation_config.suppress_tokens == [IMAGE]
    assert AutoProcessor.from_pretrained(out).num_additional_image_tokens == 0


def test_a_teacher_that_does_not_fit():
    teacher = tiny_patch_decoder()
    with pytest.raises(ValueError, match=re.escape("layers='odd' must be one of")):
        convert(teacher, 'odd')
    again, _ = convert(teacher, ratio=1.0)
    with pytest.raises(ValueError, match="'hybrid_llama'; hybrids exist of llama"):
        convert(again)


# --------------------------------------------------------------------- distillation


def test_mixers_learn_from_the_teachers_patches_and_words():
    """Padding has no part in it, and every layer has the teacher's input."""
    teacher = tiny_patch_decoder()
    student, _ = convert(teacher, 'interleaved', 0.75)
    distiller = LanguageDistiller(student, teacher, MIXER, stage='stage1')
    batch = answers()
    found = distiller(**batch, mode='loss')['loss_mixer']
    expected = 0
    seen = {}
    handles = [
        layer.self_attn.register_forward_hook(
            lambda module, args, kwargs, out, i=i: seen.update(
                {i: (kwargs['hidden_states'], out[0])}
            ),
            with_kwargs=True,
        )
        for i, layer in enumerate(teacher.get_decoder().layers)
    ]
    with torch.no_grad():
        teacher(**{k: v for k, v in batch.items() if k != 'labels'})
    for handle in handles:
        handle.remove()
    mask = batch['attention_mask'].bool()
    for i in (1, 2, 3):
        given, wanted = seen[i]
        mixed, _ = student.get_decoder().layers[i].self_attn(given)
        expected = expected + F.mse_loss(mixed[mask], wanted[mask])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_the_last_stage_compares_answers():
    teacher = tiny_patch_decoder()
    student, _ = convert(teacher, 'interleaved', 0.75)
    distiller = LanguageDistiller(
        student, teacher, KL, stage='stage3', requires='init:mimic'
    )
    batch = answers()
    found = distiller(**batch, mode='loss')['loss_kl']
    rows = (batch['labels'][:, 1:] >= 0).nonzero(as_tuple=True)
    assert len(rows[0]) == 12
    inputs = {k: v for k, v in batch.items() if k != 'labels'}
    with torch.no_grad():
        theirs, ours = (
            model(**inputs).logits[:, :-1][rows].double().log_softmax(-1)
            for model in (teacher, student)
        )
    expected = (theirs.exp() * (theirs - ours)).sum(-1).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    assert found > 0
    # On which side a batch is padded does not matter.
    other = distiller(**answers(side='left'), mode='loss')['loss_kl']
    assert other.item() == pytest.approx(found.item(), rel=1e-3)
    same = LanguageDistiller(tiny_patch_decoder(), teacher, KL, trains=['mlp'])
    assert same(**batch, mode='loss')['loss_kl'].item() == pytest.approx(0, abs=1e-6)


def packed(batch: dict) -> dict:
    """The rows of a batch without padding, one after another in one row."""
    mask = batch['attention_mask'].bool()
    row = {k: batch[k][mask][None] for k in ('input_ids', 'labels') if k in batch}
    if 'labels' in row:
        # Nothing is predicted across the border of two rows.
        starts = mask.sum(-1).cumsum(0)[:-1]
        row['labels'][0, starts] = -100
    positions = torch.cat([torch.arange(int(count)) for count in mask.sum(-1)])
    return row | dict(position_ids=positions[None], pixel_values=batch['pixel_values'])


@pytest.mark.parametrize('layout', [None, 'attention first', 'pure'])
def test_packed_conversations_are_as_in_rows_of_their_own(layout):
    model = tiny_patch_decoder(layout)
    batch = answers()
    del batch['labels']
    with torch.no_grad():
        expected = model(**batch).logits[batch['attention_mask'].bool()]
        # With a cache transformers does not look for packed rows.
        found = model(**packed(batch), use_cache=False).logits[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('terms', [MIXER, KL], ids=['layers', 'logits'])
def test_packed_conversations_are_distilled(terms):
    teacher = tiny_patch_decoder()
    student, _ = convert(teacher, 'interleaved', 0.75)
    distiller = LanguageDistiller(student, teacher, terms)
    batch = answers()
    losses = [distiller(**each, mode='loss') for each in (batch, packed(batch))]
    for name, loss in losses[0].items():
        torch.testing.assert_close(losses[1][name], loss, rtol=1e-3, atol=1e-6)
