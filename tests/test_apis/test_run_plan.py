"""Plans of runs beside the memory that their steps really take."""

from __future__ import annotations

import itertools

import pytest
import torch
from language_models import teacher_config
from markov_tokens import MarkovTokens
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch.utils.data import DataLoader, IterableDataset

from mmtransmamba.apis.run_plan import plan_run
from mmtransmamba.datasets import collate_tokens
from mmtransmamba.registry import MODELS
from mmtransmamba.utils.allocated_memory import allocated_peak
from mmtransmamba.utils.saved_memory import SavedMemory

LANGUAGE_SIZES = dict(hidden_size=64, intermediate_size=128, vocab_size=512)


def digits(repo_dir) -> Config:
    """A vision distiller of the quickstart."""
    path = repo_dir / 'configs' / 'quickstart' / 'digits_transfer.py'
    cfg = Config.fromfile(path)
    cfg.model.teacher.checkpoint = 'random'
    return cfg


def language(repo_dir=None, **optim) -> Config:
    """A language distiller with a Transformer of random weights."""
    teacher = dict(
        type='mmtransmamba.CausalLM', config=teacher_config(**LANGUAGE_SIZES)
    )
    student = dict(teacher, convert=dict(layers=[0, 2], init='mimic'))
    loader = dict(
        batch_size=16,
        num_workers=0,
        dataset=dict(
            type='mmtransmamba.MarkovTokens', vocab_size=512, length=48, num_samples=64
        ),
        sampler=dict(type='DefaultSampler', shuffle=True),
        collate_fn=dict(type='mmtransmamba.collate_tokens'),
    )
    return Config(
        dict(
            default_scope='mmengine',
            model=dict(
                type='mmtransmamba.LanguageDistiller',
                student=student,
                teacher=teacher,
                terms=dict(kl=dict(type='mmtransmamba.TokenKLTerm')),
            ),
            train_dataloader=loader,
            train_cfg=dict(by_epoch=True, max_epochs=3),
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)) | optim,
        )
    )


def measured_peak(cfg: Config) -> int:
    """Bytes that a training with whole batches holds at most."""
    init_default_scope(cfg.default_scope)
    shared = {key: cfg[key] for key in ('data_preprocessor',) if key in cfg}
    model = MODELS.build(dict(cfg.model, **shared)).train()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    loader = Runner.build_dataloader(cfg.train_dataloader)
    data = next(iter(loader))
    model.train_step(data, wrapper)  # creates the optimizer's states
    peak = allocated_peak(lambda: model.train_step(data, wrapper))
    states = [s for state in wrapper.optimizer.state.values() for s in state.values()]
    held = [*model.parameters(), *model.buffers(), *model.teacher.parameters(), *states]
    return peak + sum(tensor.numel() * tensor.element_size() for tensor in held)


@pytest.mark.parametrize('build', [digits, language])
def test_the_memory_of_a_plan_is_what_a_step_takes(repo_dir, build):
    plan = plan_run(build(repo_dir), gpus=1, mfu=0.3, peak=1e12)
    assert plan.total == pytest.approx(measured_peak(build(repo_dir)), rel=0.2)
    # The batch matters: without what it takes, the plan would be far off.
    assert plan.memory['activations'] > 0.4 * plan.total


def test_figures_of_a_language_distiller():
    cfg = language(clip_grad=dict(max_norm=1.0), accumulative_counts=2)
    plan = plan_run(cfg, gpus=4, mfu=0.5, peak=1e12)
    costs = plan.costs
    assert (costs.teacher, costs.frozen) == (143808, 0)
    # AdamW has two averages, and a number of steps per tensor.
    assert costs.gradients == 4 * costs.trained
    assert costs.optimizer == pytest.approx(2 * costs.gradients, rel=0.01)
    # Without its embeddings, a Transformer takes a multiplication and an addition for
    # each weight and token, and attention to 48 tokens, in three layers.
    attention = 3 * 2 * 48 * 48 * LANGUAGE_SIZES['hidden_size']
    assert costs.teacher_flops == pytest.approx(
        48 * costs.teacher + attention, rel=0.01
    )
    assert (plan.samples, plan.tokens) == (3 * 64, 3 * 64 * 48)
    flops = 2 * (3 * costs.student_flops + costs.teacher_flops) * plan.samples
    assert plan.flops == flops
    assert plan.hours == pytest.approx(flops / (4 * 0.5 * 1e12) / 3600)
    assert plan.memory['buckets of DDP'] == costs.gradients
    size = plan.largest_batch(2 * plan.total)
    assert size > plan.batch_size
    assert plan.largest_batch(0) == 0


