"""Requirements of transformers on every model, checked for all of our classes."""

import re
from fnmatch import fnmatchcase

import pytest
import torch
from tiny_decoders import FAMILIES, SIZES
from tiny_llavas import hybrid_llava, prompts
from tiny_patch_decoders import image_text_batch, tiny_patch_decoder
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSequenceClassification,
    CompileConfig,
    StaticCache,
    Trainer,
    TrainingArguments,
    masking_utils,
)

from mmtransmamba.models.language import ATTENTION, HEADS, HYBRIDS, MAMBA
from mmtransmamba.models.language.cache_names import returned_cache
from mmtransmamba.models.language.precision import float32_parameters

SLIDING = 'sliding_attention'
M, A, S = MAMBA, ATTENTION, SLIDING
BIASES = dict(in_bias=True, out_bias=True)
DECODERS = {
    'llama': ('llama', [M, A], 'Mamba2', {}),
    'llama, attention first': ('llama', [A, M], 'Mamba', {}),
    'llama, pure': ('llama', [M, M], 'Mamba2', dict(skip=False)),
    'llama, attention only': ('llama', [A, A], 'Mamba2', {}),
    'internlm2': ('llama', [M, A], 'Mamba2', BIASES, dict(attention_bias=True)),
    'mistral': ('mistral', [S, M], 'Mamba', {}, dict(sliding_window=4)),
    'mistral, pure': ('mistral', [M, M], 'Mamba', {}),
    'phi': ('phi', [M, A], 'Mamba2', {}),
    'phi, pure': ('phi', [M, M], 'Mamba', dict(in_bias=True)),
    'qwen2': (
        'qwen2',
        [M, S, A],
        'Mamba',
        {},
        dict(use_sliding_window=True, sliding_window=4),
    ),
    'qwen3': ('qwen3', [A, M], 'Mamba2', dict(qk_norm=True)),
    'qwen3, pure': ('qwen3', [M, M], 'Mamba2', dict(norm='per_head')),
}
MULTIMODAL = {
    'llava': lambda: (hybrid_llava('llama', 'mamba first'), prompts()),
    'llava, pure': lambda: (
        hybrid_llava('phi', 'pure', mixer='Mamba'),
        prompts(),
    ),
    'patch decoder': lambda: (tiny_patch_decoder('mamba first'), image_text_batch()),
    'patch decoder, pure': lambda: (tiny_patch_decoder('pure'), image_text_batch()),
    'patch decoder, Transformer': lambda: (tiny_patch_decoder(), image_text_batch()),
}
EVERY = [*DECODERS, *MULTIMODAL]


def config_of(name):
    family, layers, mixer, own, *fields = DECODERS[name]
    sizes = SIZES | FAMILIES[family] | dict(num_hidden_layers=len(layers))
    chosen = dict(layer_types=layers, mixer=dict(type=mixer, **own))
    return HYBRIDS[family][0](**sizes | chosen | dict(*fields))


