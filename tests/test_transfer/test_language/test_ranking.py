"""Layers ranked by what their conversion costs."""

import json

import numpy as np
import pytest
import torch
from tiny_decoders import tiny_teacher, tokens
from transformers import AutoConfig

from mmtransmamba.models.language import MAMBA
from mmtransmamba.models.language.mixers import build_mixer
from mmtransmamba.transfer.convert import (
    Conversion,
    LayerRanking,
    convert,
    hybrid_config,
    plan_conversion,
    rank_layers,
    read_calibration,
)
from mmtransmamba.transfer.convert.candidates import Candidates
from mmtransmamba.transfer.convert.probes import text_probes


@pytest.fixture(scope='module')
def teacher():
    return tiny_teacher()


def kl_of(teacher, layers):
    """Per-token KL of a hybrid with just these layers, computed on its own."""
    hybrid, _ = convert(teacher, layers)
    ids = tokens(4)
    with torch.no_grad():
        p = teacher(ids).logits.double().softmax(-1)
        q = hybrid(ids).logits.double().softmax(-1)
    return float((p * (p / q).log()).sum(-1).mean())


def test_single_ranking_is_by_the_kl_of_each_layer_alone(teacher):
    ranking = rank_layers(teacher, list(tokens(4).split(2)))
    costs = [kl_of(teacher, [i]) for i in range(3)]
    assert ranking.order == sorted(range(3), key=costs.__getitem__)
    assert ranking.kl == pytest.approx(sorted(costs), rel=1e-3)
    assert ranking.tokens == 48


def test_greedy_ranking_adds_the_cheapest_layer(teacher):
    ranking = rank_layers(teacher, [tokens(4)], Conversion(ranking='greedy'), count=2)
    first, second = ranking.order
    singles = {i: kl_of(teacher, [i]) for i in range(3)}
    assert first == min(singles, key=singles.get)
    pairs = {i: kl_of(teacher, sorted([first, i])) for i in range(3) if i != first}
    assert second == min(pairs, key=pairs.get)
    assert ranking.kl == pytest.approx([singles[first], pairs[second]], rel=1e-3)


def test_the_teacher_is_left_as_it_was(teacher):
    before = teacher(tokens()).logits
    modules = [layer.self_attn for layer in teacher.model.layers]
    rank_layers(teacher.train(), [tokens()])
    assert teacher.training
    teacher.eval()
    assert [layer.self_attn for layer in teacher.model.layers] == modules
    assert torch.equal(teacher(tokens()).logits, before)


def test_automatic_layers_are_the_cheapest(teacher):
    ranking = rank_layers(teacher, [tokens(4)])
    hybrid, _ = convert(teacher, 'auto', 2 / 3, calibration=[tokens(4)])
    assert hybrid.config.mamba_layers == sorted(ranking.order[:2])
    greedy = rank_layers(teacher, [tokens(4)], Conversion(ranking='greedy'), count=2)
    hybrid, _ = convert(
        teacher, 'auto', 2 / 3, calibration=[tokens(4)], ranking='greedy'
    )
    assert hybrid.config.mamba_layers == sorted(greedy.order)


def test_only_the_students_layers_are_ranked(teacher):
    settings = dict(init='subclone', num_hidden_layers=2)
    ranking = rank_layers(teacher, [tokens(4)], Conversion.of(**settings))
    assert sorted(ranking.order) == [0, 1]
    hybrid, _ = convert(teacher, 'auto', 0.5, calibration=[tokens(4)], **settings)
    assert hybrid.config.layer_types.count(MAMBA) == 1
    assert hybrid.config.mamba_layers == ranking.order[:1]
    with pytest.raises(ValueError, match='hidden_size=16 is not the 32 of the teacher'):
        narrow = Conversion.of(hidden_size=16, **settings)
        rank_layers(teacher, [tokens(4)], narrow)


