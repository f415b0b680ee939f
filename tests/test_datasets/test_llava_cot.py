"""Parts of LLaVA-CoT's data."""

import importlib.util
import json
import sys

import pytest

from mmtransmamba.datasets.llava_cot import split_llava_cot
from mmtransmamba.datasets.shapes_reasoning import write_shapes_reasoning


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Twenty good rows, and some bad ones between them."""
    folder = tmp_path_factory.mktemp('cot')
    write_shapes_reasoning(folder, dict(train=20))
    lines = (folder / 'train.jsonl').read_text().splitlines()
    malformed = lines[0].replace('</CAPTION>', '').replace('train/0', 'bad')
    lines[3:3] = [malformed, '{"id":', '[]', '{"id": "x", "conversations": []}']
    # The last line has no end.
    (folder / 'train.jsonl').write_text('\n'.join(lines))
    return folder


def ids(path):
    return [json.loads(line)['id'] for line in path.read_text().splitlines()]


def test_parts_do_not_share_more_than_they_must(folder, tmp_path):
    sizes = dict(teacher=12, student=8, val=4)
    split = split_llava_cot(folder / 'train.jsonl', tmp_path, sizes)
    assert split.counts == sizes and split.shared == 4
    assert split.left_out == {
        'malformed response': 1,
        'unreadable row': 2,
        'malformed turns': 1,
    }
    teacher, student, val = (
        ids(tmp_path / f'{name}.jsonl') for name in ('teacher', 'student', 'val')
    )
    assert [len(set(part)) for part in (teacher, student, val)] == [12, 8, 4]
    assert not set(val) & set(teacher + student)
    assert len(set(student) & set(teacher)) == 4
    assert set(teacher + student + val) == {f'train/{i}' for i in range(20)}
    lines = (folder / 'train.jsonl').read_text().splitlines()
    assert set((tmp_path / 'val.jsonl').read_text().splitlines()) < set(lines)


def test_the_choice_depends_on_the_seed(folder, tmp_path):
    sizes = dict(teacher=5, student=5, val=5)
    for name, seed in (('a', 0), ('b', 0), ('c', 1)):
        split = split_llava_cot(
            folder / 'train.jsonl', tmp_path / name, sizes, seed=seed
        )
        assert split.shared == 0
    a, b, c = (ids(tmp_path / name / 'teacher.jsonl') for name in 'abc')
    assert a == b != c


def test_the_file_of_the_rows_is_never_replaced(folder, tmp_path):
    source = tmp_path / 'teacher.jsonl'
    source.write_bytes((folder / 'train.jsonl').read_bytes())
    link = tmp_path / 'link'
    link.symlink_to(tmp_path)
    sizes = dict(teacher=5, student=5, val=2)
    for out in (tmp_path, link):
        with pytest.raises(ValueError, match='teacher.jsonl is the file of the rows'):
            split_llava_cot(source, out, sizes)
    assert source.read_bytes() == (folder / 'train.jsonl').read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['link', source.name]


def test_too_few_rows(folder, tmp_path):
    with pytest.raises(ValueError, match='20 rows can be used'):
        split_llava_cot(
            folder / 'train.jsonl', tmp_path, dict(teacher=18, student=1, val=3)
        )
    with pytest.raises(FileNotFoundError, match='nothing.jsonl'):
        split_llava_cot(folder / 'nothing.jsonl', tmp_path, {})


def test_the_tool(folder, repo_dir, monkeypatch, tmp_path, capsys):
    path = repo_dir / 'tools' / 'dataset_converters' / 'llava_cot.py'
    spec = importlib.util.spec_from_file_location('tools_llava_cot', path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, 'path', sys.path.copy())
    spec.loader.exec_module(module)
    image = folder / 'images' / 'train' / '7.png'
    image.rename(image.with_suffix('.away'))
    sizes = ['--teacher', '12', '--student', '8', '--val', '4']
    source = [str(folder / 'train.jsonl'), '--images', str(folder)]
    argv = ['llava_cot.py', *source, *sizes, '--out', str(tmp_path / 'out')]
    monkeypatch.setattr(sys, 'argv', argv)
    try:
        module.main()
    finally:
        image.with_suffix('.away').rename(image)
    printed = capsys.readouterr().out
    assert 'teacher: 12 rows' in printed and 'left out, missing image: 1' in printed
    assert "of the student's also in the teacher's: 5" in printed
    monkeypatch.setattr(sys, 'argv', [*argv, '--teacher', '99'])
    with pytest.raises(SystemExit, match='train.jsonl: 20 rows'):
        module.main()
