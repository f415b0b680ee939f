"""A token counts the same in whatever batch, process or row of a step it is."""

import copy

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from processes import spawn_ranks
from step_batches import RUNS, batches, joined, model_of, run_rank, train
from tiny_distillers import DIRECTION, FEATURE, LAYER, LOGITS
from tiny_distillers import build as build_vision
from tiny_llavas import hybrid_llava, learning_batch

from mmtransmamba.models.trainable import VisionLanguageModel
from mmtransmamba.transfer import LanguageDistiller

MODELS_ = ['causal', 'kl', 'task', 'hidden', 'mixer', 'layer', 'kl+task+hidden+layer']


def assert_same(found, expected, start):
    assert any(not torch.equal(expected[key], start[key]) for key in start)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, msg=key, rtol=1e-4, atol=2e-5)


def assert_logged(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert set(one) == set(other)
        for key in one:
            assert float(one[key]) == pytest.approx(float(other[key]), rel=1e-4)


@pytest.mark.parametrize('packed', [False, True])
@pytest.mark.parametrize('name', MODELS_)
def test_accumulated_batches_are_one(name, packed):
    """Four batches with accumulation over three: the last step has one of them."""
    model, data = model_of(name), batches(packed)
    found, logs = train(model, data, 3)
    expected, expected_logs = train(model, [joined(data[:3]), data[3]])
    assert_same(found, expected, model.state_dict())
    assert_logged(logs, expected_logs)


def test_mean_of_the_batches_is_an_option():
    few, many = batches()[:2]
    model = model_of('causal', average='batches')
    found, _ = train(model, [few, many], 2)
    loss = sum(model(**batch, mode='loss')['loss_task'] / 2 for batch in (few, many))
    loss.backward()
    for name, parameter in model.lm.named_parameters():
        expected = parameter - 0.5 * parameter.grad
        torch.testing.assert_close(found[name], expected)
    tokens, _ = train(model_of('causal'), [few, many], 2)
    assert any(not torch.allclose(tokens[key], found[key]) for key in found)


@pytest.mark.parametrize(
    'make',
    [lambda average: model_of('causal', average=average)]
    + [lambda average: model_of('kl', average=average)]
    + [lambda average: build_vision(dict(logits=LOGITS), average=average)],
    ids=['causal', 'language', 'vision'],
)
def test_unknown_averages_are_refused(make):
    with pytest.raises(ValueError, match="average='token' must be one of .*, batches"):
        make('token')


def test_a_step_that_learns_nothing():
    model, nothing = model_of('kl+layer'), batches()[2]
    nothing['attention_mask'][:] = 0
    found, logs = train(model, [nothing, nothing], 2)
    assert all(torch.equal(found[k], v) for k, v in model.state_dict().items())
    assert logs[0]['loss'] == 0


def test_a_step_that_is_resumed_in_its_middle():
    """mmengine counts on; what had been accumulated is lost."""
    model, data = model_of('causal'), batches()
    expected, _ = train(model, data[1:2])
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    wrapper = OptimWrapper(optimizer, accumulative_counts=2)
    wrapper.initialize_count_status(model, 1, 4)
    start = copy.deepcopy(model.state_dict())
    model.train_step(data[1], wrapper)
    assert_same(model.state_dict(), expected, start)


class Scaled(OptimWrapper):
    """Scales losses and, before the step, gradients, as a wrapper for fp16 does."""

    def backward(self, loss, **kwargs):
        super().backward(loss * 64, **kwargs)

    def step(self, **kwargs):
        for group in self.optimizer.param_groups:
            for parameter in group['params']:
                if parameter.grad is not None:
                    parameter.grad /= 64
        super().step(**kwargs)


@pytest.mark.parametrize('name', ['causal', 'kl+layer'])
def test_loss_scaling_and_clipping_are_the_wrappers(name):
    data, results = batches(), []
    start = model_of(name).state_dict()
    for kind, parts in ((Scaled, data[:2]), (OptimWrapper, [joined(data[:2])])):
        model = model_of(name)
        wrapper = kind(
            torch.optim.SGD(model.parameters(), 0.5),
            accumulative_counts=len(parts),
            clip_grad=dict(max_norm=0.1),
        )
        for batch in parts:
            model.train_step(batch, wrapper)
        results.append(model.state_dict())
    assert_same(*results, start)


@pytest.fixture(scope='module')
def llava(tmp_path_factory):
    folder = tmp_path_factory.mktemp('llava')
    hybrid_llava().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize('images', [True, False])
@pytest.mark.parametrize('kind', ['answers', 'reasoning', 'distiller'])
def test_vision_language_models(kind, images, llava):
    head = dict(type='mmtransmamba.ReasoningHead') if kind == 'reasoning' else None
    model = VisionLanguageModel(llava, head=head).train()
    if kind == 'distiller':
        terms = dict(
            kl=dict(type='mmtransmamba.TokenKLTerm'),
            layer=dict(type='mmtransmamba.ForcedLayerTerm'),
        )
        model = LanguageDistiller(model, VisionLanguageModel(llava), terms).train()
        with torch.no_grad():
            for parameter in model.student.parameters():
                parameter.mul_(1.1)
    whole = learning_batch((2, 11), images=images)
    whole['labels'][0, :-13] = -100
    rows = [{key: value[i : i + 1] for key, value in whole.items()} for i in range(2)]
    found, logs = train(model, rows, 2)
    expected, expected_logs = train(model, [whole])
    assert_same(found, expected, model.state_dict())
    assert_logged(logs, expected_logs)


@pytest.mark.parametrize('sizes', [(1, 4), (2, 2), (3, 1)])
def test_images_count_the_same(sizes):
    terms = dict(logits=LOGITS, feature=FEATURE, layer=LAYER, direction=DIRECTION)
    model = build_vision(terms).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()  # its statistics are of a batch, in mmengine as well
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (sum(sizes), 3, 16, 16), generator=generator)

    def data(first, count):
        end = first + count
        samples = [
            DataSample().set_gt_label(i % 5) for i in range(first, first + count)
        ]
        return dict(inputs=list(images[first:end]), data_samples=samples)

    found, logs = train(model, [data(0, sizes[0]), data(*sizes)], 2)
    expected, expected_logs = train(model, [data(0, sum(sizes))])
    assert_same(found, expected, model.state_dict())
    assert_logged(logs, expected_logs)


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ranks')
    spawn_ranks(run_rank, 2, str(folder))
    return [torch.load(folder / f'{rank}.pth') for rank in range(2)]


