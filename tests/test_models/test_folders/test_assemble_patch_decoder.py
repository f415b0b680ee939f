"""A decoder-only vision-language model from a language model's weights."""

import logging
import re

import pytest
import torch
from tiny_decoders import FAMILIES, internlm2_folder, tiny_teacher, tokens
from tiny_patch_decoders import image_text_batch
from tiny_vlms import CHAT_TEMPLATE, tiny_tokenizer
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaProcessor

from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.models.folders import assemble_patch_decoder, write_patch_decoder
from mmtransmamba.models.multimodal import (
    PatchDecoderForConditionalGeneration,
    PatchDecoderProcessor,
)
from mmtransmamba.transfer.convert import convert

SIDES = dict(image_size=16, patch_size=8)


def without_effect(layers):
    """Have layers pass their input on."""
    for layer in layers:
        for name, parameter in layer.named_parameters():
            if any(part in name for part in ('o_proj', 'down_proj', 'dense', 'fc2')):
                torch.nn.init.zeros_(parameter)


@pytest.mark.parametrize('family', FAMILIES)
def test_the_language_model_comes_after_the_holistic_layers(family):
    language = tiny_teacher(family)
    model = assemble_patch_decoder(language, holistic=2, **SIDES)
    assert type(model) is PatchDecoderForConditionalGeneration
    assert model.config.text_config.num_hidden_layers == 5
    assert model.config.image_token_id == 61
    decoder = model.get_decoder()
    for ours, theirs in zip(decoder.layers[2:], language.model.layers, strict=True):
        for name, tensor in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], tensor), name
    # New layers are as transformers initialises them, and all different.
    first, second = (layer.state_dict() for layer in model.holistic_layers)
    assert not torch.equal(first['mlp.' + mlp(family)], second['mlp.' + mlp(family)])
    assert first['mlp.' + mlp(family)].std() == pytest.approx(0.02, rel=0.1)
    with torch.no_grad():
        without_effect(model.holistic_layers)
        logits = model(tokens()).logits
        torch.testing.assert_close(logits[..., :61], language(tokens()).logits)
    assert logits.shape[-1] == 62
    batch = image_text_batch((1,))
    batch['input_ids'] = batch['input_ids'].clamp_max(60)
    batch['input_ids'][0, 2:6] = 61
    del batch['attention_mask']
    assert model(**batch).logits.isfinite().all()


def mlp(family):
    return 'fc1.weight' if family == 'phi' else 'up_proj.weight'


def test_seed_and_dtype():
    language = tiny_teacher()
    one, same, other = (
        assemble_patch_decoder(language, holistic=1, seed=seed, **SIDES).state_dict()
        for seed in (0, 0, 1)
    )
    differ = {name for name in one if not torch.equal(one[name], other[name])}
    assert all(torch.equal(one[name], same[name]) for name in one)
    # Norms of new layers are one, and the new convolution's bias is zero.
    new = {n for n in one if '.layers.0.' in n or 'patch_embedding' in n}
    assert differ == {n for n in new if 'norm' not in n and 'bias' not in n}
    half = assemble_patch_decoder(language.to(torch.bfloat16), holistic=1, **SIDES)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


def test_new_tokens_are_the_mean_of_the_vocabulary():
    language = tiny_teacher('phi')
    model = assemble_patch_decoder(language, 64, holistic=1, **SIDES)
    pairs = (
        (model.get_input_embeddings().weight, language.model.embed_tokens.weight),
        (model.lm_head.weight, language.lm_head.weight),
        (model.lm_head.bias, language.lm_head.bias),
    )
    for ours, theirs in pairs:
        assert torch.equal(ours[:61], theirs)
        expected = theirs.mean(0).expand_as(ours[61:])
        torch.testing.assert_close(ours[61:], expected)
    assert model.config.text_config.vocab_size == 65
    known = assemble_patch_decoder(language, 60, holistic=1, **SIDES)
    assert known.config.text_config.vocab_size == 61


def test_tied_embeddings_stay_tied():
    language = tiny_teacher(tie_word_embeddings=True)
    model = assemble_patch_decoder(language, holistic=1, **SIDES)
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_holistic_layers_from_layers_of_the_language_model():
    language = tiny_teacher('qwen2', use_sliding_window=True, max_window_layers=2)
    kinds = language.config.layer_types
    assert kinds == ['full_attention', 'full_attention', 'sliding_attention']
    model = assemble_patch_decoder(language, holistic=[2, 0], **SIDES)
    assert model.config.num_holistic_layers == 2
    assert model.config.text_config.layer_types == [kinds[2], kinds[0], *kinds]
    for ours, number in zip(model.holistic_layers, (2, 0), strict=True):
        for name, tensor in language.model.layers[number].state_dict().items():
            assert torch.equal(ours.state_dict()[name], tensor)


