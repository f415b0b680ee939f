"""The study on Imagenette: its plan, its resumption and its page."""

import argparse
import statistics
import sys
from pathlib import Path

import _vision_gradients as gradients
import _vision_page as page
import _vision_plan as plan
import _vision_rows as table
import _vision_runs as runs
import pytest
import torch
import vision
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from safetensors.torch import save_file
from tiny_imagenette import record, write_cifar10, write_imagenette, write_teacher

from mmtransmamba.apis.configs import read_config
from mmtransmamba.datasets import ImagenetteShards, Subset
from mmtransmamba.registry import MODELS
from mmtransmamba.utils.seed_statistics import t_interval

ALL = [*plan.ROWS, 'sweep']
TINY_VIT = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
EVERY_ROW = [row for part in plan.ROWS.values() for row in part]
LEARNED = {  # the losses of each row besides the task's
    'baseline': set(),
    'logits': {'logits'},
    'feature': {'feature'},
    'logits_feature': {'logits', 'feature'},
    'layer': {'logits', 'feature', 'layer'},
    'direction': {'logits', 'feature', 'direction'},
    'adapt_layer': {'logits', 'feature', 'layer', 'layer_entropy'},
    'full': {
        *('logits', 'feature', 'layer', 'layer_entropy'),
        *('direction', 'direction_entropy'),
    },
    'subclone': set(),
    'hard_label': {'rival'},
    'relation': {'logits', 'rival'},
    'attention': {'logits', 'rival'},
    'steady': {'logits', 'feature'},
    'balanced': {'logits', 'feature'},
    'hook_balanced': {'logits', 'feature'},
}


def test_the_plan_puts_what_decides_first_and_goes_seed_by_seed():
    planned = plan.plan(ALL, [0, 1, 2])
    keys = [run.key for run in planned]
    assert len(set(keys)) == len(keys)
    assert keys[:6] == [
        *('baseline_seed0', 'logits_seed0', 'full_seed0'),
        *('baseline_seed1', 'logits_seed1', 'full_seed1'),
    ]
    assert [run.seed for run in planned[9:14]] == [0] * 5
    assert list(vision.PARTS) == ALL
    assert plan.plan(['rivals'], [4])[0].key == 'hard_label_seed4'


