"""Vision-language models become hybrids; only the decoder's attention changes."""

import json
from pathlib import Path

import pytest
import torch
from processes import run_script
from safetensors.torch import load_file, save_file
from tiny_llavas import (
    PATCHES,
    VOCAB,
    enlarge,
    prompts,
    save_language_model,
    save_tower,
)
from tiny_patch_decoders import image_text_batch, tiny_patch_decoder
from tiny_vlms import save_tiny_llava, tiny_llava
from transformers import AutoModelForImageTextToText, AutoProcessor, VipLlavaConfig

from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.models.folders import (
    assemble_llava,
    is_vision_language,
    language_model_of,
    load_vlm,
)
from mmtransmamba.models.multimodal import HybridLlavaForConditionalGeneration
from mmtransmamba.transfer.convert import (
    Conversion,
    conversion,
    convert,
    plan_conversion,
    write_model,
)
from mmtransmamba.utils.choices import INITS

TOOL = Path(__file__).resolve().parents[3] / 'tools' / 'convert_lm.py'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return save_tiny_llava(tmp_path_factory.mktemp('vlm') / 'teacher', seed=5)


def logits_of(model, batch=None):
    with torch.no_grad():
        return model(**(batch or prompts())).logits


@pytest.mark.parametrize('init', INITS)
def test_all_but_the_attention_is_the_teachers(folder, init):
    teacher = load_vlm(folder)
    options = {}
    if init == 'calibrate':
        options = dict(calibration=[torch.randint(5, VOCAB, (3, 12))])
    hybrid, report = convert(folder, [1, 3], init=init, **options)
    assert type(hybrid) is HybridLlavaForConditionalGeneration
    text = hybrid.config.text_config
    assert text.mamba_layers == [1, 3]
    assert text.transfer_history == [f'init:{init}']
    state, origin = hybrid.state_dict(), teacher.state_dict()
    mixers = {
        f'model.language_model.layers.{i}.self_attn.{n}'
        for i in (1, 3)
        for n, _ in hybrid.get_decoder().layers[i].self_attn.named_parameters()
    }
    assert mixers <= set(state)
    for name, tensor in state.items():
        if name not in mixers:
            assert torch.equal(tensor, origin[name]), name
    # The report has a line for every tensor, and what it says of them is so.
    assert {entry.target for entry in report.entries} == set(state)
    assert sum(entry.size for entry in report.entries) == sum(
        p.numel() for p in hybrid.parameters()
    )
    for entry in report.entries:
        assert entry.action == 'copied' or entry.target in mixers
        assert entry.source is None or entry.source in origin
    unused = {name for name in origin if 'self_attn' in name and 'language' in name}
    unused = {n for n in unused if '.1.self' in n or '.3.self' in n}
    assert {u.name for u in report.unused} == unused - {
        e.source for e in report.entries
    }
    # In memory and in a folder: the same.
    same, _ = convert(teacher, [1, 3], init=init, **options)
    assert all(torch.equal(v, state[k]) for k, v in same.state_dict().items())
    assert torch.isfinite(logits_of(hybrid)).all()


def test_the_decoder_is_what_convert_lm_makes(folder):
    teacher = load_vlm(folder)
    lm = language_model_of(teacher)
    embeddings = [m.get_input_embeddings().weight for m in (lm, teacher)]
    assert embeddings[0].data_ptr() == embeddings[1].data_ptr()
    expected, _ = convert(lm, 'evenly', 0.5, 'mimic', seed=3)
    hybrid, _ = convert(teacher, 'evenly', 0.5, 'mimic', seed=3)
    state = hybrid.get_decoder().state_dict()
    for name, tensor in expected.model.state_dict().items():
        assert torch.equal(state[name], tensor), name


def test_without_a_mamba_layers_effect_it_is_the_teacher(folder):
    teacher = enlarge(load_vlm(folder))
    hybrid, _ = convert(teacher, [2], init='mimic')
    assert not torch.allclose(logits_of(hybrid), logits_of(teacher))
    torch.nn.init.zeros_(teacher.get_decoder().layers[2].self_attn.o_proj.weight)
    torch.nn.init.zeros_(hybrid.get_decoder().layers[2].self_attn.out_proj.weight)
    torch.testing.assert_close(logits_of(hybrid), logits_of(teacher))


