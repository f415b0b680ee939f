"""Conversations from files, by their number."""

import functools
import json
import pickle

import numpy as np
import pytest
import torch
from conversation_files import (
    llava_row,
    write_images,
    write_json,
    write_jsonl,
    write_processor,
)
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from tiny_vlms import tiny_tokenizer
from torch.utils.data import DataLoader
from transformers import CLIPImageProcessor

from mmtransmamba.datasets.conversations import (
    BadSampleError,
    Conversation,
    ConversationDataset,
    Turn,
    bad_samples,
    collate_conversations,
    load_processor,
)
from mmtransmamba.datasets.conversations.formats import FORMATS
from mmtransmamba.engine.hooks import BadSamplesHook

CORRUPT = ['broken.png', 'gone.png']


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path / 'images', 8)
    (tmp_path / 'images' / 'broken.png').write_bytes(b'no image')
    write_processor(tmp_path / 'processor')
    return tmp_path


def rows_with(images, bad=()):
    rows = [llava_row(i, image) for i, image in enumerate(images)]
    return rows + list(bad)


def dataset_of(folder, rows, **kwargs):
    return ConversationDataset(
        write_json(folder / 'rows.json', rows),
        str(folder / 'processor'),
        image_root=str(folder / 'images'),
        **kwargs,
    )


def text_of(sample, key='input_ids'):
    ids = sample[key]
    return tiny_tokenizer().decode(ids[ids >= 0])


# --------------------------------------------------------------------- to learn


def test_samples(folder):
    dataset = dataset_of(folder, rows_with(['3.png', None, '5.png']))
    assert len(dataset) == 3
    sample = dataset[0]
    assert text_of(sample) == (
        f'<s>USER: {"<image>" * 4}\nIs it red? ASSISTANT: Yes</s>'
    )
    assert text_of(sample, 'labels') == 'Yes</s>'
    assert sample['pixel_values'].shape == (1, 3, 16, 16)
    assert 'pixel_values' not in dataset[1]
    assert dataset.lengths().tolist() == [5, 5, 7]
    assert dataset.with_image().tolist() == [True, False, True]
    red = dataset[2]['pixel_values'][0, 0].mean() - sample['pixel_values'][0, 0].mean()
    assert red > 0
    for index in (-1, 3):
        with pytest.raises(IndexError, match='of 3'):
            dataset[index]


def test_from_a_config(folder):
    config = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='mmtransmamba.collate_conversations', pad_token=0),
        dataset=dict(
            type='mmtransmamba.ConversationDataset',
            files=write_json(folder / 'x.json', rows_with(['1.png', None])),
            processor=str(folder / 'processor'),
            image_root=str(folder / 'images'),
        ),
    )
    with DefaultScope.overwrite_default_scope('mmengine'):
        batch = next(iter(Runner.build_dataloader(config, seed=0)))
    assert batch['input_ids'].shape == batch['labels'].shape
    assert batch['pixel_values'].shape == (1, 3, 16, 16)
    assert batch['attention_mask'].sum(1).tolist() == [
        len('0USER: 1234\nIs it red? ASSISTANT: Yes0'),
        len('0USER: Is it very red? ASSISTANT: Yes0'),
    ]


def test_workers_and_copies_give_the_same(folder):
    dataset = dataset_of(folder, rows_with([f'{i}.png' for i in range(8)]))
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.encoder._processor is None
    batches = [
        list(DataLoader(each, 3, num_workers=n, collate_fn=collate_conversations))
        for each, n in ((dataset, 0), (dataset, 2), (copy, 0))
    ]
    for other in batches[1:]:
        for one, two in zip(batches[0], other, strict=True):
            assert one.keys() == two.keys()
            for key in one:
                assert torch.equal(one[key], two[key])


def test_processor_is_built_when_needed(folder):
    dataset = dataset_of(folder, rows_with([None]))
    assert dataset.encoder._processor is None
    assert dataset[0]['length'] > 0
    assert dataset.processor is dataset.processor
    with pytest.raises(FileNotFoundError, match='with a processor or tokenizer'):
        ConversationDataset(str(folder / 'rows.json'), str(folder / 'none'))


