"""Scoring a model from the command line: answers, interruption, files, table."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from PIL import Image
from tiny_vlms import save_tiny_llava

from mmtransmamba.apis import VisionLanguageChat
from mmtransmamba.evaluation.vlm import BENCHMARKS
from mmtransmamba.models.trainable import VisionLanguageModel

FAST = ('--max-new-tokens', 4, '--device', 'cpu')
BOTH = ('--benchmarks', 'pope', 'scienceqa_img')
PREDICTIONS = ('out', 'predictions')


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return save_tiny_llava(tmp_path_factory.mktemp('llava'))


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """Two questions of each split of POPE, three of ScienceQA, and their images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('COLUMNS', '100')
    pope, images = tmp_path / 'data' / 'pope', tmp_path / 'data' / 'coco' / 'val2014'
    pope.mkdir(parents=True)
    images.mkdir(parents=True)
    for split in ('random', 'popular', 'adversarial'):
        rows = [
            dict(
                question_id=i,
                image=f'COCO_val2014_{i}.jpg',
                text=f'Is there a {split} {thing} in the image?',
                label=label,
            )
            for i, (thing, label) in enumerate([('dog', 'yes'), ('tree house', 'no')])
        ]
        lines = '\n'.join(json.dumps(row) for row in rows)
        (pope / f'coco_pope_{split}.json').write_text(lines)
    for i, colour in enumerate(['red', 'blue']):
        picture = Image.new('RGB', (20 + i, 30), colour)
        picture.save(images / f'COCO_val2014_{i}.jpg')
    science = tmp_path / 'data' / 'scienceqa'
    problem = dict(
        hint='', choices=['x', 'y'], answer=1, subject='s', image='image.png'
    )
    problems = {str(i): dict(problem, question=f'What is {i}?') for i in range(3)}
    science.mkdir()
    (science / 'problems.json').write_text(json.dumps(problems))
    (science / 'pid_splits.json').write_text(json.dumps(dict(test=list(problems))))
    for i in range(3):
        folder = science / 'images' / 'test' / str(i)
        folder.mkdir(parents=True)
        Image.new('RGB', (20, 20), (0, 90 * i, 0)).save(folder / 'image.png')
    return tmp_path


@pytest.fixture
def evaluate(repo_dir, monkeypatch, capsys):
    """Output of ``tools/eval_vlm.py``, with questions below ``data``."""
    path = repo_dir / 'tools' / 'eval_vlm.py'
    spec = importlib.util.spec_from_file_location('tools_eval_vlm', path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, 'path', sys.path.copy())
    spec.loader.exec_module(module)

    def run(*args, out='out'):
        shared = ('--data-root', 'data', '--out', out)
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, args + shared)])
        module.main()
        return capsys.readouterr()

    return run


@pytest.fixture
def asked(monkeypatch):
    """Sizes of the batches that models received; can be set to interrupt."""
    sizes = []
    answer = VisionLanguageChat.answer

    def watched(self, prompts, images, **generation):
        if watched.interrupt_at == len(sizes):
            raise KeyboardInterrupt
        sizes.append(len(prompts))
        return answer(self, prompts, images, **generation)

    watched.interrupt_at = None
    monkeypatch.setattr(VisionLanguageChat, 'answer', watched)
    return sizes, watched


def read(folder, name):
    lines = (folder / f'{name}.jsonl').read_text().splitlines()
    return [json.loads(line) for line in lines]


def scores(folder):
    return json.loads((folder / 'scores.json').read_text())