def enlarged(model):
    """With weights so large that every part matters."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    return model.eval()


def build(name):
    """A model and a batch whose first row is padded on the left."""
    if name in MULTIMODAL:
        return MULTIMODAL[name]()
    torch.manual_seed(0)
    model = enlarged(AutoModelForCausalLM.from_config(config_of(name)))
    ids = torch.randint(3, 61, (2, 9))
    mask = torch.ones_like(ids)
    ids[0, :3] = mask[0, :3] = 0
    return model, dict(input_ids=ids, attention_mask=mask)


def text_config(model):
    return model.config.get_text_config(decoder=True)


def kinds(model):
    text = text_config(model)
    own = getattr(text, 'layer_types', None)
    return own or [ATTENTION] * text.num_hidden_layers


def train_on(batch):
    labels = batch['input_ids'].masked_fill(batch['attention_mask'] == 0, -100)
    return batch | dict(labels=labels)


def gradients(model, batch):
    model.zero_grad()
    model.train()
    torch.manual_seed(1)
    model(**batch).loss.backward()
    model.eval()
    return {n: p.grad for n, p in model.named_parameters()}


def assert_same_gradients(actual, expected):
    for name, grad in expected.items():
        if grad is None:
            assert actual[name] is None, name
        else:
            torch.testing.assert_close(actual[name], grad, rtol=1e-3, atol=1e-5)


def heads():
    for auto_class, models in HEADS.items():
        for model in models:
            yield pytest.param(auto_class, model, id=model.__name__)


# ------------------------------------------------------------------------ training


@pytest.mark.parametrize('name', EVERY)
def test_recomputed_activations_give_the_same_gradients(name):
    model, batch = build(name)
    batch = train_on(batch)
    expected = gradients(model, batch)
    learned = [n for n, p in model.named_parameters() if 'vision_tower' not in n]
    assert all(
        expected[n] is not None and expected[n].isfinite().all() for n in learned
    )
    for reentrant in (False, True):
        model.gradient_checkpointing_enable(dict(use_reentrant=reentrant))
        if reentrant:
            model.enable_input_require_grads()
        assert_same_gradients(gradients(model, batch), expected)


@pytest.mark.parametrize('auto_class, model_cls', [*heads()])
def test_other_heads_are_found_train_and_take_over_a_language_models_weights(
    auto_class, model_cls, tmp_path
):
    family = model_cls.config_class.model_type.removeprefix('hybrid_')
    config = config_of(f'{family}, attention first' if family == 'llama' else family)
    torch.manual_seed(0)
    causal_lm = AutoModelForCausalLM.from_config(config)
    causal_lm.save_pretrained(tmp_path)
    model, found = auto_class.from_pretrained(
        tmp_path, num_labels=3, output_loading_info=True
    )
    assert type(model) is model_cls
    assert {name.split('.')[0] for name in found['missing_keys']} <= {
        'score',
        'qa_outputs',
    }
    assert torch.equal(
        model.base_model.layers[0].mlp.state_dict().popitem()[1],
        causal_lm.model.layers[0].mlp.state_dict().popitem()[1],
    )
    ids = torch.randint(3, 61, (2, 7))
    if 'QuestionAnswering' in model_cls.__name__:
        learned = dict(start_positions=ids[:, 0] % 7, end_positions=ids[:, 1] % 7)
    else:
        tokens = 'Token' in model_cls.__name__
        learned = dict(labels=(ids if tokens else ids[:, 0]) % 3)
    expected = gradients(model, dict(input_ids=ids) | learned)
    assert all(grad.abs().sum() > 0 for grad in expected.values())
    for reentrant in (False, True):
        model.gradient_checkpointing_enable(dict(use_reentrant=reentrant))
        again = gradients(model, dict(input_ids=ids) | learned)
        assert_same_gradients(again, expected)


@pytest.mark.parametrize('name', ['qwen3', 'llava', 'patch decoder'])
def test_label_smoothing_asks_for_the_next_token(name, tmp_path):
    model, batch = build(name)
    batch = train_on(batch)
    arguments = TrainingArguments(
        tmp_path, label_smoothing_factor=0.2, use_cpu=True, report_to='none'
    )
    loss = Trainer(model, arguments).compute_loss(model, dict(batch))
    labels = batch.pop('labels')[:, 1:]
    logits = model(**batch).logits[:, :-1]
    expected = torch.nn.functional.cross_entropy(
        logits[labels >= 0], labels[labels >= 0], label_smoothing=0.2
    )
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', DECODERS)
def test_peft_knows_where_adapters_go(name):
    peft = pytest.importorskip('peft')
    model, batch = build(name)
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type='CAUSAL_LM'))
    layers = {
        int(re.search(r'layers\.(\d+)\.self_attn', parameter).group(1))
        for parameter, value in adapted.named_parameters()
        if value.requires_grad and 'self_attn' in parameter
    }
    assert layers == set(range(len(kinds(model))))
    adapted.train()(**train_on(batch)).loss.backward()
    adapters = [p for p in adapted.parameters() if p.requires_grad]
    assert all(adapter.grad is not None for adapter in adapters)


# ----------------------------------------------------------------- dtypes and plans


@pytest.mark.parametrize('name', EVERY)
def test_a_model_made_in_half_precision_has_its_ssm_parameters_in_float32(name):
    model, batch = build(name)
    auto_class = (
        AutoModelForImageTextToText if name in MULTIMODAL else AutoModelForCausalLM
    )
    half = auto_class.from_config(model.config, dtype=torch.bfloat16)
    names = dict(model.named_parameters())
    for pattern in model._keep_in_fp32_modules_strict:
        pattern = re.compile(rf'(?:^|\.){pattern}(?:\.|$)')
        assert any(pattern.search(parameter) for parameter in names)
    float32 = float32_parameters(half)
    for parameter, value in half.named_parameters():
        kept = parameter in float32
        assert value.dtype == (torch.float32 if kept else torch.bfloat16), parameter
        assert kept == any(
            re.search(rf'(?:^|\.){kept}(?:\.|$)', parameter)
            for kept in half._keep_in_fp32_modules_strict
        )
    has_mixers = MAMBA in kinds(model)
    assert bool(half._keep_in_fp32_modules_strict) == has_mixers
    if 'pixel_values' in batch:
        batch['pixel_values'] = batch['pixel_values'].bfloat16()
    assert half(**batch).logits.isfinite().all()


@pytest.mark.parametrize('name', EVERY)
def test_the_tensor_parallel_plan_names_what_there_is(name):
    model, _ = build(name)
    modules = [module for module, _ in model.named_modules()]
    for pattern in model.tp_plan:
        assert any(fnmatchcase(module, pattern) for module in modules), pattern
    assert any('mlp' in pattern for pattern in model.tp_plan)
    has_attention = set(kinds(model)) != {MAMBA}
    assert any('self_attn' in pattern for pattern in model.tp_plan) == has_attention


# ------------------------------------------------------------------------- outputs


@pytest.mark.parametrize('name', EVERY)
def test_outputs_have_the_form_of_other_hybrids(name):
    """One entry of ``attentions`` for each layer that has any, and none for others."""
    model, batch = build(name)
    model.set_attn_implementation('eager')
    with torch.no_grad():
        outputs = model(**batch, output_attentions=True, output_hidden_states=True)
    text, (rows, length) = text_config(model), batch['input_ids'].shape
    attentive = [i for i, kind in enumerate(kinds(model)) if kind != MAMBA]
    shape = (rows, text.num_attention_heads, length, length)
    assert [weights.shape for weights in outputs.attentions] == [shape] * len(attentive)
    assert [state.shape for state in outputs.hidden_states] == [
        (rows, length, text.hidden_size)
    ] * (text.num_hidden_layers + 1)
    layers = returned_cache(outputs).layers
    assert len(layers) == text.num_hidden_layers
    for i, layer in enumerate(layers):
        if i in attentive:
            window = 4 - 1 if kinds(model)[i] == SLIDING else length
            assert layer.keys.shape[:3] == (rows, text.num_key_value_heads, window)
        else:
            assert layer.conv_states[0].shape[::2] == (rows, text.mixer['d_conv'])
            assert len(layer.recurrent_states[0]) == rows


@pytest.mark.parametrize('padded', ['with a mask', 'without a mask'])
@pytest.mark.parametrize('name', EVERY)
def test_eager_attention_equals_sdpa(name, padded):
    model, batch = build(name)
    seen = batch['attention_mask'].bool()
    if padded == 'without a mask':
        del batch['attention_mask']
        seen = torch.ones_like(seen)
    logits = []
    for implementation in ('eager', 'sdpa'):
        model.set_attn_implementation(implementation)
        with torch.no_grad():
            logits.append(model(**batch).logits[seen])
    torch.testing.assert_close(*logits, rtol=1e-3, atol=1e-4)


# ---------------------------------------------------------------------- generation

NEW = dict(max_new_tokens=5, min_new_tokens=5, do_sample=False)


def generate(model, **inputs):
    torch.manual_seed(2)
    return model.generate(
        **NEW | inputs,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
        output_hidden_states=True,
        output_attentions=True,
    )


def assert_same_outputs(actual, expected):
    assert torch.equal(actual.sequences, expected.sequences)
    assert len(actual.scores) == 5
    for key in ('scores', 'logits'):
        torch.testing.assert_close(actual[key], expected[key], rtol=1e-3, atol=1e-4)
    for ours, theirs in zip(actual.hidden_states, expected.hidden_states, strict=True):
        # Attention's output at padding depends on the cache's length.
        ours, theirs = (torch.stack(states)[:, :, -1] for states in (ours, theirs))
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    assert list(map(len, actual.attentions)) == list(map(len, expected.attentions))


@pytest.mark.parametrize('name', EVERY)
def test_a_static_cache_generates_the_same_from_ids_and_from_embeddings(name):
    if len(set(kinds(build(name)[0]))) > 2 and not hasattr(
        masking_utils, 'find_first_full_attention_index'
    ):
        pytest.skip('transformers before 5.23 takes a Mamba layer for full attention')
    model, batch = build(name)
    model.set_attn_implementation('eager')
    expected = generate(model, **batch)
    static = generate(model, **batch, cache_implementation='static')
    assert isinstance(returned_cache(static), StaticCache)
    assert_same_outputs(static, expected)
    if 'pixel_values' in batch:
        return
    embeds = model.get_input_embeddings()(batch.pop('input_ids'))
    for how in ({}, dict(cache_implementation='static')):
        found = generate(model, inputs_embeds=embeds, **batch, **how)
        prompt = embeds.shape[1]
        assert torch.equal(found.sequences, expected.sequences[:, prompt:])


@pytest.mark.usefixtures('compilable')
@pytest.mark.parametrize('name', ['llama', 'mistral, pure', 'llava'])
def test_compiled_generation_returns_every_output(name):
    model, batch = build(name)
    model.set_attn_implementation('eager')
    expected = generate(model, **batch)
    compilation = CompileConfig(backend='eager', fullgraph=True)
    compilation._compile_all_devices = True
    torch.compiler.reset()
    actual = generate(
        model, **batch, cache_implementation='static', compile_config=compilation
    )
    assert hasattr(model, '_compiled_call')
    assert_same_outputs(actual, expected)


@pytest.mark.parametrize('name', DECODERS)
def test_generation_goes_on_from_a_returned_cache(name):
    model, batch = build(name)
    expected = generate(model, **batch)
    first = generate(model, **batch | dict(max_new_tokens=2, min_new_tokens=2))
    mask = torch.nn.functional.pad(batch['attention_mask'], (0, 2), value=1)
    rest = model.generate(
        first.sequences,
        attention_mask=mask,
        past_key_values=returned_cache(first),
        **NEW | dict(max_new_tokens=3, min_new_tokens=3),
    )
    assert torch.equal(rest, expected.sequences)


def test_attention_alone_generates_with_an_assistant():
    model, _ = build('llama, attention only')
    torch.manual_seed(5)
    assistant = enlarged(AutoModelForCausalLM.from_config(config_of('internlm2')))
    plain = enlarged(
        AutoModelForCausalLM.from_config(config_of('llama, attention only'))
    )
    ids = torch.randint(3, 61, (1, 9))
    expected = model.generate(ids, **NEW)
    for how in (dict(assistant_model=plain), dict(prompt_lookup_num_tokens=2)):
        assert torch.equal(model.generate(ids, **how, **NEW), expected)
    for name in ('llama', 'qwen2', 'phi, pure'):
        hybrid, _ = build(name)
        with pytest.raises(ValueError, match='[sS]tateful'):
            hybrid.generate(ids, assistant_model=assistant, **NEW)


# --------------------------------------------------------------------- compilation


@pytest.mark.usefixtures('compilable')
@pytest.mark.parametrize(
    'name', ['llama, attention first', 'phi, pure', 'qwen2', 'llava', 'patch decoder']
)
def test_a_training_step_is_one_graph(name):
    model, batch = build(name)
    batch = train_on(batch)
    expected = gradients(model, batch)
    torch.compiler.reset()
    compiled = torch.compile(model, backend='eager', fullgraph=True)
    assert_same_gradients(
        gradients(compiled, batch),
        {f'_orig_mod.{n}': grad for n, grad in expected.items()},
    )


@pytest.mark.usefixtures('compilable')
def test_a_plain_forward_is_one_graph():
    model, batch = build('llama, pure')
    torch.compiler.reset()
    compiled = torch.compile(model, backend='eager', fullgraph=True)
    with torch.no_grad():
        expected = model(batch['input_ids'])
        actual = compiled(batch['input_ids'])
    torch.testing.assert_close(actual.logits, expected.logits)
    assert int(returned_cache(actual).get_seq_length()) == 9


def test_every_class_is_known_by_its_name_and_its_config():
    for config_cls, base, causal_lm in HYBRIDS.values():
        config = config_cls(**SIZES, layer_types=[MAMBA] * 3, sliding_window=None)
        assert type(AutoModel.from_config(config)) is base
        assert type(AutoModelForCausalLM.from_config(config)) is causal_lm
    assert {
        model.config_class for model in HEADS[AutoModelForSequenceClassification]
    } == {config for config, _, _ in HYBRIDS.values()}