def test_a_folder_without_tokenizer_is_named(tmp_path):
    CLIPImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match='has a CLIPImageProcessor.* but no tokenizer'):
        load_processor(tmp_path)


def test_options_of_encoding(folder):
    rows = [
        dict(
            image='1.png',
            conversations=[
                {'from': 'human', 'value': 'Red?\n<image>'},
                {'from': 'gpt', 'value': 'Yes'},
            ],
        )
    ]
    image = '<image>' * 4
    assert f'Red?\n{image} ' in text_of(dataset_of(folder, rows)[0])
    dataset = dataset_of(
        folder, rows, image_place='first', system='Be brief.', template='llava_v1'
    )
    assert text_of(dataset[0]) == (f'Be brief. USER: {image}\nRed? ASSISTANT: Yes</s>')
    assert dataset.conversation(0).turns[0] == Turn('user', 'Red?\n<image>')
    assert dataset_of(folder, rows, max_length=30)[0]['length'] == 30
    with pytest.raises(ValueError, match="'as written' or 'first'"):
        dataset_of(folder, rows, image_place='last')
    with pytest.raises(ValueError, match="'cut' or 'skip'"):
        dataset_of(folder, rows, too_long='never')
    with pytest.raises(TypeError, match='max_len'):
        dataset_of(folder, rows, max_len=3)


# ---------------------------------------------------------------------- formats


COT = (
    '<SUMMARY> s </SUMMARY>\n\n<CAPTION> c </CAPTION>\n\n<REASONING> r </REASONING>'
    '\n\n<CONCLUSION> B </CONCLUSION>'
)
SAID = [Turn('user', '<image>\nQ?'), Turn('assistant', 'A')]


@pytest.mark.parametrize(
    'format, row, expected',
    [
        (
            'llava',
            dict(
                id=7,
                image='1.png',
                conversations=[
                    {'from': 'human', 'value': '<image>\nQ?'},
                    {'from': 'gpt', 'value': 'A'},
                ],
            ),
            Conversation(SAID, ['1.png'], '7'),
        ),
        (
            'sharegpt4v',
            dict(
                id='x',
                image='sam/images/sa_1.jpg',
                conversations=[
                    {'from': 'human', 'value': 'Q?\n<image>'},
                    {'from': 'gpt', 'value': 'A'},
                ],
            ),
            Conversation(
                [Turn('user', 'Q?\n<image>'), SAID[1]], ['sam/images/sa_1.jpg'], 'x'
            ),
        ),
        (
            'llava',
            dict(
                conversations=[
                    {'from': 'system', 'value': 'S'},
                    {'from': 'gpt', 'value': 'Hello!'},
                    {'from': 'human', 'value': 'Q?'},
                    {'from': 'gpt', 'value': 'A'},
                ],
            ),
            Conversation([Turn('system', 'S'), Turn('user', 'Q?'), SAID[1]]),
        ),
        (
            'llava_cot',
            dict(
                id='c',
                image='chartqa/1.png',
                conversations=[
                    {'from': 'human', 'value': 'Q?'},
                    {'from': 'gpt', 'value': COT},
                ],
            ),
            Conversation([SAID[0], Turn('assistant', COT)], ['chartqa/1.png'], 'c'),
        ),
        (
            'messages',
            dict(
                id='m',
                images=['1.png', '2.png'],
                messages=[
                    dict(role='user', content='Q?'),
                    dict(role='assistant', content='A'),
                ],
            ),
            Conversation(
                [Turn('user', '<image>\n<image>\nQ?'), SAID[1]],
                ['1.png', '2.png'],
                'm',
            ),
        ),
        (
            'messages',
            dict(
                messages=[
                    dict(
                        role='user',
                        content=[
                            dict(type='text', text='Q '),
                            dict(type='image', path='1.png'),
                            dict(type='text', text='?'),
                        ],
                    ),
                    dict(role='assistant', content=[dict(type='text', text='A')]),
                ],
            ),
            Conversation([Turn('user', 'Q <image>?'), SAID[1]], ['1.png']),
        ),
        (
            'question',
            dict(question_id=3, question='Q?', answer='A', image='1.png'),
            Conversation(SAID, ['1.png'], '3'),
        ),
        (
            'question',
            dict(question='Q?'),
            Conversation([Turn('user', 'Q?')]),
        ),
    ],
)
def test_formats(format, row, expected):
    assert FORMATS[format](row) == expected