def test_answers_files_and_scores(evaluate, asked, model, data):
    out = evaluate(model, *BOTH, *FAST, '--batch-size', 4)
    assert 'POPE' in out.out and 'ScienceQA-IMG' in out.out
    assert asked[0] == [4, 2, 3]
    assert 'POPE: 100%' in out.err and '6/6' in out.err
    folder = data.joinpath(*PREDICTIONS)
    rows = read(folder, 'pope')
    assert [row['question_id'] for row in rows][:3] == [
        'random/0',
        'random/1',
        'popular/0',
    ]
    chat = VisionLanguageChat(model, device='cpu')
    for row in rows:
        image = (
            data
            / 'data'
            / 'coco'
            / 'val2014'
            / (f'COCO_val2014_{row["question_id"][-1]}.jpg')
        )
        (answer,) = chat.answer([row['prompt']], [image], max_new_tokens=4)
        assert row['text'] == answer
        assert row['prompt'].endswith('using a single word or phrase.')
    assert len(read(folder, 'scienceqa_img')) == 3
    # Its own files of predictions have the same scores.
    evaluate('--predictions', folder, *BOTH, out='again')
    assert scores(data / 'again') == scores(data / 'out')
    assert scores(data / 'out')['pope']['questions'] == 6


def test_benchmarks_one_after_another_are_all_in_the_scores(evaluate, model, data):
    for name in ('pope', 'scienceqa_img'):
        evaluate(model, '--benchmarks', name, *FAST)
    assert list(scores(data / 'out')) == ['pope', 'scienceqa_img']
    evaluate(model, *BOTH, *FAST, out='whole')
    assert scores(data / 'out') == scores(data / 'whole')
    # They are not replaced by those of answers from elsewhere.
    with pytest.raises(SystemExit, match=r'has scores, but no predictions\.json'):
        evaluate('--predictions', data.joinpath(*PREDICTIONS), '--benchmarks', 'pope')
    assert scores(data / 'out') == scores(data / 'whole')


def test_interrupted_and_continued(evaluate, asked, model, data, capsys):
    sizes, watched = asked
    args = (model, *BOTH, *FAST, '--batch-size', 2)
    evaluate(*args, out='whole')
    sizes.clear()
    watched.interrupt_at = 2
    with pytest.raises(SystemExit, match='130'):
        evaluate(*args)
    assert 'the same command goes on from here' in capsys.readouterr().err
    folder = data.joinpath(*PREDICTIONS)
    assert len(read(folder, 'pope')) == 4
    with (folder / 'pope.jsonl').open('a') as file:
        file.write('{"question_id": "adversarial/0", "te')
    watched.interrupt_at = None
    sizes.clear()
    evaluate(*args)
    assert sizes == [2, 2, 1]
    assert scores(data / 'out') == scores(data / 'whole')
    for name in ('pope', 'scienceqa_img'):
        whole = read(data / 'whole' / 'predictions', name)
        assert read(folder, name) == whole
    sizes.clear()
    evaluate(*args)
    assert sizes == []


def test_batches_do_not_change_answers(evaluate, model, data):
    for size in (1, 6):
        args = (*BOTH, *FAST, '--batch-size', size)
        evaluate(model, *args, out=f'out{size}')
    for name in ('pope', 'scienceqa_img'):
        one, six = (read(data / f'out{n}' / 'predictions', name) for n in (1, 6))
        assert one == six


def test_answers_of_another_model(evaluate, model, data, tmp_path_factory):
    evaluate(model, *BOTH, *FAST)
    other = save_tiny_llava(tmp_path_factory.mktemp('other'), seed=1)
    with pytest.raises(SystemExit, match='answers with other settings .model: '):
        evaluate(other, *BOTH, *FAST)
    with pytest.raises(SystemExit, match='max_new_tokens: 4, now 3'):
        evaluate(model, *BOTH, *FAST, '--max-new-tokens', 3)
    with pytest.raises(SystemExit, match='processor: None, now '):
        evaluate(model, *BOTH, *FAST, '--processor', other)
    settings = next(Path(model).glob('*processor_config.json'))
    settings.write_text(settings.read_text() + '\n')
    with pytest.raises(SystemExit, match='files: .*processor_config.json'):
        evaluate(model, *BOTH, *FAST)
    # The same folder with other weights.
    save_tiny_llava(model, seed=0)
    with pytest.raises(SystemExit, match='files: '):
        evaluate(model, *BOTH, *FAST)
    data.joinpath(*PREDICTIONS, 'model.json').unlink()
    with pytest.raises(SystemExit, match=r'no model\.json that says whose'):
        evaluate(model, *BOTH, *FAST)


