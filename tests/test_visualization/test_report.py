"""The HTML page about a run: what it shows, and what it makes of damaged folders."""

import json
import math
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmtransmamba.transfer.subclone import Entry, SubcloneReport, Unused
from mmtransmamba.visualization.report import read_run, write_report
from mmtransmamba.visualization.report.charts import heat_map, line_chart, number
from mmtransmamba.visualization.report.reading import best, lower_is_better

CONFIG = """model = dict(
    student=dict(backbone=dict(type='mmtransmamba.PlainMamba'), type='ImageClassifier'),
    teacher=dict(checkpoint='t.pth', type='mmtransmamba.MMPretrainTeacher'),
    type='mmtransmamba.MultiDirectionDistiller')
work_dir = 'runs/<b>one</b>'
"""
LOG = """2026/01/02 10:00:00 - mmengine - INFO -
------------------------------------------------------------
System environment:
    sys.platform: linux
    PyTorch: 2.14.1+cu130
    PyTorch compiling details: PyTorch built with:
  - GCC 13.3

    MMEngine: 0.10.12

Runtime environment:
    seed: 7
------------------------------------------------------------
2026/01/02 10:00:05 - mmengine - INFO - Config:
    not: a field
2026/01/02 10:01:40 - mmengine - INFO - Epoch(val)
"""
VOID = {'meta', 'img'}


