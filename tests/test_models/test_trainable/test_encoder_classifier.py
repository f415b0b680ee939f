"""A converted vision encoder as a student of the distiller, and its stages."""

import pytest
import torch
from mmpretrain.structures import DataSample
from tiny_distillers import DIRECTION, FEATURE, LAYER, LOGITS
from tiny_encoders import SIZES, tiny_encoder
from transformers import LlamaConfig, LlamaForCausalLM

import mmtransmamba
from mmtransmamba.models.trainable import CausalLM, EncoderClassifier
from mmtransmamba.models.trainable.stages import StageError
from mmtransmamba.registry import MODELS
from mmtransmamba.transfer import MultiDirectionDistiller

NORMAL = dict(mean=[120.0] * 3, std=[60.0] * 3)


@pytest.fixture(scope='module')
def teacher_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('teacher')
    tiny_encoder('ViTForImageClassification').save_pretrained(folder)
    return str(folder)


def student(folder, **options):
    convert = dict(layers=[0, 1], mixer='Mamba2')
    return EncoderClassifier(
        path=folder,
        convert=options.pop('convert', convert),
        data_preprocessor=NORMAL | dict(num_classes=5),
        **options,
    )


def batch(classes=3, count=2):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(count, 3, 16, 16, generator=generator)
    return pixels, [DataSample().set_gt_label(i % classes) for i in range(count)]


def distiller(folder, terms, **options):
    order = [4, 0, 2]
    teacher = MODELS.build(
        dict(
            type='mmtransmamba.TransformersTeacher',
            model=folder,
            class_order=order,
            **NORMAL,
        )
    )
    return MultiDirectionDistiller(
        student(folder, classes=order, **options), teacher, terms, channel_order='rgb'
    )


def test_every_term_of_the_distiller_reaches_the_mixers(teacher_folder):
    terms = dict(logits=LOGITS, feature=FEATURE, layer=LAYER, direction=DIRECTION)
    model = distiller(teacher_folder, terms)
    losses = model.loss(*batch())
    assert set(losses) == {'loss_task', *(f'loss_{name}' for name in terms)}
    mixers = [
        p for n, p in model.student.encoder.named_parameters() if '.attention.' in n
    ]
    for name in losses:
        found = torch.autograd.grad(
            losses[name], mixers, retain_graph=True, allow_unused=True
        )
        assert any(g is not None and g.abs().sum() > 0 for g in found), name


def test_tapped_layers_are_the_hidden_states_and_the_head_is_the_encoders(
    teacher_folder,
):
    model = distiller(teacher_folder, dict(layer=LAYER))
    pixels, samples = batch()
    model.recorder.start()
    feature, logits = model.student.extract_feat(pixels)
    record = model.recorder.stop()
    found = model.student.encoder(pixels, output_hidden_states=True)
    for tapped, state in zip(record.layers, found.hidden_states[1:], strict=True):
        torch.testing.assert_close(tapped.tokens, state[:, 1:])
        torch.testing.assert_close(tapped.cls, state[:, 0])
        assert tapped.grid == (4, 4)
    torch.testing.assert_close(model.student.encoder.classifier(feature), logits)
    torch.testing.assert_close(model.student(pixels), found.logits[:, [4, 0, 2]])
    predicted = model.student(pixels, samples, mode='predict')
    assert [int(p.pred_label) for p in predicted] == found.logits[:, [4, 0, 2]].argmax(
        1
    ).tolist()


def test_a_checkpoint_has_the_names_of_the_transformers_model(teacher_folder):
    model = student(teacher_folder)
    assert set(model.state_dict()) == set(model.encoder.state_dict())
    model.load_state_dict(model.encoder.state_dict())


def test_stages_follow_one_another_and_train_what_they_name(teacher_folder, tmp_path):
    with pytest.raises(StageError, match="'vision_tune' starts from .*'vision_align'"):
        student(teacher_folder, stage='vision_tune')
    model = student(teacher_folder, stage='vision_align')
    trained = {n for n, p in model.encoder.named_parameters() if p.requires_grad}
    assert trained == {
        n for n, _ in model.encoder.named_parameters() if '.attention.' in n
    }
    model.encoder.config.transfer_history.append('vision_align')
    model.encoder.save_pretrained(tmp_path)
    later = student(str(tmp_path), convert=None, stage='vision_features')
    names = {n for n, p in later.encoder.named_parameters() if p.requires_grad}
    assert 'vit.layers.0.mlp.fc1.weight' in names and 'classifier.weight' not in names
    last = student(str(tmp_path), convert=None, stage='vision_tune')
    assert all(p.requires_grad for p in last.encoder.parameters())


def test_depths_count_embeddings_blocks_and_head(teacher_folder):
    model = student(teacher_folder)
    depths = {n: model.get_layer_depth(n) for n, _ in model.named_parameters()}
    assert depths['encoder.vit.embeddings.cls_token'] == (0, 4)
    assert depths['encoder.vit.layers.1.layernorm_before.weight'] == (2, 4)
    assert depths['encoder.classifier.bias'] == (3, 4)


def test_a_model_that_is_not_square_has_its_own_positions():
    config = dict(SIZES, model_type='vit', num_labels=5, image_size=[16, 64])
    model = EncoderClassifier(config=config).eval()
    torch.nn.init.normal_(model.encoder.vit.embeddings.position_embeddings)
    pixels = torch.randn(2, 3, 16, 64)
    torch.testing.assert_close(model(pixels), model.encoder(pixels).logits)
    for size in ((32, 32), (64, 16)):
        with pytest.raises(ValueError, match='positions for 16 x 64, which transf'):
            model(torch.randn(2, 3, *size))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(classes=[0, 9]), 'different integers from 0 to 4'),
        (dict(classes=[1, 1]), 'different integers from 0 to 4'),
        (dict(trains=['ssm']), 'trains and requires belong to a stage'),
        (dict(stage='mine', requires='*'), "Stage 'mine' needs trains; groups are"),
    ],
)
def test_mistakes_are_named(teacher_folder, options, message):
    with pytest.raises(ValueError, match=message):
        student(teacher_folder, **options)


def test_models_without_a_classifier_or_of_another_kind_are_refused(tmp_path):
    tiny_encoder('ViTModel').save_pretrained(tmp_path)
    with pytest.raises(ValueError, match='a ViTModel, which has no classifier'):
        EncoderClassifier(path=str(tmp_path))
    tiny_decoder = LlamaForCausalLM(LlamaConfig(vocab_size=8, **SIZES))
    tiny_decoder.save_pretrained(tmp_path / 'llama')
    with pytest.raises(ValueError, match='not a vision encoder; use CausalLM'):
        EncoderClassifier(path=str(tmp_path / 'llama'), convert={})
    with pytest.raises(ValueError, match='is a vision encoder; use EncoderClassifier'):
        CausalLM(path=str(tmp_path), convert={})


def test_other_image_sizes_resample_the_positions(teacher_folder):
    model = student(teacher_folder).eval()
    assert model(torch.randn(1, 3, 24, 16)).shape == (1, 5)


def test_a_distilled_student_is_a_hybrid_that_loads(teacher_folder, tmp_path):
    model = distiller(teacher_folder, dict(logits=LOGITS), stage='vision_align')
    model.student.encoder.save_pretrained(tmp_path)
    again = mmtransmamba.load(tmp_path)
    pixels, _ = batch()
    model.eval()
    torch.testing.assert_close(again(pixels).logits[:, [4, 0, 2]], model(pixels))
