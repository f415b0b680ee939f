"""Effects of the command line on the config, and errors for bad input."""

import importlib.util
import os
import shutil
import sys
import time

import pytest
import torch

from mmtransmamba.utils import launch


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch, tmp_path):
    monkeypatch.setattr(launch, 'get_device', lambda: 'cpu')
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tool(repo_dir, monkeypatch):
    """Load a script of ``tools`` and give it a command line."""

    def load(name, *args):
        path = repo_dir / 'tools' / f'{name}.py'
        spec = importlib.util.spec_from_file_location(f'tools_{name}', path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setattr(sys, 'path', sys.path.copy())
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, args)])
        return module

    return load


@pytest.fixture
def prepared(tool):
    def prepare(name, *args):
        module = tool(name, *args)
        return module.prepare_config(module.parse_args())

    return prepare


@pytest.fixture
def checkpoint(tmp_path):
    torch.save({'state_dict': {'weight': torch.zeros(1)}}, tmp_path / 'given.pth')
    return tmp_path / 'given.pth'


def write_config(tmp_path, tiny_config, extra):
    path = tmp_path / 'changed.py'
    path.write_text(tiny_config.read_text() + extra)
    return path


def test_defaults(prepared, tiny_config):
    cfg = prepared('train', tiny_config)
    assert cfg.work_dir == os.path.join('work_dirs', 'tiny_vit')
    assert cfg.launcher == 'none'
    assert cfg.get('resume') is None
    loader = cfg.train_dataloader
    assert loader.collate_fn.type == 'default_collate'
    assert loader.pin_memory is False
    assert loader.persistent_workers is False
    assert cfg.val_dataloader.pin_memory is False


@pytest.mark.parametrize(
    ('scope', 'collate'),
    [('mmpretrain', 'default_collate'), ('mmseg', 'pseudo_collate')],
)
def test_images_of_many_sizes_are_not_stacked(
    prepared, tiny_config, tmp_path, scope, collate
):
    path = write_config(tmp_path, tiny_config, f'default_scope = {scope!r}\n')
    for loader in ('train_dataloader', 'val_dataloader'):
        assert prepared('train', path)[loader].collate_fn.type == collate


@pytest.mark.parametrize(
    'options', [['--work-dir', 'run'], ['--cfg-options', 'work_dir=run']]
)
def test_a_test_does_not_write_over_the_config_of_a_training(
    prepared, tiny_config, checkpoint, options
):
    cfg = prepared('test', tiny_config, checkpoint, *options)
    assert cfg.work_dir == os.path.join('run', 'test')


def test_work_dir_of_the_config_and_of_the_command_line(
    prepared, tiny_config, tmp_path
):
    path = write_config(tmp_path, tiny_config, "work_dir = 'mine'\n")
    assert prepared('train', path).work_dir == 'mine'
    assert prepared('train', path, '--work-dir', 'other').work_dir == 'other'


def test_loader_settings_of_the_config_stay(prepared, tiny_config, monkeypatch):
    monkeypatch.setattr(launch, 'get_device', lambda: 'cuda')
    cfg = prepared(
        'train',
        tiny_config,
        '--cfg-options',
        'val_dataloader.pin_memory=False',
    )
    assert cfg.train_dataloader.pin_memory is True
    assert cfg.val_dataloader.pin_memory is False


def test_workers_persist_where_there_are_some(prepared, tiny_config, tmp_path):
    path = write_config(tmp_path, tiny_config, "train_dataloader['num_workers'] = 2\n")
    assert prepared('train', path).train_dataloader.persistent_workers is True


def test_no_validate(prepared, tiny_config):
    cfg = prepared('train', tiny_config, '--no-validate')
    assert cfg.val_cfg is cfg.val_dataloader is cfg.val_evaluator is None


def test_cfg_options(prepared, tiny_config):
    cfg = prepared(
        'train',
        tiny_config,
        '--cfg-options',
        'optim_wrapper.optimizer.lr=0.5',
        'model.backbone.out_indices=[0,1]',
    )
    assert cfg.optim_wrapper.optimizer.lr == 0.5
    assert cfg.model.backbone.out_indices == [0, 1]