def test_config_and_checkpoint(evaluate, model, data):
    wrapper = VisionLanguageModel(path=model)
    with torch.no_grad():
        weight = wrapper.lm.lm_head.weight
        weight.copy_(weight.flip(0))
    torch.save(dict(state_dict=wrapper.state_dict()), 'last.pth')
    settings = dict(type='mmtransmamba.VisionLanguageModel', path=model)
    Config(dict(model=settings)).dump('config.py')
    evaluate('config.py', 'last.pth', *BOTH, *FAST)
    evaluate(model, *BOTH, *FAST, out='folder')
    wrapper.lm.save_pretrained('saved')
    evaluate('saved', *BOTH, *FAST, '--processor', model, out='saved_scores')
    trained, before, saved = (
        [row['text'] for row in read(data / name / 'predictions', 'pope')]
        for name in ('out', 'folder', 'saved_scores')
    )
    assert trained == saved != before


def test_image_root(evaluate, model, data):
    (data / 'data' / 'coco').rename(data / 'elsewhere')
    place = data / 'elsewhere' / 'val2014'
    pope = (model, '--benchmarks', 'pope', *FAST)
    with pytest.raises(SystemExit) as error:
        evaluate(*pope)
    message = str(error.value)
    assert 'pope: 2 images are missing (COCO_val2014_0.jpg, COCO_val2014_1.jpg)' in (
        message
    )
    assert 'data/pope/val2014 and data/coco/val2014' in message
    evaluate(*pope, '--image-root', f'pope={place}')
    (data / 'images' / 'pope').mkdir(parents=True)
    place.rename(data / 'images' / 'pope' / 'val2014')
    evaluate(*pope, '--image-root', 'images')
    with pytest.raises(SystemExit, match='takes one folder and NAME=FOLDER'):
        evaluate(*pope, '--image-root', 'mme=images')


def test_missing_image_before_anything_is_asked(evaluate, asked, data):
    """Also of the last benchmark, and before the model is loaded."""
    (data / 'data' / 'scienceqa' / 'images' / 'test' / '2' / 'image.png').unlink()
    with pytest.raises(SystemExit, match=r'scienceqa_img: 1 images are missing'):
        evaluate('absent', *BOTH, *FAST)
    assert asked[0] == []
    with pytest.raises(SystemExit, match='There is no model folder "absent"'):
        evaluate('absent', *BOTH, *FAST, '--limit', 2)


def test_length_of_answers(evaluate, model, data, monkeypatch):
    """That of the benchmark, but a head that reasons has its own."""
    given = []

    def answer(self, prompts, images, **generation):
        given.append((type(self.head).__name__, generation))
        return ['A'] * len(prompts)

    monkeypatch.setattr(VisionLanguageChat, 'answer', answer)
    monkeypatch.setattr(VisionLanguageChat, 'generate', answer)
    device = ('--device', 'cpu', '--batch-size', 9)
    evaluate(model, *BOTH, *device)
    evaluate(model, *BOTH, *device, '--head', 'reasoning', out='reasoning')
    assert BENCHMARKS['pope'].max_new_tokens == 128
    assert given == [
        ('AnswerHead', dict(max_new_tokens=128)),
        ('AnswerHead', dict(max_new_tokens=1024)),
        ('ReasoningHead', {}),
        ('ReasoningHead', {}),
    ]


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        ((), 'give MODEL, or CONFIG CHECKPOINT, or --predictions'),
        (('a', '--predictions', 'b'), 'give MODEL, or CONFIG CHECKPOINT'),
        (('a', 'b', 'c'), 'give MODEL, or CONFIG CHECKPOINT'),
        (('a', '--batch-size', '0'), '--batch-size: "0" must be a whole number, 1'),
    ],
)
def test_wrong_arguments(evaluate, capsys, args, message):
    with pytest.raises(SystemExit):
        evaluate(*args, *BOTH)
    assert message in capsys.readouterr().err
