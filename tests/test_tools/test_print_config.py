"""``tools/print_config.py``: the whole config, and the files it comes from."""

import sys

import print_config
import pytest
from mmengine.config import Config

CONFIG = 'configs/quickstart/digits_transfer.py'


@pytest.fixture
def printed(repo_dir, monkeypatch, capsys):
    def run(*args):
        monkeypatch.chdir(repo_dir)
        monkeypatch.setattr(sys, 'argv', ['print_config.py', *map(str, args)])
        print_config.main()
        return capsys.readouterr().out

    return run


def test_what_is_printed_is_the_same_config(printed, tmp_path):
    flat = tmp_path / 'flat.py'
    flat.write_text(printed(CONFIG))
    assert '_base_' not in flat.read_text()
    assert Config.fromfile(flat).to_dict() == Config.fromfile(CONFIG).to_dict()


def test_options_are_part_of_it(printed, tmp_path):
    flat = tmp_path / 'flat.py'
    option = 'param_scheduler.0.end=7'
    flat.write_text(printed(CONFIG, '--cfg-options', option, 'work_dir=a b'))
    cfg = Config.fromfile(flat)
    assert (cfg.param_scheduler[0]['end'], cfg.work_dir) == (7, 'a b')


def test_files_are_those_that_mmengine_reads(printed, repo_dir):
    lines = printed(CONFIG, '--files').splitlines()
    assert lines[0] == CONFIG
    assert all(line.startswith('  configs/') for line in lines[1:2])
    read = Config.fromfile(CONFIG).text
    files = {line.strip() for line in lines}
    assert len(files) > 3
    assert all(str(repo_dir / file) in read or file in read for file in files)


def test_a_base_of_another_package_is_named(printed, tmp_path):
    path = tmp_path / 'child.py'
    path.write_text("_base_ = 'mmpretrain::_base_/default_runtime.py'\n")
    first, second = printed(path, '--files').splitlines()
    assert (first, second) == (str(path), '  mmpretrain::_base_/default_runtime.py')


def test_errors_are_one_line(printed, tmp_path):
    with pytest.raises(SystemExit) as error:
        printed(tmp_path)
    assert error.value.code == (
        f'print_config.py: error: the config "{tmp_path}" is a folder; give a file in '
        'it'
    )
    with pytest.raises(SystemExit, match='the config has no such place'):
        printed(CONFIG, '--cfg-options', 'param_scheduler.9.end=7')
