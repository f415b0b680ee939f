"""The tool that puts a LLaVA together."""

import pytest
import torch
from processes import run_script
from tiny_llavas import save_language_model, save_tower

from mmtransmamba.models.folders import assemble_llava
from mmtransmamba.models.trainable import VisionLanguageModel


@pytest.fixture
def run(repo_dir):
    def call(*args):
        return run_script(repo_dir / 'tools' / 'assemble_llava.py', *args)

    return call


def test_the_folder_is_what_the_function_makes(run, tmp_path):
    vision = save_tower(tmp_path / 'tower')
    language = save_language_model(tmp_path / 'lm')
    out = tmp_path / 'llava'
    (tmp_path / 'chat.jinja').write_text('{{ messages }}')
    options = ('--seed', 3, '--chat-template', tmp_path / 'chat.jinja')
    done = run(vision, language, '--out', out, *options)
    assert done.returncode == 0, done.stderr
    assert '1,856 parameters of the projector are new' in done.stdout
    model = VisionLanguageModel(str(out), stage='llava_pretrain')
    expected, _ = assemble_llava(vision, language, seed=3)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.lm.state_dict()[name], tensor), name
    assert model.companions.processor.chat_template == '{{ messages }}'
    assert not list(tmp_path.glob('*.partial'))
    again = run(vision, language, '--out', out)
    assert again.returncode == 1
    assert 'exists; give another folder' in again.stderr


def test_what_does_not_fit_is_said(run, tmp_path):
    language = save_language_model(tmp_path / 'lm')
    done = run(language, language, '--out', tmp_path / 'llava')
    assert done.returncode == 1
    assert 'error: The vision tower in' in done.stderr
    assert not (tmp_path / 'llava').exists()
