"""Training stops at the first NaN or infinity, and reports where it arose."""

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.runner import Runner
from nan_ranks import run_rank
from processes import spawn_ranks
from torch import nn
from torch.utils.data import DataLoader

from mmtransmamba.engine.hooks import NonFiniteError, NonFiniteHook
from mmtransmamba.models.trainable.step_average import StepAverage, times
from mmtransmamba.registry import HOOKS


class Poison(nn.Module):
    """Passes its input on, times NaN or infinity from a step on."""

    def __init__(self, value=1.0, after=0):
        super().__init__()
        self.value, self.after, self.calls = value, after, 0

    def forward(self, x):
        self.calls += 1
        return x * self.value if self.calls > self.after else x


class Block(nn.Module):
    def __init__(self, inside):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.inside = inside
        self.after = nn.Linear(3, 3)

    def forward(self, x):
        return self.after(self.inside(self.linear(x)))


class Functional(nn.Module):
    """Its operation is not a separate layer, like a scan."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.last(torch.log(-self.first(x).abs() - 1))


class Model(BaseModel):
    def __init__(self, layers=(), teacher=None, term=1.0):
        super().__init__()
        self.blocks = nn.Sequential(nn.Linear(3, 3), *layers)
        # As a distiller's, it is not a submodule.
        self.hidden = [teacher]
        self.term = term

    @property
    def teacher(self):
        return self.hidden[0]

    def forward(self, x, mode='loss'):
        y = self.blocks(x)
        target = 0 if self.teacher is None else self.teacher(x).detach()
        return dict(loss_task=y.pow(2).mean(), loss_kl=self.term * (y - target).mean())


class LanguageLike(Model, StepAverage):
    """Computes the losses of all batches of a step at its end."""

    def __init__(self):
        super().__init__()
        self._average_over('rows', 'rows')

    def forward(self, x, mode='loss', share=None):
        return {k: times(share, 'rows', v) for k, v in super().forward(x).items()}

    def count_units(self, data):
        return dict(rows=len(data['x']))


def run(tmp_path, model, data=None, hooks=None, wrapper=None, iters=4, **kwargs):
    torch.manual_seed(0)
    data = torch.randn(8, 3) if data is None else data
    runner = Runner(
        model,
        str(tmp_path),
        train_dataloader=DataLoader([dict(x=x) for x in data], 2),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=iters),
        optim_wrapper=wrapper
        or OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01)),
        custom_hooks=[NonFiniteHook()] if hooks is None else hooks,
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=False)
        ),
        log_level='ERROR',
        experiment_name=tmp_path.name,
        **kwargs,
    )
    runner.train()
    return runner


def spoilt(module, value=torch.nan):
    with torch.no_grad():
        next(module.parameters()).view(-1)[-1] = value
    return module


@pytest.mark.parametrize(
    'make, message',
    [
        (lambda: Model([Block(Poison(torch.nan))]), r'output of blocks\.1\.inside'),
        (lambda: Model([Block(Poison(torch.inf))]), r'output of blocks\.1\.inside'),
        (
            lambda: Model([Block(Poison(torch.nan, after=2))]),
            r'Iteration 3: .* output of blocks\.1\.inside',
        ),
        (
            lambda: Model([Functional()]),
            r'what blocks\.1 computes itself, before it calls blocks\.1\.last',
        ),
        (
            lambda: Model([spoilt(Block(Poison()))]),
            r'In the model the weight blocks\.1\.linear\.weight has NaN from the begin',
        ),
        (
            lambda: Model([spoilt(Block(Poison()), torch.inf)]),
            r'In the model the weight blocks\.1\.linear\.weight has infinity',
        ),
        (
            lambda: Model(teacher=spoilt(Block(Poison()))),
            r'loss_kl=nan\)\. In the teacher the weight linear\.weight has NaN',
        ),
        (
            lambda: Model(teacher=Block(Poison(torch.nan))),
            r'loss_kl=nan\)\. The first to be so is the output of teacher\.inside',
        ),
        (
            lambda: Model(term=torch.nan),
            r'the loss is nan \(loss_kl=nan\)\. All weights and outputs .* are finite',
        ),
    ],
)
def test_the_first_layer_or_term_is_named(tmp_path, make, message):
    model = make()
    with pytest.raises(NonFiniteError, match=message):
        run(tmp_path, model)
    assert not list(tmp_path.glob('iter_4.pth'))


def test_a_bad_batch_is_named_and_changes_no_weight(tmp_path):
    data = torch.randn(8, 3)
    data[5, 1] = torch.nan
    model = Model()
    with pytest.raises(NonFiniteError, match='Iteration 3: .* batch is so already: x'):
        run(tmp_path, model, data)
    assert all(p.isfinite().all() for p in model.parameters())
    assert (tmp_path / 'iter_2.pth').exists()


def test_too_large_a_learning_rate_ends_at_the_first_bad_loss(tmp_path):
    model = Model()
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e30))
    with pytest.raises(NonFiniteError, match=r'Iteration \d: the loss is (inf|nan)'):
        run(tmp_path, model, wrapper=wrapper)
    assert len(list(tmp_path.glob('iter_*.pth'))) < 4


def test_weights_that_the_last_step_has_spoilt_are_not_saved(tmp_path):
    class Bad(torch.optim.SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group['params']:
                    p.data.fill_(torch.nan)

    model = Model()
    wrapper = OptimWrapper(Bad(model.parameters(), lr=1))
    with pytest.raises(NonFiniteError, match='No checkpoint.*weight blocks.0.weight'):
        run(tmp_path, model, wrapper=wrapper, iters=1)
    assert not list(tmp_path.glob('iter_*.pth'))


def test_training_goes_on_without_the_hook(tmp_path):
    model = Model([Poison(torch.nan)])
    assert run(tmp_path, model, hooks=[]).iter == 4


class Scaler:
    def is_enabled(self):
        return True


class Skipping(OptimWrapper):
    """Leaves out what is not finite, as a scaler does."""

    loss_scaler = Scaler()

    def update_params(self, loss):
        if loss.isfinite():
            super().update_params(loss)


@pytest.mark.parametrize('patience, ends', [(2, False), (1, True)])
def test_steps_that_a_gradient_scaler_skips_are_no_error(tmp_path, patience, ends):
    data = torch.randn(8, 3)
    data[2:6] = torch.inf  # the second and the third batch

    model = Model()
    wrapper = Skipping(torch.optim.SGD(model.parameters(), lr=0.01))
    hooks = [NonFiniteHook(patience=patience)]
    if ends:
        with pytest.raises(NonFiniteError, match='Iteration 3'):
            run(tmp_path, model, data, hooks, wrapper)
    else:
        assert run(tmp_path, model, data, hooks, wrapper).iter == 4


@pytest.mark.parametrize('spoilt', ['first', 'last', 'both'])
def test_patience_counts_steps_not_batches(tmp_path, spoilt):
    """Of two batches each, all of which overflow in one batch at least."""
    rows = dict(first=[0, 1], last=[2, 3], both=[0, 1, 2, 3])[spoilt]
    data = torch.randn(20, 3)
    data.view(5, 4, 3)[:, rows] = torch.inf

    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    wrapper = Skipping(optimizer, accumulative_counts=2)
    # Three steps are skipped, and the fourth is one too many.
    end = 8 if spoilt == 'last' else 7
    with pytest.raises(NonFiniteError, match=f'Iteration {end}'):
        run(tmp_path, model, data, [NonFiniteHook(patience=3)], wrapper, iters=10)


def test_a_batch_that_spoils_statistics_is_named_itself(tmp_path):
    data = torch.randn(8, 3)
    data[1, 1] = torch.nan
    with pytest.raises(NonFiniteError, match='Iteration 1: .* batch is so already: x'):
        run(tmp_path, Model([nn.BatchNorm1d(3)]), data)


def test_every_batch_of_a_step_is_looked_at(tmp_path):
    data = torch.randn(8, 3)
    data[1, 1] = torch.nan
    distiller = LanguageLike()
    wrapper = OptimWrapper(
        torch.optim.SGD(distiller.parameters(), lr=0.1), accumulative_counts=2
    )
    with pytest.raises(NonFiniteError, match='Iteration 2: .* batch is so already: x'):
        run(tmp_path, distiller, data, wrapper=wrapper)


def test_the_model_is_left_as_it_was(tmp_path):
    model = Model([Block(Poison())])
    run(tmp_path, model)
    assert 'parse_losses' not in vars(model)
    assert not any(m._forward_hooks for m in model.modules())


def test_a_negative_patience_is_refused():
    with pytest.raises(ValueError, match='patience=-1'):
        HOOKS.build(dict(type='mmtransmamba.NonFiniteHook', patience=-1))


def amp(model, **options):
    """mmengine's wrapper for mixed precision, which it refuses on a CPU."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    return AmpOptimWrapper(optimizer=optimizer, **options)