class Page(HTMLParser):
    """Checks that tags are nested rightly, and collects what a page shows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.links, self.text = [], [], [], ''
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.links += [v for k, v in attrs if k in ('src', 'href', 'action')]
        assert not [k for k, _ in attrs if k.startswith('on')]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ['style']:
            self.text += f' {data}'

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def page_of(folder: Path) -> Page:
    return Page(write_report(folder).read_text('utf-8'))


def log(folder, records, config=CONFIG, text=LOG, time='20260102_100000'):
    """The files of one run of a Runner; a record may be a line as it is."""
    data = folder / time / 'vis_data'
    data.mkdir(parents=True)
    lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
    (data / 'scalars.json').write_text('\n'.join(lines))
    (data / 'config.py').write_text(config)
    (data.parent / f'{time}.log').write_text(text)


def test_a_report_says_which_runs_it_leaves_out(tmp_path):
    log(tmp_path, distillation(), CONFIG + 'resume = False\n', time='20260102_090000')
    anew = CONFIG + 'resume = False\n'
    log(tmp_path, distillation(range(1, 3)), anew, time='20260102_100000')
    run = read_run(tmp_path)
    assert (run.epochs, run.resumed) == (2, 0)
    page = page_of(tmp_path)
    assert 'continues none of 1 before it' in page.text
    assert '80.00' not in page.text.split()


def distillation(epochs=range(1, 9)):
    for epoch in epochs:
        yield {
            **{'lr': 0.01 / epoch, 'time': 0.1, 'grad_norm': 1.5, 'memory': 99},
            **{'loss': 4.0 / epoch, 'loss_task': 1.0, 'loss_direction': 3.0 / epoch},
            **{'epoch': epoch, 'iter': epoch * 2, 'step': epoch * 2},
        }
        yield {
            **{'accuracy/top1': 10.0 * epoch, 'data_time': 0.1, 'time': 0.1},
            'step': epoch,
        }
        yield {
            f'layer_weight/direction/{i}': 1 + (i - 0.5) * epoch / 10 for i in (0, 1)
        } | {'step': epoch * 2}
    yield {'teacher/accuracy/top1': 97.5, 'step': 2}


def transfer(folder, name='subclone_report.json'):
    SubcloneReport(
        weight_map='vit_to_plainmamba',
        layers=[0, 1, None],
        width='block',
        seed=3,
        entries=[
            Entry('pos_embed', (4, 5), 'copied', 20, 'pos_embed', (4, 5)),
            *(
                Entry(f'layers.{i}.w', (10, 10), 'block', 60, f'blocks.{i}.w', rest='0')
                for i in (0, 1)
            ),
            Entry('layers.0.A', (8,), 'fresh', rest='mamba_a_log'),
            Entry('head.w', (12,), 'kept', rest='kept', detail='<i>other</i> classes'),
        ],
        unused=[Unused('blocks.0.q', (7, 7)), Unused('blocks.1.q', (7, 7))],
    ).save(folder / name)


def test_what_hooks_record_is_no_result(tmp_path):
    """The gradients of terms go over the epochs, beside the losses."""
    records = [*distillation()]
    records += [{'term_balance/feature': float(s), 'step': s} for s in range(1, 17)]
    log(tmp_path, records)
    run = read_run(tmp_path)
    assert list(run.metrics) == ['accuracy/top1']
    assert run.teacher == {'accuracy/top1': 97.5}
    # Two iterations an epoch.
    expected = [(e, 2 * e - 0.5) for e in range(1, 9)]
    assert run.extras['term_balance/feature'] == expected


def test_a_distillation_run_shows_all_its_parts(tmp_path):
    log(tmp_path, distillation())
    transfer(tmp_path)
    (tmp_path / 'digits.py').write_text('raise SystemExit')
    cv2.imwrite(str(tmp_path / 'answers.png'), np.zeros((4, 4, 3), np.uint8))
    page = page_of(tmp_path)
    for words in (
        'digits',
        'PlainMamba learned from MMPretrainTeacher for 8 epochs '
        '(MultiDirectionDistiller with MMPretrainTeacher).',
        '97.5',  # the teacher
        'loss_direction',
        'learning rate',
        'block 2',
        'inherited 140 (58.3 %)',
        'fresh 88 (36.7 %)',
        "kept from the model's initialisation 12 (5.0 %)",
        'layers.*.w',
        'blocks.*.q',
        '2.14.1+cu130',
        "work_dir = 'runs/<b>one</b>'",
        '8 epochs; 16 iterations; 100 s; 240 parameters.',
    ):
        assert words in page.text
    assert 'not: a field' not in page.text
    assert len(page.all('svg')) == 7  # top-1, loss, rate, two terms, norm, weights
    assert all(svg['role'] == 'img' and svg['aria-label'] for svg in page.all('svg'))
    (picture,) = page.all('img')
    assert picture['src'].startswith('data:image/png;base64,')
    assert 'answers.png' in picture['alt']
    assert page.links == [picture['src']]


def test_the_counts_are_those_of_the_transfers_own_totals(tmp_path):
    transfer(tmp_path)
    totals = json.loads((tmp_path / 'subclone_report.json').read_text())['totals']
    (found,) = read_run(tmp_path).inheritance
    assert found.parameters == totals['parameters'] == 240
    for name in ('inherited', 'fresh', 'kept'):
        assert getattr(found, name) == totals[name]
    assert [(p.name, p.tensors, p.inherited) for p in found.actions] == [
        *(('copied', 1, 20), ('block', 2, 120), ('fresh', 1, 0), ('kept', 1, 0))
    ]
    assert (found.unused.tensors, found.unused.values) == (2, 98)


@pytest.mark.parametrize(
    'name, lower',
    [
        *(('retrieval/t2v_R@1', False), ('retrieval/t2v_MeanR', True)),
        *(('retrieval/v2t_MdR', True), ('t2v_MnR', True), ('medianR', True)),
        *(('token/kl', True), ('token/kl_reverse', True), ('weekly/score', False)),
        *(('token/nll', True), ('loss_task', True), ('accuracy/top1', False)),
        *(('answers/malformed', True), ('pope/unread', True), ('mme/total', False)),
        *(('reasoning/truncated', True), ('error/accuracy', False)),
    ],
)
def test_which_metrics_fall(name, lower):
    assert lower_is_better(name) == lower
    points = [(1, 3.0), (2, 2.0), (3, 4.0)]
    assert best(name, points) == points[1 if lower else 2]


def test_a_language_run_counts_iterations_and_knows_that_perplexity_falls(tmp_path):
    records = []
    for step in (10, 20, 30):
        records.append({'lr': 1e-3, 'loss': 90.0 / step, 'iter': step, 'step': step})
        value = {10: 900, 20: 30, 30: 40}[step]
        records.append({'token/ppl': value, 'data_time': 0.1, 'step': step})
    config = "model = dict(type='CausalLM', path='x')\n"
    log(tmp_path, records, config)
    run = read_run(tmp_path)
    assert (run.by_epoch, run.train_axis, run.iterations) == (False, 'iteration', 30)
    assert best('token/ppl', run.metrics['token/ppl']) == (20, 30)
    page = page_of(tmp_path)
    assert 'CausalLM was trained for 30 iterations.' in page.text
    assert 'Best at iteration' in page.text and 'lower' in page.text
    assert 'None on record; the hook LayerWeightsHook' in page.text


def test_a_converted_model_has_a_page(tmp_path):
    transfer(tmp_path, 'conversion_report.json')
    (tmp_path / 'config.json').write_text('{"model_type": "mm_hybrid"}')
    page = page_of(tmp_path)
    assert 'A model was converted.' in page.text and 'Conversion' in page.text
    assert '58.3 %' in page.text and '"mm_hybrid"' in page.text
    assert 'Not on record: validation, loss, learning rate.' in page.text


@pytest.mark.parametrize(
    'files', [[], ['notes.txt'], ['photo.png', 'sub/a.json'], ['sub/other.log']]
)
def test_a_folder_without_a_run_is_refused(tmp_path, files):
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text('x')
    with pytest.raises(FileNotFoundError, match=r'holds no run: .*scalars\.json'):
        write_report(tmp_path)
    with pytest.raises(FileNotFoundError, match='There is no folder'):
        write_report(tmp_path / 'none')


def test_hostile_names_stay_text(tmp_path):
    evil = '"><script>alert(1)</script><img src=http://evil onerror=x>'
    log(
        tmp_path,
        [
            {'loss': 1.0, f'loss_{evil}': 1.0, 'lr': 1.0, 'iter': 1, 'step': 1},
            {evil: 3.0, '\ud800': 1.0, 'step': 1},
            {f'layer_weight/{evil}/{evil}': 1.0, 'step': 1},
            {f'teacher/{evil}': 2.0, 'step': 1},
        ],
        config=f'# {evil}\nimport os\nos.remove({str(tmp_path / "a.py")!r})\n',
        text=LOG.replace('linux', evil),
    )
    transfer(tmp_path)
    report = json.loads((tmp_path / 'subclone_report.json').read_text())
    report['weight_map'] = report['entries'][0]['target'] = evil
    report['entries'][1]['action'] = report['unused'][0]['name'] = evil
    (tmp_path / 'subclone_report.json').write_text(json.dumps(report))
    picture = np.zeros((4, 4, 3), np.uint8)
    (tmp_path / '" onload="x.png').write_bytes(cv2.imencode('.png', picture)[1])
    (tmp_path / '<script>.png').write_text('<script>no picture</script>')
    (tmp_path / 'a.py').write_text('<script>')
    page = page_of(tmp_path)
    assert page.text.count('<script>alert(1)</script>') > 6
    assert not {'script', 'iframe', 'object', 'link'} & {tag for tag, _ in page.tags}
    assert all(link.startswith('data:image/png') for link in page.links)
    assert len(page.all('img')) == 1
    assert 'is more than plain values; it is shown as text' in page.text
    assert (tmp_path / 'a.py').is_file()
    policy = [m['content'] for m in page.all('meta') if 'http-equiv' in m]
    assert policy[0].startswith("default-src 'none'")


def test_values_that_are_not_finite_are_marked(tmp_path):
    records = list(distillation())
    records[6]['loss'] = math.nan
    records[9]['loss'] = math.inf
    records[7]['accuracy/top1'] = math.nan
    records[8]['layer_weight/direction/0'] = math.nan
    log(tmp_path, records)
    page = page_of(tmp_path)
    assert '× 2 not finite' in page.text and '× 1 not finite' in page.text
    assert 'nan' not in ''.join(attrs.get('d', '') for attrs in page.all('path'))
    assert best('top1', read_run(tmp_path).metrics['accuracy/top1']) == (8, 80.0)


@pytest.mark.parametrize(
    'line',
    [
        '{"loss": 1.0, "ep',
        '[1, 2]',
        'null',
        '7',
        '"accuracy/top1"',
        '{"loss": 1.0}',
        '{"loss": 1.0, "step": NaN}',
        '{"loss": 1' + '0' * 400 + ', "step": 3}',
        '[' * 100000,
        '\0\0\0',
        '{"loss": 1.0, "step": "3"}',
    ],
)
def test_broken_lines_are_counted_and_the_others_are_shown(tmp_path, line):
    log(tmp_path, [*distillation(), line])
    page = page_of(tmp_path)
    assert '1 line of scalars.json could not be read.' in page.text
    assert len(read_run(tmp_path).losses['loss']) == 8


def test_a_resumed_run_is_one_run(tmp_path):
    log(tmp_path, distillation(range(1, 6)))
    later = [r | ({'loss': 0.5} if 'loss' in r else {}) for r in distillation((5, 6))]
    log(tmp_path, later, time='20260102_110000')
    run = read_run(tmp_path)
    assert run.resumed == 1
    assert run.losses['loss'][3:] == [(4, 1.0), (5, 0.5), (6, 0.5)]
    assert [epoch for epoch, _ in run.metrics['accuracy/top1']] == [1, 2, 3, 4, 5, 6]
    assert run.seconds == 200
    assert 'for 6 epochs, in 2 sittings (' in page_of(tmp_path).text


@pytest.mark.parametrize('text', ['{', '[]', '{"entries": [3]}', '\0', '{"a": 1}'])
def test_damaged_reports_are_told_of(tmp_path, text):
    log(tmp_path, distillation())
    for name in ('subclone_report.json', 'result.json'):
        (tmp_path / name).write_text(text)
    page = page_of(tmp_path)
    assert 'subclone_report.json' in page.text and 'result.json could not' in page.text
    assert 'No subclone_report.json and no conversion_report.json.' in page.text


def test_the_result_of_the_training_counts_before_the_log(tmp_path):
    log(tmp_path, distillation())
    (tmp_path / 'result.json').write_text('{"parameters": 1234, "seconds": 61.5}')
    run = read_run(tmp_path)
    assert (run.parameters, run.seconds) == (1234, 61.5)


def test_the_time_of_several_processes_counts_once(tmp_path):
    log(tmp_path, distillation())
    for rank in range(2):
        name = f'20260102_100000_host_device{rank}_rank{rank}.log'
        (tmp_path / '20260102_100000' / name).write_text(LOG)
    assert read_run(tmp_path).seconds == 100


def test_pictures_from_elsewhere_stay_there(tmp_path):
    folder = tmp_path / 'run'
    folder.mkdir()
    log(folder, distillation())
    cv2.imwrite(str(tmp_path / 'secret.png'), np.zeros((4, 4, 3), np.uint8))
    (folder / 'link.png').symlink_to(tmp_path / 'secret.png')
    assert page_of(folder).all('img') == []


def test_too_many_pictures_are_counted(tmp_path):
    log(tmp_path, distillation())
    for i in range(14):
        cv2.imwrite(str(tmp_path / f'{i:02}.png'), np.zeros((4, 4, 3), np.uint8))
    page = page_of(tmp_path)
    assert len(page.all('img')) == 12
    assert '2 further pictures are too many or too large.' in page.text


@pytest.mark.parametrize('out', ['.', 'none/page.html'])
def test_a_page_needs_a_place(tmp_path, out):
    log(tmp_path, distillation())
    with pytest.raises(ValueError, match='must be a file in a folder that exists'):
        write_report(tmp_path, tmp_path / out)


@pytest.mark.parametrize(
    ('points', 'axis'),
    [
        ([(1, 2.0)], '2'),
        ([(1, 0.0), (2, 0.0)], '0'),
        ([(1, -1e-9), (2, 1e-9)], '1e−9'),
        ([(1, 1e300), (2, -1e300)], '1e300'),
        ([(1, 1.0), (2, 1 + 1e-15)], '1'),
        ([(1, 1e-4), (5, 10.0)], '0.001'),  # logarithmic
    ],
)
def test_charts_have_axes_for_any_range(points, axis):
    assert f'>{axis}</text>' in line_chart({'a': points}, 'a', 'epoch', log=True)


def test_long_curves_are_thinned_and_keep_their_extremes():
    points = [(i, math.sin(i / 50)) for i in range(20000)]
    points[12345] = (12345, 9.0)
    text = line_chart({'a': points}, 'a', 'iteration')
    assert len(text) < 8000
    path = text.split('d="M')[1].split('"')[0]
    top = min(float(step.split()[1]) for step in path.split('L'))
    assert top < 40


def test_a_heat_map_has_a_cell_for_each_stretch():
    rows = {f'block {i}': [(s, 1 + i / 10) for s in range(1000)] for i in (0, 2)}
    text = heat_map(rows, 'weights')
    assert text.count('<rect') == 96
    assert text.count('fill-opacity="1.00"') == text.count('fill-opacity="0.00"') == 48


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        (12345, '12,345'),
        (-2.0, '−2'),
        (0.00012346, '0.0001235'),
        (1.5e-7, '1.5e−7'),
        (math.nan, 'NaN'),
        (-math.inf, '−∞'),
    ],
)
def test_numbers_are_short(value, text):
    assert number(value) == text
