"""Parquet files as on Hugging Face's hub, with images in a column."""

import io
import pickle

import pytest
import torch
from conversation_files import llava_row, write_images, write_jsonl, write_processor
from PIL import Image

from mmtransmamba.datasets.conversations import (
    BadSampleError,
    ConversationDataset,
    ConversationStream,
    parquet_rows,
)
from mmtransmamba.datasets.conversations.formats import FORMATS
from mmtransmamba.datasets.conversations.parquet_rows import ParquetReader
from mmtransmamba.datasets.conversations.rows import IndexedRows, scan_rows
from mmtransmamba.datasets.conversations.sources import find_sources

COUNT, GROUP = 11, 3


def png(number):
    out = io.BytesIO()
    Image.new('RGB', (20, 16), (number * 10, 0, 0)).save(out, 'png')
    return out.getvalue()


def hub_rows(count=COUNT):
    """Rows with id, image, conversations, data_source; every third without image."""
    rows = []
    for i in range(count):
        image = None if i % 3 == 2 else {'bytes': png(i), 'path': f'{i}.png'}
        row = llava_row(i, 'x' if image else None, f'answer {i}')
        rows.append(row | dict(image=image, data_source='test'))
    return rows


def write_parquet(path, rows, group=GROUP):
    pa = pytest.importorskip('pyarrow')
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema(
        [
            ('id', pa.string()),
            ('image', pa.struct([('bytes', pa.binary()), ('path', pa.string())])),
            (
                'conversations',
                pa.list_(pa.struct([('from', pa.string()), ('value', pa.string())])),
            ),
            ('data_source', pa.string()),
        ]
    )
    table = pa.Table.from_pylist(rows, schema)
    parquet.write_table(table, path, row_group_size=group)
    return str(path)


@pytest.fixture
def processor(tmp_path):
    return write_processor(tmp_path / 'processor')


def test_rows_are_those_that_were_written(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_rows, '_BATCH', 2)
    file = write_parquet(tmp_path / 'x.parquet', hub_rows())
    found = list(scan_rows(file))
    assert [row for _, _, row in found] == hub_rows()
    assert [number for number, _, _ in found] == list(range(COUNT))


