"""Text files of every encoding and line end, by every reader of the package."""

import codecs
import csv
import gzip
import io
import json

import pytest
from transformers import PreTrainedTokenizerFast

from mmtransmamba.datasets import PackedText
from mmtransmamba.datasets.conversations.rows import IndexedRows, scan_rows
from mmtransmamba.datasets.easy_vqa import read_questions
from mmtransmamba.datasets.llava_cot import split_llava_cot
from mmtransmamba.datasets.video_text import read_captions, read_msrvtt_test
from mmtransmamba.evaluation.language.tasks import TASKS
from mmtransmamba.evaluation.language.tasks import read_questions as read_benchmark
from mmtransmamba.evaluation.vlm.files import read_rows
from mmtransmamba.utils import text_files
from mmtransmamba.utils.text_files import (
    TextFileError,
    read_json,
    read_json_lines,
    read_table,
    read_text,
    scan_lines,
    stream_lines,
)

# Characters that str.splitlines() takes for the end of a line, and one of four bytes.
ODD = 'a\u2028b\u2029c\x0bd\x0ce\x1cf\x85g größer 猫 😀'
ENCODINGS = {
    'UTF-8': str.encode,
    'UTF-8 with a mark': lambda text: text.encode('utf-8-sig'),
    'UTF-16': lambda text: codecs.BOM_UTF16_LE + text.encode('utf-16-le'),
    'UTF-16, big end first': lambda text: (
        codecs.BOM_UTF16_BE + text.encode('utf-16-be')
    ),
}
LINE_ENDS = {'LF': '\n', 'CRLF': '\r\n', 'CR': '\r'}
ENDINGS = {'no end': '', 'an end': '\n', 'blank lines': '\n\n \n'}


@pytest.fixture(params=ENCODINGS)
def encode(request):
    return ENCODINGS[request.param]


@pytest.fixture(params=LINE_ENDS)
def line_end(request):
    return LINE_ENDS[request.param]


@pytest.fixture
def write(tmp_path, encode, line_end):
    """Write a text in one of the encodings with one of the line ends."""

    def write(name, text):
        path = tmp_path / name
        path.write_bytes(encode(text.replace('\n', line_end)))
        return path

    return write


def as_lines(rows, end=''):
    return '\n\n'.join(json.dumps(row, ensure_ascii=False) for row in rows) + end


ROWS = [dict(id='a', text=ODD), dict(id='b', text=''), dict(id='c', text='x\ny')]


@pytest.mark.parametrize('end', ENDINGS)
def test_lines_are_the_same_however_written(write, end):
    text = f'one\n\n{ODD}\nlast{ENDINGS[end]}'
    path = write('x.txt', text)
    assert read_text(path) == text
    assert ''.join(stream_lines(path)) == text
    assert list(stream_lines(path)) == io.StringIO(text).readlines()


@pytest.mark.parametrize('chunk', [1, 2, 3, 7])
def test_large_files_fall_into_pieces_anywhere(write, chunk, monkeypatch):
    monkeypatch.setattr(text_files, '_CHUNK', chunk)
    # Characters whose halves in UTF-16 look like line ends.
    text = f'{ODD}\n\u0a0d\u0d0a\u0d00\u0a00\u000a\u010a\n\n猫\nlast'
    path = write('x.txt', text)
    assert list(stream_lines(path)) == io.StringIO(text).readlines()
    data = path.read_bytes()
    for begin, line, _ in scan_lines(path):
        assert data[begin : begin + len(line)] == line


@pytest.mark.parametrize('end', ENDINGS)
def test_json_lines(write, end):
    path = write('x.jsonl', as_lines(ROWS, ENDINGS[end]))
    assert [row for _, row in read_json_lines(path)] == ROWS
    assert read_rows(path) == ROWS


@pytest.mark.parametrize('indent', [None, 2])
def test_json(write, indent):
    path = write('x.json', json.dumps(ROWS, indent=indent, ensure_ascii=False))
    assert read_json(path) == ROWS
    assert read_rows(path) == ROWS


