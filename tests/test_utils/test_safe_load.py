"""Files that name more than data: read without running it, or refused by name."""

import argparse
import io
import subprocess
import zipfile

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from mmtransmamba.models import CheckpointError, read_state_dict
from mmtransmamba.utils import safe_load
from mmtransmamba.utils.safe_load import UnsafeFileError, load_file

MARKER = 'marker'


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *args, state=None):
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.reduced


class Raw:
    """Opcodes of a pickle, put into a checkpoint's content as they are."""

    def __init__(self, opcodes):
        self.opcodes = opcodes


def history_through_getattr():
    """mmengine's own list of safe names is enough to reach ``eval``.

    A HistoryBuffer is filled with the builtins of one of its methods, ``eval`` is
    read from it, put in place of its ``__setstate__``, and called with a text.
    """
    buffer = b'cmmengine.logging.history_buffer\nHistoryBuffer\n'
    get = b'c__builtin__\ngetattr\n'
    method = get + b'(' + buffer + b'X\x03\x00\x00\x00mintR'
    names = get + b'(' + method + b'X\x0c\x00\x00\x00__builtins__tR'
    made = buffer + b')\x81'
    filled = made + names + b'b' + b'q\x00'  # memo 0: an object with all builtins
    evaluate = get + b'(h\x00X\x04\x00\x00\x00evaltR'
    text = f'open({MARKER!r}, "w")'.encode()
    return (
        b'\x80\x02'
        + filled
        + b'0'
        + made
        + b'q\x01}X\x0c\x00\x00\x00__setstate__'
        + evaluate
        + b'sb'
        + b'X'
        + len(text).to_bytes(4, 'little')
        + text
        + b'b.'
    )


def write_raw(path, pickle):
    """A zip archive as torch.save writes it, with another pickle."""
    torch.save(dict(a=torch.zeros(1)), path)
    content = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(content, 'w') as new:
        for name in old.namelist():
            new.writestr(name, pickle if name.endswith('data.pkl') else old.read(name))
    path.write_bytes(content.getvalue())


