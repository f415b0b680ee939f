"""Key-value heads ranked by what their conversion costs, and converted by it."""

import json

import pytest
import torch
from tiny_decoders import tiny_teacher, tokens

from mmtransmamba.models.language.mixers.base import step_sizes_of
from mmtransmamba.transfer.convert import (
    Conversion,
    LayerRanking,
    convert,
    plan_conversion,
    rank_layers,
)
from mmtransmamba.transfer.convert.candidates import Candidates
from mmtransmamba.transfer.convert.probes import Probe, text_probes

HEADS = [[i, head] for i in range(3) for head in range(2)]


@pytest.fixture(scope='module')
def teacher():
    return tiny_teacher()


def kl_of(teacher, converted, **options):
    """Per-token KL of a hybrid in which just these heads are converted."""
    keep = {i: [h for h in range(2) if [i, h] not in converted] for i, _ in converted}
    mixers = {i: dict(attention_kv_heads=kept) for i, kept in keep.items() if kept}
    mixer = 'Heads' + options.pop('mixer', 'Mamba2')
    hybrid, _ = convert(
        teacher, list(keep), mixer=mixer, layer_mixers=mixers, **options
    )
    ids = tokens(4)
    with torch.no_grad():
        p = teacher(ids).logits.double().softmax(-1)
        q = hybrid(ids).logits.double().softmax(-1)
    return float((p * (p / q).log()).sum(-1).mean())


@pytest.mark.parametrize(
    'options', [{}, dict(init='vkq', mixer='GatedDeltaNet')], ids=['Mamba2', 'GDN']
)
def test_a_head_costs_the_kl_of_converting_it_alone(teacher, options):
    ranking = rank_layers(
        teacher, list(tokens(4).split(2)), Conversion(**options), unit='heads'
    )
    costs = {tuple(head): kl_of(teacher, [head], **options) for head in HEADS}
    assert ranking.order == sorted(HEADS, key=lambda head: costs[tuple(head)])
    assert ranking.kl == pytest.approx(sorted(costs.values()), rel=1e-3)
    assert ranking.unit == 'heads' and 'LAYER.HEAD' in str(ranking)
    layer, head = ranking.order[0]
    assert f'   1    {layer}.{head}  {ranking.kl[0]:9.4f}' in str(ranking)


def test_greedy_adds_the_cheapest_head(teacher):
    conversion = Conversion(ranking='greedy')
    ranking = rank_layers(teacher, [tokens(4)], conversion, count=3, unit='heads')
    for n in range(3):
        rest = [head for head in HEADS if head not in ranking.order[:n]]
        costs = [kl_of(teacher, [*ranking.order[:n], head]) for head in rest]
        assert ranking.order[n] == rest[costs.index(min(costs))]
        assert ranking.kl[n] == pytest.approx(min(costs), rel=1e-3)


def test_all_heads_of_a_layer_are_the_layer(teacher):
    probes = text_probes([tokens(4)])
    with Candidates(teacher, Conversion()) as candidates:
        both, layer = (candidates.compare(probes, u) for u in ([(1, 0), (1, 1)], [1]))
        assert both == layer
        assert candidates.compare(probes, [])[0] == 0


def test_biases_are_added_once():
    phi = tiny_teacher('phi')
    mixer = dict(type='HeadsMamba2', attention_kv_heads=[0, 1, 3])
    hybrid, _ = convert(phi, [1], mixer=mixer)
    with Candidates(phi, Conversion()) as candidates, candidates.converted([(1, 2)]):
        logits = phi(tokens(), use_cache=False).logits
    torch.testing.assert_close(logits, hybrid(tokens()).logits)


def test_gates_close_at_heads_that_the_mixer_replaces_perfectly():
    teacher = tiny_teacher()
    with Candidates(teacher, Conversion(init='vkq')) as candidates:
        candidates.mixers[1] = teacher.model.layers[1].self_attn  # perfect
        with torch.no_grad():
            candidates.mixers[2].out_proj.weight[:, 16:].mul_(20)  # harmful
        gates = candidates.learn_gates([Probe(tokens(4))], 'heads')
    assert list(gates) == [tuple(head) for head in HEADS]
    assert max(gates[1, 0], gates[1, 1]) < 0.5 < gates[2, 1]
    assert gates[2, 0] < gates[2, 1]


@pytest.mark.parametrize('method', ['recall', 'gates'])
def test_other_methods_rank_heads_and_leave_the_model_alone(teacher, method):
    attention = [layer.self_attn for layer in teacher.model.layers]
    ranking = rank_layers(
        teacher, [tokens(4)], Conversion(ranking=method), unit='heads'
    )
    assert sorted(ranking.order) == HEADS and len(ranking.scores) == len(HEADS)
    assert [layer.self_attn for layer in teacher.model.layers] == attention
    assert all(parameter.requires_grad for parameter in teacher.parameters())
    assert not any(
        layer.self_attn.o_proj._forward_pre_hooks for layer in teacher.model.layers
    )


