"""The decoder-only vision-language model: patches, generation, caches, folders."""

import re

import pytest
import torch
from PIL import Image
from tiny_patch_decoders import (
    FAMILIES,
    IMAGE,
    LAYOUTS,
    PATCHES,
    image_text_batch,
    save_tiny_patch_decoder,
    tiny_patch_decoder,
)
from tiny_vlms import IMAGE_SIZE, PATCH_SIZE
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    DynamicCache,
    LlavaProcessor,
    StaticCache,
)

from mmtransmamba.models.language import MAMBA, Mamba2Mixer, cast_parameters
from mmtransmamba.models.language.cache_names import as_argument, returned_cache
from mmtransmamba.models.multimodal import (
    PatchDecoderConfig,
    PatchDecoderForConditionalGeneration,
    PatchDecoderModel,
)
from mmtransmamba.transfer.convert import convert

NEW = 6
HYBRIDS = ['attention first', 'mamba first', 'pure']


def generate(model, batch, **how):
    torch.manual_seed(3)
    return model.generate(**batch, max_new_tokens=NEW, min_new_tokens=NEW, **how)


def one_row(batch, row, images, skip):
    """A row of a batch without its padding, with images ``[start, end)``."""
    single = {k: batch[k][row : row + 1, skip:] for k in ('input_ids',)}
    if images[1] > images[0]:
        single['pixel_values'] = batch['pixel_values'][slice(*images)]
    return single


# ----------------------------------------------------------------------- patches


def test_patches_are_projected_row_by_row_and_have_positions():
    embedding = tiny_patch_decoder().model.patch_embedding
    images = torch.randn(2, 3, IMAGE_SIZE, IMAGE_SIZE)
    tokens = embedding(images)
    assert tokens.shape == (2, PATCHES, 32)
    weight = embedding.projection.weight.flatten(1)
    for index in range(PATCHES):
        top, left = (PATCH_SIZE * part for part in divmod(index, 2))
        patch = images[:, :, top : top + PATCH_SIZE, left : left + PATCH_SIZE]
        expected = F.linear(patch.flatten(1), weight, embedding.projection.bias)
        expected = expected + embedding.position_embedding[:, index]
        torch.testing.assert_close(tokens[:, index], expected, rtol=1e-4, atol=1e-5)
    assert embedding.position_embedding.std() > 0


def test_the_decoder_sees_patches_in_the_place_of_image_tokens():
    model = tiny_patch_decoder()
    batch = image_text_batch()
    seen = {}
    model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True
    )
    with torch.no_grad():
        model(**batch)
        patches = model.model.patch_embedding(batch['pixel_values']).flatten(0, 1)
    places = batch['input_ids'] == IMAGE
    embeds = seen['inputs_embeds']
    assert torch.equal(embeds[places], patches)
    words = model.get_input_embeddings()(batch['input_ids'])
    assert torch.equal(embeds[~places], words[~places])
    assert model.get_decoder() is model.model.language_model
    assert list(model.holistic_layers) == list(model.get_decoder().layers[:2])


def test_images_of_other_sizes():
    model = tiny_patch_decoder()
    batch = image_text_batch((1,))
    batch['pixel_values'] = torch.randn(1, 3, IMAGE_SIZE, 3 * PATCH_SIZE)
    with pytest.raises(
        ValueError,
        match=re.escape('4 image tokens (image_token_id=4), but pixel_values [1, 3'),
    ):
        model(**batch)
    ids = batch['input_ids']
    first = int((ids == IMAGE).nonzero()[0, 1])
    extra = torch.full((1, 2), IMAGE)
    batch['input_ids'] = torch.cat((ids[:, :first], extra, ids[:, first:]), dim=1)
    del batch['attention_mask']
    assert model(**batch).logits.isfinite().all()
    with pytest.raises(ValueError, match='must be multiples of patch_size=8'):
        model.model.patch_embedding(torch.zeros(1, 3, 12, 16))


def test_images_need_their_places():
    model = tiny_patch_decoder()
    batch = image_text_batch((1, 1))
    with pytest.raises(ValueError, match='8 image tokens .* make 4 patches'):
        model(batch['input_ids'], batch['pixel_values'][:1])
    embeds = model.get_input_embeddings()(batch['input_ids'])
    with pytest.raises(ValueError, match='pixel_values need input_ids'):
        model(inputs_embeds=embeds, pixel_values=batch['pixel_values'])
    with pytest.raises(ValueError, match='either input_ids or inputs_embeds'):
        model(pixel_values=batch['pixel_values'])
    joined = model.model.embed(batch['input_ids'], batch['pixel_values'])
    direct, given = (
        model(**batch).logits,
        model(inputs_embeds=joined, attention_mask=batch['attention_mask']).logits,
    )
    torch.testing.assert_close(given, direct)