def test_first_layers_and_narrower(folder):
    hybrid, report = convert(
        folder,
        init='subclone',
        num_hidden_layers=2,
        hidden_size=16,
        intermediate_size=24,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    teacher = load_vlm(folder)
    assert len(hybrid.get_decoder().layers) == 2
    projector, whole = (
        m.model.multi_modal_projector.linear_2.weight for m in (hybrid, teacher)
    )
    assert torch.equal(projector, whole[:16, :16])
    entry = next(e for e in report.entries if e.target.endswith('linear_2.weight'))
    assert (entry.action, entry.detail) == ('block', '[0:16, 0:16]')
    assert logits_of(hybrid).shape == (2, PATCHES + 10, VOCAB)
    with pytest.raises(ValueError, match="Only init='subclone' takes parts"):
        convert(folder, init='scratch', hidden_size=16, num_attention_heads=2)


def test_mamba_weights_are_taken(folder, tmp_path):
    source, _ = convert(folder, init='subclone', seed=9)
    mixer = source.get_decoder().layers[0].self_attn
    state = {
        f'backbone.layers.0.mixer.{name}': tensor.clone()
        for name, tensor in mixer.state_dict().items()
    }
    save_file(state, tmp_path / 'mamba.safetensors')
    hybrid, report = convert(
        folder, [0], init='subclone', mamba_checkpoint=tmp_path / 'mamba.safetensors'
    )
    mine = hybrid.get_decoder().layers[0].self_attn.state_dict()
    for name, tensor in mixer.state_dict().items():
        assert torch.equal(mine[name], tensor) == ('conv1d.weight' != name), name
    taken = {e.source for e in report.entries if 'mixer' in (e.source or '')}
    assert taken == {n for n in state if 'conv1d' not in n}
    assert {u.name for u in report.unused} >= {n for n in state if 'conv1d' in n}


def test_automatic_layers(folder):
    calibration = [torch.randint(5, VOCAB, (2, 12))]
    hybrid, _ = convert(folder, 'auto', 0.5, calibration=calibration)
    expected, _ = convert(
        language_model_of(folder), 'auto', 0.5, calibration=calibration
    )
    assert hybrid.config.text_config.mamba_layers == expected.config.mamba_layers


def test_the_compared_hybrid_is_the_one_that_is_returned(folder, monkeypatch):
    assembled, compared = [], []
    build, prove = conversion.assemble, conversion.prove
    monkeypatch.setattr(
        conversion,
        'assemble',
        lambda *args: assembled.append(build(*args)) or assembled[-1],
    )
    monkeypatch.setattr(
        conversion, 'prove', lambda *args: compared.append(args[0]) or prove(*args)
    )
    calibration = [torch.randint(5, VOCAB, (2, 12))]
    hybrid, report = convert(folder, [1], calibration=calibration)
    assert assembled == [hybrid] and report.proof.tokens > 0
    place = hybrid.get_decoder().layers[1].mlp.up_proj.weight
    (decoder,) = compared
    assert decoder.model.layers[1].mlp.up_proj.weight.data_ptr() == place.data_ptr()


@pytest.mark.parametrize('family', ['phi', 'qwen3'])
def test_other_families(family, tmp_path):
    tower = save_tower(tmp_path / 'tower', 'siglip')
    teacher, _ = assemble_llava(tower, save_language_model(tmp_path / 'lm', family))
    teacher.save_pretrained(tmp_path / 'teacher')
    hybrid, _ = convert(tmp_path / 'teacher', ratio=2 / 3, init='vkq')
    assert hybrid.config.text_config.transfer_history == ['init:llava', 'init:vkq']
    assert (hybrid.lm_head.bias is not None) == (family == 'phi')
    if family == 'phi':
        assert torch.equal(hybrid.lm_head.bias, teacher.lm_head.bias)
    hybrid.save_pretrained(tmp_path / 'hybrid')
    batch = prompts(image=teacher.config.image_token_id)
    loaded = load_vlm(tmp_path / 'hybrid')
    assert torch.equal(logits_of(loaded, batch), logits_of(hybrid, batch))


def test_tied_embeddings_and_half_precision(tmp_path):
    teacher = tiny_llava(tie_word_embeddings=True).bfloat16()
    teacher.save_pretrained(tmp_path)
    for source in (teacher, tmp_path):
        hybrid, report = convert(source, [0])
        assert hybrid.lm_head.weight is hybrid.get_input_embeddings().weight
        assert 'lm_head.weight' not in {e.target for e in report.entries}
        kept = {n for n, p in hybrid.named_parameters() if p.dtype == torch.float32}
        assert {name.rpartition('.')[2] for name in kept} == {'A_log', 'dt_bias'}


def test_names_of_older_versions(folder, tmp_path):
    """As the folders of LLaVA-1.5 on the Hub have them."""
    old = {}
    for name, tensor in load_file(f'{folder}/model.safetensors').items():
        if name.startswith('vision_tower.') and 'vision_model' not in name:
            name = name.replace('vision_tower.', 'vision_tower.vision_model.')
        assert name.startswith(('language_model.', 'vision_tower.', 'multi_modal'))
        old[name] = tensor
    save_file(old, tmp_path / 'model.safetensors', metadata={'format': 'pt'})
    for file in Path(folder).glob('*.json'):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    expected, _ = convert(folder, [1])
    hybrid, _ = convert(tmp_path, [1])
    for name, tensor in expected.state_dict().items():
        assert torch.equal(hybrid.state_dict()[name], tensor), name


def test_a_decoder_for_patches_and_text(tmp_path):
    teacher = tiny_patch_decoder()
    teacher.save_pretrained(tmp_path)
    hybrid, report = convert(tmp_path, 'interleaved', 0.75, 'mimic')
    assert type(hybrid) is type(teacher)
    assert hybrid.config.text_config.mamba_layers == [1, 2, 3]
    assert {e.target for e in report.entries} == set(hybrid.state_dict())
    assert torch.isfinite(logits_of(hybrid, image_text_batch())).all()
    name = 'model.patch_embedding.projection.weight'
    assert torch.equal(hybrid.get_parameter(name), teacher.get_parameter(name))


# ------------------------------------------------------------------------- refusals


def test_a_missing_tensor_is_named(folder, tmp_path):
    state = load_file(f'{folder}/model.safetensors')
    name = next(n for n in state if n.endswith('linear_1.bias'))
    del state[name]
    save_file(state, tmp_path / 'model.safetensors', metadata={'format': 'pt'})
    for file in Path(folder).glob('*.json'):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match='no model.multi_modal_projector.linear_1'):
        convert(tmp_path)
    with pytest.raises(CheckpointError, match='missing: .*linear_1.bias'):
        load_vlm(tmp_path)