def test_a_file_of_heads_chooses_what_is_converted(teacher, tmp_path):
    path = tmp_path / 'mine.json'
    order = [[0, 1], [0, 0], [2, 1], [1, 0], [1, 1], [2, 0]]
    path.write_text(json.dumps(dict(method='by hand', order=order, unit='heads')))
    hybrid, _ = convert(teacher, str(path), 0.5, init='vkq', mixer='GatedDeltaNet')
    config = hybrid.config
    assert config.mamba_layers == [0, 2] and config.key_layers == [2]
    assert config.mixer_of(0)['attention_kv_heads'] == []
    assert config.mixer_of(2)['attention_kv_heads'] == [0]
    assert config.layer_ranking['order'] == order
    own, theirs = (model.model.layers[1].self_attn for model in (hybrid, teacher))
    assert type(own) is type(theirs)  # keeps all of its heads
    for name, value in own.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name])
    again = LayerRanking(**config.layer_ranking)
    again.save(path)
    assert LayerRanking.load(path) == again
    whole = plan_conversion(teacher, Conversion(str(path), 1 / 3))
    assert whole.config.mixer['type'] == 'Mamba2' and not whole.config.layer_mixers


def test_a_ranking_of_before_heads_is_one_of_layers(tmp_path):
    path = tmp_path / 'old.json'
    path.write_text(json.dumps(dict(method='single', init='mimic', order=[1, 0])))
    assert LayerRanking.load(path).unit == 'layers'


def test_calibration_fits_the_linear_heads_and_the_rest_of_the_layer(teacher):
    options = dict(mixer=dict(type='HeadsGatedDeltaNet', attention_kv_heads=[0]))
    options |= dict(init='calibrate', calibration=[tokens(16)])
    proofs, states = [], []
    for steps in (0, 30):
        hybrid, report = convert(teacher, [1], calibration_steps=steps, **options)
        proofs.append(report.proof.kl)
        states.append(hybrid.model.layers[1].self_attn)
    assert proofs[1] < proofs[0]
    weights = []
    teacher.set_attn_implementation('eager')
    with torch.no_grad():
        output = teacher(tokens(16)[:14], output_attentions=True)
    teacher.set_attn_implementation('sdpa')
    weights = output.attentions[1][..., 1:].double()
    steps = torch.arange(12)
    apart = (steps[:, None] - steps).clamp_min(0)[:, 1:]
    distances = (weights * apart).sum((0, 2, 3)) / weights.sum((0, 2, 3))
    torch.testing.assert_close(
        states[0].dt_bias.double(), step_sizes_of(distances[2:]), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ('content', 'options', 'words'),
    [
        (dict(order=[[0, 1], [0, 1]]), {}, 'is not a ranking of layers'),
        (dict(order=[0, 1]), {}, 'is not a ranking of heads, which has pairs'),
        (dict(order=[[0, 1, 2]]), {}, 'is not a ranking of heads, which has pairs'),
        (
            dict(order=[[0, 1]], unit='tails'),
            {},
            "unit='tails' must be one of layers, ",
        ),
        (dict(order=[[0, 1]]), {}, 'has 1 heads, but 3 are to be converted'),
        (dict(order=HEADS), dict(ratio=0.05), 'less than half a head'),
        (dict(order=[[0, 1], [1, 7], [2, 1]]), {}, r'attention_kv_heads|key-value'),
        (dict(order=[[0, 1], [1, 0], [9, 1]]), {}, r'layers=\[0, 1, 9\]'),
        (
            dict(order=HEADS),
            dict(mixer='Mamba', init='scratch'),
            'Mamba converts whole layers. Single heads become Mamba2, Gated',
        ),
        (
            dict(order=HEADS),
            dict(layer_mixers={0: dict(d_conv=2)}),
            'layer_mixers cannot be given with a ranking of heads',
        ),
        (
            dict(order=HEADS),
            dict(mixer=dict(type='HeadsMamba2', attention_kv_heads=[0])),
            'attention_kv_heads cannot be given with a ranking of heads',
        ),
    ],
)
def test_what_does_not_fit_is_named(teacher, tmp_path, content, options, words):
    path = tmp_path / 'mine.json'
    path.write_text(json.dumps(dict(unit='heads') | content))
    with pytest.raises(ValueError, match=words):
        convert(teacher, str(path), **dict(ratio=0.5) | options)


def test_bad_settings_of_a_ranking(teacher):
    with pytest.raises(ValueError, match="unit='tails' must be one of layers, heads"):
        rank_layers(teacher, [tokens()], unit='tails')
    with pytest.raises(ValueError, match='Mamba converts whole layers'):
        rank_layers(
            teacher, [tokens()], Conversion(init='scratch', mixer='Mamba'), unit='heads'
        )


def test_heads_of_layers_with_a_window_are_not_ranked():
    with pytest.raises(ValueError, match="have a sliding window|unit='layers'"):
        rank_layers(
            tiny_teacher('mistral', sliding_window=4), [tokens(2)], unit='heads'
        )
    fields = dict(use_sliding_window=True, sliding_window=3, max_window_layers=1)
    teacher = tiny_teacher('qwen2', **fields)
    ranking = rank_layers(teacher, [tokens(2)], unit='heads')
    assert {layer for layer, _ in ranking.order} == {0}
