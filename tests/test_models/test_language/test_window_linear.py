"""A window beside a linear mixer: the sum of both, with a state in one piece."""

import pytest
import torch
from sequence_contract import check_sequences
from tiny_decoders import tiny_teacher, tokens
from torch.nn import functional as F

from mmtransmamba.models.language.mixers.fields import fields_of, mixer_class
from mmtransmamba.transfer.convert import convert

MIXERS = ('WindowMamba2', 'WindowGatedDeltaNet', 'WindowKDA')
each = pytest.mark.parametrize('mixer', MIXERS)


def converted(mixer, layers=(0, 2), family='llama', init='vkq', **fields):
    fields = dict(type=mixer, window=3, sinks=1) | fields
    teacher = tiny_teacher(family)
    return convert(teacher, list(layers), init=init, mixer=fields)[0]


def alone(model, mixer):
    """A mixer of another type with the same weights."""
    own = model.model.layers[0].self_attn
    kind = mixer_class(mixer)
    fields = {k: v for k, v in model.config.mixer.items() if k in fields_of(kind)}
    other = kind(model.config, 0, **fields).eval()
    names = dict(x_proj='v_proj', B_proj='k_proj', C_proj='q_proj')
    state = own.state_dict()
    if mixer == 'SlidingWindow':
        state |= {
            f'{new}.weight': state[f'{old}.weight']
            for old, new in names.items()
            if f'{old}.weight' in state
        }
    other.load_state_dict({n: state[n] for n in other.state_dict()})
    return other


@each
def test_the_output_is_the_sum_of_both_mixers(mixer):
    model = converted(mixer)
    own = model.model.layers[0].self_attn
    hidden = torch.randn(2, 11, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        linear = alone(model, mixer.removeprefix('Window'))(hidden)[0]
        window = alone(model, 'SlidingWindow')(hidden)[0]
        torch.testing.assert_close(
            own(hidden)[0], linear + window, rtol=1e-4, atol=1e-5
        )
        norms = [y.norm(dim=-1) for y in (linear, window)]
    expected = (norms[0] / sum(norms)).mean()
    assert own.branch_share(hidden) == pytest.approx(float(expected), rel=1e-3)
    assert own.watched is None


@each
@pytest.mark.parametrize('layers', [(0, 2), (0, 1, 2)], ids=['mixed', 'pure'])
@pytest.mark.parametrize('rope', [False, True])
def test_pieces_padding_and_packing_change_nothing(mixer, layers, rope):
    rope = rope and mixer != 'WindowKDA'  # which refuses it
    model = converted(mixer, layers, 'qwen3', rope=rope)
    check_sequences(model, tokens(2, 14), (2, 6, 1, 1, 4))


@each
def test_it_generates_saves_loads_and_learns(mixer, tmp_path):
    model = converted(mixer, (0, 1, 2), 'llama', 'mimic')
    model.save_pretrained(tmp_path)
    model = type(model).from_pretrained(tmp_path).eval()
    prompt = tokens(2, 6)
    options = dict(max_new_tokens=5, do_sample=False)
    expected = model.generate(prompt, use_cache=False, **options)[:, 6:]
    ids, mask = F.pad(prompt, (3, 0)), F.pad(torch.ones_like(prompt), (3, 0))
    padded = model.generate(ids, attention_mask=mask, **options)[:, 9:]
    assert torch.equal(padded, expected)
    beams = model.generate(prompt, num_beams=2, **options)[:, 6:]
    plain = model.generate(prompt, num_beams=2, use_cache=False, **options)[:, 6:]
    assert torch.equal(beams, plain)
    model.train()(prompt, labels=prompt).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


@pytest.mark.parametrize('mixer', ['WindowGatedDeltaNet', 'WindowKDA'])
def test_a_closed_gate_leaves_the_attention_within_the_window(mixer):
    teacher = tiny_teacher()
    fields = dict(type=mixer, window=16, sinks=1)
    model, _ = convert(teacher, [0, 1, 2], init='mimic', mixer=fields)
    ids = tokens(2, 12)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.norm.weight.zero_()
            assert layer.self_attn.branch_share(torch.ones(1, 3, 32)) == 0
        torch.testing.assert_close(model(ids).logits, teacher(ids).logits)


@each
def test_fields_are_those_of_both(mixer):
    linear = fields_of(mixer_class(mixer.removeprefix('Window')))
    fields = fields_of(mixer_class(mixer))
    assert fields == dict(window=64, sinks=4) | linear
    with pytest.raises(ValueError, match='window=0 of Window.* positive integer'):
        converted(mixer, window=0)
    with pytest.raises(
        ValueError, match='has no field .widow.; it takes window, sinks'
    ):
        converted(mixer, widow=3)
