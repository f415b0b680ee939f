"""``tools/export_lm.py`` on a folder of the converter."""

import sys

import pytest
import transformers
from language_models import make_hybrid, make_teacher
from packaging.version import Version


@pytest.fixture
def tool(repo_dir, monkeypatch, tmp_path):
    """Run the tool in a folder with two hybrids."""
    monkeypatch.syspath_prepend(str(repo_dir / 'tools'))
    monkeypatch.delitem(sys.modules, 'export_lm', raising=False)
    monkeypatch.chdir(tmp_path)
    import export_lm

    for init in ('vkq', 'mimic'):
        make_hybrid(make_teacher(), init=init).save_pretrained(tmp_path / init)

    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['export_lm.py', *args])
        export_lm.main()

    return run


@pytest.mark.skipif(
    Version(transformers.__version__).release < (5, 23),
    reason='Granite normalises over all channels before transformers 5.23',
)
def test_what_was_written_is_reported(tool, capsys, tmp_path):
    tool('vkq', '--to', 'granite', '--out', 'granite')
    output = capsys.readouterr().out
    assert 'wrote   granite' in output and '16 greedy tokens, equal' in output
    assert (tmp_path / 'granite' / 'model.safetensors').is_file()


def test_obstacles_are_one_line(tool, tmp_path):
    with pytest.raises(SystemExit) as stop:
        tool('mimic', '--to', 'granite', '--out', 'granite', '--no-check')
    message = str(stop.value)
    assert "'per_head': Granite has gated_per_head" in message and '\n' not in message
    assert not (tmp_path / 'granite').exists()