def test_what_an_answer_depends_on():
    """On each image, on its position, and only on what comes before."""
    for layout in LAYOUTS:
        model = tiny_patch_decoder(layout)
        batch = image_text_batch((2,))
        with torch.no_grad():
            logits = model(**batch).logits
            swapped = dict(batch, pixel_values=batch['pixel_values'].flip(0))
            assert (model(**swapped).logits - logits).abs()[0, -1].max() > 1e-4
            other = dict(batch, pixel_values=batch['pixel_values'].clone())
            other['pixel_values'][1] += 1
            change = (model(**other).logits - logits).abs().amax(-1)[0]
        second = int((batch['input_ids'][0] == IMAGE).nonzero()[PATCHES])
        assert change[:second].max() < 1e-5 < change[second:].min(), layout


# -------------------------------------------------------------------- generation


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('family', FAMILIES)
def test_cached_equals_uncached_generation(layout, family):
    model = tiny_patch_decoder(layout, family)
    batch = image_text_batch()
    assert (batch['attention_mask'][:, 0] == 0).sum() == 2
    for how in (dict(do_sample=False), dict(do_sample=True), dict(num_beams=3)):
        fast = generate(model, batch, **how)
        slow = generate(model, batch, use_cache=False, **how)
        assert torch.equal(fast, slow), how
    greedy = generate(model, batch, do_sample=False)
    static = generate(model, batch, do_sample=False, cache_implementation='static')
    assert torch.equal(static, greedy)
    assert (greedy[:, batch['input_ids'].shape[1] :] != IMAGE).all()


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('family', ['llama', 'phi'])
def test_a_batch_answers_as_its_rows_alone(layout, family):
    model = tiny_patch_decoder(layout, family)
    batch = image_text_batch()
    lengths = batch['attention_mask'].sum(-1)
    width = batch['input_ids'].shape[1]
    for how in (dict(do_sample=False), dict(num_beams=2)):
        together = generate(model, batch, **how)[:, width:]
        for row, images in enumerate([(0, 1), (1, 1), (1, 3)]):
            single = one_row(batch, row, images, width - int(lengths[row]))
            alone = generate(model, single, **how)[:, int(lengths[row]) :]
            assert torch.equal(alone[0], together[row]), (row, how)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_logits_of_pieces_equal_those_of_the_whole(layout):
    model = tiny_patch_decoder(layout)
    batch = image_text_batch((2,))
    ids = batch['input_ids']
    with torch.no_grad():
        whole = model(ids, batch['pixel_values'], use_cache=False).logits
        prompt = int((ids[0] == IMAGE).nonzero()[-1]) + 1
        for cache in (
            DynamicCache(config=model.config),
            StaticCache(config=model.config, max_cache_len=32),
        ):
            out = model(ids[:, :prompt], batch['pixel_values'], **as_argument(cache))
            pieces = [out.logits]
            for step in ids[:, prompt:].split(1, dim=1):
                pieces.append(model(step, **as_argument(cache)).logits)
            torch.testing.assert_close(
                torch.cat(pieces, dim=1), whole, rtol=1e-4, atol=1e-5
            )
            assert int(cache.get_seq_length()) == ids.shape[1]


def test_generation_asks_each_image_once():
    """After the first step the cache has it."""
    model = tiny_patch_decoder('attention first')
    calls = []
    model.model.patch_embedding.register_forward_hook(
        lambda module, args, out: calls.append(len(out))
    )
    generate(model, image_text_batch(), do_sample=False)
    assert calls == [3]
    generate(model, image_text_batch(), num_beams=2)
    assert calls == [3, 6]


@pytest.mark.parametrize('layout, stateful', [('pure', True), (None, False)])
def test_assisted_generation_only_without_a_state(layout, stateful):
    model = tiny_patch_decoder(layout)
    assert model._is_stateful is stateful
    batch = image_text_batch((1,))
    assistant = dict(assistant_model=tiny_patch_decoder(), do_sample=False)
    if stateful:
        with pytest.raises(ValueError, match='stateful'):
            generate(model, batch, **assistant)


@pytest.mark.parametrize('layout', ['pure', 'attention first'])
def test_a_model_with_a_state_drafts_for_no_other(layout):
    batch = image_text_batch((1,))
    assistant = tiny_patch_decoder(layout)
    with pytest.raises(ValueError, match='cannot be an assistant_model: its Mamba'):
        generate(tiny_patch_decoder(), batch, assistant_model=assistant)


