"""DeepSpeed's ZeRO-3 in two processes beside the same trainings in one."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from processes import spawn_ranks
from sharded_ranks import MODELS, RANKS, STEPS, losses_of, runner_of
from torch import nn
from transformers import AutoModelForCausalLM
from zero_ranks import optimizer_of, run

from mmtransmamba.engine.sharding.zero import OPTIMIZERS, ZeroModel

CLOSE = dict(rtol=1e-4, atol=1e-6)
needs_deepspeed = pytest.mark.skipif(
    find_spec('deepspeed') is None, reason='deepspeed is not installed'
)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A folder of all trainings, the losses of one process, and reports of two."""
    folder = tmp_path_factory.mktemp('zero')
    losses = {}
    for kind in MODELS:
        options = dict(optimizer=optimizer_of(kind))
        runner = runner_of(kind, folder / f'{kind}-one', None, **options)
        runner.train()
        losses[kind] = losses_of(runner)
    spawn_ranks(run, str(folder), nprocs=RANKS)
    reports = [
        torch.load(folder / f'{rank}.pth', weights_only=False) for rank in range(RANKS)
    ]
    return folder, losses, reports


def last_of(folder, name):
    """The last checkpoint of a run."""
    number = (folder / name / 'last_checkpoint').read_text()
    return torch.load(folder / name / number, weights_only=False)


def assert_same(actual, expected):
    """Weights and the optimizer's states are those of the other run."""
    statistics = ('running_mean', 'running_var', 'num_batches_tracked')
    weights = [
        {k: v for k, v in run['state_dict'].items() if not k.endswith(statistics)}
        for run in (actual, expected)
    ]
    torch.testing.assert_close(*weights, **CLOSE)
    states = [run['optimizer']['state'] for run in (actual, expected)]
    assert states[0].keys() == states[1].keys()
    assert states[0]
    torch.testing.assert_close(*states, **CLOSE)


@needs_deepspeed
@pytest.mark.parametrize('kind', MODELS)
def test_two_processes_learn_what_one_does(trained, kind):
    folder, losses, reports = trained
    assert len(losses[kind]) == STEPS
    for report in reports:
        assert report[kind] == pytest.approx(losses[kind], rel=1e-5)
    assert_same(last_of(folder, f'{kind}-two'), last_of(folder, f'{kind}-one'))


@needs_deepspeed
@pytest.mark.parametrize('kind', MODELS)
def test_each_process_holds_its_part(trained, kind):
    folder, _, reports = trained
    whole = last_of(folder, f'{kind}-two')['state_dict']
    parts = reports[0][f'{kind}, parts']
    assert len(parts) > 10
    for name, size in parts.items():
        name = name.removeprefix('student.')
        name = f'distiller.{name}' if name.startswith('terms.') else name
        assert size == -(-whole[name].numel() // RANKS), name


@needs_deepspeed
def test_scans_stay_float32_under_autocast(trained):
    _, losses, reports = trained
    half = reports[0]['half']
    assert half != losses['language']
    assert half == pytest.approx(losses['language'], rel=0.05)
    assert reports[0]['dtypes'] == {torch.float32}


@needs_deepspeed
@pytest.mark.parametrize('start', ['one', 'two'])
def test_two_processes_go_on_from_a_checkpoint_of(trained, start):
    folder, _, _ = trained
    resumed = last_of(folder, f'language-{start}-resumed')
    assert_same(resumed, last_of(folder, 'language-one'))


@needs_deepspeed
def test_one_process_goes_on_from_a_checkpoint_of_two(trained):
    folder, _, _ = trained
    runner = runner_of(
        'language',
        folder / 'alone',
        None,
        steps=2,
        resume=folder / 'language-two' / 'iter_2.pth',
        start=2,
        optimizer=optimizer_of('language'),
    )
    runner.train()
    assert_same(last_of(folder, 'alone'), last_of(folder, 'language-one'))


@needs_deepspeed
def test_the_students_folder_is_whole(trained):
    folder, _, _ = trained
    student = AutoModelForCausalLM.from_pretrained(folder / 'language-two' / 'student')
    expected = last_of(folder, 'language-one')['state_dict']
    for name, value in student.state_dict().items():
        torch.testing.assert_close(value, expected[name], **CLOSE)
    assert (folder / 'vision_language-two' / 'student' / 'config.json').exists()


class Wrapper:
    """As much of an optimizer wrapper as is read before anything is sharded."""

    def __init__(self, optimizer):
        self.optimizer = optimizer


def shard(model, kind):
    ZeroModel(model).shard(Wrapper(kind(model.parameters(), lr=0.1)), 'cpu')


@needs_deepspeed
def test_parameters_of_two_dtypes_are_refused():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).bfloat16())
    message = r'0\.weight \(torch\.float32\), 1\.weight \(torch\.bfloat16\)'
    with pytest.raises(ValueError, match=message):
        shard(model, torch.optim.SGD)


@needs_deepspeed
def test_optimizers_that_need_whole_matrices_are_refused():
    message = f'type="Adafactor" does not work .*{", ".join(OPTIMIZERS)}'
    with pytest.raises(ValueError, match=message):
        shard(nn.Linear(2, 2), torch.optim.Adafactor)
