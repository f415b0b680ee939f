"""MMBench's test split, whose answers only the server has."""

import csv
import importlib.util
import zipfile
from xml.etree import ElementTree

import pytest

from mmtransmamba.evaluation.vlm import (
    BENCHMARKS,
    MMBenchMetric,
    from_model,
    load_mmbench,
    run_benchmark,
    score,
)
from mmtransmamba.evaluation.vlm.spreadsheet import write_table

COLUMNS = ['index', 'question', 'hint', *'ABCD', 'category', 'l2-category', 'image']
ROWS = [
    [7, 'What?', 'nan', 'cat', 'dog', '', 'nan', 'coarse', 'l2', 'eHh4' * 25],
    [1_000_007, 'What?', '', 'dog', 'cat', '', '', 'coarse', 'l2', '7'],
]


def table(write, path, columns=COLUMNS, rows=ROWS):
    lines = ['\t'.join(map(str, row)) for row in [columns, *rows]]
    return write(path, '\n'.join(lines))


def read_sheet(path):
    """Rows of an .xlsx, by a reader of its own."""
    space = '{http://schemas.openxmlformats.org/spreadsheetml/2006/main}'
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        sheet = ElementTree.fromstring(archive.read('xl/worksheets/sheet1.xml'))
    rows = []
    for row in sheet.iter(f'{space}row'):
        cells = {}
        for cell in row.iter(f'{space}c'):
            column = cell.get('r').rstrip('0123456789')
            number, text = cell.find(f'{space}v'), cell.find(f'{space}is/{space}t')
            cells[column] = int(number.text) if number is not None else text.text
        rows.append(cells)
    return rows


def test_the_file_for_the_server(tmp_path, write):
    table(write, tmp_path / 'mmbench' / 'mmbench_test.tsv')
    texts = iter(['B', 'I do not <know> & "care"\n\x07'])
    answers = from_model(lambda batch: [next(texts) for _ in batch], tmp_path / 'out')
    path = tmp_path / 'out' / 'mmbench_submission.xlsx'
    result = run_benchmark(BENCHMARKS['mmbench'], tmp_path, answers, submission=path)
    assert result.headline == {'answers to submit': 2}
    assert result.unread == 50
    assert read_sheet(path) == [
        dict(zip('ABCDEFGHI', ['index', 'question', *'ABCD', 'prediction',
                               'category', 'l2-category'], strict=True)),
        dict(A=7, B='What?', C='cat', D='dog', G='B', H='coarse', I='l2'),
        dict(A=1_000_007, B='What?', C='dog', D='cat',
             G='I do not <know> & "care"\n_x0007_', H='coarse', I='l2'),
    ]  # fmt: skip


def test_pandas_reads_it(tmp_path):
    pandas = pytest.importorskip('pandas')
    if importlib.util.find_spec('openpyxl') is None:
        pytest.skip('no openpyxl')
    rows = [dict(index=1, A='a\nb', prediction='x' * 40), dict(index=2, Z=' é<')]
    columns = ['index', 'A', 'prediction', *(f'c{n}' for n in range(30)), 'Z']
    write_table(tmp_path / 'x.xlsx', columns, rows)
    read = pandas.read_excel(tmp_path / 'x.xlsx')
    assert list(read.columns) == columns
    assert read['index'].tolist() == [1, 2]
    assert read['A'][0] == 'a\nb' and read['Z'][1] == ' é<'


def test_tsv(tmp_path, write):
    samples = load_mmbench(table(write, tmp_path / 'test.tsv'))
    path = tmp_path / 'new' / 'x.tsv'
    found = score(MMBenchMetric(submission=path), samples, ['A\n"b"', 'B'])
    assert found == {'mmbench/answers': 2, 'mmbench/unread': 0}
    with path.open(newline='') as file:
        rows = list(csv.DictReader(file, delimiter='\t'))
    assert [row['prediction'] for row in rows] == ['A\n"b"', 'B']
    assert 'answer' not in rows[0] and rows[1]['index'] == '1000007'


def test_an_empty_column_of_answers_is_none(tmp_path, write):
    rows = [[*row, 'nan' if n else ''] for n, row in enumerate(ROWS)]
    path = table(write, tmp_path / 'test.tsv', [*COLUMNS, 'answer'], rows)
    assert {sample.gold for sample in load_mmbench(path)} == {None}


def test_a_missing_answer_is_no_test_split(tmp_path, write):
    rows = [[*row, 'A' * n] for n, row in enumerate(ROWS)]
    path = table(write, tmp_path / 'dev.tsv', [*COLUMNS, 'answer'], rows)
    with pytest.raises(ValueError, match=r'dev\.tsv, row 1 has no "answer", but other'):
        load_mmbench(path)


def test_messages(tmp_path, write):
    samples = load_mmbench(table(write, tmp_path / 'test.tsv'))
    with pytest.raises(ValueError, match='are secret .* give submission=FILE.xlsx'):
        score(MMBenchMetric(), samples, ['A', 'B'])
    with pytest.raises(ValueError, match=r'must end with \.xlsx or \.tsv'):
        MMBenchMetric(submission='x.json')


def test_the_development_set_writes_no_file(tmp_path, write):
    rows = [[*row, 'AB'[n]] for n, row in enumerate(ROWS)]
    path = table(write, tmp_path / 'dev.tsv', [*COLUMNS, 'answer'], rows)
    out = tmp_path / 'x.xlsx'
    found = score(MMBenchMetric(submission=out), load_mmbench(path), ['A', 'B'])
    assert found['mmbench/circular'] == 100 and not out.exists()
