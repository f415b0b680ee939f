"""Conversion of folders: shards, InternLM2's names, writing, the tool."""

import json

import pytest
import torch
from memory_cases import needs_resettable_peak, peak_growth
from processes import run_script
from safetensors.torch import load_file, save_file
from tiny_decoders import internlm2_folder, tiny_teacher, tokens
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.models.folders import load_lm
from mmtransmamba.models.trainable import CausalLM
from mmtransmamba.transfer.convert import (
    Conversion,
    convert,
    plan_conversion,
    write_model,
)

NAME = 'model.layers.1.mlp.up_proj.weight'


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / 'teacher'
    tiny_teacher().save_pretrained(path, max_shard_size='20KB')
    assert len(list(path.glob('*.safetensors'))) > 1
    return path


@pytest.mark.parametrize('init', ['mimic', 'subclone'])
def test_a_folder_gives_what_the_model_gives(folder, init):
    from_folder, report = convert(folder, [1], init=init)
    from_model, same = convert(tiny_teacher(), [1], init=init)
    for name, tensor in from_model.state_dict().items():
        assert torch.equal(from_folder.state_dict()[name], tensor), name
    assert report.entries == same.entries


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda s: s.pop(NAME), r'1 missing: .*layers.1.mlp.up_proj.weight'),
        (
            lambda s: s.update({NAME + '2': s[NAME].clone()}),
            r'1 unexpected: .*up_proj.weight2',
        ),
        (
            lambda s: s.update({NAME: s[NAME][:-1].clone()}),
            r'1 of another shape: .*up_proj.weight \(file \[47, 32\]',
        ),
    ],
)
def test_a_teachers_weights_must_fit_its_config(tmp_path, change, message):
    tiny_teacher().save_pretrained(tmp_path)
    state = load_file(tmp_path / 'model.safetensors')
    change(state)
    save_file(state, tmp_path / 'model.safetensors', metadata={'format': 'pt'})
    for load in (load_lm, lambda folder: CausalLM(path=str(folder))):
        with pytest.raises(CheckpointError, match=message):
            load(tmp_path)
    # Ranking would have measured a layer that was drawn at random.
    with pytest.raises(CheckpointError, match=message):
        convert(tmp_path, 'auto', 1 / 3, calibration=[tokens(2)])


def test_internlm2_becomes_a_llama(tmp_path):
    llama = internlm2_folder(tmp_path / 'internlm2')
    hybrid, report = convert(tmp_path / 'internlm2', [2])
    expected, _ = convert(llama, [2])
    torch.testing.assert_close(hybrid(tokens()).logits, expected(tokens()).logits)
    assert not report.unused


def test_internlm2_is_ranked_and_teaches(tmp_path):
    folder = tmp_path / 'internlm2'
    llama = internlm2_folder(folder)
    teacher = load_lm(folder)
    assert type(teacher) is LlamaForCausalLM
    assert torch.equal(teacher(tokens()).logits, llama(tokens()).logits)
    assert torch.equal(CausalLM(path=str(folder))(tokens()), teacher(tokens()).logits)
    kwargs = dict(ratio=1 / 3, calibration=[tokens(4)])
    hybrid, _ = convert(folder, 'auto', **kwargs)
    expected, _ = convert(llama, 'auto', **kwargs)
    assert hybrid.config.mamba_layers == expected.config.mamba_layers


def test_internlm2_is_loaded_strictly(tmp_path):
    folder = tmp_path / 'internlm2'
    internlm2_folder(folder)
    state = load_file(folder / 'model.safetensors')
    norm = state.pop('model.norm.weight')
    save_file(state, folder / 'model.safetensors')
    message = 'LlamaForCausalLM: model.norm.weight is missing'
    with pytest.raises(CheckpointError, match=message):
        load_lm(folder)
    save_file(
        state | {'model.norm.weight': norm, 'vision': norm.clone()},
        folder / 'model.safetensors',
    )
    message = 'LlamaForCausalLM: vision has no place in it'
    with pytest.raises(CheckpointError, match=message):
        load_lm(folder)


def test_a_hybrid_is_loaded_too(folder, tmp_path):
    write_model(plan_conversion(folder, Conversion([1])), tmp_path / 'out')
    assert load_lm(tmp_path / 'out').config.mamba_layers == [1]
    with pytest.raises(FileNotFoundError, match='No model folder at .*nowhere'):
        load_lm(tmp_path / 'nowhere')