def test_mixers_of_a_mamba_checkpoint_are_what_is_ranked(teacher, tmp_path):
    config = hybrid_config(teacher.config, Conversion(init='subclone'))
    torch.manual_seed(5)
    state = {
        f'layers.{i}.mixer.{name}': tensor
        for i in range(3)
        for name, tensor in build_mixer(config, i).state_dict().items()
    }
    torch.save(state, tmp_path / 'mamba.pt')
    rankings = [
        rank_layers(
            teacher,
            [tokens(4)],
            Conversion(init='subclone', mamba_checkpoint=checkpoint),
        )
        for checkpoint in (None, tmp_path / 'mamba.pt')
    ]
    assert rankings[0].kl != rankings[1].kl


def test_a_ranked_mixer_is_the_hybrids():
    teacher = tiny_teacher().to(torch.bfloat16)
    hybrid, _ = convert(teacher, [1], init='vkq')
    expected = hybrid.model.layers[1].self_attn.state_dict()
    mixer = plan_conversion(teacher, Conversion('early', 1.0, 'vkq')).mixer(1)
    for name, tensor in mixer.state_dict().items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name]), name


def test_a_config_names_a_file_to_measure_on(teacher, tmp_path):
    from mmtransmamba.models.trainable import CausalLM

    teacher.save_pretrained(tmp_path / 'teacher')
    np.savez(tmp_path / 'text.npz', tokens=tokens(4).numpy().astype('uint16'))
    asked = dict(layers='auto', ratio=1 / 3, calibration=str(tmp_path / 'text.npz'))
    model = CausalLM(path=str(tmp_path / 'teacher'), convert=asked)
    ranking = rank_layers(teacher, [tokens(4)])
    assert model.lm.config.mamba_layers == ranking.order[:1]


def test_calibration_files(tmp_path):
    with pytest.raises(FileNotFoundError, match='No calibration text at .*nowhere'):
        read_calibration(tmp_path / 'nowhere.txt', tmp_path)
    np.savez(tmp_path / 'other.npz', ids=np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"has \['ids'\], but needs \"tokens\""):
        read_calibration(tmp_path / 'other.npz', tmp_path)
    np.savez(tmp_path / 'text.npz', tokens=np.ones((40, 10), 'uint16'))
    batches = read_calibration(tmp_path / 'text.npz', tmp_path, tokens=200)
    assert [tuple(b.shape) for b in batches] == [(8, 10), (8, 10), (4, 10)]


def test_is_printed_and_saved(teacher, tmp_path):
    ranking = rank_layers(teacher, [tokens()])
    assert f'{ranking.kl[0]:.4f}' in str(ranking)
    ranking.save(tmp_path / 'ranking.json')
    assert json.loads((tmp_path / 'ranking.json').read_text())['order'] == ranking.order


def test_a_hybrid_keeps_what_its_layers_were_chosen_by(teacher, tmp_path, monkeypatch):
    printed = []
    monkeypatch.setattr(
        'mmtransmamba.transfer.convert.conversion.print_log',
        lambda text, logger: printed.append(text),
    )
    hybrid, _ = convert(teacher, 'auto', 1 / 3, calibration=[tokens(4)])
    ranking = rank_layers(teacher, [tokens(4)])
    assert printed == [f'\n{ranking}']
    hybrid.save_pretrained(tmp_path)
    saved = AutoConfig.from_pretrained(tmp_path).layer_ranking
    assert LayerRanking(**saved) == ranking
    assert convert(teacher, [1])[0].config.layer_ranking is None


def test_bad_settings(teacher):
    with pytest.raises(ValueError, match="ranking='best' must be one of single, gree"):
        Conversion(ranking='best')
    with pytest.raises(ValueError, match='needs calibration text'):
        rank_layers(teacher, [])


def test_calibrated_mixers_are_fitted_before_they_are_ranked(teacher):
    text = list(tokens(8).split(2))
    given = dict(mixer='GatedDeltaNet', calibration=text, calibration_steps=10)
    spec = Conversion(init='calibrate', **given)
    ranking = rank_layers(teacher, text, spec)
    with Candidates(teacher, spec) as candidates:
        candidates.fit(text, 10)
        expected = candidates.costs(text_probes(text), [], candidates.layers)
    assert dict(zip(ranking.order, ranking.kl, strict=True)) == pytest.approx(expected)
    hybrid, _ = convert(teacher, 'auto', 1 / 3, init='calibrate', **given)
    assert hybrid.config.mamba_layers == ranking.order[:1]
