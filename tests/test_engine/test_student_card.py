"""What a training adds to the model card."""

from types import SimpleNamespace

import pytest
from mmengine.config import Config

from mmtransmamba.engine.hooks.student_card import trained_facts
from mmtransmamba.models.card import CardFacts

TEXT = dict(type='mmtransmamba.PackedText', files='data/text/train/*.jsonl')
FILES = ['a/x.json', dict(file='b/y.json', ratio=0.5)]


def runner_of(dataset, **scalars):
    buffers = {k: SimpleNamespace(current=lambda v=v: v) for k, v in scalars.items()}
    return SimpleNamespace(
        cfg=Config(dict(train_dataloader=dict(dataset=dataset))),
        message_hub=SimpleNamespace(log_scalars=buffers),
    )


@pytest.mark.parametrize(
    'dataset, named',
    [
        (TEXT, '`*.jsonl`'),
        (dict(type='Slice', dataset=TEXT), '`*.jsonl`'),
        (dict(type='ConcatDataset', datasets=[TEXT, TEXT]), '`*.jsonl`'),
        (dict(type='ConversationDataset', files=FILES), '`x.json`, `y.json`'),
        (dict(type='ConversationDataset', files=FILES[1]), '`y.json`'),
        (dict(type='C', ann_file='train.json', data_root='data'), '`train.json`'),
        (dict(type='ImagenetteShards', ann_file='', data_root='d/i96'), '`i96`'),
        (dict(type='mmtransmamba.MQARTokens', pairs=4), 'MQARTokens'),
    ],
)
def test_data_are_named_by_their_files(dataset, named):
    facts = trained_facts(runner_of(dataset), object(), None, 'stage2')
    assert facts.rows == {'data of stage2': named}


def test_only_the_last_validation_is_kept():
    before = {'token/kl': '2 (last validation)', 'inherited': '9 %', 'old': '1'}
    model = SimpleNamespace(card=CardFacts('teacher', before))
    runner = runner_of(TEXT, **{'val/token/kl': 0.25, 'val/time': 3.0, 'loss': 1.0})
    facts = trained_facts(runner, model, None, 'matvlm')
    assert facts.teacher == 'teacher'
    assert facts.rows == {
        'inherited': '9 %',
        'old': '1',
        'data of matvlm': '`*.jsonl`',
        'token/kl': '0.25 (last validation)',
    }
