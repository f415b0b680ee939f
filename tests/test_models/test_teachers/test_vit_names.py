import pytest
import timm
import torch
from tiny_teachers import HF_DISTILLED, HF_SIZES, MM_DISTILLED, TIMM_DISTILLED

from mmtransmamba.models.teachers.mmpretrain_teacher import _build as build_mmpretrain
from mmtransmamba.models.teachers.transformers_teacher import _from_config
from mmtransmamba.models.teachers.vit_names import (
    canonical_names,
    from_canonical,
    to_canonical,
)


def timm_state(**kwargs):
    return timm.create_model(**{**TIMM_DISTILLED, **kwargs}).state_dict()


def states():
    return {
        'timm': timm_state(),
        'mmpretrain': build_mmpretrain(MM_DISTILLED).state_dict(),
        'transformers': _from_config(HF_DISTILLED).state_dict(),
    }


def test_the_libraries_have_the_same_canonical_names_and_shapes():
    shapes = [
        {name: tuple(t.shape) for name, t in to_canonical(state).items()}
        for state in states().values()
    ]
    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize('library', ['timm', 'mmpretrain', 'transformers'])
def test_round_trip(library):
    state = states()[library]
    back = from_canonical(to_canonical(state), state)
    assert list(back) == [key for key in state if key in back]
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_canonical_names_are_timms():
    state = timm_state()
    assert to_canonical(state).keys() == state.keys()


@pytest.mark.parametrize(
    'config',
    [
        dict(model_type='dinov2', num_labels=3, **HF_SIZES),
        dict(model_type='dinov2_with_registers', num_labels=3, **HF_SIZES),
        dict(model_type='clip_vision_model', **HF_SIZES),
        dict(model_type='vit', **HF_SIZES),
    ],
    ids=lambda config: config['model_type'],
)
def test_other_vits_of_transformers(config):
    state = _from_config(config).state_dict()
    canonical = to_canonical(state)
    assert canonical['cls_token'].shape == (1, 1, 32)
    assert canonical['pos_embed'].shape == (1, 17, 32)
    assert canonical['blocks.2.attn.qkv.weight'].shape == (96, 32)
    back = from_canonical(canonical, state)
    assert all(torch.equal(back[key], state[key]) for key in back)
    assert {k for k in state if k not in back} <= {
        k for k in state if 'pooler' in k or 'mask_token' in k
    }


def test_names_of_hub_files_are_known(tmp_path):
    """Files keep the older names that transformers renames when it loads them."""
    from safetensors.torch import load_file

    model = _from_config(dict(model_type='vit', num_labels=3, **HF_SIZES))
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / 'model.safetensors')
    canonical = to_canonical(model.state_dict())
    assert to_canonical(stored).keys() == canonical.keys()
    assert all(torch.equal(t, canonical[k]) for k, t in to_canonical(stored).items())
    old = 'vit.encoder.layer.1.attention.attention.key.weight'
    assert canonical_names([old]) == {old: ('blocks.1.attn.qkv.weight', 1)}


def test_what_the_other_model_lacks_keeps_its_canonical_name():
    plain = timm_state(model_name='vit_tiny_patch16_224')
    given = from_canonical(to_canonical(timm_state()), plain)
    assert set(given) - set(plain) == {
        'dist_token',
        'head_dist.weight',
        'head_dist.bias',
    }


def test_other_models_are_refused():
    swin = timm.create_model('swin_tiny_patch4_window7_224').state_dict()
    with pytest.raises(ValueError, match='not the weights of a plain ViT.*layers.0'):
        to_canonical(swin)
    with pytest.raises(ValueError, match='0 of 0'):
        canonical_names([])
    with pytest.raises(ValueError, match='only 1 of its 3 parts'):
        to_canonical({'layers.0.attention.k_proj.weight': torch.ones(2, 2)})
