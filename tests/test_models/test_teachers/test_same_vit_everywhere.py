"""One set of weights, loaded through three libraries, is one and the same teacher."""

import pytest
import timm
import torch
from tiny_teachers import (
    HF_DISTILLED,
    HF_VIT,
    IMAGE_SIZE,
    MM_DISTILLED,
    MM_VIT,
    NORMALISATION,
    TIMM_DISTILLED,
    TIMM_VIT,
)

from mmtransmamba.registry import MODELS

MODELS_OF = {
    'vit': (TIMM_VIT, MM_VIT, HF_VIT),
    'distilled': (TIMM_DISTILLED, MM_DISTILLED, HF_DISTILLED),
}


@pytest.fixture(scope='module', params=MODELS_OF)
def teachers(request, tmp_path_factory):
    in_timm, in_mmpretrain, in_transformers = MODELS_OF[request.param]
    torch.manual_seed(0)
    source = timm.create_model(**in_timm)
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    file = tmp_path_factory.mktemp(request.param) / 'deit.pth'
    torch.save({'model': source.state_dict()}, file)
    configs = [
        dict(type='TimmTeacher', checkpoint='random', model=in_timm, **NORMALISATION),
        dict(type='MMPretrainTeacher', checkpoint='random', model=in_mmpretrain),
        dict(
            type='TransformersTeacher',
            checkpoint='random',
            model=in_transformers,
            **NORMALISATION,
        ),
    ]
    built = [
        MODELS.build(
            {**c, 'type': f'mmtransmamba.{c["type"]}', 'checkpoint': str(file)}
        )
        for c in configs
    ]
    return source, built


def test_outputs_agree(teachers):
    source, built = teachers
    images = torch.rand(2, 3, IMAGE_SIZE, IMAGE_SIZE) * 255
    mean, std = (torch.tensor(NORMALISATION[k]).view(3, 1, 1) for k in ('mean', 'std'))
    with torch.no_grad():
        logits = source.eval()((images - mean) / std)
    first = built[0](images)
    for teacher in built:
        output = teacher(images)
        assert teacher.num_layers == len(output.layers) == 3
        torch.testing.assert_close(output.logits, logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(output.feature, first.feature, atol=1e-4, rtol=1e-4)
        for layer, expected in zip(output.layers, first.layers, strict=True):
            assert layer.grid == (4, 4)
            torch.testing.assert_close(
                layer.tokens, expected.tokens, atol=1e-4, rtol=1e-4
            )
            torch.testing.assert_close(layer.cls, expected.cls, atol=1e-4, rtol=1e-4)


def test_canonical_weights_are_the_same(teachers):
    source, built = teachers
    expected = source.state_dict()
    for teacher in built:
        canonical = teacher.canonical_state_dict()
        assert canonical.keys() == expected.keys()
        assert all(torch.equal(canonical[key], expected[key]) for key in expected)
