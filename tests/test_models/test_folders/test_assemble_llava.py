"""A LLaVA put together from folders of a vision tower and a language model."""

import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_llavas import PATCHES, VOCAB, save_language_model, save_tower
from tiny_vlms import CHAT_TEMPLATE
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    LlavaForConditionalGeneration,
)

import mmtransmamba
from mmtransmamba.datasets.conversations import Turn
from mmtransmamba.datasets.conversations.templates import chat_template
from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.models.folders import assemble_llava
from mmtransmamba.models.multimodal import HybridLlavaForConditionalGeneration
from mmtransmamba.models.trainable.stages import group_of_parameters
from mmtransmamba.models.vision import EncoderMixer
from mmtransmamba.transfer.convert import convert

CHAT = [
    {
        'role': 'user',
        'content': [{'type': 'image'}, {'type': 'text', 'text': 'What?'}],
    }
]


@pytest.mark.parametrize('family', ['llama', 'phi', 'qwen3'])
@pytest.mark.parametrize('kind', ['clip', 'siglip'])
def test_the_parts_are_the_folders(kind, family, tmp_path):
    tower = save_tower(tmp_path / 'tower', kind)
    language = save_language_model(tmp_path / 'lm', family)
    model, processor = assemble_llava(tower, language)
    model.save_pretrained(tmp_path / 'llava')
    processor.save_pretrained(tmp_path / 'llava')
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / 'llava')
    processor = AutoProcessor.from_pretrained(tmp_path / 'llava')
    expected = HybridLlavaForConditionalGeneration
    if family != 'phi':  # whose head has a bias
        expected = LlavaForConditionalGeneration
    assert type(model) is expected
    assert model.config.text_config.transfer_history == ['init:llava']
    assert str(tmp_path) not in (tmp_path / 'llava' / 'config.json').read_text()

    text = processor.apply_chat_template(CHAT, add_generation_prompt=True)
    assert text.endswith("user's questions. USER: <image>\nWhat? ASSISTANT:")
    image = Image.effect_noise((30, 20), 80).convert('RGB')
    batch = processor(text=text, images=image, return_tensors='pt')
    image_places = batch.input_ids == model.config.image_token_id
    assert model.config.image_token_id == VOCAB - 1
    assert image_places.sum() == PATCHES == model.config.image_seq_length

    # By the parts themselves, one after the other.
    tower, lm = (
        AutoModel.from_pretrained(tower),
        AutoModelForCausalLM.from_pretrained(language),
    )
    projector = model.model.multi_modal_projector
    with torch.no_grad():
        hidden = tower(batch.pixel_values, output_hidden_states=True).hidden_states[-2]
        tokens = hidden[:, 1:] if kind == 'clip' else hidden
        tokens = projector.linear_2(
            torch.nn.functional.gelu(projector.linear_1(tokens))
        )
        known = batch.input_ids.masked_fill(image_places, 0)
        embeds = lm.get_input_embeddings()(known)
        embeds[image_places] = tokens[0]
        expected = lm(inputs_embeds=embeds).logits
        logits = model(**batch).logits
    assert logits.shape[-1] == VOCAB
    torch.testing.assert_close(logits[..., :-1], expected)


def test_a_hybrid_can_be_the_language_model(tmp_path):
    tower = save_tower(tmp_path / 'tower')
    hybrid, _ = convert(save_language_model(tmp_path / 'lm'), ratio=2 / 3)
    hybrid.save_pretrained(tmp_path / 'hybrid')
    AutoTokenizer.from_pretrained(tmp_path / 'lm').save_pretrained(tmp_path / 'hybrid')
    model, _ = assemble_llava(tower, tmp_path / 'hybrid')
    assert type(model) is HybridLlavaForConditionalGeneration
    assert model.config.text_config.transfer_history == ['init:mimic', 'init:llava']
    assert model.config.text_config.mamba_layers


