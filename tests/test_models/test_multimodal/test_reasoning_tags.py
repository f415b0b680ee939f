"""Tags as tokens: ids, embeddings of teacher and student."""

import copy
from functools import partial

import pytest
import torch
from language_models import make_hybrid, make_teacher
from tiny_patch_decoders import tiny_patch_decoder
from tiny_vlms import tiny_llava, tiny_processor, tiny_tokenizer

from mmtransmamba.models.folders import load_vlm
from mmtransmamba.models.multimodal.reasoning_tags import add_reasoning_tags
from mmtransmamba.transfer.convert import convert
from mmtransmamba.utils.reasoning_text import TAGS, join_sections

TEXT = join_sections('plan', 'two cats', 'one, two', '2')


def tables(model):
    output = model.get_output_embeddings()
    return model.get_input_embeddings().weight, output.weight, output.bias


@pytest.mark.parametrize('tied', [False, True])
def test_each_tag_is_one_token(tied):
    model, processor = tiny_llava(tie_word_embeddings=tied), tiny_processor()
    tokenizer = processor.tokenizer
    before = [t.clone() for t in tables(model)[:2]]
    pieces = tokenizer('</CAPTION>').input_ids
    words = tokenizer('cats & dogs').input_ids
    count = len(tokenizer)
    ids = add_reasoning_tags(model, processor)
    assert ids == list(range(count, count + 8))
    assert [tokenizer(tag).input_ids for tag in TAGS] == [[i] for i in ids]
    assert tokenizer('cats & dogs').input_ids == words
    # Decoding keeps them, also without special tokens.
    encoded = tokenizer(TEXT).input_ids
    assert set(ids) < set(encoded)
    assert tokenizer.decode(encoded, skip_special_tokens=True) == TEXT
    row = ids[TAGS.index('</CAPTION>')]
    for old, new in zip(before, tables(model), strict=False):
        assert new.shape == (count + 8, 32)
        assert torch.equal(new[:count], old)
        torch.testing.assert_close(new[row], old[pieces].mean(0))
    assert (tables(model)[0] is tables(model)[1]) is tied
    assert model.config.text_config.vocab_size == count + 8


def test_rows_to_spare_are_used():
    model, tokenizer = tiny_llava(vocab_size=128), tiny_tokenizer()
    before = tables(model)[0].clone()
    ids = add_reasoning_tags(model, tokenizer)
    after = tables(model)[0]
    assert after.shape == before.shape and model.config.text_config.vocab_size == 128
    untouched = [i for i in range(128) if i not in ids]
    assert torch.equal(after[untouched], before[untouched])
    assert not torch.equal(after[ids], before[ids])


def test_a_padded_vocabulary_stays_padded():
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f'<w{i}>' for i in range(128 - len(tokenizer))])
    model = tiny_llava(vocab_size=128)
    before = tables(model)[0].clone()
    ids = add_reasoning_tags(model, tokenizer)
    after = tables(model)[0]
    assert ids == list(range(128, 136)) and after.shape[0] == 192
    for row in after[136:]:
        torch.testing.assert_close(row, before.mean(0))


def test_tags_that_are_there_stay():
    model, tokenizer = tiny_llava(), tiny_tokenizer()
    ids = add_reasoning_tags(model, tokenizer)
    with torch.no_grad():
        tables(model)[0][ids] = 7.0
    assert add_reasoning_tags(model, tokenizer) == ids
    assert (tables(model)[0][ids] == 7).all()


@pytest.mark.parametrize('family', ['llama', 'phi'])
def test_teacher_and_hybrid_get_the_same_rows(family):
    tokenizer = tiny_tokenizer()
    teacher = make_teacher(family, vocab_size=len(tokenizer))
    student = make_hybrid(teacher, layers=[0])
    for model in (teacher, student):
        add_reasoning_tags(model, copy.deepcopy(tokenizer))
    for ours, theirs in zip(tables(student), tables(teacher), strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.equal(ours, theirs)
    ids = torch.full((1, 4), len(tokenizer) + 7)
    assert student(ids).logits.shape == (1, 4, len(tokenizer) + 8)


def test_a_model_of_another_tokenizer():
    with pytest.raises(ValueError, match='101 tokens.* of 64'):
        add_reasoning_tags(tiny_llava(vocab_size=64), tiny_tokenizer())


def hybrid_llava(**text):
    return convert(tiny_llava(**text), layers=[1, 3])[0]


@pytest.mark.parametrize(
    'build',
    [
        hybrid_llava,
        partial(hybrid_llava, tie_word_embeddings=True),
        tiny_patch_decoder,
        partial(tiny_patch_decoder, 'pure'),
        partial(tiny_patch_decoder, 'attention first', 'phi'),
    ],
    ids=['hybrid', 'tied hybrid', 'patches', 'pure Mamba', 'phi'],
)
def test_every_kind_of_model_is_saved_with_them(build, tmp_path):
    model, tokenizer = build(), tiny_tokenizer()
    ids = torch.tensor([tokenizer(TEXT).input_ids])
    with torch.no_grad():
        before = model(input_ids=ids).logits
    added = add_reasoning_tags(model, tokenizer)
    with torch.no_grad():
        after = model(input_ids=ids).logits
    # The old tokens are what they were.
    torch.testing.assert_close(after[..., : before.shape[-1]], before)
    assert after.shape[-1] == before.shape[-1] + 8 == added[-1] + 1
    model.save_pretrained(tmp_path)
    reloaded = load_vlm(str(tmp_path))
    ids = torch.tensor([tokenizer(TEXT).input_ids])
    assert ids.max() >= added[0]
    with torch.no_grad():
        torch.testing.assert_close(
            reloaded(input_ids=ids).logits, model(input_ids=ids).logits
        )
