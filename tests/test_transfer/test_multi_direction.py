"""The distiller: losses against closed forms, pairs of all shapes, checkpoints."""

import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import get_state_dict
from tiny_distillers import (
    ADAPTIVE,
    DIRECTION,
    FEATURE,
    LAYER,
    LOGITS,
    batch,
    build,
    student_config,
    teacher_config,
)

from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.models.taps import DirectionTap, LayerTap
from mmtransmamba.registry import MODELS


@pytest.mark.parametrize(
    'terms',
    [
        dict(logits=LOGITS),
        dict(feature=FEATURE),
        dict(logits=LOGITS, feature=FEATURE),
        dict(logits=LOGITS, feature=FEATURE, layer=LAYER),
        dict(logits=LOGITS, feature=FEATURE, direction=DIRECTION),
        dict(logits=LOGITS, feature=FEATURE, layer=LAYER | dict(weighting=ADAPTIVE)),
        dict(
            logits=LOGITS,
            feature=FEATURE,
            direction=DIRECTION | dict(weighting=ADAPTIVE),
        ),
        dict(
            direction=DIRECTION
            | dict(
                feature='projected',
                target_norm='standardize',
                weighting=dict(type='mmtransmamba.LayerIndexWeighting'),
            )
        ),
        dict(layer=LAYER | dict(target_norm='center')),
    ],
    ids=lambda terms: '+'.join(terms),
)
@pytest.mark.parametrize('num_tokens', [None, 5])
def test_every_combination_trains_student_and_aligners(terms, num_tokens):
    distiller = build(terms, num_tokens=num_tokens)
    losses = distiller(*batch(), mode='loss')
    expected = {'loss_task'} | {f'loss_{name}' for name in terms}
    assert expected <= set(losses)
    total, _ = distiller.parse_losses(losses)
    total.backward()
    without = [
        name
        for name, p in distiller.named_parameters()
        if p.grad is None and 'weighting' not in name
    ]
    assert not without
    assert all(p.grad is None for p in distiller.teacher.parameters())


@pytest.mark.parametrize(
    'student, teacher, layers',
    [
        (dict(), dict(), [0, 1]),
        (dict(depth=3), dict(), [1, 1, 1]),
        (dict(depth=1), dict(depth=3), [2]),
        (dict(dim=8), dict(dim=24), [0, 1]),
        (dict(dim=24), dict(dim=8, patch_size=8), [0, 1]),
        (dict(patch_size=8), dict(), [0, 1]),
    ],
)
def test_depth_width_and_grid_may_differ(student, teacher, layers):
    distiller = build(
        dict(logits=LOGITS, feature=FEATURE, layer=LAYER, direction=DIRECTION),
        student_config(**student),
        teacher_config(**teacher),
    )
    assert distiller.layer_map == layers
    total, _ = distiller.parse_losses(distiller(*batch(), mode='loss'))
    total.backward()
    assert total.isfinite()


def test_total_is_equation_12():
    inputs, samples = batch()
    distiller = build(dict(logits=LOGITS | dict(temperature=2.0)), alpha=0.3)
    losses = distiller(inputs, samples, mode='loss')

    logits = distiller.student(inputs)
    labels = torch.tensor([int(s.gt_label) for s in samples])
    images = inputs * distiller.data_preprocessor.std + distiller.data_preprocessor.mean
    teacher = distiller.teacher(images).logits
    kl = F.kl_div(
        (logits / 2).log_softmax(1), (teacher / 2).softmax(1), reduction='batchmean'
    )
    torch.testing.assert_close(
        losses['loss_task'], 0.3 * F.cross_entropy(logits, labels)
    )
    torch.testing.assert_close(losses['loss_logits'], 0.7 * 4 * kl)


def test_logits_term_takes_the_reverse_kl():
    inputs, samples = batch()
    term = LOGITS | dict(temperature=2.0, divergence='reverse_kl')
    distiller = build(dict(logits=term), alpha=0.3)
    found = distiller(inputs, samples, mode='loss')['loss_logits']
    images = inputs * distiller.data_preprocessor.std + distiller.data_preprocessor.mean
    teacher = (distiller.teacher(images).logits / 2).log_softmax(1)
    student = (distiller.student(inputs) / 2).softmax(1)
    kl = F.kl_div(teacher, student, reduction='batchmean')
    torch.testing.assert_close(found, 0.7 * 4 * kl)
    with pytest.raises(ValueError, match="LogitsTerm: divergence='tv' must be one of"):
        build(dict(logits=LOGITS | dict(divergence='tv')))


