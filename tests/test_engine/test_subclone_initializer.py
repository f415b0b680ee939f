import json
import socket

import pytest
import torch
from mmengine.registry import DefaultScope
from processes import spawn_ranks
from subclone_runs import (
    TEACHER,
    distiller,
    hook_of,
    make_runner,
    student,
    train_on_rank,
)

from mmtransmamba.engine.hooks import SubcloneInitializer
from mmtransmamba.models import CheckpointError
from mmtransmamba.registry import MODELS


def log_of(tmp_path):
    return ''.join(file.read_text() for file in tmp_path.rglob('*.log'))


def test_a_distillers_student_inherits_before_the_first_step(tmp_path):
    runner, watch = make_runner(tmp_path, distiller(), hook_of())
    runner.train()
    teacher = runner.model.teacher.canonical_state_dict()
    seen = {n.removeprefix('student.'): p for n, p in watch.seen.items()}
    assert torch.equal(seen['backbone.ln1.weight'], teacher['norm.weight'])
    assert torch.equal(seen['backbone.pos_embed'], teacher['pos_embed'][:, 1:])
    assert torch.equal(seen['head.fc.weight'], teacher['head.weight'])
    proj = seen['backbone.layers.1.mamba.out_proj.weight']
    assert torch.equal(proj[:, :16], teacher['blocks.1.attn.proj.weight'])
    trained = runner.model.student.backbone.pos_embed
    assert not torch.equal(trained, seen['backbone.pos_embed'])

    report = json.loads((tmp_path / 'subclone_report.json').read_text())
    assert report['weight_map'] == 'vit_to_plainmamba' and report['seed'] == 3
    assert len(report['entries']) == len(list(runner.model.student.parameters()))
    assert report['totals']['inherited'] > 0
    log = log_of(tmp_path)
    assert 'backbone.layers.[0,1].norm.weight' in log
    assert "kept from the model's initialisation" in log