def test_generates_as_the_teacher_did(folder, tmp_path):
    settings = dict(eos_token_id=[7, 9], do_sample=True, temperature=0.3)
    (folder / 'generation_config.json').write_text(json.dumps(settings))
    (folder / 'chat_template.jinja').write_text('{{ messages }}')
    hybrid, _ = convert(folder)
    out = write_model(plan_conversion(folder), tmp_path / 'out')
    written = AutoModelForCausalLM.from_pretrained(out)
    for model in (hybrid, written):
        saved = model.generation_config.to_diff_dict()
        assert settings.items() <= saved.items()
    assert (out / 'chat_template.jinja').read_text() == '{{ messages }}'


@pytest.mark.parametrize('shard', [20_000, 10**9])
def test_writing_gives_the_model_that_memory_gives(folder, tmp_path, shard):
    plan = plan_conversion(folder, Conversion([0, 2]))
    write_model(plan, tmp_path / 'out', max_shard_bytes=shard)
    files = list((tmp_path / 'out').glob('*.safetensors'))
    assert (len(files) > 1) == (shard == 20_000)
    # Besides its tensors a file has a header.
    assert all(file.stat().st_size < shard + 4096 for file in files)
    written = AutoModelForCausalLM.from_pretrained(tmp_path / 'out').eval()
    expected, report = convert(folder, [0, 2])
    assert torch.equal(written(tokens()).logits, expected(tokens()).logits)
    saved = json.loads((tmp_path / 'out/conversion_report.json').read_text())
    assert saved['totals'] == report.totals()
    assert not (tmp_path / 'out.partial').exists()


@needs_resettable_peak
def test_writing_takes_the_memory_of_a_shard_and_a_tensor(tmp_path):
    """Memory of the whole process, which is below that of one model."""
    wide = dict(hidden_size=512, intermediate_size=2048, num_hidden_layers=6)
    tiny_teacher(**wide).save_pretrained(tmp_path / 'teacher', max_shard_size='8MB')
    plan = plan_conversion(tmp_path / 'teacher', Conversion([0, 2, 4]))
    size = sum(f.stat().st_size for f in (tmp_path / 'teacher').glob('*.safetensors'))
    assert size > 90e6

    def write():
        write_model(plan, tmp_path / 'out', 8_000_000, overwrite=True)

    # A shard of the new model, and what is read of one of the old.
    assert peak_growth(write) < 0.35 * size
    written = load_lm(tmp_path / 'out').state_dict()
    assert sum(t.nbytes for t in written.values()) > 90e6


def test_writing_holds_one_shard(folder, tmp_path, monkeypatch):
    import mmtransmamba.transfer.convert.writer as writer

    sizes = []

    def spy(tensors, *args, **kwargs):
        sizes.append(sum(t.nbytes for t in tensors.values()))
        return save_file(tensors, *args, **kwargs)

    monkeypatch.setattr(writer, 'save_file', spy)
    write_model(plan_conversion(folder), tmp_path / 'out', max_shard_bytes=20_000)
    assert len(sizes) > 2
    assert max(sizes) <= 20_000