def test_auto_scale_lr(prepared, tiny_config, tmp_path):
    path = write_config(
        tmp_path, tiny_config, 'auto_scale_lr = dict(base_batch_size=50)\n'
    )
    assert prepared('train', path, '--auto-scale-lr').auto_scale_lr.enable is True
    assert 'enable' not in prepared('train', path).auto_scale_lr


def test_amp_on_a_gpu(tool, tiny_config, monkeypatch):
    module = tool('train', tiny_config, '--amp')
    monkeypatch.setattr(launch, 'get_device', lambda: 'cuda')
    cfg = module.prepare_config(module.parse_args())
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'


def test_resume_from_a_named_checkpoint(prepared, tiny_config, checkpoint):
    cfg = prepared('train', tiny_config, '--resume', checkpoint)
    assert (cfg.resume, cfg.load_from) == (True, str(checkpoint))


def test_resume_without_a_checkpoint_starts_anew(prepared, tiny_config, capsys):
    cfg = prepared('train', tiny_config, '--resume')
    assert cfg.get('load_from') is None
    assert 'training from the start' in capsys.readouterr().out


def test_amp_in_tests(prepared, tiny_config, checkpoint):
    cfg = prepared('test', tiny_config, checkpoint, '--amp')
    assert cfg.test_cfg.fp16 is True
    assert cfg.load_from == str(checkpoint)


class TestResumable:
    """Which checkpoint an interrupted run goes on from."""

    @pytest.fixture(autouse=True)
    def checkpoints(self, tmp_path, checkpoint):
        for age, name in ((30, 'epoch_8'), (20, 'epoch_9'), (10, 'epoch_10')):
            path = shutil.copy(checkpoint, tmp_path / f'{name}.pth')
            os.utime(path, (time.time() - age,) * 2)
        self.folder = tmp_path

    def point_to(self, name):
        (self.folder / 'last_checkpoint').write_text(str(self.folder / name))

    def found(self):
        return os.path.basename(launch.find_resumable(str(self.folder)))

    def truncate(self, name):
        path = self.folder / name
        path.write_bytes(path.read_bytes()[:-100])

    def test_the_one_last_checkpoint_names(self):
        self.point_to('epoch_9.pth')
        assert self.found() == 'epoch_9.pth'

    def test_killed_while_writing_the_checkpoint(self):
        self.point_to('epoch_10.pth')
        self.truncate('epoch_10.pth')
        assert self.found() == 'epoch_9.pth'

    def test_killed_while_writing_the_pointer(self):
        (self.folder / 'last_checkpoint').write_text('')
        assert self.found() == 'epoch_10.pth'

    def test_moved_work_dir(self):
        (self.folder / 'last_checkpoint').write_text('/elsewhere/epoch_10.pth')
        assert self.found() == 'epoch_10.pth'

    def test_nothing_there(self, tmp_path):
        assert launch.find_resumable(str(tmp_path / 'empty')) is None


def error_of(module, capsys):
    with pytest.raises(SystemExit) as error:
        module.main()
    capsys.readouterr()
    return str(error.value)


@pytest.mark.parametrize('name', ['train', 'test'])
def test_missing_config(tool, capsys, name):
    module = tool(name, 'absent.py', *(['x.pth'] if name == 'test' else []))
    expected = f'{name}.py: error: the config file "absent.py" does not exist'
    assert error_of(module, capsys) == expected


def test_missing_base_config(tool, tmp_path, capsys):
    (tmp_path / 'child.py').write_text("_base_ = './absent.py'\n")
    message = error_of(tool('train', 'child.py'), capsys)
    assert message.startswith('train.py: error: cannot read the config "child.py"')
    assert 'absent.py' in message