def test_a_plain_student_inherits_from_a_file_or_a_teacher_of_its_own(tmp_path):
    teacher = MODELS.build(TEACHER)
    with torch.no_grad():
        teacher.model.norm.weight.uniform_()
    file = tmp_path / 'vit.pth'
    torch.save(teacher.model.state_dict(), file)
    expected = teacher.model.norm.weight
    for number, source in enumerate(
        (dict(checkpoint=str(file)), dict(teacher={**TEACHER, 'checkpoint': str(file)}))
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        runner, watch = make_runner(folder, student(), hook_of(**source))
        runner.train()
        assert torch.equal(watch.seen['backbone.ln1.weight'], expected)


def test_the_head_is_inherited_in_the_order_of_the_students_classes(tmp_path):
    teacher = dict(TEACHER, class_order=[2, 0, 1])
    runner, watch = make_runner(
        tmp_path, distiller() | dict(teacher=teacher), hook_of()
    )
    runner.train()
    own = runner.model.teacher.model.state_dict()
    canonical = runner.model.teacher.canonical_state_dict()
    for name in ('weight', 'bias'):
        head = own[f'head.{name}'][[2, 0, 1]]
        assert torch.equal(watch.seen[f'student.head.fc.{name}'], head)
        assert torch.equal(canonical[f'head.{name}'], head)


@pytest.mark.parametrize(
    'channel_order, to_rgb, flipped',
    [(None, True, False), (None, False, True), ('rgb', False, False)],
)
@pytest.mark.parametrize('from_file', [False, True])
def test_a_student_of_bgr_images_inherits_reversed_channels(
    channel_order, to_rgb, flipped, from_file, tmp_path
):
    config = distiller() | dict(channel_order=channel_order)
    config['student']['data_preprocessor']['to_rgb'] = to_rgb
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(config)
    source = {}
    if from_file:
        source['checkpoint'] = str(tmp_path / 'vit.pth')
        torch.save(model.teacher.model.state_dict(), source['checkpoint'])
    hook = SubcloneInitializer('vit_to_vim', **source)
    [(_, state)], _ = hook._sources(model, model.student)
    pixels = model.teacher.model.state_dict()['patch_embed.proj.weight']
    found = state['patch_embed.proj.weight']
    assert torch.equal(found, pixels.flip(1) if flipped else pixels)


def test_an_order_of_names_that_nobody_resolved_is_not_inherited():
    teacher = MODELS.build(TEACHER)
    teacher.ordered_by_names = True
    with pytest.raises(ValueError, match="class_order='names' is not resolved"):
        teacher.canonical_state_dict()


def test_options_reach_the_transfer(tmp_path):
    mamba = {'layers.0.mixer.D': torch.full((16,), 7.0)}
    mamba['layers.0.mixer.A_log'] = torch.zeros(16, 2)
    file = tmp_path / 'mamba.pth'
    torch.save(mamba, file)
    hook = hook_of(
        layers=[1, 0],
        width='uniform',
        rules={'ln1.*': 'skip'},
        fresh=dict(conv_bias=dict(type='ones')),
        mamba_checkpoint=str(file),
        seed=11,
    )
    runner, watch = make_runner(tmp_path, distiller(dim=8), hook)
    runner.train()
    report = json.loads((tmp_path / 'subclone_report.json').read_text())
    assert (report['layers'], report['width'], report['seed']) == (
        [1, 0],
        'uniform',
        11,
    )
    seen = {n.removeprefix('student.backbone.'): p for n, p in watch.seen.items()}
    assert torch.equal(seen['ln1.weight'], torch.ones(8))
    assert torch.equal(seen['layers.0.mamba.conv2d.bias'], torch.ones(16))
    assert torch.equal(seen['layers.0.mamba.D'], torch.full((16,), 7.0))
    assert torch.equal(seen['layers.1.mamba.D'], torch.ones(16))
    norm1 = runner.model.teacher.model.blocks[1].norm1.weight
    assert seen['layers.0.norm.weight'][-1] == norm1[-1]


@pytest.mark.parametrize('sampler', ['DefaultSampler', 'InfiniteSampler'])
def test_importance_from_activations(tmp_path, sampler):
    model = MODELS.build(distiller(dim=8))
    with torch.no_grad():  # these channels of the stream are loud, though light
        model.teacher.model.pos_embed[..., 1::2] += 100
        for name, p in model.teacher.model.named_parameters():
            if name == 'norm.bias':
                p.copy_(torch.arange(16.0))
    hook = hook_of(width='importance', importance_batches=2)
    runner, watch = make_runner(tmp_path, model, hook, sampler=sampler)
    runner.train()
    assert runner.iter > 1
    taken = watch.seen['student.backbone.ln1.bias']
    assert taken.tolist() == [1.0, 3, 5, 7, 9, 11, 13, 15]


def test_a_resumed_run_inherits_nothing(tmp_path):
    runner, _ = make_runner(tmp_path, distiller(), hook_of())
    runner.train()
    trained = {n: p.clone() for n, p in runner.model.named_parameters()}
    (tmp_path / 'subclone_report.json').unlink()

    runner, watch = make_runner(
        tmp_path, distiller(), hook_of(), resume=True, max_epochs=2
    )
    runner.train()
    assert all(torch.equal(watch.seen[n], p) for n, p in trained.items())
    assert not (tmp_path / 'subclone_report.json').exists()
    assert log_of(tmp_path).count('nothing is inherited') == 1


def test_loaded_weights_are_left_alone(tmp_path):
    model = MODELS.build(student())
    file = tmp_path / 'student.pth'
    torch.save({'state_dict': model.state_dict()}, file)
    runner, watch = make_runner(tmp_path, distiller(), hook_of(), load_from=str(file))
    runner.train()
    own = dict(model.named_parameters())
    assert all(
        torch.equal(p, own[n.removeprefix('student.')]) for n, p in watch.seen.items()
    )
    assert 'nothing is inherited' in log_of(tmp_path)


def test_it_acts_once(tmp_path):
    hook = SubcloneInitializer()
    runner, _ = make_runner(tmp_path, distiller(), hook)
    runner.train()
    trained = runner.model.student.backbone.ln1.weight.clone()
    hook.before_train(runner)
    assert torch.equal(runner.model.student.backbone.ln1.weight, trained)


@pytest.mark.parametrize(
    ('model', 'hook', 'error', 'message'),
    [
        (student(), {}, ValueError, 'ImageClassifier has no teacher to inherit from'),
        (
            student(),
            dict(checkpoint='nowhere.pth'),
            FileNotFoundError,
            'nowhere.pth',
        ),
        (
            distiller(),
            dict(mamba_checkpoint='nowhere.pth'),
            FileNotFoundError,
            'nowhere.pth',
        ),
        (distiller(), dict(source_grid=(1, 3)), ValueError, 'grid 1x3'),
        (
            student(),
            dict(teacher=TEACHER, width='importance', importance_batches=1),
            ValueError,
            'importance_batches needs a distiller',
        ),
    ],
)
def test_errors_come_before_the_first_step(tmp_path, model, hook, error, message):
    runner, watch = make_runner(tmp_path, model, hook_of(**hook))
    with pytest.raises(error, match=message):
        runner.train()
    assert not hasattr(watch, 'seen')


def test_a_teacher_that_is_no_vit(tmp_path):
    swin = dict(
        model_name='swin_tiny_patch4_window7_224',
        img_size=16,
        window_size=2,
        embed_dim=8,
        depths=(2,),
        num_heads=(1,),
    )
    runner, _ = make_runner(
        tmp_path, student(), hook_of(teacher={**TEACHER, 'model': swin})
    )
    with pytest.raises(ValueError, match='not the weights of a plain ViT'):
        runner.train()


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(weight_map='vit'), "weight_map='vit' must be one of"),
        (dict(width='half'), "width='half' must be one of"),
        (dict(teacher=TEACHER, checkpoint='a.pth'), 'either teacher or checkpoint'),
        (dict(importance_batches=2), "goes with width='importance', not width='block'"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SubcloneInitializer(**kwargs)


def test_a_checkpoint_of_another_model(tmp_path):
    file = tmp_path / 'resnet.pth'
    torch.save({'layer1.0.conv1.weight': torch.ones(1)}, file)
    runner, _ = make_runner(tmp_path, student(), hook_of(checkpoint=str(file)))
    with pytest.raises(CheckpointError, match='resnet.pth does not suit'):
        runner.train()


def test_all_processes_begin_alike(tmp_path):
    """Even with a seed of their own, which differs between the processes."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    spawn_ranks(train_on_rank, port, tmp_path)
    first, second = (
        torch.load(tmp_path / f'rank{rank}.pt', weights_only=False) for rank in (0, 1)
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    report = json.loads((tmp_path / 'subclone_report.json').read_text())
    assert report['seed'] == 3 and report['totals']['inherited'] > 0