class TestOverwriting:
    def test_not_unasked(self, folder, tmp_path):
        plan = plan_conversion(folder)
        write_model(plan, tmp_path / 'out')
        (tmp_path / 'out/mine').write_text('keep')
        with pytest.raises(FileExistsError, match='out exists; give another folder'):
            write_model(plan, tmp_path / 'out')
        assert (tmp_path / 'out/mine').read_text() == 'keep'

    def test_a_converted_model(self, folder, tmp_path):
        write_model(plan_conversion(folder, Conversion([0])), tmp_path / 'out')
        write_model(
            plan_conversion(folder, Conversion([1])), tmp_path / 'out', overwrite=True
        )
        assert load_lm(tmp_path / 'out').config.mamba_layers == [1]

    def test_nothing_else(self, folder, tmp_path):
        (tmp_path / 'out').mkdir()
        (tmp_path / 'out/mine').write_text('keep')
        with pytest.raises(FileExistsError, match='has no conversion_report.json'):
            write_model(plan_conversion(folder), tmp_path / 'out', overwrite=True)
        assert (tmp_path / 'out/mine').read_text() == 'keep'

    def test_not_the_teacher(self, folder, tmp_path):
        (folder / 'conversion_report.json').write_text('{}')
        same = tmp_path / 'link'
        same.symlink_to(folder)
        with pytest.raises(FileExistsError, match='link is the teacher'):
            write_model(plan_conversion(folder), same, overwrite=True)
        assert (folder / 'model.safetensors.index.json').is_file()

    def test_what_an_interruption_has_left(self, folder, tmp_path):
        partial = tmp_path / 'out.partial'
        partial.mkdir()
        (partial / 'shard-1').write_bytes(b'half')
        (partial / 'mine').write_text('keep')
        with pytest.raises(FileExistsError, match='mine in it was not left by a conv'):
            write_model(plan_conversion(folder), tmp_path / 'out')
        assert (partial / 'mine').read_text() == 'keep'
        (partial / 'mine').unlink()
        out = write_model(plan_conversion(folder), tmp_path / 'out')
        assert not partial.exists() and not (out / 'shard-1').exists()


def test_broken_folders(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match='No model folder at .*nowhere'):
        convert(tmp_path / 'nowhere')
    shard = sorted(folder.glob('*.safetensors'))[0]
    shard.write_bytes(b'damaged')
    with pytest.raises(CheckpointError, match=f'{shard.name} cannot be read'):
        convert(folder)
    shard.unlink()
    with pytest.raises(CheckpointError, match=f'not there: {shard.name}'):
        convert(folder)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='has no config.json'):
        convert(tmp_path / 'empty')


class TestTool:
    def run(self, repo_dir, *args):
        return run_script(repo_dir / 'tools' / 'convert_lm.py', *args)

    def test_converts_by_measured_importance(self, repo_dir, folder, tmp_path):
        import numpy as np

        ids = tokens(4).numpy().astype('uint16')
        np.savez(tmp_path / 'text.npz', tokens=ids)
        out = tmp_path / 'out'
        done = self.run(
            repo_dir,
            str(folder),
            *('--layers', 'auto', '--ratio', '0.34', '--out', str(out)),
            *('--calibration', str(tmp_path / 'text.npz'), '--ranking', 'greedy'),
        )
        assert done.returncode == 0, done.stderr
        assert 'rank  layer  KL (nats)' in done.stdout
        ranking = json.loads((out / 'layer_ranking.json').read_text())
        model = AutoModelForCausalLM.from_pretrained(out)
        assert ranking['method'] == 'greedy'
        assert model.config.mamba_layers == ranking['order'] != []
        assert model.config.layer_ranking == ranking

    @pytest.mark.parametrize('tool', ['convert_lm', 'convert_vit'])
    def test_a_folder_in_the_way_is_told_before_any_work(
        self, repo_dir, folder, tmp_path, tool
    ):
        (tmp_path / 'out').mkdir()
        script = repo_dir / 'tools' / f'{tool}.py'
        # The teacher is not read before that.
        done = run_script(script, str(tmp_path), '--out', str(tmp_path / 'out'))
        assert 'out exists; give another folder' in done.stderr
        done = run_script(script, str(tmp_path), '--out', str(tmp_path))
        assert 'is the teacher; give another folder' in done.stderr

    def test_dry_run_writes_nothing(self, repo_dir, folder, tmp_path):
        before = sorted(tmp_path.iterdir())
        done = self.run(repo_dir, str(folder), '--layers', '0,-1', '--dry-run')
        assert done.returncode == 0, done.stderr
        assert 'model.layers.[0,2].self_attn.x_proj.weight' in done.stdout
        assert sorted(tmp_path.iterdir()) == before

    def test_a_word_among_the_layers_is_named(self, repo_dir, folder):
        done = self.run(repo_dir, str(folder), '--layers', '0,one', '--dry-run')
        assert done.returncode == 1
        assert "error: layers='0,one' must be one of evenly, early" in done.stderr

    def test_says_what_is_wrong(self, repo_dir, tmp_path):
        done = self.run(repo_dir, str(tmp_path / 'nowhere'), '--dry-run')
        assert done.returncode == 1
        line = done.stderr.strip().splitlines()[-1]
        assert line.startswith('convert_lm.py: error: No model folder')