@pytest.mark.parametrize('mixer', ['Mamba2', 'GatedDeltaNet'])
@pytest.mark.parametrize('kind', ['clip', 'siglip'])
def test_pixels_and_text_pass_through_linear_layers_alone(kind, mixer, tmp_path):
    """A LLaVA around a converted tower: it answers, learns, saves and loads."""
    tower, _ = convert(save_tower(tmp_path / 'tower', kind), mixer=mixer)
    tower.save_pretrained(tmp_path / 'linear')
    for file in (tmp_path / 'tower').glob('*processor*'):
        shutil.copy(file, tmp_path / 'linear')
    lm, _ = convert(save_language_model(tmp_path / 'lm'))
    lm.save_pretrained(tmp_path / 'hybrid')
    AutoTokenizer.from_pretrained(tmp_path / 'lm').save_pretrained(tmp_path / 'hybrid')
    model, processor = assemble_llava(tmp_path / 'linear', tmp_path / 'hybrid')
    names = {type(module).__name__ for module in model.modules()}
    # SigLIP's pooling, which a LLaVA does not run, has a single query.
    names -= {'MultiheadAttention'}
    assert not {name for name in names if name.endswith('Attention')}

    image = Image.effect_noise((30, 20), 80).convert('RGB')
    text = processor.apply_chat_template(CHAT, add_generation_prompt=True)
    batch = processor(text=text, images=image, return_tensors='pt')
    with torch.no_grad():
        expected = tower(batch.pixel_values, output_hidden_states=True)
    logits = model(**batch, labels=batch.input_ids).logits
    # Training switches the cache off; the tower gets this argument too.
    torch.testing.assert_close(model(**batch, use_cache=False).logits, logits)
    seen = []
    model.model.multi_modal_projector.register_forward_pre_hook(
        lambda module, args: seen.append(args[0])
    )
    model(**batch, labels=batch.input_ids).loss.backward()
    first = int(kind == 'clip')
    torch.testing.assert_close(seen[0], expected.hidden_states[-2][:, first:])
    mixers = [m for m in model.modules() if isinstance(m, EncoderMixer)]
    assert len(mixers) == 3
    # LLaVA reads the layer before the last one.
    assert all(m.out_proj.weight.grad.abs().sum() > 0 for m in mixers[:-1])

    tower_of = [n for n, _ in model.named_parameters() if 'vision_tower' in n]
    assert {group_of_parameters(model)[name] for name in tower_of} == {'vision'}
    alone = set(group_of_parameters(tower).values())
    assert {'ssm', 'qkv', 'out_proj'} <= alone

    model.save_pretrained(tmp_path / 'llava')
    again = mmtransmamba.load(tmp_path / 'llava')
    with torch.no_grad():
        torch.testing.assert_close(again(**batch).logits, logits.detach())
    assert again.generate(**batch, max_new_tokens=3, min_new_tokens=3).shape[1] > 3


def test_dtype_seed_and_tied_embeddings(tmp_path):
    tower = save_tower(tmp_path / 'tower')
    language = save_language_model(tmp_path / 'lm', tie_word_embeddings=True)
    AutoModelForCausalLM.from_pretrained(language).bfloat16().save_pretrained(language)
    model, _ = assemble_llava(tower, language)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.lm_head.weight is model.get_input_embeddings().weight
    torch.manual_seed(8)
    again, _ = assemble_llava(tower, language)
    other, _ = assemble_llava(tower, language, seed=1)
    first, same, differs = (
        m.model.multi_modal_projector.linear_1.weight for m in (model, again, other)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, differs)


def test_a_known_image_token_and_template_are_kept(tmp_path):
    tower = save_tower(tmp_path / 'tower')
    language = save_language_model(tmp_path / 'lm', vocab_size=VOCAB + 20)
    tokenizer = AutoTokenizer.from_pretrained(language)
    tokenizer.add_special_tokens({'extra_special_tokens': ['<image>']})
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(language)
    model, processor = assemble_llava(tower, language)
    assert model.config.text_config.vocab_size == VOCAB + 20
    assert model.config.image_token_id == VOCAB - 1
    assert processor.chat_template == CHAT_TEMPLATE
    _, processor = assemble_llava(tower, language, chat_template='{{ messages }}')
    assert processor.chat_template == '{{ messages }}'


