"""Methods of ranking that look at recall."""

import json

import pytest
import torch
from tiny_decoders import tiny_teacher, tokens

from mmtransmamba.transfer.convert import (
    Conversion,
    LayerRanking,
    convert,
    plan_conversion,
    rank_layers,
)
from mmtransmamba.transfer.convert.candidates import Candidates
from mmtransmamba.transfer.convert.probes import Probe, recall_probes, text_probes


@pytest.fixture(scope='module')
def teacher():
    return tiny_teacher()


def test_recall_can_only_be_answered_from_the_first_half():
    (probe,) = recall_probes(64, 32, tokens=64, length=128)
    assert probe.ids.shape == (2, 32) and probe.start == 16
    assert torch.equal(probe.ids[:, :16], probe.ids[:, 16:])
    assert probe.ids.min() >= 3 and probe.tokens == 32
    other, again = (recall_probes(64, 32, tokens=64, seed=seed) for seed in (1, 0))
    assert torch.equal(again[0].ids, probe.ids)
    assert not torch.equal(other[0].ids, probe.ids)
    with pytest.raises(ValueError, match='a context of 2'):
        recall_probes(64, 2)


def test_halo_is_the_loss_of_recall_for_the_loss_on_text(teacher):
    batches = [tokens(4)]
    ranking = rank_layers(teacher, batches, Conversion(ranking='recall'))
    with Candidates(teacher, Conversion()) as candidates:
        text = candidates.costs(text_probes(batches), [], [0, 1, 2])
        recall = candidates.costs(candidates.recall(48, 0), [], [0, 1, 2])
    expected = {
        i: min(
            (recall[i] - min(recall.values())) / (text[i] - min(text.values()) + 1e-10),
            50,
        )
        for i in range(3)
    }
    assert ranking.order == sorted(range(3), key=lambda i: (expected[i], text[i]))
    assert ranking.scores == pytest.approx([expected[i] for i in ranking.order])
    assert ranking.kl == pytest.approx([text[i] for i in ranking.order])


@pytest.mark.parametrize('method', ['single', 'greedy', 'gates'])
def test_a_method_measures_on_what_is_asked(teacher, method):
    conversion = Conversion(ranking=method)
    text, recall = (
        rank_layers(teacher, [tokens(4)], conversion, on=on)
        for on in ('text', 'recall')
    )
    assert (text.on, recall.on) == ('text', 'recall')
    assert text.kl != recall.kl
    assert 'on synthetic recall' in str(recall)
    assert sorted(text.order) == sorted(recall.order) == [0, 1, 2]
    with pytest.raises(ValueError, match="on='sight' must be one of text, recall"):
        rank_layers(teacher, [tokens(4)], conversion, on='sight')


def test_gates_stay_open_where_a_mixer_hurts_and_close_where_it_does_not():
    teacher = tiny_teacher()
    with Candidates(teacher, Conversion(init='vkq')) as candidates:
        layers = teacher.model.layers
        candidates.mixers[1] = layers[1].self_attn  # perfect
        with torch.no_grad():
            candidates.mixers[2].out_proj.weight.mul_(20)  # harmful
        gates = candidates.learn_gates([Probe(tokens(4))])
    assert gates[1] < 0.5 < gates[2]
    assert min(gates, key=gates.get) == 1


@pytest.mark.parametrize('method', ['recall', 'gates'])
def test_the_model_is_left_as_it_was(teacher, method):
    teacher.train()
    attention = [layer.self_attn for layer in teacher.model.layers]
    state = {name: value.clone() for name, value in teacher.state_dict().items()}
    rank_layers(teacher, [tokens(4)], Conversion(ranking=method))
    assert teacher.training
    assert [layer.self_attn for layer in teacher.model.layers] == attention
    assert all(parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, state[name])
    teacher.eval()


def test_a_file_of_a_ranking_chooses_the_layers(teacher, tmp_path):
    path = tmp_path / 'mine.json'
    path.write_text(json.dumps(dict(method='by hand', init='mimic', order=[2, 0, 1])))
    hybrid, _ = convert(teacher, str(path), 2 / 3)
    assert hybrid.config.mamba_layers == [0, 2]
    assert hybrid.config.layer_ranking['method'] == 'by hand'
    ranking = rank_layers(teacher, [tokens(4)], Conversion(ranking='recall'))
    ranking.save(path)
    assert LayerRanking.load(path) == ranking
    plan = plan_conversion(teacher, Conversion(str(path), 1 / 3))
    assert plan.config.mamba_layers == ranking.order[:1]


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ([0, 1], 'is not a ranking of layers'),
        (dict(order=[0], cost=[1]), 'is not a ranking of layers'),
        (dict(order=[1, 1]), 'is not a ranking of layers'),
        (dict(order=[0, 1], kl=[0.1]), 'is not a ranking of layers'),
        (dict(), 'is not a ranking of layers'),
        (dict(order=[1]), 'has 1 layers, but 3 are to be converted'),
        (dict(order=[0, 1, 9]), r'layers=\[0, 1, 9\]'),
    ],
)
def test_other_files_are_refused(teacher, tmp_path, content, words):
    path = tmp_path / 'mine.json'
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=words):
        convert(teacher, str(path))
