"""Files of rows, read one at a time."""

import json
import pickle

import numpy as np
import pytest

from mmtransmamba.datasets.conversations import BadSampleError, rows
from mmtransmamba.datasets.conversations.rows import IndexedRows, scan_rows

ROWS = [
    dict(id='a', text='one'),
    dict(id='b', text='größer 猫 😀 "quoted" \\ ] } , ['),
    dict(id='c', nested=[dict(x=[1, 2.5, None, True])] * 3, text=''),
    dict(id='d', text='x' * 50),
]


def measure(row):
    return len(row.get('text', '').split()), row.get('id') == 'b'


def as_list(path, indent=None, ascii=False):
    text = json.dumps(ROWS, indent=indent, ensure_ascii=ascii)
    path.write_bytes(text.encode())
    return path


def as_lines(path):
    lines = [json.dumps(row, ensure_ascii=False) for row in ROWS]
    path.write_bytes(('\n\n'.join(lines)).encode())  # with empty lines
    return path


FILES = {
    'list': as_list,
    'indented': lambda path: as_list(path, indent=2, ascii=True),
    'lines': as_lines,
}


@pytest.mark.parametrize('chunk', [1, 7, 1 << 20])
@pytest.mark.parametrize('kind', FILES)
def test_where_rows_are(kind, chunk, tmp_path, monkeypatch):
    """However the file falls into pieces, characters of several bytes among them."""
    monkeypatch.setattr(rows, '_CHUNK', chunk)
    path = FILES[kind](tmp_path / 'x.json')
    found = list(scan_rows(path))
    assert [value for _, _, value in found] == ROWS
    data = path.read_bytes()
    assert [json.loads(data[begin:end]) for begin, end, _ in found] == ROWS


@pytest.mark.parametrize('kind', FILES)
def test_every_other_row(kind, tmp_path, monkeypatch):
    path = FILES[kind](tmp_path / 'x.json')
    parsed = []
    monkeypatch.setattr(rows, '_parse', lambda line, _: parsed.append(line) or line)
    found = [begin for begin, _, _ in scan_rows(path, 1, 2)]
    monkeypatch.undo()
    data = path.read_bytes()
    assert [begin for begin, _, _ in scan_rows(path)][1::2] == found
    assert data[found[0] :].startswith(b'{"id": "b"'[: 1 if kind == 'indented' else 9])
    if kind == 'lines':
        assert len(parsed) == 2  # others are not looked at


def test_byte_order_mark(tmp_path):
    path = as_list(tmp_path / 'x.json')
    path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes())
    found = list(scan_rows(path))
    assert json.loads(path.read_bytes()[found[1][0] : found[1][1]]) == ROWS[1]


@pytest.mark.parametrize('kind', FILES)
def test_rows_by_number(kind, tmp_path):
    indexed = IndexedRows(FILES[kind](tmp_path / 'x.json'), measure, 'key')
    assert len(indexed) == 4
    for number in (3, 0, 1, 2):
        assert indexed[number] == ROWS[number]
    assert indexed.words.tolist() == [1, 9, 0, 1]
    assert indexed.has_image.tolist() == [False, True, False, False]
    assert [indexed.shows_image(i) for i in range(4)] == indexed.has_image.tolist()


def test_neither_rows_nor_index_are_in_memory(tmp_path):
    path = tmp_path / 'x.jsonl'
    path.write_text('\n'.join(json.dumps(dict(id=str(i))) for i in range(5000)))
    indexed = IndexedRows(path, measure, 'key')
    assert indexed[4999] == dict(id='4999')
    assert all(isinstance(each, np.memmap) for each in indexed._mapped())
    sent = pickle.dumps(indexed)
    assert len(sent) < 1000
    assert pickle.loads(sent)[1234] == dict(id='1234')


def test_index_is_made_once(tmp_path):
    path = as_lines(tmp_path / 'x.jsonl')
    seen = []

    def counted(row):
        seen.append(row)
        return 0, False

    IndexedRows(path, counted, 'key')
    assert len(seen) == 4
    IndexedRows(path, counted, 'key')
    assert len(seen) == 4
    IndexedRows(path, counted, 'another key')
    assert len(seen) == 8
    path.write_text(path.read_text() + '\n' + json.dumps(dict(id='e')))
    assert len(IndexedRows(path, counted, 'key')) == 5
    assert list((tmp_path / '.index').glob('*.part')) == []


def test_index_elsewhere(tmp_path):
    path = as_lines(tmp_path / 'x.jsonl')
    IndexedRows(path, measure, 'key', tmp_path / 'cache')
    assert len(list((tmp_path / 'cache').iterdir())) == 1
    assert not (tmp_path / '.index').exists()
    (tmp_path / 'file').touch()
    with pytest.raises(OSError, match='choose another folder: cache_dir'):
        IndexedRows(path, measure, 'key', tmp_path / 'file' / 'cache')


def test_unreadable_lines_are_rows(tmp_path):
    """So that they are counted; the others can be used."""
    path = tmp_path / 'x.jsonl'
    path.write_bytes(b'{"id": "a"}\n{"id": \n[1]\n{"id": "\xff"}\n{"id": "d"}')
    indexed = IndexedRows(path, measure, 'key')
    assert len(indexed) == 5
    assert [indexed[i]['id'] for i in (0, 4)] == ['a', 'd']
    for number in (1, 2, 3):
        with pytest.raises(BadSampleError, match=f'row {number} of') as caught:
            indexed[number]
        assert caught.value.reason == 'unreadable row'


@pytest.mark.parametrize(
    'content, message',
    [
        ('[{"a": 1}, {"a": ', 'not a list of JSON values from byte 11 on'),
        ('[{"a": 1}', 'from byte 1 on'),
        ('[{"a": 1} {"a": 2}]', "has '{' at byte 10, expected is ',' or a ]"),
        ('[{"a": 1}]\n[{"a": 2}]', "goes on after its list, with '\\[' at byte 11"),
        ('[{"a": 1}] and more', "goes on after its list, with 'a' at byte 11"),
        ('\x1f\x8b\x08', 'have to be unpacked'),
        ('[]', 'has no rows'),
        ('', 'has no rows'),
        ('\n \n', 'has no rows'),
    ],
)
def test_unusable_file(content, message, tmp_path):
    path = tmp_path / 'x.json'
    path.write_bytes(content.encode('latin-1'))
    with pytest.raises(ValueError, match=message):
        IndexedRows(path, measure, 'key')
    assert list(tmp_path.rglob('*.part')) == []


def test_no_file(tmp_path):
    for read in (lambda p: IndexedRows(p, measure, 'key'), scan_rows):
        with pytest.raises(FileNotFoundError, match='no file of conversations'):
            read(tmp_path / 'x.json')