def _parts(*parts):
    return dict(role='user', content=list(parts))


def test_a_null_is_as_absent():
    """As Arrow and pandas write rows that lack a field."""
    text = dict(type='text', text='What?', path=None)
    row = dict(messages=[_parts(dict(type='image', text=None, path=None), text)])
    row |= dict(images=None, image='1.png')
    found = FORMATS['messages'](row)
    assert found == Conversation([Turn('user', '<image>What?')], ['1.png'])
    for row in (dict(images=None, image='1.png'), dict(images=['1.png'], image=None)):
        found = FORMATS['question'](dict(question='Q?', answer=None, **row))
        assert found == Conversation([Turn('user', '<image>\nQ?')], ['1.png'])


@pytest.mark.parametrize(
    'format, row, reason',
    [
        ('llava', dict(id=1), 'malformed turns'),
        ('llava', dict(conversations=[]), 'malformed turns'),
        ('llava', dict(conversations=['text']), 'malformed turns'),
        ('llava', dict(conversations=[{'from': 'gpt'}]), 'malformed turns'),
        (
            'llava',
            dict(conversations=[{'from': 'robot', 'value': 'a'}]),
            'malformed turns',
        ),
        (
            'llava',
            dict(image=3, conversations=[{'from': 'human', 'value': 'a'}]),
            'missing image',
        ),
        ('messages', dict(messages=[dict(role='user')]), 'malformed turns'),
        (
            'messages',
            dict(messages=[dict(role='user', content=[dict(type='audio')])]),
            'malformed turns',
        ),
        ('question', dict(answer='A'), 'malformed turns'),
        # Half of an emoji is not text.
        ('question', dict(question='Q \ud83d', answer='A'), 'malformed turns'),
        ('question', dict(question='Q', answer='\ude00 A'), 'malformed turns'),
        (
            'llava',
            dict(conversations=[{'from': ['human'], 'value': 'a'}]),
            'malformed turns',
        ),
        (
            'messages',
            dict(messages=[_parts(dict(type='image', path={'a': 1}))]),
            'missing image',
        ),
    ],
)
def test_malformed_rows(format, row, reason):
    with pytest.raises(BadSampleError) as caught:
        FORMATS[format](row)
    assert caught.value.reason == reason


def own_format(row):
    return Conversation([Turn('user', row['q']), Turn('assistant', row['a'])])


class Callable:
    def __call__(self, row):
        return own_format(row)


def test_a_format_of_ones_own(folder):
    dataset = dataset_of(folder, [dict(q='Really?', a='Really.')], format=own_format)
    assert text_of(dataset[0], 'labels') == 'Really.</s>'
    assert dataset.lengths().tolist() == [2]
    row = [dict(q='Really?', a='Really.')]
    for own in (functools.partial(own_format), Callable()):
        assert len(dataset_of(folder, row, format=own)) == 1
    with pytest.raises(ValueError, match=r"one of \['llava', .*got 'qa'"):
        dataset_of(folder, [], format='qa')


# --------------------------------------------------------------------- mixtures


def test_mixture(folder):
    one = write_json(folder / 'one.json', rows_with([None] * 6))
    two = write_jsonl(folder / 'two.jsonl', [dict(question='Q?', answer='B')] * 3)
    three = write_jsonl(folder / 'three.jsonl', rows_with(['0.png'] * 4))
    dataset = ConversationDataset(
        [
            dict(file=one, ratio=0.5),
            dict(file=two, format='question', ratio=2),
            dict(file=three, image_root=str(folder / 'images'), num_samples=7),
        ],
        str(folder / 'processor'),
    )
    assert len(dataset) == 3 + 6 + 7
    ids = [dataset.conversation(i).id for i in range(len(dataset))]
    assert len(set(ids[:3])) == 3
    assert ids[9:13] == ['r0', 'r1', 'r2', 'r3']
    assert len(set(ids[13:])) == 3
    assert dataset.with_image().tolist() == [False] * 9 + [True] * 7
    assert [text_of(dataset[i], 'labels') for i in (0, 4, 15)] == [
        'Yes</s>',
        'B</s>',
        'Yes</s>',
    ]


