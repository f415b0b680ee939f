"""Checkpoints of a run that is killed or copied, or whose disk is full."""

import errno
import os
import re
import shutil

import pytest
import torch
from mmengine.runner import find_latest_checkpoint
from tiny_training import make_config, train

from mmtransmamba.utils import checkpoint_files


def names(folder, pattern='*.pth*'):
    return sorted(path.name for path in folder.glob(pattern))


@pytest.fixture
def full_disk(monkeypatch):
    """Lets checkpoints, but a number of first ones, be written to their middle only."""

    def fill(after):
        real_open, written = open, []

        class Cut:
            def __init__(self, file):
                self.file = file

            def __enter__(self):
                return self

            def __exit__(self, *_):
                self.file.close()

            def write(self, content):
                self.file.write(content[: len(content) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def opening(path, *args):
            file = real_open(path, *args)
            if str(path).endswith('.pth.part'):
                written.append(path)
                if len(written) > after:
                    return Cut(file)
            return file

        monkeypatch.setattr(checkpoint_files, 'open', opening, raising=False)

    return fill


@pytest.mark.parametrize(
    ('val', 'fitting', 'cut', 'left'),
    [
        (False, 2, 'epoch_3.pth', ['epoch_2.pth']),
        # A checkpoint is saved again when it is the best.
        (True, 4, 'best_acc_epoch_2.pth', ['best_acc_epoch_1.pth', 'epoch_2.pth']),
        (True, 6, 'epoch_3.pth', ['best_acc_epoch_2.pth', 'epoch_2.pth']),
    ],
)
def test_full_disk_loses_nothing(tmp_path, full_disk, val, fitting, cut, left):
    best = dict(save_best='acc', rule='greater') if val else {}
    cfg = make_config(tmp_path, max_keep_ckpts=1, val=val, **best)
    full_disk(after=fitting)
    with pytest.raises(OSError, match=f'No space left on device: .*{cut}'):
        train(cfg)
    assert names(tmp_path) == left
    found = checkpoint_files.find_resumable(tmp_path)
    assert found == str(tmp_path / 'epoch_2.pth')
    assert torch.load(found, weights_only=False)['meta']['epoch'] == 2


@pytest.mark.parametrize('kept', [1, 2])
def test_as_many_checkpoints_are_kept_as_were_asked_for(tmp_path, kept):
    train(make_config(tmp_path, max_keep_ckpts=kept))
    expected = ['epoch_3.pth', 'epoch_4.pth'][-kept:]
    assert names(tmp_path) == expected
    assert (tmp_path / 'last_checkpoint').read_text() == 'epoch_4.pth'


def test_old_best_goes_when_the_new_one_is_there(tmp_path):
    cfg = make_config(tmp_path, val=True, save_best='acc', rule='greater', length=5)
    train(cfg)
    assert names(tmp_path, 'best*') == ['best_acc_epoch_4.pth']


def test_copied_work_dir_is_a_run_of_its_own(tmp_path):
    options = dict(val=True, save_best='acc', rule='greater', max_keep_ckpts=2)
    first, second = tmp_path / 'first', tmp_path / 'second'
    train(make_config(first, length=5, **options), stop_at=12)
    shutil.copytree(first, second)
    before = {path: path.read_bytes() for path in first.rglob('*') if path.is_file()}
    resumed = train(make_config(second, length=5, **options), resume='auto')
    assert resumed.epoch == 5
    assert names(second, 'best*') == ['best_acc_epoch_4.pth']
    assert {p: p.read_bytes() for p in first.rglob('*') if p.is_file()} == before
    assert os.path.dirname(resumed.message_hub.get_info('best_ckpt')) == str(second)
    stored = torch.load(second / 'epoch_5.pth', weights_only=False)['message_hub']
    assert stored['runtime_info']['best_ckpt'] == 'best_acc_epoch_4.pth'
    assert stored['runtime_info']['last_ckpt'] == 'epoch_5.pth'


def test_checkpoint_with_paths_of_another_run(tmp_path):
    """As mmengine writes it: absolute, and elsewhere."""
    first, second = tmp_path / 'first', tmp_path / 'second'
    options = dict(val=True, save_best='acc', rule='greater')
    train(make_config(first, length=3, **options))
    content = torch.load(first / 'epoch_3.pth', weights_only=False)
    info = content['message_hub']['runtime_info']
    best = first / 'best_acc_epoch_2.pth'
    info.update(best_ckpt=str(best), last_ckpt=str(first / 'epoch_3.pth'))
    second.mkdir()
    torch.save(content, second / 'epoch_3.pth')
    (second / 'last_checkpoint').write_text(str(first / 'epoch_3.pth'))
    assert find_latest_checkpoint(str(second)) == str(second / 'epoch_3.pth')
    train(make_config(second, length=5, **options), resume='auto')
    assert best.exists()


def test_checkpoints_beside_the_work_dir(tmp_path):
    cfg = make_config(tmp_path / 'run', out_dir=str(tmp_path / 'kept'), length=1)
    train(cfg)
    found = checkpoint_files.find_resumable(tmp_path / 'run', tmp_path / 'kept')
    assert found == str(tmp_path / 'kept' / 'run' / 'epoch_1.pth')


class TestDamaged:
    @pytest.mark.parametrize('content', [b'', b'PK\x03\x04 cut'])
    @pytest.mark.parametrize('pointer', [None, 'epoch_2.pth'])
    def test_nothing_complete_is_refused(self, tmp_path, content, pointer):
        (tmp_path / 'epoch_3.pth').write_bytes(content)
        if pointer is not None:
            (tmp_path / 'last_checkpoint').write_text(pointer)
        with pytest.raises(ValueError, match='no complete checkpoint in') as error:
            checkpoint_files.find_resumable(tmp_path)
        assert 'found: epoch_3.pth' in str(error.value)
        assert (str(pointer) in str(error.value)) == (pointer is not None)

    def test_pointer_to_nothing_is_refused(self, tmp_path):
        (tmp_path / 'last_checkpoint').write_text('/elsewhere/iter_4.pth')
        with pytest.raises(ValueError, match='last_checkpoint names iter_4.pth'):
            checkpoint_files.find_resumable(tmp_path)

    def test_run_killed_before_its_first_checkpoint_starts_anew(self, tmp_path):
        (tmp_path / 'epoch_1.pth.part').write_bytes(b'cut')
        assert checkpoint_files.find_resumable(tmp_path) is None


def test_other_number_of_workers_is_named(tmp_path, capsys):
    train(make_config(tmp_path, length=1))
    assert train(make_config(tmp_path, length=2, workers=1), resume='auto').epoch == 2
    logs = ''.join(path.read_text() for path in tmp_path.rglob('*.log'))
    assert 'a run with num_workers=0, and it goes on with 1' in logs


def test_old_checkpoint_without_generators_resumes(tmp_path):
    train(make_config(tmp_path, length=1))
    path = tmp_path / 'epoch_1.pth'
    content = torch.load(path, weights_only=False)
    del content['random_state']
    torch.save(content, path)
    assert train(make_config(tmp_path, length=2), resume='auto').epoch == 2


def test_validation_changes_no_training(tmp_path):
    without = train(make_config(tmp_path / 'without'))
    with_val = train(make_config(tmp_path / 'with', val=True))
    for name, value in without.model.state_dict().items():
        assert torch.equal(value, with_val.model.state_dict()[name])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            dict(optim_wrapper=dict(optimizer=dict(type='Adam', lr=0.5))),
            r'optim_wrapper\.optimizer\.lr=0\.5 has no effect: .* a run with 0\.01',
        ),
        (
            dict(
                optim_wrapper=dict(
                    optimizer=dict(type='Adam', lr=0.01),
                    paramwise_cfg=dict(bias_lr_mult=2.0),
                )
            ),
            r'optim_wrapper\.paramwise_cfg=.* has no effect',
        ),
        (
            dict(
                param_scheduler=dict(type='CosineAnnealingLR', T_max=9, by_epoch=False)
            ),
            r'param_scheduler\.T_max=9 has no effect: .* a run with 20',
        ),
        (
            dict(train_cfg=dict(by_epoch=True, max_epochs=1)),
            r'train_cfg\.max_epochs=1, but the checkpoint has 2 of them behind it',
        ),
    ],
)
def test_a_resumed_run_refuses_what_its_checkpoint_overrides(tmp_path, change, message):
    train(make_config(tmp_path), stop_at=12)
    with pytest.raises(ValueError, match=message):
        train(make_config(tmp_path) | change, resume='auto')


