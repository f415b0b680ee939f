"""Rankings by several methods, and the comparison of what follows from them."""

import numpy as np
import pytest
from tiny_decoders import tiny_teacher, tokens
from torch import nn

from mmtransmamba.apis.layer_selection import described, select_layers
from mmtransmamba.transfer.convert import Conversion, LayerRanking, convert


@pytest.fixture(scope='module')
def teacher():
    return tiny_teacher()


def test_all_methods_are_compared_on_text_that_none_has_seen(teacher, tmp_path):
    shown = []
    np.savez(tmp_path / 'text.npz', tokens=tokens(8).numpy())
    selection = select_layers(
        *(teacher, tmp_path / 'text.npz', tmp_path / 'out'),
        on=('text', 'recall'),
        ratio=1 / 3,
        show=shown.append,
    )
    names = ['single', 'single-recall', 'greedy', 'greedy-recall', 'recall', 'gates']
    assert list(selection.rankings) == [*names, 'gates-recall']
    assert {ranking.tokens for ranking in selection.rankings.values()} == {7 * 12}
    choices = {choice.name: choice for choice in selection.choices}
    assert {'evenly', 'late', *selection.rankings} <= set(choices)
    for name, ranking in selection.rankings.items():
        assert choices[name].layers == ranking.order[:1]
        assert LayerRanking.load(tmp_path / 'out' / f'{name}.json') == ranking
    hybrid, _ = convert(teacher, choices['late'].layers)
    held = tokens(8)[7:]
    logs = [model(held).logits.log_softmax(-1) for model in (teacher, hybrid.eval())]
    kl = nn.functional.kl_div(logs[1], logs[0], log_target=True, reduction='none')
    assert choices['late'].text_kl == pytest.approx(kl.sum().item() / 12, rel=1e-3)
    page = (tmp_path / 'out' / 'comparison.html').read_text()
    assert shown[-1] == str(selection) and 'gates-recall' in page
    assert f'{choices["late"].text_kl:.4f}' in page


def test_heads_are_compared_with_layers_at_the_same_size_of_the_cache(
    teacher, tmp_path
):
    selection = select_layers(
        *(teacher, [tokens(8)], tmp_path),
        methods=['single'],
        on=('text', 'recall'),
        ratio=2 / 3,
        show=lambda text: None,
        units=('layers', 'heads'),
    )
    names = ['single', 'single-recall']
    assert list(selection.rankings) == [*names, *(f'heads-{name}' for name in names)]
    choices = {choice.name: choice for choice in selection.choices}
    single = choices['heads-single']
    assert single.layers == sorted(selection.rankings['heads-single'].order[:4])
    assert {choice.cells()[2] for choice in selection.choices} == {'33 %'}
    hybrid, _ = convert(teacher, str(tmp_path / 'heads-single.json'), 2 / 3)
    held = tokens(8)[7:]
    logs = [model(held).logits.log_softmax(-1) for model in (teacher, hybrid.eval())]
    kl = nn.functional.kl_div(logs[1], logs[0], log_target=True, reduction='none')
    assert single.text_kl == pytest.approx(kl.sum().item() / 12, rel=1e-3)
    page = (tmp_path / 'comparison.html').read_text()
    assert 'Rank of each key-value head' in page and 'Rank of each layer' in page
    assert single.cells()[1] in page
    assert described([[0, 1], [0, 2], [3, 0]]) == '0: 1, 2; 3: 0'


def test_rankings_are_kept_as_they_are_made(teacher, tmp_path):
    np.savez(tmp_path / 'text.npz', tokens=tokens(8).numpy())

    def stop(text):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        select_layers(teacher, tmp_path / 'text.npz', tmp_path / 'out', show=stop)
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['single.json']


def test_a_mixer_without_heads_is_refused_before_anything_is_ranked(teacher, tmp_path):
    np.savez(tmp_path / 'text.npz', tokens=tokens(8).numpy())
    shown = []
    with pytest.raises(ValueError, match='SlidingWindow converts whole layers'):
        select_layers(
            *(teacher, tmp_path / 'text.npz', tmp_path / 'out'),
            conversion=Conversion(mixer=dict(type='SlidingWindow', window=8)),
            units=('layers', 'heads'),
            show=shown.append,
        )
    assert not shown and not (tmp_path / 'out').exists()


def test_a_teacher_that_cannot_recall_is_named(teacher):
    selection = select_layers(
        teacher, [tokens(4)], methods=['single'], show=lambda text: None
    )
    assert selection.choices[0].teacher_recall < 0.1
    assert str(selection).endswith('rankings by recall mean little here.')
    for choice in selection.choices:
        choice.teacher_recall = 0.9
    assert not selection.warning and 'mean little' not in str(selection)


def test_calibrated_mixers_are_fitted_before_they_are_ranked(teacher):
    kl = []
    for steps in (0, 10):
        conversion = Conversion(
            init='calibrate', calibration=[tokens(8)], calibration_steps=steps
        )
        selection = select_layers(
            *(teacher, [tokens(8)], None, ['single']),
            conversion=conversion,
            show=lambda text: None,
        )
        kl.append(sum(selection.rankings['single'].kl))
    assert kl[1] < kl[0]
