"""Conversations in mmengine's Runner, and in several processes."""

import conversation_ranks
import pytest
import torch
from conversation_files import llava_row, write_images, write_json, write_processor
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from processes import spawn_ranks
from torch import nn


@pytest.fixture
def folder(tmp_path):
    names = write_images(tmp_path, 12)
    write_processor(tmp_path / 'processor')
    rows = [llava_row(i, name if i % 3 else None) for i, name in enumerate(names)]
    rows += [llava_row(1, 'gone.png'), llava_row(0, answer='')]
    write_json(tmp_path / 'rows.json', rows)
    return tmp_path


class Recorder(BaseModel):
    """Remembers what it was trained on."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen = []

    def forward(self, input_ids, mode, **inputs):
        self.seen.append(input_ids.tolist())
        return dict(loss=self.weight.sum())


def runner_of(folder, max_iters, dataset=None, **kwargs):
    dataset = dataset or dict(type='mmtransmamba.ConversationDataset')
    sampler = dict(type='mmtransmamba.LengthGroupedSampler', batch_size=2)
    collate = dict(type='mmtransmamba.collate_conversations')
    if dataset['type'].endswith('Stream'):
        sampler = None
        collate = dict(type='mmtransmamba.pack_conversations', length=128)
    return Runner(
        model=Recorder(),
        work_dir=str(folder / 'run'),
        train_dataloader=dict(
            batch_size=2,
            num_workers=1,
            sampler=sampler,
            collate_fn=collate,
            dataset=dict(
                files=str(folder / 'rows.json'),
                processor=str(folder / 'processor'),
                max_bad=0.5,
                **dataset,
            ),
        ),
        train_cfg=dict(by_epoch=False, max_iters=max_iters),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=3)
        ),
        custom_hooks=[dict(type='mmtransmamba.BadSamplesHook')],
        randomness=dict(seed=4),
        experiment_name=f'{folder.name}-{max_iters}-{len(kwargs)}',
        **kwargs,
    )


def test_resumed_run_sees_the_rest(folder):
    with DefaultScope.overwrite_default_scope('mmengine'):
        whole = runner_of(folder, 8)
        whole.train()
        log = next((folder / 'run').rglob('*.log')).read_text()
        assert '2 of 14 samples are bad (1 empty answer, 1 missing image)' in log
        first = runner_of(folder, 3)
        first.train()
        rest = runner_of(
            folder, 8, resume=True, load_from=str(folder / 'run' / 'iter_3.pth')
        )
        rest.train()
    assert first.model.seen == whole.model.seen[:3]
    assert rest.model.seen == whole.model.seen[3:]


def test_a_stream_in_runs(folder):
    """It has no end, which mmengine's hooks have to bear."""
    stream = dict(
        type='mmtransmamba.ConversationStream', shuffle_buffer=4, pack_length=128
    )
    with DefaultScope.overwrite_default_scope('mmengine'):
        whole = runner_of(folder, 8, stream)
        whole.train()
        first = runner_of(folder, 3, stream)
        first.train()
        checkpoint = str(folder / 'run' / 'iter_3.pth')
        rest = runner_of(folder, 8, stream, resume=True, load_from=checkpoint)
        rest.train()
    assert first.model.seen == whole.model.seen[:3]
    assert len(rest.model.seen) == 5 and rest.model.seen == whole.model.seen[3:]


def test_processes(folder):
    spawn_ranks(conversation_ranks.run, 2, str(folder))
    one, other = (torch.load(folder / f'{rank}.pth') for rank in range(2))
    assert sorted({*one['order'], *other['order']}) == list(range(14))
    assert not set(one['order'][:2]) & set(other['order'][:2])
    # Each batch has images in both, or in none.
    assert one['images'] == other['images']
    assert set(one['images']) == {0, 2}
    # Each has met its own bad samples, and both tell of all.
    assert max(one['own'], other['own']) <= 2
    assert (
        one['report']
        == other['report']
        == (
            'ConversationDataset of rows.json: 2 of 14 samples are bad '
            '(1 empty answer, 1 missing image).'
        )
    )
    assert len(list((folder / '.index').iterdir())) == 1