@pytest.fixture
def scaler(monkeypatch):
    """Mixed precision on the CPU, with PyTorch's own gradient scaler."""
    monkeypatch.setattr(
        'mmengine.optim.optimizer.amp_optimizer_wrapper.is_cuda_available', lambda: True
    )
    monkeypatch.setattr(
        'mmengine.optim.optimizer.amp_optimizer_wrapper.GradScaler',
        lambda **options: torch.amp.GradScaler('cpu', **options),
    )


def test_a_step_that_pytorchs_scaler_skips_is_no_error(tmp_path, scaler):
    """The second batch overflows: the scale falls, and training continues."""
    data = torch.randn(8, 3)
    data[2:4] = 1e30
    model = Model()
    wrapper = amp(model, loss_scale=dict(init_scale=1024.0), dtype='bfloat16')
    assert run(tmp_path, model, data, wrapper=wrapper).iter == 4
    assert all(p.isfinite().all() for p in model.parameters())
    assert wrapper.loss_scaler.get_scale() < 1024


def test_a_loss_that_stays_nan_ends_training_under_a_scaler(tmp_path, scaler):
    model = Model([Block(Poison(torch.nan))])
    wrapper = amp(model, loss_scale='dynamic', dtype='bfloat16')
    with pytest.raises(NonFiniteError, match=r'Iteration 3: .* blocks\.1\.inside'):
        run(tmp_path, model, hooks=[NonFiniteHook(patience=2)], wrapper=wrapper)


def test_every_process_ends_where_one_has_nan_and_that_one_names_it(tmp_path):
    spawn_ranks(run_rank, str(tmp_path))
    one, other = ((tmp_path / f'{rank}.txt').read_text() for rank in range(2))
    assert one.startswith('Iteration 3: the loss of another process is NaN')
    assert other.startswith('Iteration 3: the loss is nan')
    assert 'output of blocks.1' in other