@pytest.mark.parametrize('run', RUNS)
def test_processes_share_a_step(run, ranks):
    name, _, accumulate = RUNS[run]
    model, data = model_of(name), batches()
    steps = [joined(data)] if accumulate == 2 else [joined(data[:2]), joined(data[2:])]
    expected, expected_logs = train(model, steps)
    for rank in ranks:
        found, logs = rank[run]
        assert_same(found, expected, model.state_dict())
        assert_logged(logs, expected_logs)


def test_accumulation_under_ddp_is_refused(ranks):
    for rank in ranks:
        assert "model_wrapper_cfg=dict(type='mmtransmamba.Partwise" in rank['refused']
        assert "model.average='batches'" in rank['refused']


def test_a_runner_that_accumulates(tmp_path):
    """Every iteration is counted, those of a kept batch log no loss."""
    data = batches()
    model = model_of('causal')
    start = copy.deepcopy(model)
    runner = Runner(
        model,
        str(tmp_path),
        train_dataloader=dict(
            batch_size=1,
            dataset=data,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=lambda rows: rows[0],
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=4),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.5), accumulative_counts=3),
        custom_hooks=[dict(type='mmtransmamba.ProgressBarHook')],
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        log_level='WARNING',
        experiment_name='accumulates',
    )
    runner.train()
    assert runner.iter == 4
    expected, _ = train(start, [joined(data[:3]), data[3]])
    assert_same(model.state_dict(), expected, start.state_dict())