class OfManyLengths(MarkovTokens):
    """The third of 16 is four times as long as the others."""

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        length = 48 if index == 2 else 12
        return {name: tensor[:length] for name, tensor in sample.items()}


class Streamed(IterableDataset):
    def __init__(self, dataset):
        self.dataset = dataset

    def __iter__(self):
        return (self.dataset[i % len(self.dataset)] for i in itertools.count())

    def __len__(self):
        return 10**9


@pytest.mark.parametrize('streamed', [False, True])
def test_tokens_and_time_follow_from_the_mean_length(streamed, monkeypatch):
    even, cfg = language(), language()
    whole = plan_run(even, gpus=1, mfu=0.5, peak=1e12)
    build = Runner.build_dataloader

    def replaced(loader, *args, **kwargs):
        dataset = OfManyLengths(vocab_size=512, length=48, num_samples=64)
        if streamed:
            loader = {k: v for k, v in loader.items() if k != 'sampler'}
            return DataLoader(Streamed(dataset), collate_fn=collate_tokens)
        return build(dict(loader, dataset=dataset), *args, **kwargs)

    monkeypatch.setattr(Runner, 'build_dataloader', staticmethod(replaced))
    cfg.train_dataloader.update(num_workers=2, prefetch_factor=4)
    plan = plan_run(cfg, gpus=1, mfu=0.5, peak=1e12, samples=3 * 64 // 3)
    mean = (48 + 15 * 12) / 16
    assert plan.tokens == round(3 * 64 * mean)
    assert plan.hours == pytest.approx(whole.hours * mean / 48)
    assert plan.total == whole.total  # room for the longest


def test_workers_options_do_not_hinder_a_plan():
    cfg = language()
    cfg.train_dataloader.update(num_workers=2, prefetch_factor=4)
    cfg.train_dataloader.update(persistent_workers=True)
    assert plan_run(cfg, gpus=1, mfu=0.5, peak=1e12).samples == 3 * 64


def test_parts_take_a_part_of_the_memory():
    plans = [
        plan_run(language(), gpus=gpus, mfu=0.3, peak=1e12, strategy='fsdp')
        for gpus in (1, 4)
    ]
    for name in ('student', 'gradients', 'optimizer'):
        assert plans[1].memory[name] == plans[0].memory[name] / 4
    assert plans[1].memory['teacher'] == plans[0].memory['teacher'] > 0


def test_iterations_count_samples_of_every_device():
    cfg = language()
    cfg.train_cfg = dict(by_epoch=False, max_iters=10)
    assert plan_run(cfg, gpus=3, mfu=0.3, peak=1e12).samples == 10 * 3 * 16


def test_images_are_planned_without_their_files(repo_dir):
    cfg = digits(repo_dir)
    cfg.train_dataloader.dataset.type = 'Nowhere'
    with pytest.raises(ValueError, match='dataset cannot be read .*--samples'):
        plan_run(cfg, gpus=1, mfu=0.3, peak=1e12)
    plan = plan_run(cfg, gpus=1, mfu=0.3, peak=1e12, samples=1000)
    assert plan.samples == 1000 * cfg.train_cfg.max_epochs


def test_saved_memory_counts_storages_as_long_as_they_are_held():
    weight = torch.ones(4, 4, requires_grad=True)
    x = torch.ones(8, 4)
    with SavedMemory([weight, x]) as memory:
        hidden = (x @ weight).exp()  # exp saves its output: 8 * 4 * 4 bytes
        (hidden * hidden.view(8, 4)).sum().backward()  # saved twice, counted once
        assert memory.peak == 128
        del hidden
        (x @ weight).exp().sum().backward()
    assert memory.peak == 128


def test_allocated_peak_counts_temporary_tensors():
    kept = []

    def run():
        (torch.ones(1000) + 1).sum()
        kept.append(torch.ones(10))

    assert 8000 <= allocated_peak(run) < 9000