@pytest.fixture(scope='module')
def arguments(tmp_path_factory):
    """Arguments of a study of noise, whose views are recorded."""
    folder = tmp_path_factory.mktemp('study')
    write_imagenette(folder / 'data' / 'imagenette96')
    write_teacher(folder / 'data' / 'deit_tiny')
    write_cifar10(folder / 'data' / 'cifar10')
    args = argparse.Namespace(
        data=folder / 'data',
        work_dir=folder / 'work',
        out=folder / 'out',
        seeds=[0, 1],
        parts=['decisive'],
        max_runs=None,
        threads=torch.get_num_threads(),
        one=None,
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        teacher = runs.TransformersTeacher(
            str(args.data / 'deit_tiny'), class_order=list(range(10, 0, -1))
        )
        record(args.data / 'imagenette96', plan.views_of(args), teacher)
    return args


def shrink_cifar10_teacher(teacher):
    """Make it tiny, and write the weights that are looked for."""
    model = read_config(teacher.model).model
    model.backbone.arch = TINY_VIT
    model.head.in_channels = 16
    teacher.update(model=model, mean=[127.5] * 3, std=[127.5] * 3)
    path = Path(teacher.checkpoint)
    path.parent.mkdir(parents=True, exist_ok=True)
    state = MODELS.build(model).state_dict()
    save_file(state, path, metadata={'accuracy/top1': '78.90'})


def shrink(cfg):
    """Make the student narrow and shallow, and the training short."""
    student = cfg.model.get('student', cfg.model)
    if 'VMamba' in student.backbone.type:
        student.backbone.arch.update(embed_dims=4)
        student.head.in_channels = 32
    else:
        student.backbone.arch.update(embed_dims=16, depth=2)
        student.head.in_channels = 16
    cfg.train_dataloader.batch_size = 4
    cfg.train_cfg.update(max_iters=4, val_interval=2)
    cfg.default_hooks.checkpoint.interval = 2
    teacher = cfg.model.get('teacher', {})
    if 'checkpoint' in teacher:
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            shrink_cifar10_teacher(teacher)
    elif teacher:
        teacher.input_size = 32
    for hook in cfg.custom_hooks:
        if 'interval' in hook:
            hook.interval = 1
    cfg.param_scheduler = []
    return cfg


@pytest.mark.parametrize('row', EVERY_ROW, ids=lambda row: row.name)
def test_every_row_learns_from_what_it_says(row, arguments):
    cfg = shrink(plan.config_of(plan.Run(row, 3), arguments))
    assert cfg.randomness.seed == 3
    if 'feature' in row.terms:
        weight = cfg.model.terms.feature.get('weight', 1)
        assert weight == (4 if row.name in ('balanced', 'full_balanced') else 1)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
        share = row.proportion * (1 if row.data == plan.IMAGENETTE else 2000 / 50000)
        assert len(loader.dataset) == 10 * max(1, round(2 * share))
        model = MODELS.build(cfg.model | dict(data_preprocessor=cfg.data_preprocessor))
        data = model.data_preprocessor(next(iter(loader)), True)
        if row.has_teacher and row.data == plan.IMAGENETTE:
            # It is never asked.
            model.teacher.forward = None
        losses = model(**data, mode='loss')
    own = row.name.removeprefix(f'{row.family}_').removeprefix('cifar10_')
    name = own.removesuffix('_subclone').split('_layer')[0]
    known = {own, name, name.rsplit('_', 1)[0]} & set(LEARNED)
    wanted = LEARNED[max(known, key=len)]
    got = {key.removeprefix('loss_') for key in losses} - {'loss', 'task'}
    assert got == wanted
    student = cfg.model.get('student', cfg.model).backbone.type
    assert student.lower().endswith((row.family or 'plain_mamba').replace('_', ''))
    hooks = [hook.type.removeprefix('mmtransmamba.') for hook in cfg.custom_hooks]
    assert ('SubcloneInitializer' in hooks) == ('subclone' in row.name)
    assert ('LayerWeightsHook' in hooks) == bool({'layer', 'direction'} & wanted)
    fades = {'logits', 'feature'} <= wanted
    fades = fades and not {'steady', 'balanced'} & set(row.name.split('_'))
    assert ('TermDecayHook' in hooks) == fades
    assert ('TermBalanceHook' in hooks) == ('hook_balanced' in row.name)


def test_the_sweep_uses_neither_the_test_images_nor_the_students(arguments):
    keys = [run.key for run in plan.sweep()]
    assert len(set(keys)) == len(keys) == 3 * 4
    swept = plan.config_of(plan.sweep()[0], arguments)
    for dataset in (swept.test_dataloader, swept.val_dataloader.dataset):
        assert dataset.dataset.split == 'train'
        assert dataset.dataset.indices == plan.HELD_OUT < 0
    assert plan.TRAINING_IMAGES - plan.HELD_OUT <= 9469
    reported = plan.config_of(plan.plan(['decisive'], [0])[0], arguments)
    assert reported.test_dataloader.dataset.split == 'val'
    assert 'indices' not in reported.test_dataloader.dataset


def test_the_part_on_cifar10_needs_its_teacher(arguments, tmp_path):
    args = argparse.Namespace(**vars(arguments) | dict(out=tmp_path, parts=['cifar10']))
    with pytest.raises(SystemExit, match=r'needs .*teacher\.safetensors; tools/studi'):
        runs.run(args, 138)
    assert runs.cifar10_top1(args) is None
    shrink(plan.config_of(plan.plan(['cifar10'], [0])[1], args))
    assert runs.cifar10_top1(args) == 78.9
    runs.prepare(plan.plan(['cifar10'], [0]), args)


def test_an_interrupted_study_goes_on_and_repeats_nothing(arguments, monkeypatch):
    """Run by run, in this process, with a training that is killed half-way."""
    trained = []

    def train_here(run, args):
        trained.append(run.key)
        table.add_row(runs.rows_file(run, args), runs.train(run, args))

    monkeypatch.setattr(runs, 'config_of', lambda *a: shrink(plan.config_of(*a)))
    monkeypatch.setattr(runs, 'train_in_process', train_here)
    monkeypatch.setattr(runs, 'record_teacher', lambda args: None)
    with pytest.MonkeyPatch.context() as patch:

        def kill(self, *args, **kwargs):
            raise KeyboardInterrupt

        patch.setattr(Runner, 'test', kill)
        with pytest.raises(KeyboardInterrupt):
            runs.run(arguments, 138)
    assert not runs.rows_file(plan.plan(ALL, [0])[0], arguments).is_file()
    assert '**0 of 138 runs**' in (arguments.out / 'vision.md').read_text()
    for most in (1, None, None):
        arguments.max_runs = most
        runs.run(arguments, 138)
    assert trained == [
        'baseline_seed0',
        *(r.key for r in plan.plan(['decisive'], [0, 1])),
    ]
    rows = table.read_rows(arguments.out / 'vision' / table.RUNS_FILE)
    assert [row.key for row in rows] == trained[1:]
    assert all(list(row.curve) == [2, 4] and 0 <= row.top1 <= 100 for row in rows)
    # A run that was resumed after the kill has no time to compare; the others have.
    assert [row.seconds is None for row in rows] == [True, *[False] * 5]
    assert len({row.parameters for row in rows}) == 1
    assert {name.split('/')[0] for name in rows[2].weights} == {'layer', 'direction'}
    kept = gradients.read_gradients(arguments.out / 'vision')
    assert [list(series) for series in kept] == [[1, 2, 3, 4]] * 2
    text = (arguments.out / 'vision.md').read_text()
    assert '**6 of 138 runs**' in text
    for name in ('accuracy', 'curves', 'weights', 'gradients'):
        assert f'vision/{name}.png' in text
        assert (arguments.out / 'vision' / f'{name}.png').stat().st_size > 1000


def test_a_run_in_a_process_that_fails_names_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'executable', 'false')
    args = argparse.Namespace(
        data=Path('d'), work_dir=tmp_path, out=tmp_path, threads=1, seeds=[0]
    )
    run = plan.plan(['decisive'], [0])[0]
    with pytest.raises(SystemExit, match=r'baseline_seed0 failed, see .*seed0\.log'):
        runs.train_in_process(run, args)