@pytest.mark.parametrize(
    ('name', 'args'), [('test', ['absent.pth']), ('train', ['--resume', 'absent.pth'])]
)
def test_missing_checkpoint(tool, tiny_config, capsys, name, args):
    message = error_of(tool(name, tiny_config, *args), capsys)
    assert message == f'{name}.py: error: the checkpoint "absent.pth" does not exist'


def test_truncated_checkpoint(tool, tiny_config, checkpoint, capsys):
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    message = error_of(tool('train', tiny_config, '--resume', checkpoint), capsys)
    assert 'given.pth" is incomplete or no checkpoint of torch.save' in message


def test_checkpoint_of_another_model(tool, tiny_config, checkpoint, capsys):
    message = error_of(tool('test', tiny_config, checkpoint), capsys)
    assert 'given.pth does not fit ImageClassifier' in message
    assert 'backbone.cls_token' in message


@pytest.mark.parametrize(
    ('name', 'args', 'message'),
    [
        ('train', ['--amp'], '--amp needs a GPU'),
        ('train', ['--auto-scale-lr'], 'auto_scale_lr=dict(base_batch_size=…)'),
        ('train', ['--launcher', 'pytorch'], 'RANK, WORLD_SIZE not found'),
        ('test', ['--out', 'x.txt'], 'must end in .pkl, got "x.txt"'),
        ('test', ['--out', 'x.txt', '--out-item', 'metrics'], '.pkl or .json or .yml'),
    ],
)
def test_options_that_do_not_fit(
    tool, tiny_config, checkpoint, capsys, monkeypatch, name, args, message
):
    for variable in ('RANK', 'WORLD_SIZE'):
        monkeypatch.delenv(variable, raising=False)
    positional = [tiny_config, checkpoint] if name == 'test' else [tiny_config]
    module = tool(name, *positional, *args)
    assert message in error_of(module, capsys)


def test_amp_with_another_optimizer_wrapper(
    tool, tiny_config, tmp_path, capsys, monkeypatch
):
    path = write_config(tmp_path, tiny_config, "optim_wrapper['type'] = 'Other'\n")
    module = tool('train', path, '--amp')
    monkeypatch.setattr(launch, 'get_device', lambda: 'cuda')
    assert 'the config has "Other"' in error_of(module, capsys)


def test_the_students_answers_are_those_of_the_distillers_head(
    prepared, repo_dir, checkpoint
):
    path = repo_dir / 'configs' / 'multimodal' / 'reasoning' / 'shapes_hybrid.py'
    model = prepared('test', path, checkpoint).model
    assert model.type == 'mmtransmamba.VisionLanguageModel'
    assert model.head == dict(type='mmtransmamba.ReasoningHead', max_new_tokens=400)


def test_config_without_test_settings(tool, tiny_config, checkpoint, tmp_path, capsys):
    path = write_config(tmp_path, tiny_config, 'test_evaluator = None\n')
    message = error_of(tool('test', path, checkpoint), capsys)
    assert message.endswith('has no test_evaluator')


@pytest.mark.parametrize(
    ('script', 'args', 'usage'),
    [
        ('dist_train.sh', ['config.py'], 'CONFIG GPUS'),
        ('dist_test.sh', ['config.py', '2'], 'CONFIG CHECKPOINT GPUS'),
        ('slurm_train.sh', ['a', 'b', 'c'], 'PARTITION JOB_NAME CONFIG WORK_DIR'),
        ('slurm_test.sh', ['a', 'b', 'c'], 'PARTITION JOB_NAME CONFIG CHECKPOINT'),
    ],
)
def test_usage_of_the_scripts(run_tool, tmp_path, script, args, usage):
    done = run_tool(script, *args, cwd=tmp_path)
    assert done.returncode == 2
    assert usage in done.stderr


def test_number_of_processes(run_tool, tmp_path):
    done = run_tool('dist_train.sh', 'config.py', 'two', cwd=tmp_path)
    assert done.returncode == 2
    assert 'must be a positive integer, got "two"' in done.stderr


