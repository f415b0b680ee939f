"""The code in the documentation that needs a model's folder, run with a small one."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from PIL import Image
from tiny_vlms import save_tiny_llava

from mmtransmamba.models.trainable import VisionLanguageModel

DOCS = Path(__file__).resolve().parent.parent / 'docs'
FENCE = re.compile(r'^```(py|python)\n(.*?)^```$', re.MULTILINE | re.DOTALL)
FOLDER = 'checkpoints/llava-hybrid'


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    """A model's folder, a checkpoint of its training, and images."""
    monkeypatch.chdir(tmp_path)
    save_tiny_llava(FOLDER)
    for name in ('photo.jpg', 'other.jpg', 'images/gqa/images/n161313.jpg'):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (20, 30), 'red').save(name)
    Path('work_dirs/run').mkdir(parents=True)
    model = VisionLanguageModel(path=FOLDER)
    torch.save(dict(state_dict=model.state_dict()), 'work_dirs/run/last.pth')
    settings = dict(type='mmtransmamba.VisionLanguageModel', path=FOLDER)
    Config(dict(model=settings)).dump('config.py')


def run(page):
    namespace = {'__name__': page}
    kinds = []
    for kind, code in FENCE.findall((DOCS / page).read_text(encoding='utf-8')):
        exec(compile(code, page, 'exec'), namespace)
        kinds.append(kind)
    return kinds, namespace


def test_inference():
    kinds, names = run('vlm_inference.md')
    assert kinds == ['py'] * 6
    assert len(names['answers']) == 3 and len(names['talk'].turns) == 3


def test_evaluation():
    kinds, names = run('evaluation.md')
    assert kinds == ['python', 'python', 'py']
    assert names['result'].count == 1
    assert Path('model_answers/gqa.jsonl').is_file()
