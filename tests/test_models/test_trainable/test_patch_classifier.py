"""A vision tower that learns what its patches show."""

import json

import pytest
import torch
from mmengine.runner import Runner

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
    model = PatchClassifier(TOWER, num_classes=3)
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
