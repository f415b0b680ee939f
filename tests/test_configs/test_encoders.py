"""Converted encoders: what the configs of their stages have in common."""

import pytest
from config_families.encoders import stages
from config_runs import load, student

from mmtransmamba.datasets.imagenette import IMAGENETTE_INDICES

STAGES = stages()


@pytest.mark.parametrize('subject', STAGES)
def test_three_stages_follow_each_other(subject):
    align, features, tune = cfgs = STAGES[subject]
    work_dirs = f'work_dirs/{subject.rpartition("/")[2]}'
    assert student(align).path == align.model.teacher.model
    assert student(features).path == f'{work_dirs}_align/student'
    assert student(tune).path == f'{work_dirs}_features/student'
    assert student(align).convert and not student(tune).convert
    assert all(cfg.model.teacher == align.model.teacher for cfg in cfgs)
    rates = [cfg.optim_wrapper.optimizer.lr for cfg in cfgs]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize('subject', STAGES)
def test_labels_are_used_in_the_last_stage_alone(subject):
    assert [cfg.model.alpha > 0 for cfg in STAGES[subject]] == [False, False, True]
    for cfg in STAGES[subject]:
        terms = {name for name, term in cfg.model.terms.items() if term}
        last = student(cfg).stage == 'vision_tune'
        assert terms == ({'logits'} if last else {'layer', 'feature'})


def test_classes_are_those_of_imagenette():
    for subject, cfgs in STAGES.items():
        if 'deit' in subject:
            for cfg in cfgs:
                assert tuple(student(cfg).classes) == IMAGENETTE_INDICES


def test_halves_and_wholes_differ_in_the_ratio_and_in_paths_alone():
    folder = 'quickstart/hybrid_vit'
    for stage in ('align', 'features', 'tune'):
        half, whole = (
            load(f'{folder}/deit_{kind}_{stage}.py') for kind in ('half', 'linear')
        )
        if stage == 'align':
            assert half.model.student.convert.pop('ratio') == 0.5
            assert whole.model.student.convert.pop('ratio') == 1.0
        half.model.student.pop('path'), whole.model.student.pop('path')
        assert half.to_dict() == whole.to_dict()
