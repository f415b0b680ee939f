"""Models that reason, on benchmarks: what is judged, and what is kept."""

import importlib.util
import json
import sys

import pytest
from PIL import Image
from tiny_vlms import tiny_llava, tiny_processor

from mmtransmamba.apis import VisionLanguageChat
from mmtransmamba.apis.vlm_benchmarks import from_chat
from mmtransmamba.evaluation.vlm import BENCHMARKS, run_benchmark
from mmtransmamba.models.multimodal.heads import ReasoningHead
from mmtransmamba.utils.reasoning_text import join_sections

RIGHT = join_sections('It asks for a bus.', 'A red bus.', 'No doubt.', 'yes')
CUT = RIGHT[: RIGHT.index('<CONCLUSION>')]


class Speaking(ReasoningHead):
    """Returns given texts instead of running the model."""

    def __init__(self, texts):
        super().__init__()
        self.texts = list(texts)

    def generate(self, model, processor, batch):
        self.length = self.generation['max_new_tokens']
        return [self.texts.pop(0) for _ in batch['input_ids']]


@pytest.fixture
def root(tmp_path):
    """Three questions of GQA about one image."""
    types = dict(structural='verify', semantic='global')
    row = dict(imageId='n1', question='Is it a bus?', answer='yes', types=types)
    (tmp_path / 'gqa' / 'images').mkdir(parents=True)
    Image.new('RGB', (20, 20), 'red').save(tmp_path / 'gqa' / 'images' / 'n1.jpg')
    (tmp_path / 'gqa' / 'testdev_balanced_questions.json').write_text(
        json.dumps({str(i): row for i in range(3)})
    )
    return tmp_path


def run(root, texts, limit=None):
    head = Speaking(texts)
    chat = VisionLanguageChat(tiny_llava(), tiny_processor(), head=head)
    answers = from_chat(
        chat, root / 'answers', lambda b: b.image_folders(root), batch_size=2
    )
    return head, run_benchmark(BENCHMARKS['gqa'], root, answers, limit=limit)


def test_the_conclusion_is_judged_and_the_response_kept(root):
    head, result = run(root, [RIGHT, CUT, 'yes'])
    assert result.headline['accuracy'] == pytest.approx(100 / 3)
    assert result.note == 'empty answers: 2'
    # Not the few tokens that an answer of GQA may have.
    assert head.length == 2048
    rows = (root / 'answers' / 'gqa.jsonl').read_text().splitlines()
    assert [json.loads(row)['text'] for row in rows] == ['yes', '', '']
    kept = (root / 'answers' / 'responses' / 'gqa.jsonl').read_text().splitlines()
    assert [json.loads(row)['text'] for row in kept] == [RIGHT, CUT, 'yes']
    assert 'Is it a bus?' in json.loads(kept[0])['prompt']


def test_after_an_interruption(root):
    run(root, [RIGHT], limit=1)
    head, result = run(root, [CUT, RIGHT])
    assert not head.texts and result.headline['accuracy'] == pytest.approx(200 / 3)
    kept = (root / 'answers' / 'responses' / 'gqa.jsonl').read_text().splitlines()
    assert [json.loads(row)['question_id'] for row in kept] == ['0', '1', '2']


@pytest.fixture
def report(repo_dir, monkeypatch, capsys):
    """Run ``tools/analysis_tools/reasoning_format.py``; what it prints."""
    path = repo_dir / 'tools' / 'analysis_tools' / 'reasoning_format.py'
    spec = importlib.util.spec_from_file_location('tools_reasoning_format', path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, 'path', sys.path.copy())
    spec.loader.exec_module(module)
    monkeypatch.setenv('COLUMNS', '100')

    def run(*args):
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, args)])
        module.main()
        return capsys.readouterr().out

    return run


def test_the_format_of_kept_responses(report, root, tmp_path):
    run(root, [RIGHT, CUT, 'yes'])
    file = root / 'answers' / 'responses' / 'gqa.jsonl'
    # After an interruption: a response whose answer was not written.
    rows = file.read_text().splitlines()
    file.write_text('\n'.join([rows[0].replace('A red bus.', ''), *rows]) + '\n')
    plain = tmp_path / 'plain.jsonl'
    plain.write_text('{"text": "yes"}\n{"text": "no"}\n')
    lines = [line.split('│') for line in report(file, plain).splitlines()]
    table = {cells[1].strip(): cells[2:4] for cells in lines if len(cells) > 3}
    figures = {key: [v.strip() for v in values] for key, values in table.items()}
    assert figures['responses'] == ['3', '2']
    assert figures['well_formed'] == ['33.3333', '0']
    assert figures['no_answer'] == ['66.6667', '100']
    assert figures['words_caption'] == ['3', '–']
    # Two models on one benchmark have files of one name.
    other = tmp_path / 'other' / 'gqa.jsonl'
    other.parent.mkdir()
    other.write_text(plain.read_text())
    table = report(other, file, other)
    assert 'other/gqa.jsonl' in table and 'responses/gqa.jsonl' in table
    with pytest.raises(SystemExit, match='nothing.jsonl'):
        report(tmp_path / 'nothing.jsonl')