def finished(row, *scores, **more):
    return [table.Finished(row, seed, None, top1, **more) for seed, top1 in scores]


def test_rows_survive_writing_and_replace_their_like(tmp_path):
    path = tmp_path / 'vision' / 'runs.csv'
    first = table.Finished(
        *('full', 1, 0.5, 61.25),
        curve={50: 30.5, 100: 61.0},
        weights={'layer/0': 1.5, 'direction/5': 0.25},
        seconds=12.5,
        parameters=7,
    )
    table.add_row(path, table.Finished('full', 0, None, 60.0))
    table.add_row(path, first)
    assert table.read_rows(path)[1] == first
    table.add_row(path, table.Finished('full', 0, None, 62.0))
    assert [(r.key, r.top1) for r in table.read_rows(path)] == [
        ('full_alpha0.5_seed1', 61.25),
        ('full_seed0', 62.0),
    ]
    assert [p.name for p in path.parent.iterdir()] == ['runs.csv']
    path.write_text('a,b\n1,2\n')
    with pytest.raises(ValueError, match=r"has the columns \['a', 'b'\], expected"):
        table.read_rows(path)


def test_differences_are_paired_by_seed_with_students_interval():
    found = finished('logits', (0, 50.0), (1, 60.0), (2, 70.0))
    found += finished('full', (2, 73.0), (0, 51.0), (1, 62.0), (5, 99.0))
    assert sorted(page.differences(found, 'full', 'logits')) == [1.0, 2.0, 3.0]
    mean, width = t_interval([1.0, 2.0, 3.0])
    # Of three values: 4.303 standard errors.
    assert (mean, width) == (2.0, pytest.approx(4.303 / 3**0.5))
    assert page.difference(found, 'full', 'logits') == '+2.00 ± 2.48'
    found = finished('logits', (0, 50.0), (1, 60.0)) + finished(
        'full', (0, 52.0), (1, 62.1)
    )
    assert page.difference(found, 'full', 'logits') == '**+2.05 ± 0.64**'
    assert page.difference(found, 'logits', 'logits') == '–'
    assert page.difference(found, 'layer', 'logits') == '–'
    assert page.difference(found[:1] + found[2:3], 'full', 'logits') == '+2.00'


def test_norms_and_agreement_of_the_terms():
    series = [
        {
            1: {'norm/task': 2.0, 'norm/logits': 4.0, 'cosine/task,logits': -0.5},
            40: {'norm/task': 1.0, 'norm/logits': 0.0},
            60: {'norm/task': 3.0, 'norm/logits': 1.0, 'cosine/task,logits': 0.25},
        },
        {1: {'norm/task': 4.0, 'norm/logits': 6.0, 'cosine/task,logits': 0.1}},
    ]
    assert gradients.gradient_rows(series) == [
        ('`task`', '3', '3', '–', '-0.050 (33 %)'),
        ('`logits`', '5', '1', '-0.050 (33 %)', '–'),
    ]


@pytest.mark.parametrize('count', [2, 4, 21, 40])
def test_the_interval_covers_the_mean_as_often_as_it_says(count):
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(2000, count, generator=generator, dtype=torch.float64)
    intervals = [t_interval(row.tolist()) for row in samples]
    covered = statistics.mean(abs(mean) <= width for mean, width in intervals)
    assert covered == pytest.approx(0.95, abs=0.015)


