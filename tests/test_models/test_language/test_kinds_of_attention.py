"""The attention that is left is the Transformer's own, its sliding window included."""

import pytest
import torch
from tiny_decoders import FAMILIES, SIZES, tiny_teacher
from transformers import AutoConfig

from mmtransmamba.models.language import ATTENTION, HYBRIDS, MAMBA

WINDOW = dict(
    mistral=[dict(), dict(sliding_window=3), dict(sliding_window=None)],
    qwen2=[
        dict(),
        dict(use_sliding_window=True, sliding_window=3, max_window_layers=1),
        dict(use_sliding_window=True, sliding_window=3, max_window_layers=0),
        dict(use_sliding_window=False, sliding_window=3),
    ],
    llama=[dict()],
    phi=[dict()],
)
WINDOW['qwen3'] = WINDOW['qwen2']
CASES = [(family, fields) for family in HYBRIDS for fields in WINDOW[family]]


@pytest.mark.parametrize('implementation', ['eager', 'sdpa'])
@pytest.mark.parametrize('family, fields', CASES)
def test_a_hybrid_without_mamba_layers_is_the_transformer(
    family, fields, implementation
):
    """Also where rows are padded, and step by step."""
    # The families' own defaults, those of the tiny models left out.
    own = {k: v for k, v in FAMILIES[family].items() if k != 'sliding_window'}
    fields = SIZES | own | fields | dict(attn_implementation=implementation)
    teacher = tiny_teacher(family, **({'sliding_window': 4096} | fields))
    config = HYBRIDS[family][0](**fields)
    hybrid = HYBRIDS[family][2](config).eval()
    hybrid.load_state_dict(teacher.state_dict())
    ids = torch.randint(3, 61, (2, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    how = dict(max_new_tokens=3, min_new_tokens=3, do_sample=False)
    with torch.no_grad():
        for rows in (torch.ones_like(ids), mask):
            expected = teacher(ids, attention_mask=rows).logits
            actual = hybrid(ids, attention_mask=rows).logits
            torch.testing.assert_close(actual[rows == 1], expected[rows == 1])
            assert torch.equal(
                hybrid.generate(ids, attention_mask=rows, **how),
                teacher.generate(ids, attention_mask=rows, **how),
            )


@pytest.mark.parametrize('family, fields', CASES)
def test_the_default_is_the_transformers_kind(family, fields):
    parent = AutoConfig.for_model(family, **SIZES | fields)
    kinds = getattr(parent, 'layer_types', None)
    if kinds is None:
        window = getattr(parent, 'sliding_window', None)
        kinds = ['full_attention' if window is None else 'sliding_attention'] * 3
    config = HYBRIDS[family][0](**SIZES | fields)
    assert config.layer_types == kinds
    assert HYBRIDS[family][0](**config.to_dict()).to_dict() == config.to_dict()


def test_full_attention_does_not_slide(make_hybrid):
    """Whatever implementation of attention, whether rows are padded or not."""
    kinds = [ATTENTION, MAMBA, ATTENTION]
    outputs = []
    ids = torch.randint(3, 61, (1, 9), generator=torch.Generator().manual_seed(1))
    padded = torch.cat((torch.zeros_like(ids[:, :3]), ids), dim=1)
    mask = torch.tensor([[0] * 3 + [1] * 9])
    for implementation in ('eager', 'sdpa'):
        model = make_hybrid(
            'mistral',
            layer_types=kinds,
            sliding_window=2,
            attn_implementation=implementation,
        )
        assert model.config.sliding_window is None
        with torch.no_grad():
            outputs.append(model(ids).logits)
            outputs.append(model(padded, attention_mask=mask).logits[:, 3:])
    for other in outputs[1:]:
        torch.testing.assert_close(other, outputs[0], rtol=1e-4, atol=1e-4)


def test_a_pure_models_window_is_kept():
    config = HYBRIDS['mistral'][0](**SIZES, layer_types=[MAMBA] * 3)
    assert config.sliding_window == 4096


@pytest.mark.parametrize(
    'family, fields, message',
    [
        ('llama', {}, 'layer_types has sliding_attention, but a hybrid_llama has'),
        ('phi', {}, 'layer_types has sliding_attention, but a hybrid_phi has'),
        ('mistral', dict(sliding_window=None), 'which needs sliding_window.'),
        ('qwen2', {}, 'which needs sliding_window and use_sliding_window=True'),
        ('qwen3', {}, 'which needs sliding_window and use_sliding_window=True'),
    ],
)
def test_a_window_that_is_not_there_is_refused(family, fields, message):
    kinds = ['sliding_attention', MAMBA, 'sliding_attention']
    with pytest.raises(ValueError, match=message):
        HYBRIDS[family][0](**SIZES | fields | dict(layer_types=kinds))
