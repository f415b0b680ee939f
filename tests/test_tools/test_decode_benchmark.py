"""The benchmark of decoding, with few tokens."""

import importlib.util
import json
import sys

import pytest

SCRIPT = 'benchmarks/decode.py'


@pytest.fixture
def module(repo_dir, monkeypatch):
    """The script as a module."""
    spec = importlib.util.spec_from_file_location(
        'decode_benchmark', repo_dir / 'tools' / SCRIPT
    )
    loaded = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, 'path', sys.path.copy())
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def parse(module, monkeypatch):
    def parse(*args):
        monkeypatch.setattr(sys, 'argv', ['decode.py', '--device', 'cpu', *args])
        return module.parse_args()

    return parse


def test_only_attention_keeps_more_the_longer_the_context(module, parse):
    args = parse('--new-tokens', '2', '--repeats', '1')
    states = {}
    for name in module.MODELS:
        rows = [module.measure(name, context, args) for context in (16, 32)]
        assert all(row['prefill'] > 0 and row['decode'] > 0 for row in rows)
        assert rows[0]['weights'] == rows[1]['weights'] > 0
        states[name] = [row['state'] for row in rows]
    short, long = states['pure']
    assert short == long > 0
    # Keys and values of 2 heads of 32 channels in 4 layers, or in the one that is left.
    per_token = 2 * 2 * 32 * 4
    for name, layers in (('teacher', 4), ('hybrid', 1)):
        short, long = states[name]
        assert long - short == 16 * layers * per_token


def test_the_table(run_tool, tmp_path):
    done = run_tool(
        SCRIPT,
        *('--device', 'cpu', '--models', 'teacher', '--contexts', 16),
        *('--new-tokens', 2, '--repeats', 1, '--json', 'figures.json'),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith('tiny, cpu, float32, batch 1, 2 tokens decoded')
    assert lines[2].split()[:2] == ['16', 'teacher']
    assert lines[2].endswith('1.00x')
    assert lines[-1].startswith('mmMamba reports')
    assert '20.6 times' in lines[-1] and '13.5 times' in lines[-1]
    (row,) = json.loads((tmp_path / 'figures.json').read_text())
    assert (row['model'], row['context']) == ('teacher', 16)


@pytest.mark.parametrize(
    'option', ['--repeats', '--new-tokens', '--batch-size', '--contexts']
)
def test_counts_are_positive(parse, capsys, option):
    with pytest.raises(SystemExit):
        parse(option, '0')
    assert f'{option}: 0 must be at least 1' in capsys.readouterr().err
