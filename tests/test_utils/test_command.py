"""One line for whatever goes wrong in a command, and what ``--debug`` changes."""

import linecache
import subprocess
import sys

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import MODELS

from mmtransmamba.models.checkpoint import CheckpointError, read_state_dict
from mmtransmamba.utils.command import EachOnce, KeyValues, Parser, tool
from mmtransmamba.utils.numbers import positive


def parser():
    made = Parser('A tool')
    made.add_argument('--options', nargs='+', action=KeyValues)
    made.add_argument('--count', type=positive)
    return made


@pytest.fixture
def command(monkeypatch):
    """Run a function as a tool; what it returns."""

    def run(work, *args):
        monkeypatch.setattr(sys, 'argv', ['/somewhere/example.py', *args])
        return tool(parser().parse_args)(work)()

    return run


@pytest.fixture
def line_of(command):
    """The line that a function ends in."""

    def run(work):
        with pytest.raises(SystemExit) as error:
            command(work)
        message = error.value.code
        assert message.startswith('example.py: error: ') and '\n' not in message
        return message.removeprefix('example.py: error: ')

    return run


def test_returns_what_the_work_returns(command):
    assert command(lambda args: args.options, '--options', 'a=1', 'b=x') == {
        'a': 1,
        'b': 'x',
    }


def test_a_list_may_name_things_once():
    made = Parser('A tool')
    made.add_argument('--seeds', nargs='+', action=EachOnce, type=positive)
    assert made.parse_args(['--seeds', '3', '1', '03', '1']).seeds == [3, 1]
    assert made.parse_args([]).seeds is None


def test_own_messages_stand_for_themselves(line_of, tmp_path):
    message = line_of(lambda args: read_state_dict(tmp_path / 'no.pth'))
    assert message == f'No checkpoint file at {tmp_path}/no.pth.'


def test_lines_become_one(line_of, monkeypatch):
    def work(args):
        raise CheckpointError('First line:\n  second\n')

    monkeypatch.setattr('mmtransmamba.utils.error_lines._is_ours', lambda file: True)
    assert line_of(work) == 'First line: second'


def test_a_file_is_named_with_what_is_wrong(line_of, tmp_path):
    message = line_of(lambda args: (tmp_path / 'absent.txt').read_text())
    assert message == f'{tmp_path}/absent.txt: No such file or directory'


def test_a_missing_package_is_named(line_of):
    def work(args):
        raise ModuleNotFoundError("No module named 'lmms_eval.api'", name='lmms_eval.x')

    assert line_of(work) == 'the Python package "lmms_eval" is not installed'


def test_an_unknown_type_in_a_config(line_of):
    message = line_of(lambda args: MODELS.build(dict(type='NoSuchModel')))
    assert message.startswith('NoSuchModel is not in the mmengine::model registry')


def test_an_error_of_another_package_says_type_and_place(line_of):
    message = line_of(lambda args: torch.zeros(2) + torch.zeros(3))
    assert message.startswith('RuntimeError: The size of tensor a (2) must match')
    assert 'test_command.py, line' in message
    assert message.endswith('with --debug)')


def test_a_bare_assertion_shows_its_code(line_of):
    message = line_of(lambda args: _bare_assertion(-1.0))
    assert message.startswith('AssertionError: "assert alpha > 0" does not hold')


def _bare_assertion(alpha):
    # pytest would rewrite an assertion of this file.
    scope = {'alpha': alpha}
    source = 'assert alpha > 0'
    linecache.cache['<bare>'] = (len(source), None, [source], '<bare>')
    exec(compile(source, '<bare>', 'exec'), scope)


class Broken(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return read_state_dict('/nowhere/absent.pth')


def test_the_error_of_a_worker_is_what_it_was_there(line_of):
    loader = torch.utils.data.DataLoader(Broken(), num_workers=1)
    message = line_of(lambda args: next(iter(loader)))
    assert message == 'No checkpoint file at /nowhere/absent.pth.'


def test_an_error_without_a_message(line_of):
    def work(args):
        raise MemoryError

    assert line_of(work).startswith('MemoryError: raise MemoryError [')


class Named:
    def __init__(self, alpha: float, count: int | None = None, name: str = '') -> None:
        self.share = count / alpha
        raise RuntimeError('nothing wrong with the arguments')


@pytest.fixture
def registered():
    MODELS.register_module(name='NamedForTest', module=Named)
    yield dict(type='NamedForTest')
    MODELS.module_dict.pop('NamedForTest')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(alpha='abc'), "Named: alpha='abc' must be of type float"),
        (dict(alpha=1, count=2.5), 'Named: count=2.5 must be of type int or None'),
        (dict(alpha=True), 'Named: alpha=True must be of type float'),
        (dict(alpha=1, name=3), 'Named: name=3 must be of type str'),
        (
            dict(alpha=1, cuont=2),
            "Named.__init__() got an unexpected keyword argument 'cuont'",
        ),
    ],
)
def test_an_argument_of_another_type_is_named(line_of, registered, arguments, message):
    assert line_of(lambda args: MODELS.build(registered | arguments)) == message


def test_what_was_being_built_is_named(line_of, registered):
    made = registered | dict(alpha=0, count=1)
    message = line_of(lambda args: MODELS.build(made))
    assert message.startswith(
        'ZeroDivisionError: division by zero, building Named(alpha=0, count=1) ['
    )


def test_the_log_of_a_run_has_the_traceback(line_of, tmp_path):
    MMLogger.get_instance('command', log_file=str(tmp_path / 'run.log'))
    message = line_of(lambda args: torch.zeros(2) + torch.zeros(3))
    assert f'(the traceback: in {tmp_path}/run.log, or with --debug)' in message
    logged = (tmp_path / 'run.log').read_text()
    assert 'Traceback (most recent call last)' in logged
    assert 'The size of tensor a' in logged


def test_debug_raises(command):
    with pytest.raises(RuntimeError, match='size of tensor'):
        command(lambda args: torch.zeros(2) + torch.zeros(3), '--debug')


def test_interruption(command, capsys):
    def work(args):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as error:
        command(work)
    assert error.value.code == 130
    assert capsys.readouterr().err.strip() == 'example.py: interrupted'


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['--options', 'foo'], '"foo" must have the form KEY=VALUE'),
        (['--options', '=1'], '"=1" must have the form KEY=VALUE'),
        (['--options', 'a=[1'], 'a: brackets do not match in "[1"'),
        (['--count', '0'], '"0" must be a whole number, 1 at least'),
        (['--count', 'x'], '"x" must be a whole number, 1 at least'),
    ],
)
def test_bad_arguments(command, capsys, args, message):
    with pytest.raises(SystemExit) as error:
        command(lambda args: None, *args)
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_the_reader_of_the_output_may_leave(repo_dir, tmp_path):
    script = tmp_path / 'long.py'
    script.write_text(
        'from mmtransmamba.utils.command import Parser, tool\n'
        'def work(args):\n'
        '    for number in range(100_000):\n'
        '        print(number)\n'
        'tool(Parser().parse_args)(work)()\n'
    )
    command = f'{sys.executable} {script} | head -n 1'
    done = subprocess.run(
        command,
        shell=True,
        capture_output=True,
        text=True,
        cwd=repo_dir,
        env={'PYTHONPATH': str(repo_dir)},
    )
    assert (done.stdout, done.stderr) == ('0\n', '')