def test_parts_depend_on_the_seed_alone(folder):
    file = write_json(folder / 'x.json', rows_with([None] * 20))

    def ids(seed):
        dataset = ConversationDataset(
            dict(file=file, ratio=0.4), str(folder / 'processor'), seed=seed
        )
        return [dataset.conversation(i).id for i in range(len(dataset))]

    assert len(ids(0)) == 8
    assert ids(0) == ids(0)
    assert ids(0) != ids(1)


def test_an_amount_is_that_of_all_files_of_its_pattern(folder):
    for shard in range(4):
        rows = [llava_row(10 * shard + i) for i in range(10)]
        write_jsonl(folder / f't{shard}.jsonl', rows)
    one = write_json(folder / 'one.json', rows_with([None] * 6))

    def ids(**amount):
        entries = [one, dict(file=str(folder / 't*.jsonl'), **amount), one]
        dataset = ConversationDataset(entries, str(folder / 'processor'))
        found = [dataset.conversation(i).id for i in range(len(dataset))]
        assert found[:6] == found[-6:] == [f'r{i}' for i in range(6)]
        return found[6:-6]

    everything = [f'r{i}' for i in range(40)]
    assert ids() == everything
    some = ids(num_samples=10)
    assert len(set(some)) == 10 and len({name[1:-1] for name in some}) > 1
    assert len(ids(ratio=0.25)) == 10 and len(ids(ratio=0.05)) == 2
    assert ids(num_samples=50)[:40] == everything
    with pytest.raises(ValueError, match=r"t0.*'ratio': 0.01.* none of its 40 rows"):
        ids(ratio=0.01)


def test_patterns(folder):
    for name in ('b.json', 'a.json'):
        write_json(folder / name, [llava_row(ord(name[0]))])
    dataset = ConversationDataset(str(folder / '*.json'), str(folder / 'processor'))
    assert [dataset.conversation(i).id for i in range(2)] == ['r97', 'r98']


@pytest.mark.parametrize(
    'files, error, message',
    [
        (dict(path='a.json'), ValueError, 'must have "file" and may have'),
        (dict(file='a.json', weight=2), ValueError, 'must have "file"'),
        (dict(file='a.json', ratio=0), ValueError, 'larger than 0'),
        (dict(file='a.json', ratio=1, num_samples=3), ValueError, 'give one of'),
        ('none-*.json', FileNotFoundError, 'no file of conversations "none-'),
        ([], ValueError, 'files is empty'),
    ],
)
def test_unusable_files(files, error, message, folder):
    with pytest.raises(error, match=message):
        ConversationDataset(files, str(folder / 'processor'))


def test_no_folder_of_images(folder):
    file = write_json(folder / 'x.json', rows_with([None]))
    with pytest.raises(FileNotFoundError, match=r'"nowhere" \(image_root\)'):
        ConversationDataset(file, str(folder / 'processor'), image_root='nowhere')


# ------------------------------------------------------------------ bad samples


BAD = {
    'missing image': llava_row(1, 'gone.png'),
    'corrupt image': llava_row(1, 'broken.png'),
    'malformed turns': dict(id='m', image='1.png'),
    'empty answer': llava_row(1, '1.png', answer=''),
    'image count': llava_row(1) | dict(image='1.png'),
    'too long': llava_row(200, '1.png'),
    'unreadable row': 'text',
}


def test_bad_samples_are_skipped_and_counted(folder):
    rows = rows_with(['1.png', None] * 6, bad=[row for row in BAD.values()])
    dataset = dataset_of(folder, rows, max_bad=0.5, max_length=200)
    loader = DataLoader(dataset, 4, num_workers=2, collate_fn=collate_conversations)
    for _ in range(2):  # a second epoch counts nothing twice
        batches = list(loader)
        assert sum(len(batch['labels']) for batch in batches) == len(rows)
        assert dataset.bad_samples.counts() == dict.fromkeys(BAD, 1)
    assert dataset.bad_samples.report() == (
        'ConversationDataset of rows.json: 7 of 19 samples are bad (1 unreadable row, '
        '1 malformed turns, 1 empty answer, 1 image count, 1 missing image, 1 corrupt '
        'image, 1 too long).'
    )


