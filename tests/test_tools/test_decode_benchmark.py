"""The benchmark of decoding, with few tokens."""

import json
import sys

import _decode as module
import decode
import pytest
import torch

SCRIPT = 'benchmarks/decode.py'


@pytest.fixture
def parse(monkeypatch):
    def parse(*args):
        monkeypatch.setattr(sys, 'argv', ['decode.py', '--device', 'cpu', *args])
        return module.complete(decode.parse_args())

    return parse


def test_only_attention_keeps_more_the_longer_the_context(parse):
    args = parse('--new-tokens', '2', '--repeats', '1')
    states = {}
    for name in module.MODELS:
        runners = [module.Runner(name, 'eager', context, args) for context in (16, 32)]
        rows = module.take_turns(runners, args)
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


def test_compiled_steps_say_the_same(parse, monkeypatch, compilable):
    compile_ = torch.compile
    monkeypatch.setattr(
        torch, 'compile', lambda *args, **kwargs: compile_(*args, backend='eager')
    )
    args = parse('--new-tokens', '2', '--repeats', '1')
    eager, compiled = (module.Runner('hybrid', step, 16, args) for step in module.STEPS)
    assert compiled.decode is not compiled.model and eager.decode is eager.model
    eager, compiled = module.take_turns([eager, compiled], args)
    # A cache of fixed size has room for the decoded tokens from the start.
    assert compiled['state'] == eager['state']
    assert compiled['decode'] > 0


def test_medians_are_of_all_tokens(parse):
    args = parse('--repeats', '2', '--batch-size', '4')

    class Runner:
        name, step, context = 'pure', 'eager', 10
        rounds = iter(((9.0, [9.0]), (2.0, [1.0, 1.0, 50.0]), (4.0, [3.0, 2.0])))

        def round(self):
            prefill, tokens = next(self.rounds)
            processor = [t / 2 for t in tokens]
            same = dict(state=1, weights=2, peak=3)
            return dict(prefill=prefill, decode=tokens, processor=processor, **same)

    (row,) = module.take_turns([Runner()], args)
    assert row['prefill'] == 4 * 10 / 3
    assert row['ms_per_token'] == 2000 and row['processor_ms_per_token'] == 1000
    assert row['decode'] == 2


def test_the_table(run_tool, tmp_path):
    page = tmp_path / 'page.md'
    page.write_text(
        '# Speed\n\n<!-- begin figures -->\nold figures\n<!-- end figures -->\nMore.\n'
    )
    done = run_tool(
        SCRIPT,
        *('--device', 'cpu', '--models', 'teacher', '--contexts', 16),
        *('--new-tokens', 2, '--repeats', 1, '--json', 'figures.json'),
        *('--threads', 1, '--markdown', 'page.md'),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith('tiny, float32, batch 1, 2 tokens decoded')
    assert ' 1 thread(s) of ' in lines[0]
    assert lines[2].split()[:2] == ['16', 'teacher']
    assert lines[2].endswith('1.00x')
    assert lines[-1].startswith('mmMamba reports')
    assert '20.6 times' in lines[-1] and '13.5 times' in lines[-1]
    assert page.read_text().startswith('# Speed\n\n<!-- begin figures -->\n\ntiny,')
    assert page.read_text().endswith('|\n\n<!-- end figures -->\nMore.\n')
    assert '| context | teacher |\n| --- | --- |\n| 16 | ' in page.read_text()
    assert 'old figures' not in page.read_text()
    (row,) = json.loads((tmp_path / 'figures.json').read_text())
    assert (row['model'], row['context']) == ('teacher', 16)


def test_growth_with_the_context():
    def row(context, ms):
        same = dict.fromkeys(('processor_ms_per_token', 'state', 'prefill', 'peak'), 1)
        return dict(
            model='pure', step='compiled', context=context, ms_per_token=ms, **same
        )

    text = module.markdown([row(256, 2.0), row(16384, 5.0)], 'here')
    assert text.startswith('here.\n\n**Milliseconds per token**\n')
    assert '| context | pure, compiled |' in text
    assert '| 16,384 | 5.00 |\n| last by first | 2.50 |' in text


def test_a_model_that_fails_is_named(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['decode.py', '--size', 'none'])
    runner = module.Apart('pure', 'eager', 16)
    with pytest.raises(SystemExit, match='pure, eager, at 16 tokens failed'):
        runner.round()
    runner.close()


@pytest.mark.parametrize(
    'option', ['--repeats', '--new-tokens', '--batch-size', '--contexts']
)
def test_counts_are_positive(parse, capsys, option):
    with pytest.raises(SystemExit):
        parse(option, '0')
    assert (
        f'{option}: "0" must be a whole number, 1 at least' in capsys.readouterr().err
    )


def test_a_page_without_marks_is_kept(tmp_path):
    page = tmp_path / 'page.md'
    begin, end = module.MARKS
    for text in ('# my notes', f'{begin} and no end', f'{end}\n{begin}'):
        page.write_text(text)
        with pytest.raises(ValueError, match=r'page\.md has text, and not the lines'):
            module.write_between_marks(page, '| table |')
        assert page.read_text() == text
    page.write_text(f'# my notes\n{begin}\nold\n{end}\nmore')
    module.write_between_marks(page, '| table |')
    assert page.read_text() == f'# my notes\n{begin}\n\n| table |\n{end}\nmore'
    for path in (tmp_path / 'new.md', tmp_path / 'empty.md'):
        (tmp_path / 'empty.md').touch()
        module.write_between_marks(path, '| table |')
        assert path.read_text() == '| table |'