def test_the_figure_has_rows_of_one_set_of_images(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(page, 'plot_accuracies', lambda rows, path: drawn.append(rows))
    found = finished('baseline', (0, 48.0), curve={50: 48.0})
    found += finished('cifar10_baseline', (0, 36.0)) + finished('vim_baseline', (0, 40))
    page.write_page(tmp_path, found, [], [], 81, None)
    assert drawn == [dict(baseline=[48.0], vim_baseline=[40])]


def test_the_page_says_what_is_there(tmp_path):
    curve = {50: 20.0, 100: 40.0, 150: 50.0}
    found = finished('baseline', (0, 48.0), (1, 50.0), curve=curve, seconds=100.0)
    found += finished('full', (0, 53.0), curve={50: 50.0}, seconds=120.0)
    found += finished('full_75pct', (0, 51.0), (1, 55.0))
    found += finished('cifar10_baseline', (0, 36.0), (1, 38.0))
    found += finished('cifar10_full', (0, 40.0), (1, 42.0))
    sweep = [table.Finished('logits', 100, 0.2, 44.0)]
    sweep += [table.Finished('full', 100, alpha, 43.0) for alpha in (0.2, 0.5)]
    scores = dict(views=6000, views_top1=94.25, val_images=500, val_top1=96.0)
    page.write_page(tmp_path, found, sweep, [], 81, scores, 78.9)
    text = (tmp_path / 'vision.md').read_text()
    for line in (
        '**12 of 81 runs** are in these tables. Each row',
        '| the student alone | 2 | 49.00 ± 1.41 | – | – |',
        '| direction + adaptive layer + feature + logits | 1 | 53.00 | +5.00 | – |',
        'Not measured yet: logits; feature (FitNets on the final feature); '
        'feature + logits; layer + feature + logits; direction + feature + logits; '
        'adaptive layer + feature + logits.',
        'Not measured yet: 25 %; 50 %.',
        '| 75 % | – | – | 53.00 ± 2.83 | – | – | +4.00 ± 12.71 |',
        '| 100 % | 49.00 ± 1.41 | – | 53.00 | +5.00 | – | +5.00 |',
        '| direction + adaptive layer + feature + logits | 50 | 3.00 | 120 |',
        '| student learns from | α = 0.2 | α = 0.5 |',
        '| logits | 44.00 | – |',
    ):
        assert line in text.splitlines()
    assert 'right in 94.2 % of the 6,000 recorded views' in text
    _, cifar10 = text.split('## The same on CIFAR-10')
    assert '| full | 2 | 41.00 ± 1.41 | **+4.00 ± 0.00** | – |' in cifar10
    assert '10,000 images, 78.9 % of which this teacher has right.' in cifar10
    page.write_page(tmp_path, [], [], [], 81, None)
    text = (tmp_path / 'vision.md').read_text()
    assert '**0 of 81 runs**' in text
    letters = [line for line in text.splitlines() if len(line) == 1]
    assert not letters, 'a paragraph is written letter by letter'


def test_how_much_sooner_has_no_mean_without_the_seeds_that_do_not_arrive():
    curve = {50: 20.0, 100: 40.0}
    found = finished('baseline', (0, 40.0), (1, 40.0), curve=curve)
    found += finished('logits', (0, 45.0), curve={50: 45.0})
    rows = [plan.BY_NAME['logits']]
    late = finished('logits', (1, 45.0), curve=curve)
    lines = page._sooner([*found, *late], rows)
    assert lines[2] == '| logits | 50, 100 | 1.50 ± 0.71 | – |'
    never = finished('logits', (1, 30.0), curve={100: 30.0})
    lines = page._sooner([*found, *never], rows)
    assert lines[2] == '| logits | 50, – | – | – |'


def test_the_teacher_is_recorded_and_scored_once(arguments, tmp_path, monkeypatch):
    args = argparse.Namespace(data=arguments.data, work_dir=tmp_path)
    monkeypatch.setattr(runs, 'IMAGENETTE_INDICES', list(range(10, 0, -1)))
    monkeypatch.setattr(runs, 'TEACHER_SIZE', 32)
    monkeypatch.setattr(runs, 'IMAGES', 4000)
    runs.record_teacher(args)
    path = plan.views_of(args) / runs.TEACHER_FILE
    first = path.read_text(), path.stat().st_mtime_ns
    scores = runs.read_json(path)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        train = ImagenetteShards(arguments.data / 'imagenette96', 'train')
        assert scores['views'] == runs.VIEWS * len(Subset(train, 0.5))
    assert scores['val_images'] == 20
    runs.record_teacher(args)
    assert first == (path.read_text(), path.stat().st_mtime_ns)
