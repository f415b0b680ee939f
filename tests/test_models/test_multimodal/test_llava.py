"""LLaVA around hybrids: it generates, saves, loads and trains."""

import pytest
import torch
from tiny_llavas import (
    IMAGE,
    LAYOUTS,
    PATCHES,
    TOWERS,
    hybrid_llava,
    learning_batch,
    prompts,
)
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    DynamicCache,
    StaticCache,
)

from mmtransmamba.models.language.cache_names import as_argument, returned_cache
from mmtransmamba.models.multimodal import (
    HybridLlavaConfig,
    HybridLlavaForConditionalGeneration,
)

NEW = 6
FAMILIES = ['llama', 'phi', 'qwen3']


def generate(model, batch, **kwargs):
    torch.manual_seed(2)
    return model.generate(
        **batch,
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        # Without a cache the images are read anew at every token, and an image token
        # that a random model has written would have none.
        suppress_tokens=[IMAGE],
        **kwargs,
    )


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize(
    'family, mixer, tower',
    [
        ('llama', 'Mamba', 'clip'),
        ('llama', 'Mamba2', 'siglip'),
        ('phi', 'Mamba2', 'clip'),
        ('qwen3', 'Mamba2', 'siglip'),
    ],
)
def test_cached_equals_uncached_generation(family, mixer, tower, layout):
    model, batch = hybrid_llava(family, layout, tower, mixer=mixer), prompts()
    for how in (dict(do_sample=False), dict(do_sample=True), dict(num_beams=3)):
        fast = generate(model, batch, **how)
        assert torch.equal(fast, generate(model, batch, use_cache=False, **how)), how
    greedy = generate(model, batch, do_sample=False)
    static = generate(model, batch, do_sample=False, cache_implementation='static')
    assert torch.equal(static, greedy)
    # The generated text depends on the images.
    other = batch | dict(pixel_values=batch['pixel_values'].flip(0))
    assert not torch.equal(generate(model, other, do_sample=False), greedy)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('tower', TOWERS)
def test_a_row_does_not_depend_on_its_batch(tower, layout):
    model, batch = hybrid_llava('llama', layout, tower), prompts()
    together = generate(model, batch, do_sample=False)
    for i in range(2):
        kept = batch['attention_mask'][i].bool()
        alone = {
            'input_ids': batch['input_ids'][i : i + 1, kept],
            'attention_mask': batch['attention_mask'][i : i + 1, kept],
            'pixel_values': batch['pixel_values'][i : i + 1],
        }
        written = generate(model, alone, do_sample=False)
        assert torch.equal(written[0, -NEW:], together[i, -NEW:])
        with torch.no_grad():
            expected = model(**alone).logits[0]
            positions = (batch['attention_mask'].cumsum(-1) - 1).clamp_min(0)
            logits = model(**batch, position_ids=positions).logits[i, kept]
        torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_logits_of_pieces_equal_those_of_the_whole(layout):
    model, batch = hybrid_llava('llama', layout), prompts((9, 9))
    ids, pixels = batch['input_ids'], batch['pixel_values']
    text = model.config.get_text_config()
    with torch.no_grad():
        whole = model(ids, pixels, use_cache=False).logits
        for cache in (
            DynamicCache(config=text),
            StaticCache(config=text, max_cache_len=20),
        ):
            first, *rest = ids.split((PATCHES + 2, 1, 6, 1), dim=1)
            pieces = [model(first, pixels, **as_argument(cache)).logits]
            pieces += [model(part, **as_argument(cache)).logits for part in rest]
            torch.testing.assert_close(
                torch.cat(pieces, 1), whole, rtol=1e-3, atol=1e-4
            )


@pytest.mark.parametrize('family', FAMILIES)
def test_saves_and_loads(family, tmp_path):
    model, batch = hybrid_llava(family), prompts()
    model.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is HybridLlavaConfig
    loaded, found = AutoModelForImageTextToText.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert type(loaded) is HybridLlavaForConditionalGeneration
    assert not any(found[key] for key in ('missing_keys', 'unexpected_keys'))
    assert (loaded.lm_head.bias is not None) == (family == 'phi')
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, model(**batch).logits)
    headless = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(
        headless(**batch).last_hidden_state, model.model(**batch).last_hidden_state
    )


@pytest.mark.parametrize('mixer', ['Mamba', 'Mamba2'])
def test_half_precision_leaves_the_ssm_parameters(mixer, tmp_path):
    hybrid_llava(mixer=mixer).save_pretrained(tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.bfloat16)
    kept = {
        name.split('self_attn.')[1]
        for name, parameter in model.named_parameters()
        if parameter.dtype == torch.float32
    }
    assert (
        kept
        == {
            'Mamba': {'A_log', 'D', 'dt_proj.bias'},
            'Mamba2': {'A_log', 'D', 'dt_bias'},
        }[mixer]
    )
    written = generate(model, prompts(), do_sample=False)
    assert torch.equal(
        written, generate(model, prompts(), do_sample=False, use_cache=False)
    )


def test_gradient_checkpointing_changes_no_gradient():
    batch = learning_batch()
    gradients = []
    for checkpointing in (False, True):
        model = hybrid_llava('llama', 'mamba first').train()
        if checkpointing:
            model.gradient_checkpointing_enable({'use_reentrant': False})
        model(**batch).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    without = {n for n, grad in gradients[0].items() if grad is None}
    # The layers behind the one that is read, and the pooled output.
    assert all('vision_tower' in name for name in without)
    for name, gradient in gradients[0].items():
        if name not in without:
            assert gradient.abs().sum() > 0, name
            torch.testing.assert_close(gradients[1][name], gradient)


def test_assisted_generation_is_refused():
    model = hybrid_llava()
    with pytest.raises(ValueError, match='[sS]tateful'):
        generate(model, prompts((3,)), assistant_model=hybrid_llava('phi'))


def test_a_pure_models_cache_does_not_grow():
    model = hybrid_llava(layout='pure')

    def kept(length):
        with torch.no_grad():
            cache = returned_cache(model(**prompts((length,))))
        return sum(
            layer.conv_states[0].numel() + layer.recurrent_states[0].numel()
            for layer in cache.layers
        )

    assert kept(4) == kept(64) > 0
