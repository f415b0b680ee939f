"""The small VQA sets: what their configs have to have in common."""

import pytest
from config_families.words import SETS
from config_runs import load

from mmtransmamba.datasets import EasyVQAPatches, ShapesCells


@pytest.mark.parametrize('prefix', SETS.values())
def test_control_is_as_long_as_the_stages(prefix):
    control = load(f'{prefix}_pure_scratch.py').train_cfg.max_iters
    stages = [load(f'{prefix}_pure_stage{i}.py') for i in (1, 2, 3)]
    assert control == sum(cfg.train_cfg.max_iters for cfg in stages)


@pytest.mark.parametrize('prefix', SETS.values())
@pytest.mark.parametrize('kind', ['hybrid', 'pure'])
def test_stages_follow_each_other(prefix, kind):
    cfgs = [load(f'{prefix}_{kind}_stage{i}.py') for i in (1, 2, 3)]
    assert [cfg.model.stage for cfg in cfgs] == ['stage1', 'stage2', 'stage3']
    teacher = cfgs[0].model.student.path
    before = [f'work_dirs/{prefix.rpartition("/")[2]}_{kind}_stage{i}' for i in (1, 2)]
    starts = [cfg.model.student.path for cfg in cfgs]
    assert starts == [teacher, *(f'{path}/student' for path in before)]
    assert teacher.endswith('_teacher/model')


@pytest.mark.parametrize(
    'name, dataset',
    [*zip(SETS.values(), (ShapesCells, EasyVQAPatches), strict=True)],
)
def test_classes_of_the_towers(name, dataset):
    assert load(f'{name}_tower.py').model.num_classes == dataset.num_classes