def test_a_resumed_run_may_change_what_it_reads_itself(tmp_path):
    train(make_config(tmp_path), stop_at=12)
    clip = dict(clip_grad=dict(max_norm=1.0))
    optimizer = dict(optimizer=dict(type='Adam', lr=0.01))
    changes = dict(
        optim_wrapper=optimizer | clip,
        train_cfg=dict(by_epoch=True, max_epochs=5),
    )
    assert train(make_config(tmp_path) | changes, resume='auto').epoch == 5
    # A run that is over, as a job that is started again finds it.
    assert train(make_config(tmp_path) | changes, resume='auto').epoch == 5


@pytest.mark.parametrize(
    ('name', 'meant'),
    [('max_keep_ckpt', 'max_keep_ckpts'), ('intervall', 'interval'), ('zzz', None)],
)
def test_an_unknown_argument_is_refused_before_the_training(tmp_path, name, meant):
    hint = f'; did you mean "{meant}"?' if meant else ''
    with pytest.raises(TypeError, match=re.escape(f'no argument "{name}"{hint}')):
        train(make_config(tmp_path, **{name: 1}))


@pytest.mark.parametrize('best', ['accuracy/top5', ['acc', 'accuracy/top5']])
def test_a_metric_that_there_is_not_loses_no_training(tmp_path, best):
    rule = 'greater' if isinstance(best, str) else ['greater', 'greater']
    cfg = make_config(tmp_path, val=True, save_best=best, rule=rule, every=100)
    message = "save_best='accuracy/top5' .* is none of the metrics .*: acc"
    with pytest.raises(ValueError, match=message):
        train(cfg)
    assert names(tmp_path) == ['epoch_1.pth']