def test_teacher_sees_the_students_images_under_its_own_normalisation():
    distiller = build(dict(logits=LOGITS))
    raw = torch.randint(0, 256, (2, 3, 16, 16)).float()
    preprocessor = distiller.data_preprocessor
    data = preprocessor({'inputs': list(raw), 'data_samples': batch(2)[1]}, True)
    # to_rgb swapped the channels, so the teacher gets RGB
    torch.testing.assert_close(
        distiller.teacher_images(data['inputs']), raw.flip(1), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize(
    'to_rgb, channel_order, flipped',
    [(False, None, True), (False, 'rgb', False), (True, 'bgr', True)],
)
def test_channel_order_shown_to_the_teacher(to_rgb, channel_order, flipped):
    student = student_config()
    student['data_preprocessor']['to_rgb'] = to_rgb
    distiller = build(dict(logits=LOGITS), student=student, channel_order=channel_order)
    preprocessor = distiller.data_preprocessor
    raw = torch.rand(1, 3, 4, 4) * 255
    normalised = (raw - preprocessor.mean) / preprocessor.std
    expected = raw.flip(1) if flipped else raw
    torch.testing.assert_close(
        distiller.teacher_images(normalised), expected, atol=1e-3, rtol=0
    )


def test_layer_loss_is_the_cosine_of_equation_4():
    inputs, samples = batch()
    distiller = build(dict(layer=LAYER), alpha=0.0)
    loss = distiller(inputs, samples, mode='loss')['loss_layer']

    tokens = []
    for tap in distiller.recorder.layer_taps:
        tap.listener = lambda feature: tokens.append(feature.tokens)
    distiller.student(inputs)
    teacher = distiller.teacher(distiller.teacher_images(inputs)).layers
    expected = sum(
        (1 - F.cosine_similarity(s, t.tokens, dim=-1)).mean()
        for s, t in zip(tokens, teacher, strict=True)
    )  # the aligners start as the identity
    torch.testing.assert_close(loss, expected)


def test_direction_loss_compares_tokens_in_scan_order():
    inputs, samples = batch()
    distiller = build(dict(direction=DIRECTION | dict(feature='projected')), alpha=0.0)
    loss = distiller(inputs, samples, mode='loss')['loss_direction']

    seen = []
    for tap in distiller.recorder.direction_taps:
        tap.listener = seen.append
        tap.select = lambda order: torch.arange(order.shape[1]).expand_as(order)
    distiller.student(inputs)
    teacher = distiller.teacher(distiller.teacher_images(inputs)).layers
    expected = torch.zeros(())
    for feature, layer in zip(seen, teacher, strict=True):
        values = feature.project(feature.values)
        for k, index in enumerate(feature.token_index):
            target = layer.tokens[:, index]
            expected = (
                expected
                + (1 - F.cosine_similarity(values[:, k], target, dim=-1)).mean()
            )
    torch.testing.assert_close(loss, expected)


def test_drawn_tokens_estimate_the_full_loss():
    inputs, samples = batch()
    full = build(dict(layer=LAYER, direction=DIRECTION), alpha=0.0)
    drawn = build(dict(layer=LAYER, direction=DIRECTION), alpha=0.0, num_tokens=4)
    drawn.load_state_dict(full.state_dict())
    with torch.no_grad():
        exact = full(inputs, samples, mode='loss')
        draws = [drawn(inputs, samples, mode='loss') for _ in range(200)]
    for name in ('loss_layer', 'loss_direction'):
        values = torch.stack([d[name] for d in draws])
        assert values.std() > 0
        error = (values.mean() - exact[name]).abs()
        assert error < 4 * values.std() / len(values) ** 0.5


def test_terms_of_one_kind_keep_their_own_losses():
    distiller = build(dict(layer=LAYER, strict=LAYER | dict(target_norm='standardize')))
    losses = distiller(*batch(), mode='loss')
    assert losses['loss_layer'] != losses['loss_strict']


def test_faded_term_is_not_computed_but_takes_part():
    distiller = build(dict(logits=LOGITS, direction=DIRECTION))
    distiller.terms['direction'].scale = 0.0
    losses = distiller(*batch(), mode='loss')
    assert losses['loss_direction'] == 0
    total, _ = distiller.parse_losses(losses)
    total.backward()
    for name, parameter in distiller.terms['direction'].named_parameters():
        assert not parameter.grad.any(), name


def test_directions_are_recorded_only_for_terms_that_read_them():
    distiller = build(dict(layer=LAYER, direction=DIRECTION))
    taps = distiller.recorder.direction_taps
    heard = []

    def forward():
        distiller(*batch(), mode='loss')['loss_layer'].backward()
        heard.append([tap.listener is not None for tap in taps])

    for scale in (1.0, 0.0, 0.5):
        distiller.terms['direction'].scale = scale
        forward()
    assert heard == [[True] * len(taps), [False] * len(taps), [True] * len(taps)]


def test_nobody_asks_the_teacher_once_all_terms_have_faded_out():
    terms = dict(logits=LOGITS, feature=FEATURE, layer=LAYER, direction=DIRECTION)
    distiller = build(terms, alpha=0.25)
    inputs, samples = batch()
    asked = []
    distiller.teacher.register_forward_hook(lambda *_: asked.append(1))
    alone = distiller.student(inputs, samples, mode='loss')['loss']
    for last in ('logits', 'direction'):
        for name, term in distiller.terms.items():
            term.scale = float(name == last)
        losses = distiller(inputs, samples, mode='loss')
        assert len(asked) == 1 and losses[f'loss_{last}'] > 0
        asked.clear()
    distiller.terms['direction'].scale = 0.0
    losses = distiller(inputs, samples, mode='loss')
    assert not asked
    torch.testing.assert_close(losses.pop('loss_task'), 0.25 * alone)
    assert set(losses) == {f'loss_{name}' for name in terms}
    sum(losses.values()).backward()
    for name, parameter in distiller.terms.named_parameters():
        assert parameter.grad is not None and not parameter.grad.any(), name
    assert distiller.layer_weights() == {}


def test_released_recipe():
    """120 H(f_T, f_S) + sum_i i H(f_T, f_S^i), as in the authors' code."""
    channel = dict(type='mmtransmamba.ChannelCrossEntropy', temperature=2.0)
    inputs, samples = batch()
    distiller = build(
        dict(
            feature=dict(
                type='mmtransmamba.FeatureTerm', weight=120, loss=channel, align=False
            ),
            layer=dict(
                type='mmtransmamba.PooledLayerTerm',
                loss=channel,
                weighting=dict(
                    type='mmtransmamba.LayerIndexWeighting', normalize=False
                ),
            ),
        ),
        student_config(depth=3),
        alpha=1.0,
        distill_weight=1.0,
    )
    losses = distiller(inputs, samples, mode='loss')

    tokens = []
    for tap in distiller.recorder.layer_taps:
        tap.listener = lambda feature: tokens.append(feature.tokens)
    (f_s,) = distiller.student.extract_feat(inputs)
    f_t = distiller.teacher(distiller.teacher_images(inputs)).feature

    def entropy(a, b):
        return -((a / 2).softmax(1) * (b / 2).log_softmax(1)).sum() / len(a)

    torch.testing.assert_close(losses['loss_feature'], 120 * entropy(f_t, f_s))
    expected = sum(
        i * entropy(f_t, t.mean(1)) for i, t in enumerate(tokens[:-1], start=1)
    )
    torch.testing.assert_close(losses['loss_layer'], expected)


class TestCheckpoint:
    def test_is_the_students_with_aligners_beside(self):
        distiller = build(dict(feature=FEATURE, direction=DIRECTION))
        state = get_state_dict(distiller)
        own = {k for k in state if k.startswith('distiller.')}
        assert own and not any('teacher' in k for k in state)
        student = distiller.student.state_dict()
        assert set(state) - own == set(student)
        assert all(torch.equal(state[k], v) for k, v in student.items())

        plain = MODELS.build(student_config())
        plain.load_state_dict({k: v for k, v in state.items() if k not in own})

    def test_round_trip_is_strict(self):
        distiller = build(dict(feature=FEATURE, direction=DIRECTION))
        other = build(dict(feature=FEATURE, direction=DIRECTION))
        state = {k: v + 1 for k, v in distiller.state_dict().items()}
        # orthogonal maps are stored with the matrix they are made from
        state |= {k: v for k, v in distiller.state_dict().items() if 'reverse' in k}
        other.load_state_dict(state)
        for key, value in other.state_dict().items():
            assert torch.equal(value, state[key]), key

    def test_another_student_is_refused_although_mmengine_is_lenient(self, tmp_path):
        file = str(tmp_path / 'other.pth')
        torch.save({'state_dict': build(dict(a=LAYER)).state_dict()}, file)
        deeper = build(dict(a=LAYER), student_config(depth=3))
        with pytest.raises(CheckpointError, match='missing: backbone.layers.2.') as e:
            load_checkpoint(deeper, file)
        assert 'does not fit ImageClassifier' in str(e.value)
        assert 'unexpected' not in str(e.value)
        shallower = build(dict(a=LAYER), student_config(depth=1))
        with pytest.raises(CheckpointError, match='unexpected: backbone.layers.1.'):
            load_checkpoint(shallower, file)
        other_head = build(dict(a=LAYER), student_config(num_classes=7))
        with pytest.raises(CheckpointError, match=r'head.fc.weight \(checkpoint \[5, '):
            load_checkpoint(other_head, file)

    def test_student_alone_and_other_resolutions_are_accepted(self, tmp_path):
        source = build(dict(a=LAYER)).student
        file = str(tmp_path / 'student.pth')
        torch.save({'state_dict': source.state_dict()}, file)
        larger = build(dict(a=dict(LAYER)), student_config(img_size=24))
        load_checkpoint(larger, file)
        assert torch.equal(larger.student.head.fc.weight, source.head.fc.weight)
        assert larger.student.backbone.pos_embed.shape[1] == 36

    def test_wrapped_state_dict_keeps_the_outer_prefix(self):
        distiller = build(dict(feature=FEATURE))
        outer = torch.nn.ModuleDict({'module': distiller})
        assert 'module.backbone.pos_embed' in outer.state_dict()
        outer.load_state_dict(outer.state_dict())

    def test_copies_share_the_teacher(self):
        distiller = build(dict(logits=LOGITS))
        assert copy.deepcopy(distiller).teacher is distiller.teacher


def test_teacher_is_no_part_of_the_model_and_stays_in_eval():
    distiller = build(dict(logits=LOGITS)).train()
    teachers = {id(p) for p in distiller.teacher.parameters()}
    assert not teachers & {id(p) for p in distiller.parameters()}
    assert not distiller.teacher.training
    distiller.to(torch.float64)
    assert next(distiller.teacher.parameters()).dtype == torch.float64


def test_prediction_is_the_students_and_closes_the_taps():
    distiller = build(dict(direction=DIRECTION)).eval()
    inputs, samples = batch()
    distiller(inputs, samples, mode='loss')
    predicted = distiller(inputs, samples, mode='predict')
    alone = distiller.student(inputs, mode='predict')
    for a, b in zip(predicted, alone, strict=True):
        assert torch.equal(a.pred_score, b.pred_score)
    taps = [m for m in distiller.modules() if isinstance(m, LayerTap | DirectionTap)]
    assert taps and all(t.listener is None for t in taps)


def test_activation_checkpointing_distils_the_same():
    grads = []
    for with_cp in (False, True):
        distiller = build(
            dict(layer=LAYER, direction=DIRECTION), student_config(with_cp=with_cp)
        )
        total, _ = distiller.parse_losses(distiller(*batch(), mode='loss'))
        total.backward()
        grads.append({n: p.grad for n, p in distiller.named_parameters()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, msg=name)


def test_amp_step():
    distiller = build(
        dict(
            logits=LOGITS,
            feature=FEATURE,
            layer=LAYER,
            direction=DIRECTION | dict(weighting=ADAPTIVE),
        )
    )
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = distiller(*batch(), mode='loss')
    total, _ = distiller.parse_losses(losses)
    total.backward()
    assert total.isfinite()
    assert all(p.grad.isfinite().all() for p in distiller.student.parameters())


def test_layer_weights_are_reported():
    distiller = build(
        dict(direction=DIRECTION | dict(weighting=ADAPTIVE), logits=LOGITS)
    )
    distiller(*batch(), mode='loss')
    (name, weights), *rest = distiller.layer_weights().items()
    assert (name, weights.shape, rest) == ('direction', (2,), [])


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(terms={}), 'terms is empty'),
        (dict(terms=dict(task=LOGITS)), r"terms\['task'\] has the name of the loss"),
        (dict(terms=dict(task_a=None, a=LOGITS)), r"terms\['task_a'\] has the name"),
        (dict(terms=dict(logits=LOGITS), alpha=1.5), r'alpha=1\.5'),
        (dict(terms=dict(logits=LOGITS), num_tokens=0), 'num_tokens=0'),
        (dict(terms=dict(logits=LOGITS), channel_order='gbr'), "channel_order='gbr'"),
        (
            dict(terms=dict(logits=LOGITS), teacher=teacher_config(num_classes=7)),
            'knows 7 classes',
        ),
        (
            dict(terms=dict(layer=LAYER), teacher_layer=4),
            'the teacher has 2 layers',
        ),
        (
            dict(terms=dict(layer=LAYER), teacher_layer=[0, 1, 1]),
            'a list of 2 indices',
        ),
        (dict(terms=dict(l=LAYER | dict(target_norm='x'))), "target_norm='x'"),
        (dict(terms=dict(d=DIRECTION | dict(feature='y'))), "feature='y'"),
        (dict(terms=dict(d=DIRECTION | dict(weight=-1))), 'weight=-1'),
        (
            dict(
                terms=dict(f=FEATURE | dict(align=False)),
                student=student_config(dim=8),
            ),
            'needs align=True',
        ),
        (
            dict(
                terms=dict(l=LAYER | dict(weighting=ADAPTIVE | dict(entropy_weight=-1)))
            ),
            'entropy_weight=-1',
        ),
        (
            dict(
                terms=dict(logits=LOGITS),
                student=student_config()
                | dict(
                    backbone=dict(type='mmpretrain.ResNet', depth=18),
                ),
            ),
            'has no LayerTap',
        ),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**arguments)