PAYLOADS = {
    'a shell': lambda: Call(__import__('os').system, f'touch {MARKER}'),
    'letters as pairs': lambda: Call(subprocess.call, ['sh', 'ev']),
    'one in another': lambda: [dict(a=(Call(eval, f'open("{MARKER}", "w")'),))],
    'a file': lambda: Call(open, MARKER, 'w'),
    'an import': lambda: Call(getattr, Call(__import__, 'ev'), 'x'),
    'an object with a state': lambda: Call(
        subprocess.Popen, ['touch', MARKER], state=dict(a=1)
    ),
    'a list of objects in numpy': lambda: np.array(
        [Call(exec, f'open("{MARKER}", "w")')], object
    ),
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where the payloads would leave a file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'ev').write_text(f'touch {MARKER}\n')
    (tmp_path / 'ev.py').write_text(f'open({MARKER!r}, "w")\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv(safe_load.TRUST_VARIABLE, raising=False)
    yield tmp_path
    assert not (tmp_path / MARKER).exists()


@pytest.fixture(params=[True, False], ids=['zip', 'old format'])
def evil(request, folder):
    """Writes a checkpoint with a payload in one of the two formats."""

    def write(payload):
        content = dict(state_dict=dict(a=torch.ones(2)), meta={}, x=payload)
        path = folder / 'evil.pth'
        torch.save(content, path, _use_new_zipfile_serialization=request.param)
        return path

    return write


@pytest.mark.parametrize('payload', PAYLOADS)
def test_payload_is_refused_by_name(evil, payload):
    path = evil(PAYLOADS[payload]())
    read = [
        lambda: load_file(path),
        lambda: load_file(path, foreign='inert'),
        lambda: read_state_dict(path),
        lambda: CheckpointLoader.load_checkpoint(str(path), 'cpu'),
    ]
    for call in read:
        with pytest.raises(ValueError, match='evil.pth" (names|holds)') as error:
            call()
        assert isinstance(error.value, (UnsafeFileError, CheckpointError))
        assert safe_load.TRUST_VARIABLE in str(error.value)
        assert '\n' not in str(error.value)


def test_message_has_the_name(evil):
    with pytest.raises(UnsafeFileError, match='names subprocess.call, which'):
        load_file(evil(PAYLOADS['letters as pairs']()))


def test_getattr_reaches_nothing_but_statistics(folder):
    write_raw(folder / 'evil.pth', history_through_getattr())
    for foreign in ('refuse', 'inert'):
        with pytest.raises(UnsafeFileError, match="getattr.* '__builtins__'"):
            load_file(folder / 'evil.pth', foreign=foreign)


@pytest.mark.parametrize(
    'pickle',
    [
        # BUILD of a HistoryBuffer with what is no history
        b'cmmengine.logging.history_buffer\nHistoryBuffer\n)\x81}X\x01\x00\x00\x00aK\x01sb.',
        # numpy.dtype('O'), and an array of it
        b'cnumpy\ndtype\n(X\x01\x00\x00\x00OtR.',
        # numpy.ndarray((9999999,))
        b'cnumpy\nndarray\n(J\x7f\x96\x98\x00\x85tR.',
        # an array made of something else
        b'cnumpy.core.multiarray\n_reconstruct\n(ccollections\nOrderedDict\n)X\x01\x00\x00\x00btR.',
        # a number of three bytes
        b'cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(X\x02\x00\x00\x00f8tR'
        b'c_codecs\nencode\n(X\x03\x00\x00\x00abcX\x06\x00\x00\x00latin1tRtR.',
    ],
)
def test_stand_ins_check_what_they_are_given(folder, pickle):
    write_raw(folder / 'odd.pth', b'\x80\x02' + pickle)
    with pytest.raises(UnsafeFileError, match='holds more than data'):
        load_file(folder / 'odd.pth')


@pytest.mark.parametrize('zipped', [True, False])
def test_what_a_runner_saves_is_read_as_it_was(folder, zipped):
    history = HistoryBuffer([1.0, 2.0, 4.0], [1, 1, 2])
    content = dict(
        message_hub=dict(log_scalars=dict(loss=history)),
        array=np.arange(6, dtype='>f4').reshape(2, 3).T,
        words=np.array(['a', 'bcd']),
        score=np.float64(0.5),
        number=np.int32(-3),
        nested=[(np.ones(2), {'x': np.bool_(True)})],
        part=slice(1, 2),
        optimizer=dict(state={0: dict(step=torch.tensor(1.0))}),
    )
    torch.save(content, 'file.pth', _use_new_zipfile_serialization=zipped)
    read = load_file('file.pth')
    loaded = read['message_hub']['log_scalars']['loss']
    assert type(loaded) is HistoryBuffer and loaded.mean() == history.mean()
    assert loaded.statistics('max') == 4
    for name in ('array', 'words'):
        # numpy turns the bytes round where it reads another machine's order.
        assert type(read[name]) is np.ndarray
        assert read[name].dtype == content[name].dtype.newbyteorder('=')
        assert np.array_equal(read[name], content[name])
    assert type(read['score']) is np.float64 and read['score'] == 0.5
    assert type(read['number']) is np.int32 and read['number'] == -3
    assert type(read['nested'][0][0]) is np.ndarray
    assert read['nested'][0][1]['x'] and read['part'] == slice(1, 2)
    loaded.update(3.0)
    torch.save(read, 'again.pth')
    assert load_file('again.pth')['score'] == 0.5


def test_settings_of_a_training_script_are_read_as_mappings(folder):
    torch.save(
        dict(model=dict(a=torch.ones(1)), args=argparse.Namespace(lr=1)), 'a.pth'
    )
    assert load_file('a.pth')['model']['a'] == 1


class Foreign:
    """A class of somebody else's package."""


Foreign.__module__ = 'their_package.models'


def write_foreign(monkeypatch):
    import sys
    import types

    with monkeypatch.context() as patch:
        for name in ('their_package', 'their_package.models'):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        sys.modules['their_package.models'].Foreign = Foreign
        torch.save(dict(model=dict(a=torch.ones(1)), net=Foreign()), 'foreign.pth')


def test_foreign_classes_are_refused_unless_weights_alone_are_used(folder, monkeypatch):
    write_foreign(monkeypatch)
    with pytest.raises(UnsafeFileError, match='names their_package.models.Foreign'):
        load_file('foreign.pth')
    assert read_state_dict('foreign.pth').keys() == {'a'}
    monkeypatch.setattr(safe_load, '_weights_only', set())
    safe_load.use_weights_only('foreign.pth')
    loaded = CheckpointLoader.load_checkpoint(str(folder / 'foreign.pth'), 'cpu')
    assert loaded['net'] == {}


def test_a_class_can_be_permitted(folder):
    torch.save(dict(x=complex(1, 2), y=CheckpointError('a')), 'own.pth')
    with pytest.raises(UnsafeFileError, match='names mmtransmamba.*CheckpointError'):
        load_file('own.pth')
    with torch.serialization.safe_globals([CheckpointError]):
        assert isinstance(load_file('own.pth')['y'], CheckpointError)


def test_all_can_be_permitted(folder, monkeypatch):
    torch.save(dict(x=Call(dict, [('a', 1)])), 'own.pth')
    monkeypatch.setenv(safe_load.TRUST_VARIABLE, '1')
    assert load_file('own.pth') == dict(x=dict(a=1))


@pytest.mark.parametrize('content', [b'', b'text', b'\x80\x02', b'PK\x03\x04'])
def test_damaged_files_are_named(folder, content):
    (folder / 'cut.pth').write_bytes(content)
    with pytest.raises(ValueError, match='"cut.pth" is damaged|"cut.pth" holds'):
        load_file('cut.pth')


@pytest.mark.parametrize('key', ['cfg', 'config'])
def test_config_in_a_checkpoint_is_not_run(folder, key):
    text = f'x = open({MARKER!r}, "w")'
    torch.save(dict(meta={key: text, 'epoch': 1, 'iter': 1}), 'file.pth')
    loaded = CheckpointLoader.load_checkpoint('file.pth', 'cpu')
    with pytest.raises(UnsafeFileError, match='holds a config, which is Python code'):
        Config.fromstring(loaded['meta'][key], '.py')
    assert Config.fromstring('y = 1', '.py').y == 1