def test_stand_in_is_of_the_same_kind(folder):
    """Otherwise a batch without images could get one."""
    rows = [
        llava_row(0, 'gone.png'),
        llava_row(1),
        llava_row(2, '2.png'),
        llava_row(3, answer=' '),
    ]
    dataset = dataset_of(folder, rows, max_bad=0.5)
    assert text_of(dataset[0]) == text_of(dataset[2])
    assert text_of(dataset[3]) == text_of(dataset[1])
    assert dataset.bad_samples.counts() == {'missing image': 1, 'empty answer': 1}


def test_the_share_of_bad_samples_is_that_of_the_rows_that_are_used(folder):
    images = ['1.png', 'gone.png'] * 500
    file = write_jsonl(folder / 'rows.jsonl', rows_with(images))

    def dataset(count, **options):
        return ConversationDataset(
            dict(file=file, image_root=str(folder / 'images'), num_samples=count),
            str(folder / 'processor'),
            **options,
        )

    few = dataset(9)
    with pytest.raises(ValueError, match='1 of 9 samples are bad'):
        for index in range(9):
            few[index]
    # Neither is an evaluation on a part of the questions.
    with pytest.raises(ValueError, match='1 of 30 samples are bad'):
        dataset(30, prompts=True)
    assert dataset(9, max_bad=0.9).bad_samples.total == 9
    # Repetitions are no further rows.
    assert dataset(2500, max_bad=0.9).bad_samples.total == 1000


def test_none_of_the_kind_is_left(folder, monkeypatch):
    rows = [llava_row(0, 'gone.png'), llava_row(1), llava_row(2)]
    dataset = dataset_of(folder, rows, max_bad=0.9)

    def alone(*_):
        raise AssertionError('other processes are not here')

    monkeypatch.setattr(bad_samples, 'all_reduce', alone)
    with pytest.raises(ValueError, match='None is left with an image'):
        dataset[0]


def test_too_many_bad_samples(folder):
    rows = rows_with(['1.png'] * 9, bad=[BAD['missing image'], BAD['corrupt image']])
    dataset = dataset_of(folder, rows, max_bad=0.1)
    with pytest.raises(ValueError, match=r'2 of 11 .*at most 10.00% \(max_bad\)'):
        for index in range(len(dataset)):
            dataset[index]
    for max_bad in (-0.1, 1):
        with pytest.raises(ValueError, match=r'max_bad must be in \[0, 1\)'):
            dataset_of(folder, rows, max_bad=max_bad)


def test_few_messages_are_shown(folder, monkeypatch):
    shown = []
    monkeypatch.setattr(
        bad_samples, 'print_log', lambda text, *args: shown.append(text)
    )
    rows = rows_with(['1.png'] * 2, bad=[BAD['missing image']] * 9)
    dataset = dataset_of(folder, rows, max_bad=0.9)
    for i in range(len(dataset)):
        dataset[i]
    assert len(shown) == 5
    assert 'there is no file' in shown[0]
    assert shown[-1].endswith('(more of this reason are only counted)')
    assert dataset.bad_samples.counts() == {'missing image': 9}


def test_hook_reports_at_the_end_of_an_epoch(folder, monkeypatch):
    from mmtransmamba.engine.hooks import bad_samples as hook_module

    shown = []
    monkeypatch.setattr(
        hook_module, 'print_log', lambda text, *args: shown.append(text)
    )
    dataset = dataset_of(folder, rows_with(['gone.png', '1.png']), max_bad=0.5)
    dataset[0]

    class Wrapper:
        def __init__(self, *datasets):
            self.datasets = datasets

    class Loader:
        def __init__(self, dataset):
            self.dataset = dataset

    class FakeRunner:
        train_dataloader = Loader(Wrapper(dataset, [1, 2]))
        val_dataloader = Loader(dataset)
        test_dataloader = Loader([])

    hook = BadSamplesHook()
    hook.after_train_epoch(FakeRunner)
    hook.after_val_epoch(FakeRunner)
    hook.after_test_epoch(FakeRunner)
    report = '1 of 2 samples are bad (1 missing image).'
    assert shown == [f'ConversationDataset of rows.json: {report}'] * 2