@pytest.mark.parametrize('suffix, delimiter', [('tsv', '\t'), ('csv', ',')])
def test_tables(write, suffix, delimiter):
    out = io.StringIO(newline='')
    writer = csv.DictWriter(out, ['id', 'text'], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    path = write(f'x.{suffix}', '\n' + out.getvalue().replace('\r\n', '\n'))
    assert read_table(path, delimiter) == (['id', 'text'], ROWS)
    if suffix == 'tsv':
        assert read_rows(path) == ROWS


def measure(row):
    return 1, row['id'] == 'b'


@pytest.mark.parametrize('form', ['lines', 'list'])
def test_conversations(write, form):
    text = as_lines(ROWS) if form == 'lines' else json.dumps(ROWS, ensure_ascii=False)
    path = write('x.json', text)
    assert [row for _, _, row in scan_rows(path)] == ROWS
    assert [row for _, _, row in scan_rows(path, 1, 2)] == ROWS[1::2]
    indexed = IndexedRows(path, measure, 'key')
    assert [indexed[i] for i in (2, 0, 1)] == [ROWS[i] for i in (2, 0, 1)]
    assert indexed.has_image.tolist() == [False, True, False]


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
    """One token for every byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(['<s>', '</s>', *alphabet])}
    tokens = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    folder = tmp_path_factory.mktemp('tokenizer')
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokens, bos_token='<s>', eos_token='</s>'
    )
    made.save_pretrained(folder)
    return made, folder


@pytest.mark.parametrize('name', ['x.jsonl', 'x.txt'])
def test_packed_text(write, name, tokenizer):
    made, folder = tokenizer
    text = as_lines(ROWS, '\n\n') if name == 'x.jsonl' else f'{ODD}\nnext\n'
    blocks = PackedText(str(write(name, text)), str(folder), block_size=2)
    read = made.decode([int(i) for block in blocks for i in block['input_ids']])
    if name == 'x.jsonl':
        text = '</s><s>'.join(row['text'] for row in ROWS)
    whole = f'<s>{text}</s>'
    # Of an odd number of tokens the last one fills no block.
    assert read in (whole, whole.removesuffix('</s>'), whole[:-1])


def test_captions_and_splits(write):
    table = write('test.csv', f'video_id,sentence\nv1,"{ODD}"\n\nv2,x')
    assert read_msrvtt_test(table) == {'v1.mp4': [ODD], 'v2.mp4': ['x']}
    captions = {'v1.mp4': [ODD]}
    path = write('x.json', json.dumps(captions, indent=1, ensure_ascii=False))
    assert read_captions(path) == captions


def test_easy_vqa(write, tmp_path):
    write('train_questions.json', json.dumps([[ODD, 'yes', 0]], ensure_ascii=False))
    assert [each.question for each in read_questions(tmp_path, 'train')] == [ODD]


def test_llava_cot(write, tmp_path):
    parts = ('SUMMARY', 'CAPTION', 'REASONING', 'CONCLUSION')
    answer = '\n\n'.join(f'<{name}> {ODD} </{name}>' for name in parts)
    turns = [{'from': 'human', 'value': ODD}, {'from': 'gpt', 'value': answer}]
    rows = [dict(id=str(i), conversations=turns) for i in range(3)]
    path = write('train.jsonl', as_lines(rows, '\n \n'))
    split = split_llava_cot(path, tmp_path, dict(teacher=1, student=1, val=1))
    assert not split.left_out
    names = ('teacher', 'student', 'val')
    found = [row for n in names for row in read_rows(tmp_path / f'{n}.jsonl')]
    assert sorted(found, key=lambda row: row['id']) == rows


# -------------------------------------------------------------------------- refusals

LATIN = '[{"id": "größer"}]'.encode('latin-1')
REFUSED = {
    'Latin-1': (LATIN, r'byte 11 \(0xf6\)'),
    'cut off': ('["猫"]'.encode()[:4], r'byte 2 \(0xe7\)'),
    'UTF-16 without a mark': ('["x"]'.encode('utf-16-le'), 'byte 1 is 0'),
    'UTF-16 without a mark, big': ('["x"]'.encode('utf-16-be'), 'byte 0 is 0'),
    'UTF-16, half a character': (
        codecs.BOM_UTF16_LE + '["x"]'.encode('utf-16-le')[:-1],
        r'UTF-16: byte 10',
    ),
    'UTF-32': ('["x"]'.encode('utf-32'), r'UTF-32 \(byte 0\)'),
    'binary': (b'["abc\0"]', 'byte 5 is 0'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_other_encodings_are_refused_with_their_byte(tmp_path, case):
    content, message = REFUSED[case]
    path = tmp_path / 'x.json'
    path.write_bytes(content)
    readers = [read_text, read_json, read_rows, lambda p: list(stream_lines(p))]
    for read in readers:
        with pytest.raises(TextFileError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value) and '\n' not in str(caught.value)
    if case != 'binary':
        with pytest.raises(TextFileError, match=message):
            list(scan_rows(path))


def test_the_byte_is_found_far_into_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, '_CHUNK', 8)
    path = tmp_path / 'x.txt'
    path.write_bytes(b'one\r\n' * 20 + b'x\xff')
    lines = stream_lines(path)
    assert [next(lines) for _ in range(20)] == ['one\n'] * 20
    with pytest.raises(TextFileError, match=r'byte 101 \(0xff\)'):
        next(lines)


def test_a_row_in_another_encoding_is_named_with_its_byte(tmp_path):
    path = tmp_path / 'x.jsonl'
    path.write_bytes(b'{"id": "a"}\n{"id": "\xff"}\n')
    with pytest.raises(ValueError, match=r'row 1 of .*x\.jsonl.* byte 20 \(0xff\)'):
        IndexedRows(path, measure, 'key')[1]


@pytest.mark.parametrize('content', [b'{"a": 1}\n{"a": \n', b'{"a": 1}\r{"a": \r'])
def test_a_line_that_is_no_json_is_named(tmp_path, content):
    path = tmp_path / 'x.jsonl'
    path.write_bytes(content)
    with pytest.raises(TextFileError, match=r'x\.jsonl, line 2: Expecting value'):
        read_rows(path)


def test_missing_files_are_named(tmp_path):
    for read in (read_text, lambda p: list(stream_lines(p))):
        with pytest.raises(FileNotFoundError, match='no file .*none'):
            read(tmp_path / 'none')


DEEP = b'[' * 100_000 + b']' * 100_000
BAD_JSON = {
    'nested too deeply': DEEP,
    "the key 'text' occurs twice": b'{"id": 1, "text": "yes", "text": "no"}',
    "the key 'b' occurs twice": b'[{"a": {"b": 1, "b": 1}}]',
    'half of a surrogate pair': b'{"text": ["\\ud83d and more"]}',
    'Exceeds the limit': b'[' + b'9' * 5000 + b']',
}


@pytest.mark.parametrize('message', BAD_JSON)
def test_json_that_is_ambiguous_or_too_deep_is_named(tmp_path, message):
    path = tmp_path / 'x.json'
    path.write_bytes(BAD_JSON[message])
    with pytest.raises(TextFileError, match=rf'x\.json is not a JSON.*{message}'):
        read_json(path)
    path.write_bytes(b'{"id": 0}\n' + BAD_JSON[message])
    with pytest.raises(TextFileError, match=rf'x\.json, line 2: .*{message}'):
        list(read_json_lines(path))


@pytest.mark.parametrize(
    'content, message',
    [
        ('a,b\n1,2\n1,2,3\n', 'line 3, is not a row of a table of 2 columns: 3 cells'),
        ('a,b,a\n1,2,3\n', "several columns 'a'"),
        ('a,b\n1,"2\n3,4\n5,6\n', 'the quote before .* is not closed'),
    ],
)
def test_tables_whose_cells_belong_to_no_column_are_refused(tmp_path, content, message):
    path = tmp_path / 'x.csv'
    path.write_text(content)
    with pytest.raises(TextFileError, match=rf'x\.csv.*{message}'):
        read_table(path)


def test_cells_of_several_lines_and_short_rows_are_read(tmp_path):
    path = tmp_path / 'x.csv'
    path.write_text('a,b\n1,"2\n3"\n4\n"5","6\n\n7"\n')
    columns, rows = read_table(path)
    assert columns == ['a', 'b']
    assert [row['b'] for row in rows] == ['2\n3', None, '6\n\n7']


def test_a_list_with_a_value_nested_too_deeply_is_named(tmp_path):
    (tmp_path / 'x.json').write_bytes(b'[1, ' + DEEP + b']')
    with pytest.raises(ValueError, match=r'x\.json: the value at byte 4 is nested'):
        list(scan_rows(tmp_path / 'x.json'))


@pytest.mark.parametrize('encoding', ENCODINGS)
@pytest.mark.parametrize('packed', [False, True])
def test_benchmarks_of_language_models_are_read_in_every_encoding(
    tmp_path, encoding, packed
):
    row = dict(question='größer?', passage='ja\u2028', answer=True)
    line = json.dumps(row, ensure_ascii=False)
    content = ENCODINGS[encoding](f'{line}\r\n{line}\r{line}')
    name = TASKS['boolq'].file + '.gz' * packed
    (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
    questions = read_benchmark(TASKS['boolq'], tmp_path)
    assert len(questions) == 3 and 'größer' in str(questions[2])