HOLISTIC = dict(rope_parameters=dict(rope_type='default', rope_theta=50.0))


def test_mixers_of_holistic_layers_have_their_rotation():
    teacher = tiny_patch_decoder(holistic_rope=HOLISTIC)
    batch = image_text_batch((1,))
    expected = teacher(**batch).logits
    for layer in range(4):
        hybrid, _ = convert(teacher, [layer], init='mimic', mixer='SlidingWindow')
        torch.testing.assert_close(hybrid(**batch).logits, expected)


@pytest.mark.parametrize('rope', [True, False])
def test_attention_of_holistic_layers_is_without_rotation_if_asked(rope):
    teacher = tiny_patch_decoder(holistic_rope=HOLISTIC)
    hybrid, _ = convert(teacher, [3], init='mimic', attention_rope=rope)
    seen = []

    def see(module, args, kwargs):
        seen.append(bool(kwargs['position_embeddings'][1].any()))

    for layer in hybrid.model.language_model.layers[:3]:
        layer.self_attn.register_forward_pre_hook(see, with_kwargs=True)
    hybrid(**image_text_batch((1,)))
    assert seen == [rope] * 3


@torch.no_grad()
def kept(cache) -> int:
    """Numbers that a cache holds."""
    total = 0
    for layer in cache.layers:
        for name in ('keys', 'values', 'conv_states', 'recurrent_states'):
            held = getattr(layer, name, None)
            if isinstance(held, dict):
                held = list(held.values())
            for tensor in held if isinstance(held, list) else [held]:
                if torch.is_tensor(tensor):
                    total += tensor.numel()
    return total


def test_the_linear_models_memory_is_flat_in_images_and_text():
    sizes = {}
    for layout in ('attention', 'attention first', 'pure'):
        model = tiny_patch_decoder(layout, max_position_embeddings=512)
        for images in (1, 16, 64):
            batch = image_text_batch((images,))
            with torch.no_grad():
                out = model(**batch, use_cache=True, logits_to_keep=1)
            cache = returned_cache(out)
            sizes[layout, images] = kept(cache)
            assert cache.get_seq_length() == batch['input_ids'].shape[1]
    assert sizes['pure', 1] == sizes['pure', 16] == sizes['pure', 64] > 0
    # Of four layers one keeps keys and values.
    growth = {
        layout: sizes[layout, 64] - sizes[layout, 16]
        for layout in ('attention', 'attention first')
    }
    assert growth['attention'] == 4 * growth['attention first'] > 0


@pytest.mark.usefixtures('compilable')
def test_the_decode_step_compiles():
    model = tiny_patch_decoder('pure')
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    batch = image_text_batch((1,))
    caches = [StaticCache(config=model.config, max_cache_len=32) for _ in range(2)]
    with torch.no_grad():
        for cache in caches:
            model(**batch, **as_argument(cache))
        for ids in torch.randint(5, 61, (3, 1, 1)):
            expected = model(ids, **as_argument(caches[0])).logits
            actual = compiled(ids, **as_argument(caches[1])).logits
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


# ----------------------------------------------------------------------- folders


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('layout', [None, *HYBRIDS])
def test_saves_and_loads(layout, family, tmp_path):
    model = tiny_patch_decoder(layout, family)
    if layout:
        model.config.text_config.transfer_history = ['init:mimic']
    model.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config) is PatchDecoderConfig
    fields = config.to_dict()
    fields['_name_or_path'] = ''
    assert fields == model.config.to_dict()
    same = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    assert type(same) is PatchDecoderForConditionalGeneration
    assert same.generation_config.suppress_tokens == [IMAGE]
    batch = image_text_batch()
    with torch.no_grad():
        assert torch.equal(same(**batch).logits, model(**batch).logits)
    assert isinstance(AutoModel.from_pretrained(tmp_path), PatchDecoderModel)
    if layout:
        assert same.config.get_text_config().transfer_history == ['init:mimic']
        kinds = [
            isinstance(layer.self_attn, Mamba2Mixer)
            for layer in same.get_decoder().layers
        ]
        assert kinds == [kind == MAMBA for kind in LAYOUTS[layout]]