@pytest.mark.parametrize(
    ('name', 'value', 'accepted'),
    [
        ('GPUS', 'two', 'a positive integer'),
        ('GPUS', '0', 'a positive integer'),
        ('NTASKS_PER_NODE', '-1', 'a positive integer'),
        ('CPUS_PER_TASK', '2.5', 'a positive integer'),
        ('GPUS_PER_NODE', 'PATH', 'an integer, 0 at least'),
    ],
)
@pytest.mark.parametrize('script', ['slurm_train.sh', 'slurm_test.sh'])
def test_numbers_of_a_slurm_job(run_tool, tmp_path, script, name, value, accepted):
    arguments = 'partition', 'job', 'config.py', 'there'
    done = run_tool(script, *arguments, cwd=tmp_path, **{name: value})
    assert done.returncode == 2
    assert f'{name} must be {accepted}, got "{value}"' in done.stderr


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_published_formats_are_left_to_the_reader(tmp_path, suffix):
    path = tmp_path / f'model{suffix}'
    if suffix == '.pth':
        torch.save({'a': 1}, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(b'any')
    assert launch.check_checkpoint_file(str(path)) == str(path)


@pytest.mark.parametrize(
    'option, message',
    [
        ('optim_wraper.type=X', 'nobody reads "optim_wraper"; did you mean'),
        ('load_form=x.pth', 'did you mean "load_from"?'),
    ],
)
def test_options_without_effect_are_refused(tool, tiny_config, capsys, option, message):
    module = tool('train', tiny_config, '--cfg-options', option)
    assert message in error_of(module, capsys)


def test_a_misspelt_key_in_a_config_is_refused(tool, tiny_config, tmp_path, capsys):
    path = write_config(tmp_path, tiny_config, 'optim_wraper = dict()\n')
    assert 'did you mean "optim_wrapper"' in error_of(tool('train', path), capsys)


def test_a_training_ends_at_the_first_number_that_is_none(prepared, tiny_config):
    hook = dict(type='mmtransmamba.NonFiniteHook')
    assert prepared('train', tiny_config).default_hooks.non_finite == hook
    options = ('--cfg-options', 'default_hooks.non_finite=None')
    cfg = prepared('train', tiny_config, *options)
    assert 'non_finite' not in cfg.default_hooks


@pytest.mark.parametrize(
    'args, message',
    [
        (
            ('--layers', '0,1,2', '--ratio', '0.5'),
            'names the layers; leave out --ratio',
        ),
        (('--layers=-2,-1', '--ratio', '1'), 'names the layers; leave out --ratio'),
        (('--init', 'calibrate'), '--init calibrate needs --calibration FILE'),
        (('--calibration-steps', '5'), 'goes with --init calibrate, not mimic'),
        (('--calibration-tokens', '5'), '--calibration-tokens goes with --calibration'),
        (('--ranking', 'greedy'), '--ranking goes with --layers auto, not evenly'),
        (('--calibration-tokens', '0'), '--calibration-tokens: "0" must be a whole'),
        (('--max-shard-size', '-1'), '--max-shard-size: -1 must be above 0'),
        (('--max-shard-size', '0'), '--max-shard-size: 0 must be above 0'),
        (('--ratio', 'nan'), '--ratio: nan is not finite'),
        (('--ratio', '1.5'), '--ratio: "1.5" must be a number, 1 at most'),
        (('--seed', '-1'), '--seed: "-1" must be a whole number, 0 at least'),
    ],
)
def test_arguments_of_the_conversion_without_a_meaning(tool, capsys, args, message):
    module = tool('convert_lm', 'teacher', '--out', 'out', *args)
    with pytest.raises(SystemExit):
        module.parse_args()
    assert message in capsys.readouterr().err


def test_layers_or_a_ratio_of_the_conversion(tool):
    args = tool('convert_lm', 'teacher', '--out', 'o', '--layers=-2,1').parse_args()
    assert (args.layers, args.ratio) == ([-2, 1], 1.0)
    args = tool('convert_lm', 'teacher', '--out', 'o', '--ratio', '0.5').parse_args()
    assert (args.layers, args.ratio) == ('evenly', 0.5)
