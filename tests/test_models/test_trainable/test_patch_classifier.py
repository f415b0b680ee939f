"""A vision tower that learns what its patches show."""

import json

import pytest
import torch
from mmengine.runner import Runner
from tiny_encoders import images, tiny_encoder

from mmtransmamba.datasets.shapes_vqa import words
from mmtransmamba.datasets.vqa_start import write_start
from mmtransmamba.models.folders import assemble_llava
from mmtransmamba.models.trainable import PatchClassifier
from mmtransmamba.visualization import read_scalars

TOWER = dict(
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=36,
    patch_size=12,
    initializer_range=0.1,
)


@pytest.fixture(scope='module')
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp('start')
    write_start(folder, words(), 36, 12, hidden_size=16, intermediate_size=24, seed=1)
    return str(folder)


def test_learns_which_patch_shows_what():
    torch.manual_seed(0)
    model = PatchClassifier(3, TOWER)
    images = torch.zeros(8, 3, 36, 36)
    labels = torch.randint(0, 3, (8, 9))
    for image, classes in zip(images, labels, strict=True):
        for cell, number in enumerate(classes.tolist()):
            row, column = divmod(cell, 3)
            place = (
                slice(12 * row, 12 * row + 12),
                slice(12 * column, 12 * column + 12),
            )
            image[(number, *place)] = 1
    assert model(images).shape == (8, 9, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(60):
        losses = model(images, labels, mode='loss')
        optimizer.zero_grad()
        losses['loss'].backward()
        optimizer.step()
    assert losses['accuracy'] == 100
    # LLaVA takes the last layer but one: the last one learns nothing.
    last = model.tower.state_dict(keep_vars=True)
    assert all(
        (value.grad is None) == (key.startswith('encoder.layers.1.') or 'post' in key)
        for key, value in last.items()
        if isinstance(value, torch.nn.Parameter)
    )


def test_runner_saves_the_tower_for_a_llava(start, tmp_path):
    cfg = dict(
        type='mmtransmamba.ShapesCells', processor=start, num_scenes=4, split='train'
    )
    Runner(
        model=dict(
            type='mmtransmamba.PatchClassifier',
            config=TOWER,
            num_classes=25,
            processor=start,
        ),
        work_dir=str(tmp_path),
        train_dataloader=dict(
            batch_size=4,
            dataset=cfg,
            sampler=dict(type='InfiniteSampler'),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        custom_hooks=[dict(type='mmtransmamba.SaveStudentHook', folder='model')],
        log_processor=dict(by_epoch=False),
        default_scope='mmengine',
        experiment_name=tmp_path.name,
        log_level='WARNING',
    ).train()
    # Curves of a loop over iterations.
    assert [time for time, _ in read_scalars(tmp_path).loss] == [1, 2]
    model, processor = assemble_llava(tmp_path / 'model', start)
    assert json.loads((tmp_path / 'model/config.json').read_text())['patch_size'] == 12
    # The start's own chat template.
    messages = [dict(role='user', content='Is there a ring?')]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    tokens = processor.tokenizer.tokenize(text)
    assert tokens == ['<s>', 'USER:', 'is', 'there', 'a', 'ring', '?', 'ASSISTANT:']
    assert model.config.image_token_index == processor.image_token_id == 4


@pytest.fixture(scope='module')
def towers(tmp_path_factory):
    root = tmp_path_factory.mktemp('towers')
    for name in ('CLIPVisionModel', 'CLIPVisionModelWithProjection', 'ViTModel'):
        tiny_encoder(name).save_pretrained(root / name)
    return root


def test_a_trained_tower_is_converted_and_trained_again(towers):
    path = str(towers / 'CLIPVisionModel')
    model = PatchClassifier(3, path=path, convert=dict(init='mimic'))
    assert model.tower.config.layer_types == ['linear_attention'] * 2
    original = tiny_encoder('CLIPVisionModel').state_dict()
    kept = model.tower.state_dict()
    for name in ('embeddings.class_embedding', 'encoder.layers.1.mlp.fc1.weight'):
        assert torch.equal(kept[name], original[name])
    losses = model(images(), torch.zeros(2, 16, dtype=torch.long), mode='loss')
    losses['loss'].backward()
    assert model.tower.encoder.layers[0].self_attn.x_proj.weight.grad.abs().sum() > 0
    unchanged = PatchClassifier(3, path=path).tower
    assert all(torch.equal(v, original[k]) for k, v in unchanged.state_dict().items())


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(config=None), 'give either path, a folder, or config'),
        (dict(config=TOWER, path='CLIPVisionModel'), 'give either path'),
        (dict(config=TOWER, convert={}), 'convert needs a trained tower'),
        (dict(config=None, path='ViTModel'), 'is a ViTModel; accepted is'),
        (
            dict(config=None, path='CLIPVisionModelWithProjection', convert={}),
            'is a HybridCLIPVisionModelWithProjection; accepted is',
        ),
    ],
)
def test_towers_that_do_not_fit_are_named(options, message, towers):
    if 'path' in options:
        options = options | dict(path=str(towers / options['path']))
    with pytest.raises(ValueError, match=message):
        PatchClassifier(num_classes=3, **options)