def test_the_loss_is_that_of_the_whole_step():
    """A Trainer that accumulates gradients tells how many tokens a step has."""
    model, batch = tiny_patch_decoder(), image_text_batch()
    labels = batch['input_ids'].clone()
    labels[0, :-3] = -100
    counts = (labels[:, 1:] != -100).sum(1)
    whole = model(**batch, labels=labels).loss
    given = dict(labels=labels, num_items_in_batch=2 * counts.sum())
    torch.testing.assert_close(model(**batch, **given).loss, whole / 2)
    shifted = F.pad(labels[:, 1:], (0, 1), value=-100)
    torch.testing.assert_close(
        model(**batch, labels=labels, shift_labels=shifted).loss, whole
    )
    others = labels.masked_fill(labels == -100, 5)
    found = model(**batch, labels=others, ignore_index=5).loss
    torch.testing.assert_close(
        found, model(**batch, labels=others.where(others != 5, -100)).loss
    )


def test_tied_embeddings(tmp_path):
    model = tiny_patch_decoder('attention first', tie_word_embeddings=True)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    model.save_pretrained(tmp_path)
    same = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert same.lm_head.weight is same.get_input_embeddings().weight
    batch = image_text_batch((1,))
    with torch.no_grad():
        assert torch.equal(same.eval()(**batch).logits, model(**batch).logits)
    untied = tiny_patch_decoder('attention first')
    assert untied.lm_head.weight is not untied.get_input_embeddings().weight


def test_half_precision_keeps_the_ssm_parameters_in_float32(tmp_path):
    original = tiny_patch_decoder('attention first')
    original.save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.bfloat16)
    for model in (loaded, cast_parameters(original, torch.bfloat16)):
        types = {n: p.dtype for n, p in model.named_parameters()}
        single = {n for n, dtype in types.items() if dtype == torch.float32}
        assert {n.rpartition('.')[2] for n in single} == {'A_log', 'D', 'dt_bias'}
        assert len(single) == 9
        assert set(types.values()) == {torch.float32, torch.bfloat16}
    batch = image_text_batch()
    assert loaded(**batch).logits.isfinite().all()
    assert generate(loaded, batch).shape[0] == 3


@pytest.mark.parametrize('layout', [None, 'attention first', 'pure'])
def test_gradient_checkpointing_has_the_same_gradients(layout):
    batch = image_text_batch(side='right')
    labels = batch['input_ids'].masked_fill(batch['attention_mask'] == 0, -100)
    labels = labels.masked_fill(labels == IMAGE, -100)
    grads = []
    for recompute in (False, True):
        model = tiny_patch_decoder(layout).train()
        if recompute:
            model.gradient_checkpointing_enable()
        loss = model(**batch, labels=labels).loss
        loss.backward()
        grads.append({n: p.grad for n, p in model.named_parameters()})
        assert all(g is not None and g.isfinite().all() for g in grads[-1].values())
    logits = model.eval()(**batch).logits[:, :-1].flatten(0, 1)
    expected = F.cross_entropy(logits, labels[:, 1:].flatten())
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, msg=name)


def test_processor_and_model_of_a_folder(tmp_path):
    folder = save_tiny_patch_decoder(tmp_path, 'attention first')
    processor = AutoProcessor.from_pretrained(folder)
    assert type(processor) is LlavaProcessor
    model = AutoModelForImageTextToText.from_pretrained(folder)
    images = [Image.new('RGB', (20, 30), color) for color in ('red', 'green', 'blue')]
    inputs = processor(
        text=['<s>USER: <image>\nWhat? ', '<s>USER: <image>\n<image>\nDiffer? '],
        images=images,
        padding=True,
        padding_side='left',
        return_tensors='pt',
    )
    assert (inputs['input_ids'] == IMAGE).sum(-1).tolist() == [PATCHES, 2 * PATCHES]
    assert inputs['pixel_values'].shape == (3, 3, IMAGE_SIZE, IMAGE_SIZE)
    out = generate(model, inputs, do_sample=False)
    assert out.shape == (2, inputs['input_ids'].shape[1] + NEW)


@pytest.mark.parametrize(
    'fields, message',
    [
        (dict(image_size=20), 'image_size=20 is not a multiple of patch_size=8.'),
        (dict(num_holistic_layers=4), 'num_holistic_layers=4 must lie in [0, 3]'),
        (dict(image_token_id=101), 'image_token_id=101 must lie in [0, 100]'),
    ],
)
def test_bad_fields(fields, message):
    config = tiny_patch_decoder().config.to_dict()
    with pytest.raises(ValueError, match=re.escape(message)):
        PatchDecoderConfig(**config | fields)


def test_hovle_sizes_by_default():
    config = PatchDecoderConfig()
    assert (config.num_holistic_layers, config.text_config.num_hidden_layers) == (8, 32)
    # Three tiles have the 768 visual tokens of mmMamba's Table 2.
    assert 3 * config.image_seq_length == 768
