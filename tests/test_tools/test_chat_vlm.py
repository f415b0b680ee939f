"""Conversations about images in a terminal, and through a pipe."""

import importlib.util
import io
import subprocess
import sys

import pytest
from PIL import Image
from tiny_vlms import save_tiny_llava

from mmtransmamba.apis import VisionLanguageChat
from mmtransmamba.datasets.conversations import Conversation, Turn

LENGTH = ('--max-new-tokens', 8, '--device', 'cpu')


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return save_tiny_llava(tmp_path_factory.mktemp('llava'))


@pytest.fixture(scope='module')
def red(tmp_path_factory):
    path = tmp_path_factory.mktemp('images') / 'red.png'
    Image.new('RGB', (20, 30), 'red').save(path)
    return str(path)


@pytest.fixture(scope='module')
def api(model):
    return VisionLanguageChat(model, device='cpu')


@pytest.fixture
def tool(repo_dir, monkeypatch):
    monkeypatch.setattr(sys, 'path', sys.path.copy())
    path = repo_dir / 'tools' / 'chat_vlm.py'
    spec = importlib.util.spec_from_file_location('tools_chat_vlm', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def talk(tool, monkeypatch, capsys):
    """Output of the tool for these input lines."""

    def run(*args, lines=()):
        monkeypatch.setattr(sys, 'argv', ['chat_vlm.py', *map(str, args)])
        monkeypatch.setattr(sys, 'stdin', io.StringIO('\n'.join(lines)))
        tool.main()
        return capsys.readouterr().out

    return run


def test_one_question(talk, model, red, api):
    out = talk(model, '--image', red, '--question', 'Hi', *LENGTH)
    assert out == api.generate(['Hi'], [red], max_new_tokens=8)[0] + '\n'


def test_conversation(talk, model, red, api):
    """Every question includes the previous turns and images."""
    lines = [
        'Hi',
        f'/image {red}',
        '',
        'What is it?',
        '/new',
        'What is it?',
        '/quit',
        'X',
    ]
    first, second, third = talk(model, *LENGTH, lines=lines).splitlines()
    (wanted,) = api.generate(['Hi'], max_new_tokens=8)
    assert first == wanted
    turns = [Turn('user', 'Hi'), Turn('assistant', wanted.strip())]
    turns.append(Turn('user', '<image>\nWhat is it?'))
    (wanted,) = api.generate([Conversation(turns, [red])], max_new_tokens=8)
    assert second == wanted
    (wanted,) = api.generate(['What is it?'], max_new_tokens=8)
    assert third == wanted != second


def test_end_of_input_and_wrong_commands(talk, model):
    out = talk(model, *LENGTH, lines=['/image absent.png', '/what', '/image'])
    absent, what, without = out.splitlines()
    assert absent == 'missing image: there is no file "absent.png"'
    assert what == 'There is no command /what; there are /image, /new, /quit.'
    assert without == '/image needs a file.'


def test_typed_placeholders_are_no_images(talk, model):
    assert talk(model, *LENGTH, lines=['What is <image>?']).strip()


def test_broken_off(tool, talk, model, monkeypatch, api):
    """The partial answer is kept; the next question follows it."""
    asked = []

    def stream(self, conversation, **generation):
        asked.append([turn.text for turn in conversation.turns])
        yield 'one '
        if len(asked) == 1:
            raise KeyboardInterrupt
        yield 'two'

    monkeypatch.setattr(VisionLanguageChat, 'stream', stream)
    out = talk(model, '--device', 'cpu', lines=['A', 'B'])
    assert out == 'one  (broken off)\none two\n'
    assert asked == [['A'], ['A', 'one', 'B']]


def test_temperature(talk, model, monkeypatch):
    given = []

    def stream(self, conversation, **generation):
        given.append(generation)
        yield 'A'

    monkeypatch.setattr(VisionLanguageChat, 'stream', stream)
    talk(model, '--question', 'Hi', '--temperature', 0.7, *LENGTH)
    talk(model, '--question', 'Hi', '--device', 'cpu')
    assert given == [dict(temperature=0.7, max_new_tokens=8), dict(temperature=0.0)]


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['absent'], 'There is no model folder "absent"'),
        (['absent', '--image', 'no.png'], 'there is no file "no.png"'),
        (
            ['absent.py', '--checkpoint', 'x.pth'],
            'the config file "absent.py" does not exist',
        ),
    ],
)
def test_wrong_files(talk, args, message):
    with pytest.raises(SystemExit) as error:
        talk(*args)
    assert str(error.value).startswith('chat_vlm.py: error: ')
    assert message in str(error.value)


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['--temperature', '-1'], '--temperature: "-1.0" must be a number, 0 at least'),
        (['--temperature', 'nan'], '--temperature: nan is not finite'),
        (['--max-new-tokens', '0'], '--max-new-tokens: "0" must be a whole number'),
    ],
)
def test_wrong_numbers(talk, model, capsys, args, message):
    with pytest.raises(SystemExit):
        talk(model, *args)
    assert message in capsys.readouterr().err


def test_piped(repo_dir, model, red, api, tmp_path):
    done = subprocess.run(
        [sys.executable, repo_dir / 'tools' / 'chat_vlm.py', model, *map(str, LENGTH)],
        input=f'/image {red}\nHi\n',
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == api.generate(['Hi'], [red], max_new_tokens=8)[0] + '\n'