@pytest.mark.parametrize(('first', 'step'), [(0, 2), (1, 4), (5, 7), (10, 3), (12, 1)])
def test_row_groups_without_a_wanted_row_are_not_read(
    tmp_path, monkeypatch, first, step
):
    file = write_parquet(tmp_path / 'x.parquet', hub_rows())
    read = []
    of_group = parquet_rows._of_group

    def noted(opened, group, *args):
        read.append(group)
        return of_group(opened, group, *args)

    monkeypatch.setattr(parquet_rows, '_of_group', noted)
    wanted = list(range(first, COUNT, step))
    assert [number for number, _, _ in scan_rows(file, first, step)] == wanted
    assert read == sorted({number // GROUP for number in wanted})


def test_rows_by_number_keep_one_row_group(tmp_path):
    reader = ParquetReader(write_parquet(tmp_path / 'x.parquet', hub_rows()))
    order = [7, 0, 10, 1, 2, 6]
    assert [reader[i] for i in order] == [hub_rows()[i] for i in order]
    assert reader._group[1].num_rows == GROUP
    copy = pickle.loads(pickle.dumps(reader))
    assert copy._group is None and copy[4] == hub_rows()[4]


def test_the_index_knows_images_without_reading_them(tmp_path, monkeypatch):
    file = write_parquet(tmp_path / 'x.parquet', hub_rows())
    (source,) = find_sources(file, None, 'llava', ())
    measured = []

    def measure(row):
        measured.append(row)
        return source.measure(row)

    rows = IndexedRows(file, measure, 'key')
    assert rows.has_image.tolist() == [i % 3 != 2 for i in range(COUNT)]
    assert {row['image']['bytes'] for row in measured if row['image']} == {b''}
    assert rows.words.tolist() == sorted(rows.words.tolist())
    assert rows[3] == hub_rows()[3]


def colours(dataset, samples):
    mean, std = (
        getattr(dataset.processor.image_processor, f'image_{name}')[0]
        for name in ('mean', 'std')
    )
    return [
        round(float(s['pixel_values'][0, 0].mean() * std + mean) * 25.5)
        if 'pixel_values' in s
        else None
        for s in samples
    ]


EXPECTED = [None if i % 3 == 2 else i for i in range(COUNT)]


@pytest.mark.parametrize('kind', ['dataset', 'stream'])
def test_samples_have_the_images_of_their_rows(tmp_path, processor, kind):
    file = write_parquet(tmp_path / 'x.parquet', hub_rows())
    if kind == 'dataset':
        data = ConversationDataset(file, processor)
        samples = [data[i] for i in range(len(data))]
    else:
        data = ConversationStream(file, processor, repeat=False, shuffle_buffer=1)
        samples = list(data)
    assert colours(data, samples) == EXPECTED


def test_prompts_are_checked_without_files(tmp_path, processor):
    rows = hub_rows(4)
    rows[1]['image']['bytes'] = b'no image'
    file = write_parquet(tmp_path / 'x.parquet', rows)
    data = ConversationDataset(file, processor, prompts=True, max_bad=0.5)
    assert data.bad_samples.counts() == {'corrupt image': 1}
    assert [data[i]['question_id'] for i in range(len(data))] == ['r0', 'r2', 'r3']


def test_an_image_may_be_a_path_in_the_column(tmp_path, processor):
    write_images(tmp_path, 4)
    rows = hub_rows(2)
    rows[1]['image'] = dict(bytes=None, path='3.png')
    rows.append(rows[0] | dict(image=dict(bytes=None, path='../out.png')))
    rows.append(rows[0] | dict(image=dict(bytes=None, path=None)))
    file = write_parquet(tmp_path / 'x.parquet', rows)
    data = ConversationStream(
        file, processor, repeat=False, shuffle_buffer=1, max_bad=0.6
    )
    assert colours(data, list(data)) == [0, 3]
    assert '2 of 4 samples are bad (2 missing image)' in data.bad_samples.report()


@pytest.mark.parametrize('listed', [False, True])
def test_an_image_is_seen_without_the_name_of_its_file(tmp_path, processor, listed):
    rows = hub_rows(4)
    for row in rows:
        image = row.pop('image')
        image = None if image is None else dict(bytes=image['bytes'])
        if listed:
            row['images'] = None if image is None else [image]
        else:
            row['image'] = image
    pa = pytest.importorskip('pyarrow')
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / 'x.parquet')
    data = ConversationDataset(str(tmp_path / 'x.parquet'), processor)
    seen = ['pixel_values' in data[i] for i in range(len(data))]
    assert any(seen)
    assert data.with_image().tolist() == seen


def test_a_folder_of_the_hub_is_all_of_its_parquet_files(tmp_path, processor):
    folder = tmp_path / 'LLaVA-OneVision-Data'
    names = ['ai2d(cauldron,llava_format)', 'sharegpt4v(coco)']
    for name in names:
        write_parquet(folder / name / 'train-00000-of-00001.parquet', hub_rows(3))
    data = ConversationDataset(str(folder), processor)
    assert len(data) == 6
    assert [source.name for source in data.sources] == [
        f'{name}/train-00000-of-00001.parquet' for name in names
    ]
    mixed = [dict(file=str(folder / names[0]), ratio=2), str(folder / 'share*/*')]
    assert len(ConversationDataset(mixed, processor)) == 9
    with pytest.raises(FileNotFoundError, match=r'processor" has no \*.parquet'):
        find_sources(processor, None, 'llava', ())


def test_lists_per_field_are_read_as_a_list_of_turns(tmp_path):
    pa = pytest.importorskip('pyarrow')
    from pyarrow import parquet

    turns = {'from': ['human', 'gpt'], 'value': ['Why?', 'So.']}
    table = pa.Table.from_pylist([dict(id='a', conversations=turns)])
    parquet.write_table(table, tmp_path / 'x.parquet')
    ((_, _, row),) = scan_rows(tmp_path / 'x.parquet')
    assert row['conversations'] == [
        {'from': 'human', 'value': 'Why?'},
        {'from': 'gpt', 'value': 'So.'},
    ]


def test_without_pyarrow_one_line_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / 'x.parquet').write_bytes(b'PAR1')
    monkeypatch.setattr(parquet_rows, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "mmtransmamba\[parquet\]"'):
        IndexedRows(tmp_path / 'x.parquet', len, 'key')
    with pytest.raises(ImportError, match='x.parquet needs pyarrow'):
        list(scan_rows(tmp_path / 'x.parquet'))


@pytest.mark.parametrize('content', [b'', b'PAR1', b'{"id": 1}\n' * 9])
def test_other_files_are_refused_by_name(tmp_path, content):
    pytest.importorskip('pyarrow')
    (tmp_path / 'x.parquet').write_bytes(content)
    with pytest.raises(ValueError, match='x.parquet cannot be read as Parquet') as e:
        IndexedRows(tmp_path / 'x.parquet', len, 'key')
    assert '\n' not in str(e.value)


@pytest.mark.parametrize(
    ('row', 'text'),
    [
        (dict(image='a.png'), '<image>\nWhy?'),
        (dict(image=['a.png', 'b.png']), '<image>\n<image>\nWhy?'),
        (dict(image=[]), 'Why?'),
        (dict(image=''), 'Why?'),
        (dict(image=None, video=None), 'Why?'),
        (dict(), 'Why?'),
    ],
)
def test_solos_rows_have_the_role_model_and_images_in_front(row, text):
    said = [{'from': 'human', 'value': 'Why?'}, {'from': 'model', 'value': 'So.'}]
    conversation = FORMATS['solo'](dict(conversations=said) | row)
    assert [turn.role for turn in conversation.turns] == ['user', 'assistant']
    assert conversation.turns[0].text == text
    conversation.check()


def test_a_row_of_solo_with_a_video_is_a_bad_sample():
    said = [{'from': 'human', 'value': 'Why?'}, {'from': 'model', 'value': 'So.'}]
    with pytest.raises(BadSampleError, match='has a video'):
        FORMATS['solo'](dict(conversations=said, video='a.mp4'))


@pytest.mark.parametrize('format', ['llava', 'messages'])
def test_the_role_model_is_the_assistant_in_every_format(tmp_path, processor, format):
    keys = dict(llava=('conversations', 'from', 'value'))
    name, role, text = keys.get(format, ('messages', 'role', 'content'))
    said = [{role: 'user', text: 'Why?'}, {role: 'model', text: 'So.'}]
    file = write_jsonl(tmp_path / 'x.jsonl', [{name: said}])
    sample = ConversationDataset(file, processor, format=format)[0]
    learned = sample['labels'][sample['labels'] >= 0]
    tokenizer = ConversationDataset(file, processor).processor.tokenizer
    assert tokenizer.decode(torch.as_tensor(learned)) == 'So.</s>'