# --------------------------------------------------------------------- to answer


def question(number, image='1.png', **fields):
    row = dict(question_id=number, question=f'How many {number}?', answer=str(number))
    return row | (dict(image=image) if image else {}) | fields


def test_prompts(folder):
    rows = [question(4, category='count'), question(15, None), question(6)]
    dataset = dataset_of(folder, rows, format='question', prompts=True)
    batch = collate_conversations([dataset[i] for i in range(3)])
    assert 'labels' not in batch
    assert batch['answers'] == ['4', '15', '6']
    assert batch['question_ids'] == ['4', '15', '6']
    assert batch['categories'] == ['count', '', '']
    decode = tiny_tokenizer().decode
    assert [decode(row) for row in batch['input_ids']] == [
        f'<s>USER: {"<image>" * 4}\nHow many 4? ASSISTANT: ',
        '<pad>' * 4 + '<s>USER: How many 15? ASSISTANT: ',
        f'<s>USER: {"<image>" * 4}\nHow many 6? ASSISTANT: ',
    ]
    assert batch['attention_mask'].argmax(1).tolist() == [0, 4, 0]
    assert batch['pixel_values'].shape == (2, 3, 16, 16)


def test_last_answer_is_asked_for(folder):
    said = [('human', '<image>\nA?'), ('gpt', 'a'), ('human', 'B?'), ('gpt', 'b')]
    row = dict(
        id='two',
        image='1.png',
        conversations=[{'from': who, 'value': words} for who, words in said],
    )
    sample = dataset_of(folder, [row], prompts=True)[0]
    assert text_of(sample).endswith('A? ASSISTANT: a</s>USER: B? ASSISTANT: ')
    assert (sample['answer'], sample['question_id']) == ('b', 'two')


def test_null_is_no_answer_and_no_category(folder):
    row = question(4) | dict(answer=None, category=None)
    sample = dataset_of(folder, [row], format='question', prompts=True)[0]
    assert (sample['answer'], sample['category']) == ('', '')


def test_bad_questions_are_left_out(folder):
    rows = [
        question(0),
        question(1, 'gone.png'),
        question(2, 'broken.png'),
        dict(answer='x'),
        question(4),
    ]
    kwargs = dict(format='question', prompts=True)
    dataset = dataset_of(folder, rows, max_bad=0.6, **kwargs)
    assert [dataset[i]['question_id'] for i in range(len(dataset))] == ['0', '4']
    assert dataset.bad_samples.counts() == {
        'missing image': 1,
        'corrupt image': 1,
        'malformed turns': 1,
    }
    with pytest.raises(ValueError, match='1 of 5 samples are bad'):
        dataset_of(folder, rows, **kwargs)


def test_question_whose_image_breaks_off(folder):
    """Only decoding detects it, and the sample must not be replaced."""
    path = folder / 'images' / '3.png'
    path.write_bytes(path.read_bytes()[:50])
    rows = [question(0, '3.png'), question(1)]
    dataset = dataset_of(folder, rows, format='question', prompts=True)
    with pytest.raises(ValueError, match='sample 0 cannot be asked: corrupt image'):
        dataset[0]


def test_lengths_are_those_of_the_samples(folder):
    """Words order samples as tokens do."""
    images = [f'{i}.png' for i in range(8)]
    dataset = dataset_of(folder, rows_with(images))
    tokens = [dataset[i]['length'] for i in range(8)]
    assert np.argsort(tokens).tolist() == np.argsort(dataset.lengths()).tolist()


def test_rows_are_read_as_they_are_written(folder):
    """The whole way from a file with characters of several bytes."""
    rows = [llava_row(0, answer='Größe: 猫'), llava_row(1, answer='Yes.')]
    for write in (write_json, write_jsonl):
        file = write(folder / 'x.json', rows)
        dataset = ConversationDataset(file, str(folder / 'processor'))
        said = [dataset.conversation(i).turns[-1].text for i in range(2)]
        assert said == ['Größe: 猫', 'Yes.']
    assert json.loads((folder / 'x.json').read_text().splitlines()[0]) == rows[0]
