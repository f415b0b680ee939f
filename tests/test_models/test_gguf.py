"""A tiny Llama written as GGUF, and read back."""

import sys

import numpy as np
import pytest
import torch
from language_models import make_teacher
from transformers import AutoModelForCausalLM, AutoTokenizer

import mmtransmamba
from mmtransmamba.models.folders import load_gguf, load_gguf_tokenizer

gguf = pytest.importorskip('gguf', reason='gguf is not installed')
pytest.importorskip('accelerate', reason='accelerate is not installed')

NAMES = {
    'model.embed_tokens.weight': 'token_embd.weight',
    'model.norm.weight': 'output_norm.weight',
    'lm_head.weight': 'output.weight',
    'input_layernorm': 'attn_norm',
    'post_attention_layernorm': 'ffn_norm',
    'self_attn.q_proj': 'attn_q',
    'self_attn.k_proj': 'attn_k',
    'self_attn.v_proj': 'attn_v',
    'self_attn.o_proj': 'attn_output',
    'mlp.gate_proj': 'ffn_gate',
    'mlp.up_proj': 'ffn_up',
    'mlp.down_proj': 'ffn_down',
}
TOKENS = ['<unk>', '<s>', '</s>', *'abcdefghijklmnopqrstuvwxyz']


def interleaved(weight, heads):
    """llama.cpp rotates neighbouring channels, transformers the two halves."""
    parts = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return parts.swapaxes(1, 2).reshape(weight.shape)


def write_gguf(model, path, quantised=False):
    """The file that llama.cpp's converter would write."""
    config = model.config
    writer = gguf.GGUFWriter(path, 'llama')
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters['rope_theta'])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model('llama')
    writer.add_token_list(TOKENS)
    writer.add_token_scores([-float(i) for i in range(len(TOKENS))])
    writer.add_token_types([2, 3, 3] + [1] * 26)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    for name, tensor in model.state_dict().items():
        if name == 'lm_head.weight' and config.tie_word_embeddings:
            continue
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        name = name.replace('model.layers.', 'blk.')
        value = tensor.float().numpy()
        for part, heads in (
            ('attn_q', config.num_attention_heads),
            ('attn_k', config.num_key_value_heads),
        ):
            value = interleaved(value, heads) if part in name else value
        kind = gguf.GGMLQuantizationType.F32
        if quantised and value.ndim == 2 and value.shape[-1] % 32 == 0:
            kind = gguf.GGMLQuantizationType.Q8_0
            value = gguf.quants.quantize(value, kind)
        writer.add_tensor(name, np.ascontiguousarray(value), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def make_llama():
    return make_teacher(
        hidden_size=32, num_attention_heads=4, intermediate_size=32, rms_norm_eps=1e-5
    )


@pytest.mark.parametrize('quantised', [False, True])
def test_outputs_are_those_of_the_model(quantised, tmp_path):
    model = make_llama()
    read = load_gguf(write_gguf(model, tmp_path / 'model.gguf', quantised))
    assert all(parameter.dtype == torch.float32 for parameter in read.parameters())
    ids = torch.randint(3, 29, (2, 9))
    with torch.no_grad():
        expected, actual = model(ids).logits, read(ids).logits
    tolerance = 0.1 if quantised else 1e-4
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def test_what_was_read_is_saved_and_converted(tmp_path, repo_dir, monkeypatch, capsys):
    file = write_gguf(make_llama(), tmp_path / 'model.gguf', quantised=True)
    monkeypatch.syspath_prepend(str(repo_dir / 'tools'))
    monkeypatch.delitem(sys.modules, 'convert_gguf', raising=False)
    import convert_gguf

    out = tmp_path / 'folder'
    monkeypatch.setattr(sys, 'argv', ['convert_gguf.py', str(file), '--out', str(out)])
    convert_gguf.main()
    saved = AutoModelForCausalLM.from_pretrained(out)
    assert not hasattr(saved.config, 'quantization_config')
    for name, value in load_gguf(file).state_dict().items():
        assert torch.equal(value, saved.state_dict()[name]), name
    ids = AutoTokenizer.from_pretrained(out).encode('abc', add_special_tokens=False)
    assert ids == load_gguf_tokenizer(file).encode('abc', add_special_tokens=False)
    with pytest.raises(SystemExit, match='exists; give another folder'):
        convert_gguf.main()


@pytest.mark.parametrize(
    'content, error, reason',
    [
        (None, FileNotFoundError, 'there is no file'),
        (b'', ValueError, 'is not a GGUF file'),
        (b'PK\3\4', ValueError, 'is not a GGUF file'),
        (b'GGUF\3\0\0\0', ValueError, 'cannot be read'),
    ],
)
def test_other_files_are_refused(content, error, reason, tmp_path):
    path = tmp_path / 'model.gguf'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=reason):
        load_gguf(path)


def test_a_file_is_a_teacher_like_the_folder_that_is_made_of_it(tmp_path):
    file = write_gguf(make_llama(), tmp_path / 'model.gguf', quantised=True)
    teacher = load_gguf(file)
    hybrid, _ = mmtransmamba.convert(file, layers=[1], init='vkq', seed=3)
    expected, _ = mmtransmamba.convert(teacher, layers=[1], init='vkq', seed=3)
    for name, value in expected.state_dict().items():
        assert torch.equal(value, hybrid.state_dict()[name]), name
    ids = torch.tensor([[3, 4, 5]])
    assert hybrid(ids).logits.isfinite().all()


def test_the_tool_takes_a_file_with_its_tokenizer_and_calibrates(
    tmp_path, repo_dir, monkeypatch
):
    file = write_gguf(make_llama(), tmp_path / 'model.gguf')
    text = tmp_path / 'text.txt'
    text.write_text('abcdefghijklmnopqrstuvwxyz' * 40)
    monkeypatch.syspath_prepend(str(repo_dir / 'tools'))
    monkeypatch.delitem(sys.modules, 'convert_lm', raising=False)
    import convert_lm

    out = tmp_path / 'hybrid'
    options = [str(file), '--layers', '1', '--out', str(out)]
    options += ['--calibration', str(text), '--calibration-tokens', '256']
    monkeypatch.setattr(sys, 'argv', ['convert_lm.py', *options])
    convert_lm.main()
    model, tokenizer = mmtransmamba.load(out), AutoTokenizer.from_pretrained(out)
    assert model.config.mamba_layers == [1]
    own = load_gguf_tokenizer(file)
    assert tokenizer.encode('abc') == own.encode('abc')
    assert model.generation_config.eos_token_id == 2


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no file .*none.gguf'):
        mmtransmamba.convert(tmp_path / 'none.gguf')
