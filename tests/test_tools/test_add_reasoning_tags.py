"""Folders of models with the tags of reasoning as tokens."""

import importlib.util
import sys

import pytest
import torch
from tiny_vlms import save_tiny_llava, tiny_llava, tiny_processor
from transformers import AutoModelForImageTextToText, AutoProcessor

from mmtransmamba.models.multimodal.reasoning_tags import add_reasoning_tags


@pytest.fixture
def add_tags(repo_dir, monkeypatch, capsys):
    """Run the tool; what it prints."""
    path = repo_dir / 'tools' / 'add_reasoning_tags.py'
    spec = importlib.util.spec_from_file_location('tools_add_reasoning_tags', path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, 'path', sys.path.copy())
    spec.loader.exec_module(module)

    def run(*args):
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, args)])
        module.main()
        return capsys.readouterr().out

    return run


def test_a_folder_with_tags(add_tags, tmp_path):
    folder, out = save_tiny_llava(tmp_path / 'llava'), tmp_path / 'tagged'
    printed = add_tags(folder, '--out', out)
    assert '</CONCLUSION>  108' in printed and f'written to {out}' in printed
    processor = AutoProcessor.from_pretrained(out)
    assert processor.tokenizer('</CONCLUSION>').input_ids == [108]
    assert processor.chat_template == tiny_processor().chat_template
    model = AutoModelForImageTextToText.from_pretrained(out)
    expected = tiny_llava()
    add_reasoning_tags(expected, tiny_processor())
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert model.generation_config.eos_token_id == 2


def test_nothing_is_overwritten(add_tags, tmp_path):
    with pytest.raises(SystemExit, match=f'error: {tmp_path} exists'):
        add_tags(tmp_path / 'llava', '--out', tmp_path)


def test_a_folder_that_is_not_there(add_tags, tmp_path):
    with pytest.raises(SystemExit, match='error: .*llava'):
        add_tags(tmp_path / 'llava', '--out', tmp_path / 'tagged')
