"""Reading the scalars of runs, and drawing them."""

import json

import cv2
import pytest

from mmtransmamba.visualization import (
    RunScalars,
    plot_layer_weights,
    plot_runs,
    read_scalars,
)
from mmtransmamba.visualization.records import replaced_runs


def write(folder, records) -> None:
    path = folder / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(json.dumps(record) for record in records))


def test_a_run_that_begins_anew_has_nothing_of_the_one_before(tmp_path):
    for number, resume in enumerate((None, False, True, False, True)):
        folder = tmp_path / f'20260101_00000{number}'
        write(folder, [{'accuracy/top1': 90.0 - number, 'step': 9 - number}])
        if resume is not None:
            config = f'model = dict()\nresume = {resume}\n'
            (folder / 'vis_data' / 'config.py').write_text(config)
    assert read_scalars(tmp_path).accuracy == [(5, 86.0), (6, 87.0)]
    left_out = [f'20260101_00000{number}' for number in range(3)]
    assert replaced_runs(tmp_path) == left_out


def test_later_files_of_a_resumed_run_count(tmp_path):
    write(
        tmp_path / '20260101_000000',
        [
            {'loss': 3.0, 'epoch': 1, 'iter': 1, 'step': 1},
            {'loss': 2.0, 'epoch': 1, 'iter': 2, 'step': 2},
            {'accuracy/top1': 40.0, 'step': 1},
            {'retrieval/t2v_R@1': 5.0, 'retrieval/v2t_MdR': 9.0, 'step': 1},
            {'layer_weight/direction/0': 1.2, 'step': 2},
            {'loss': 9.0, 'epoch': 2, 'iter': 3, 'step': 3},
        ],
    )
    write(
        tmp_path / '20260101_000100',
        [
            {'loss': 1.0, 'epoch': 2, 'iter': 3, 'step': 3},
            {'accuracy/top1': 60.0, 'step': 2},
            {'retrieval/t2v_R@1': 7.5, 'step': 2},
            {'layer_weight/direction/0': 0.8, 'step': 4},
        ],
    )
    run = read_scalars(tmp_path)
    assert run.loss == [(1, 2.5), (2, 1.0)]
    assert run.accuracy == [(1, 40.0), (2, 60.0)]
    assert run.layer_weights == {'direction/0': [(2, 1.2), (4, 0.8)]}
    assert run.retrieval == {'t2v_R@1': [(1, 5.0), (2, 7.5)], 'v2t_MdR': [(1, 9.0)]}
    assert (run.best, run.final) == (60.0, 60.0)
    assert (run.epochs_to(50), run.epochs_to(61)) == (2, None)


def test_nothing_to_read(tmp_path):
    with pytest.raises(FileNotFoundError, match='has the run trained'):
        read_scalars(tmp_path)


def test_figures_show_every_curve(tmp_path):
    run = RunScalars(
        accuracy=[(1, 10.0), (2, 90.0)],
        loss=[(1, 2.0), (2, 1.0)],
        layer_weights={'direction/0': [(1, 1.1), (2, 1.3)]},
    )
    plot_runs({'a': run}, tmp_path / 'one.png', 'title')
    plot_runs({'a': run}, tmp_path / 'line.png', 'title', reference=('b', 50.0))
    plot_layer_weights(run, tmp_path / 'weights.png')
    images = {p.stem: cv2.imread(str(p)) for p in tmp_path.glob('*.png')}
    assert set(images) == {'one', 'line', 'weights'}
    assert all(image.std() > 5 for image in images.values())
    assert (images['one'] != images['line']).any()


@pytest.mark.parametrize(
    ('metric', 'best', 'first'),
    [('token/perplexity', 10.0, 3), ('accuracy/top1', 50.0, 1)],
)
def test_the_best_value_of_a_metric_may_be_its_lowest(metric, best, first, tmp_path):
    values = zip((1, 2, 3), (50.0, 20.0, 10.0), strict=True)
    write(tmp_path / '20260101_000000', [{metric: v, 'step': s} for s, v in values])
    run = read_scalars(tmp_path, metric)
    assert (run.best, run.final, run.epochs_to(best)) == (best, 10.0, first)