@pytest.mark.parametrize(
    'kwargs, error, message',
    [
        (dict(teacher='no/folder'), FileNotFoundError, 'no/folder'),
        (dict(init='magic'), ValueError, "init='magic' must be one of"),
        (dict(layers=[7]), ValueError, 'each in'),
        (dict(hidden=3), ValueError, "has no field 'hidden'"),
        (dict(layers='auto'), ValueError, 'needs calibration text'),
    ],
)
def test_bad_settings(folder, kwargs, error, message):
    with pytest.raises(error, match=message):
        convert(**(dict(teacher=folder) | kwargs))


def test_other_models_are_refused(folder):
    config = VipLlavaConfig(
        vision_config=load_vlm(folder).config.vision_config,
        text_config=load_vlm(folder).config.text_config,
        vision_feature_layers=[-1],
    )
    model = AutoModelForImageTextToText.from_config(config)
    with pytest.raises(ValueError, match="'vipllava'; hybrids exist of llava"):
        convert(model)


def test_a_hybrid_is_not_converted_again(folder):
    hybrid, _ = convert(folder, [0])
    with pytest.raises(ValueError, match="'hybrid_llama'; hybrids exist of"):
        convert(hybrid, [1])


# ------------------------------------------------------------------ folders, the tool


def test_written_tensor_by_tensor(folder, tmp_path):
    plan = plan_conversion(folder, Conversion([1, 2], init='vkq'))
    write_model(plan, tmp_path / 'out', max_shard_bytes=20_000)
    assert len(list((tmp_path / 'out').glob('*.safetensors'))) > 1
    expected, _ = convert(folder, [1, 2], init='vkq')
    written = load_vlm(tmp_path / 'out')
    for name, tensor in expected.state_dict().items():
        assert torch.equal(written.state_dict()[name], tensor), name
    processor = AutoProcessor.from_pretrained(tmp_path / 'out')
    assert processor.tokenizer.get_vocab()['<image>'] == 4
    assert is_vision_language(tmp_path / 'out')


def test_the_tool(folder, tmp_path):
    done = run_script(TOOL, folder, '--layers', '0,2', '--out', tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    assert 'multi_modal_projector' in done.stdout
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / 'out')
    assert model.config.text_config.mamba_layers == [0, 2]
    report = json.loads((tmp_path / 'out' / 'conversion_report.json').read_text())
    assert report
