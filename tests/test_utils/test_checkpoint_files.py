"""Folders that are replaced when the new one is complete."""

import shutil
from pathlib import Path

import pytest

from mmtransmamba.utils import checkpoint_files


class Killed(BaseException):
    """Stands for the end of the process."""


def read(folder):
    return (folder / 'sub' / 'weights').read_text() if folder.is_dir() else None


@pytest.mark.parametrize('step', range(7))
def test_folder_that_is_replaced_is_never_gone(tmp_path, monkeypatch, step):
    folder = tmp_path / 'student'
    for name, text in (('student', 'old'), ('student.partial', 'new')):
        (tmp_path / name / 'sub').mkdir(parents=True)
        (tmp_path / name / 'sub' / 'weights').write_text(text)
    done = []

    def until_killed(function):
        def counted(*args, **kwargs):
            if len(done) == step:
                raise Killed
            done.append(function)
            return function(*args, **kwargs)

        return counted

    with monkeypatch.context() as patch:
        patch.setattr(Path, 'rename', until_killed(Path.rename))
        patch.setattr(shutil, 'rmtree', until_killed(shutil.rmtree))
        patch.setattr(checkpoint_files.os, 'fsync', until_killed(lambda _: None))
        try:
            checkpoint_files.put_in_place(tmp_path / 'student.partial', folder)
        except Killed:
            killed = True
        else:
            killed = False
    found = [read(tmp_path / name) for name in ('student', '.student.old')]
    assert 'old' in found or 'new' in found
    if killed:  # and the next time it is put in place
        (tmp_path / 'student.partial' / 'sub').mkdir(parents=True, exist_ok=True)
        (tmp_path / 'student.partial' / 'sub' / 'weights').write_text('new')
        checkpoint_files.put_in_place(tmp_path / 'student.partial', folder)
    assert read(folder) == 'new'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['student']


def test_folders_of_similar_names_are_left_alone(tmp_path):
    mine = [tmp_path / f'student{end}' for end in ('', '.old', '.old2', '.partial')]
    for folder in mine:
        folder.mkdir()
        (folder / 'mine').touch()
    new = tmp_path / 'new'
    new.mkdir()
    checkpoint_files.put_in_place(new, mine[0])
    assert [(folder / 'mine').is_file() for folder in mine] == [False, True, True, True]
    assert sorted(tmp_path.iterdir()) == mine


@pytest.mark.parametrize('there', [True, False])
def test_a_link_stays_and_its_target_is_replaced(tmp_path, there):
    link, target = tmp_path / 'run' / 'student', tmp_path / 'disk' / 'weights'
    link.parent.mkdir()
    link.symlink_to(target)
    if there:
        target.mkdir(parents=True)
        (target / 'old').touch()
    for text in ('one', 'two', 'three'):
        partial = link.with_name('student.partial')
        partial.mkdir()
        (partial / 'weights').write_text(text)
        checkpoint_files.put_in_place(partial, link)
        assert link.is_symlink()
        assert [path.name for path in target.iterdir()] == ['weights']
        assert (link / 'weights').read_text() == text
    for folder, name in ((link.parent, 'student'), (target.parent, 'weights')):
        assert [path.name for path in folder.iterdir()] == [name]