def test_internlm2_folders(tmp_path):
    """Language model and holistic layers, both with fused projections."""
    llama = internlm2_folder(tmp_path / 'language')
    model = assemble_patch_decoder(
        tmp_path / 'language', holistic=tmp_path / 'language', **SIDES
    )
    expected = assemble_patch_decoder(llama, holistic=[0, 1, 2], **SIDES)
    assert model.config.num_holistic_layers == 3
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_mismatches_are_refused(tmp_path):
    language = tiny_teacher()
    other = tiny_teacher(num_attention_heads=2, num_key_value_heads=1)
    with pytest.raises(
        ValueError,
        match=re.escape('differs from the language model in num_attention_heads (2, '),
    ):
        assemble_patch_decoder(language, holistic=other, **SIDES)
    with pytest.raises(ValueError, match=re.escape('must name layers in [0, 2]')):
        assemble_patch_decoder(language, holistic=[0, 3], **SIDES)
    with pytest.raises(ValueError, match='holistic=-1 must not be negative'):
        assemble_patch_decoder(language, holistic=-1, **SIDES)
    hybrid, _ = convert(language, [0])
    with pytest.raises(ValueError, match="'hybrid_llama'; it must be one of llama"):
        assemble_patch_decoder(hybrid, **SIDES)
    state = language.state_dict()
    state.pop('model.layers.1.mlp.up_proj.weight')
    language.state_dict = lambda: state
    with pytest.raises(CheckpointError, match='layers.3.mlp.up_proj.weight is missing'):
        assemble_patch_decoder(language, holistic=2, **SIDES)
    with pytest.raises(FileNotFoundError, match='No model folder'):
        assemble_patch_decoder(tmp_path / 'nowhere', **SIDES)


@pytest.mark.parametrize('has_image_token', [True, False])
def test_a_folder_with_model_and_processor(tmp_path, has_image_token):
    tokenizer = tiny_tokenizer()
    if not has_image_token:
        tokenizer = tokenizer.__class__(
            tokenizer_object=without_image(tokenizer),
            bos_token='<s>',
            eos_token='</s>',
        )
    language = tiny_teacher(vocab_size=len(tokenizer))
    language.generation_config.temperature = 0.3
    language.generation_config.do_sample = True
    language.save_pretrained(tmp_path / 'language')
    tokenizer.save_pretrained(tmp_path / 'language')
    settings = dict(holistic=1, image_size=32, patch_size=16)
    folder = write_patch_decoder(tmp_path / 'language', tmp_path / 'vlm', **settings)
    with pytest.raises(FileExistsError, match='exists; give another folder'):
        write_patch_decoder(tmp_path / 'language', folder, **settings)

    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert type(processor) is PatchDecoderProcessor
    assert isinstance(processor, LlavaProcessor)
    assert processor.tokenizer.pad_token is not None
    token = model.config.image_token_id
    assert processor.tokenizer.convert_ids_to_tokens(token) == '<image>'
    assert (token == 4) == has_image_token
    assert model.generation_config.temperature == 0.3
    assert model.generation_config.suppress_tokens == [token]
    messages = [
        dict(
            role='user',
            content=[dict(type='image'), dict(type='text', text='What is it?')],
        )
    ]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    if has_image_token:
        assert processor.chat_template == CHAT_TEMPLATE
    else:  # nor a template
        assert text.endswith('USER: <image>\nWhat is it? ASSISTANT:')
    inputs = processor(
        text=[text], images=[torch.zeros(3, 20, 50)], return_tensors='pt'
    )
    # The whole picture, not its middle.
    assert inputs['pixel_values'].shape == (1, 3, 32, 32)
    assert (inputs['input_ids'] == token).sum() == 4
    assert model.generate(**inputs, max_new_tokens=2).shape[0] == 1


def without_image(tokenizer):
    from tokenizers import Tokenizer

    content = tokenizer.backend_tokenizer.to_str().replace('<image>', '<unused>')
    return Tokenizer.from_str(content)


def test_new_layers_are_made_without_warnings(caplog):
    """transformers' of special tokens, in a model of layers that has no words."""
    language = tiny_teacher(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    logger = logging.getLogger('transformers')
    logger.addHandler(caplog.handler)
    try:
        model = assemble_patch_decoder(language, holistic=1, **SIDES)
    finally:
        logger.removeHandler(caplog.handler)
    assert caplog.messages == []
    text = model.config.text_config
    assert (text.bos_token_id, text.eos_token_id, text.pad_token_id) == (1, 2, 0)