def test_the_conversation_is_that_of_the_data_with_any_image_token(tmp_path):
    tower = save_tower(tmp_path / 'tower')
    language = save_language_model(tmp_path / 'lm')
    _, processor = assemble_llava(tower, language, image_token='<picture>')
    text = processor.apply_chat_template(CHAT, add_generation_prompt=True)
    assert text.endswith('USER: <picture>\nWhat? ASSISTANT:')
    turns = [Turn('user', '<image>\nWhat?'), Turn('assistant', 'That.')]
    own, named = chat_template(processor), chat_template(processor, 'llava_v1')
    assert own.prompt(turns[:1]) == named.prompt(turns[:1]) == text
    assert own.conversation(turns) == named.conversation(turns)


def test_the_vision_half_of_a_clip_is_taken(tmp_path):
    tower = save_tower(tmp_path / 'tower')
    whole = CLIPModel(
        CLIPConfig(
            vision_config=AutoModel.from_pretrained(tower).config.to_dict(),
            text_config=dict(
                hidden_size=8,
                intermediate_size=8,
                num_hidden_layers=1,
                num_attention_heads=1,
                vocab_size=9,
            ),
            projection_dim=8,
        )
    )
    whole.save_pretrained(tmp_path / 'tower')
    model, _ = assemble_llava(tower, save_language_model(tmp_path / 'lm'))
    name = 'encoder.layers.0.mlp.fc1.weight'
    taken = model.model.vision_tower.get_parameter(name)
    assert torch.equal(taken, whole.vision_model.get_parameter(name))


@pytest.mark.parametrize(
    'which, change, message',
    [
        ('tower', 'drop', r'missing: .*fc1.weight'),
        ('tower', 'add', r'unexpected: .*fc9'),
        ('tower', 'cut', r'of another shape: .*fc1.weight \(file'),
        ('lm', 'drop', r'missing: .*up_proj.weight'),
        ('lm', 'add', r'unexpected: .*fc9'),
        ('lm', 'cut', r'of another shape: .*up_proj.weight \(file'),
    ],
)
def test_tensors_that_do_not_fit_are_named(which, change, message, tmp_path):
    tower = save_tower(tmp_path / 'tower')
    language = save_language_model(tmp_path / 'lm')
    file = tmp_path / which / 'model.safetensors'
    state = load_file(file)
    part = 'layers.1.mlp.fc1.weight' if which == 'tower' else 'layers.1.mlp.up_proj'
    name = next(key for key in state if part in key)
    if change == 'add':
        state[name.replace('fc1', 'fc9').replace('up_proj', 'fc9')] = state[
            name
        ].clone()
    elif change == 'cut':
        state[name] = state[name][:-1].clone()
    else:
        del state[name]
    save_file(state, file, metadata={'format': 'pt'})
    with pytest.raises(CheckpointError, match=message):
        assemble_llava(tower, language)


def test_wrong_folders(tmp_path):
    tower = save_tower(tmp_path / 'tower')
    language = save_language_model(tmp_path / 'lm')
    with pytest.raises(FileNotFoundError, match='no/tower'):
        assemble_llava('no/tower', language)
    with pytest.raises(FileNotFoundError, match='no/lm'):
        assemble_llava(tower, 'no/lm')
    with pytest.raises(ValueError, match="is a 'llama'; it must be one of clip"):
        assemble_llava(language, language)
    with pytest.raises(ValueError, match="is a 'clip_vision_model'.*CausalLM reads"):
        assemble_llava(tower, tower)
    with pytest.raises(ValueError, match=r'feature_layer=-5 must lie in \[-4, 3\]'):
        assemble_llava(tower, language, feature_layer=-5)
    for file in (tmp_path / 'lm').glob('tokenizer*'):
        file.unlink()
    with pytest.raises(ValueError, match='No tokenizer can be read'):
        assemble_llava(tower, language)
