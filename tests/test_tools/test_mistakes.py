"""Every tool reports bad files and arguments in one line that names the culprit."""

import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_decoders import tiny_teacher
from tiny_encoders import tiny_encoder
from tiny_vlms import save_tiny_llava, tiny_tokenizer

from mmtransmamba.utils import launch


@pytest.fixture(scope='module')
def files(tmp_path_factory, tiny_config):
    """A folder of good and bad files; the tests run in it."""
    root = tmp_path_factory.mktemp('files')
    (root / 'folder').mkdir()
    (root / 'empty.json').write_bytes(b'')
    (root / 'list.json').write_text('[]')
    (root / 'object.json').write_text('{}')
    (root / 'latin.json').write_bytes('{"é": 1}'.encode('latin-1'))
    (root / 'latin.py').write_bytes("a = 'é'\n".encode('latin-1'))
    (root / 'text.txt').write_text('text')
    (root / 'text.pth').write_text('text')
    (root / 'text.png').write_text('text')
    (root / 'text.npz').write_text('text')
    (root / 'broken.jinja').write_text('{% if %}')
    (root / 'empty.py').write_text('')
    shutil.copy(tiny_config, root / 'vit.py')
    np.savez(root / 'tokens.npz', tokens=np.full((1, 16), 10**6))
    torch.save({'state_dict': {'other.weight': torch.zeros(1)}}, root / 'other.pth')
    tiny_teacher().save_pretrained(root / 'lm')
    tiny_tokenizer().save_pretrained(root / 'lm')
    save_tiny_llava(root / 'vlm')
    tiny_encoder('ViTForImageClassification').save_pretrained(root / 'encoder')
    for kind in ('lm', 'vlm', 'encoder'):
        cut = shutil.copytree(root / kind, root / f'{kind}_cut') / 'model.safetensors'
        cut.write_bytes(cut.read_bytes()[:5000])
        shutil.copytree(root / kind, root / f'{kind}_list')
        (root / f'{kind}_list' / 'config.json').write_text('[]')
        shutil.copytree(root / kind, root / f'{kind}_latin')
        shutil.copy(root / 'latin.json', root / f'{kind}_latin' / 'config.json')
    shutil.copy(root / 'lm_cut' / 'model.safetensors', root / 'cut.safetensors')
    shutil.copy(root / 'lm' / 'model.safetensors', root / 'good.safetensors')
    return root


@pytest.fixture
def told(files, repo_dir, monkeypatch, capsys):
    """Run a tool in the folder; its one line of error."""
    monkeypatch.chdir(files)
    monkeypatch.setattr(launch, 'get_device', lambda: 'cpu')
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setattr(sys, 'path', sys.path.copy())

    def run(name, *args):
        path = repo_dir / 'tools' / name
        monkeypatch.syspath_prepend(path.parent)
        sys.modules.pop('_tool', None)
        spec = importlib.util.spec_from_file_location(f'tool_{path.stem}', path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, args)])
        with pytest.raises(SystemExit) as end:
            module.main()
        if end.value.code == 2:  # a mistake in the arguments themselves
            line = capsys.readouterr().err.strip()
        else:
            line = end.value.code
        assert isinstance(line, str), f'ends with status {line}'
        return line

    return run


NOWHERE = '/proc/nowhere/out'
# The tool, its arguments, and what the line must name.
MISTAKES = [
    ('train.py', ['folder'], 'folder'),
    ('train.py', ['latin.py'], 'latin.py'),
    ('train.py', ['list.json'], 'list.json'),
    ('train.py', ['empty.py'], 'model'),
    ('train.py', ['vit.py', '--work-dir', NOWHERE], NOWHERE),
    ('train.py', ['vit.py', '--work-dir', 'text.txt'], 'text.txt'),
    ('train.py', ['vit.py', '--resume', 'folder'], 'folder'),
    ('train.py', ['vit.py', '--resume', 'text.pth'], 'text.pth'),
    ('train.py', ['vit.py', '--cfg-options', 'train_cfg.max_epochs=0'], 'max_epochs'),
    ('train.py', ['vit.py', '--strategy', 'zero'], '--strategy'),
    ('train.py', ['vit.py', '--strategy', 'fsdp'], '--strategy fsdp'),
    (
        'train.py',
        ['vit.py', '--strategy', 'deepspeed', '--launcher', 'pytorch'],
        'deepspeed',
    ),
    ('train.py', ['vit.py', '--cfg-options', 'foo'], 'KEY=VALUE'),
    *(
        ('train.py', ['vit.py', '--cfg-options', f'load_from={file}'], file)
        for file in (
            'absent.pth',
            'folder',
            'text.pth',
            'other.pth',
            'good.safetensors',
        )
    ),
    (
        'train.py',
        ['vit.py', '--cfg-options', 'model.train_cfg.augments.alpha=-1']
        + ['model.train_cfg.augments.type=Mixup'],
        'Mixup(alpha=-1)',
    ),
    (
        'train.py',
        ['vit.py', '--cfg-options', 'optim_wrapper.optimizer.type=AdamX'],
        'AdamX',
    ),
    ('test.py', ['folder', 'other.pth'], 'folder'),
    ('test.py', ['vit.py', 'folder'], 'folder'),
    ('test.py', ['vit.py', 'text.pth'], 'text.pth'),
    ('test.py', ['vit.py', 'cut.safetensors'], 'cut.safetensors'),
    ('test.py', ['vit.py', 'good.safetensors'], 'good.safetensors'),
    ('test.py', ['vit.py', 'other.pth', '--out', f'{NOWHERE}.pkl'], f'{NOWHERE}.pkl'),
    ('test.py', ['vit.py', 'other.pth', '--work-dir', NOWHERE], NOWHERE),
    ('eval_lm.py', ['absent', '--tasks', 'mqar'], 'absent'),
    ('eval_lm.py', ['lm', '--tasks', 'mqa'], 'mqar'),
    ('eval_lm.py', ['lm', '--tasks', 'piqa'], 'piqa needs data'),
    ('eval_lm.py', ['lm', '--tasks', 'piqa', '--data', 'folder'], 'piqa_validation'),
    ('eval_lm.py', ['lm', '--tasks', 'mqar', '--lengths', '65'], '64 pairs'),
    ('eval_lm.py', ['lm', '--tasks', 'mqar', '--lengths', '0'], '--lengths'),
    ('eval_lm.py', ['lm', '--tasks', 'mqar', '--letters'], 'letters'),
    ('eval_lm.py', ['lm', '--tasks', 'mqar', '--csv', NOWHERE], NOWHERE),
    (
        'eval_lm.py',
        ['lm', '--tasks', 'mqar', '--out', 'x.json', '--csv', 'folder/../x.json'],
        '--out and --csv are one file',
    ),
    ('eval_lm.py', ['lm', '--tasks', 'mqar', '--plots', 'text.txt'], 'text.txt'),
    ('eval_lm.py', ['lm', '--tasks', 'mqar', '--card'], '--card: none of lm'),
    ('convert_vit.py', ['absent', '--out', 'o'], 'absent'),
    ('convert_vit.py', ['lm', '--out', 'o'], 'EncoderConversion'),
    ('convert_vit.py', ['encoder_cut', '--out', 'o'], 'encoder_cut'),
    ('convert_vit.py', ['encoder', '--out', 'o', '--layers', '9'], '9'),
    ('convert_vit.py', ['encoder', '--out', 'o', '--layers', 'auto'], 'auto'),
    ('convert_vit.py', ['encoder', '--out', 'o', '--mixer', 'Mamba9'], 'Mamba9'),
    ('convert_vit.py', ['encoder', '--out', 'o', '--init', 'inherit'], 'inherit'),
    ('convert_vit.py', ['encoder', '--out', 'o', '--calibration', 'gone'], 'gone'),
    ('convert_vit.py', ['encoder', '--out', 'o', '--calibration', 'folder'], 'folder'),
    ('convert_lm.py', ['absent', '--out', 'o'], 'absent'),
    ('convert_lm.py', ['folder', '--out', 'o'], 'folder'),
    ('convert_lm.py', ['text.txt', '--out', 'o'], 'text.txt'),
    ('convert_lm.py', ['lm_cut', '--out', 'o'], 'lm_cut'),
    ('convert_lm.py', ['lm_list', '--out', 'o'], 'lm_list'),
    ('convert_lm.py', ['lm_latin', '--out', 'o'], 'lm_latin'),
    ('convert_lm.py', ['lm', '--out', NOWHERE], NOWHERE),
    ('convert_lm.py', ['lm', '--out', 'text.txt'], 'text.txt'),
    ('convert_lm.py', ['lm', '--out', 'o', '--layers', 'evenli'], 'evenly'),
    ('convert_lm.py', ['lm', '--out', 'o', '--layers', '99'], '99'),
    ('convert_lm.py', ['lm', '--out', 'o', '--init', 'mimik'], 'mimic'),
    (
        'convert_lm.py',
        ['lm', '--out', 'o', '--init', 'subclone', '--mamba-checkpoint', 'text.pth'],
        'text.pth',
    ),
    ('convert_lm.py', ['lm', '--out', 'o', '--fields', 'hiden=3'], 'hiden'),
    *(
        (
            'convert_lm.py',
            ['lm', '--out', 'o', '--layers', 'auto', '--calibration', file],
            file,
        )
        for file in ('absent.npz', 'text.npz', 'folder')
    ),
    (
        'convert_lm.py',
        ['lm', '--out', 'o', '--layers', 'auto', '--calibration', 'tokens.npz'],
        'token id 1000000',
    ),
    ('assemble_llava.py', ['absent', 'lm', '--out', 'o'], 'absent'),
    ('assemble_llava.py', ['folder', 'lm', '--out', 'o'], 'folder'),
    ('assemble_llava.py', ['lm', 'lm', '--out', 'o'], 'lm'),
    ('assemble_llava.py', ['vlm', 'lm', '--out', 'text.txt'], 'text.txt'),
    ('assemble_patch_decoder.py', ['absent', 'o'], 'absent'),
    ('assemble_patch_decoder.py', ['folder', 'o'], 'folder'),
    ('assemble_patch_decoder.py', ['lm_cut', 'o'], 'lm_cut'),
    ('assemble_patch_decoder.py', ['lm_list', 'o'], 'lm_list'),
    ('assemble_patch_decoder.py', ['vlm', 'o'], 'vlm'),
    ('assemble_patch_decoder.py', ['lm', 'text.txt'], 'text.txt'),
    ('assemble_patch_decoder.py', ['lm', NOWHERE], NOWHERE),
    ('assemble_patch_decoder.py', ['lm', 'o', '--holistic', '99,'], '99'),
    ('assemble_patch_decoder.py', ['lm', 'o', '--holistic', 'absent'], 'absent'),
    (
        'assemble_patch_decoder.py',
        ['lm', 'o', '--chat-template', 'broken.jinja'],
        'template',
    ),
    ('assemble_patch_decoder.py', ['lm', 'o', '--image-size', '29'], '29'),
    ('add_reasoning_tags.py', ['absent', '--out', 'o'], 'absent'),
    ('add_reasoning_tags.py', ['folder', '--out', 'o'], 'folder'),
    ('add_reasoning_tags.py', ['lm', '--out', 'o'], 'lm'),
    ('add_reasoning_tags.py', ['vlm_cut', '--out', 'o'], 'vlm_cut'),
    ('add_reasoning_tags.py', ['vlm', '--out', 'text.txt'], 'text.txt'),
    ('add_reasoning_tags.py', ['vlm', '--out', NOWHERE], NOWHERE),
    *(
        ('chat_vlm.py', [model, '--question', 'q', '--device', 'cpu'], model)
        for model in ('./absent', 'folder', 'lm', 'vlm_cut', 'vlm_list', 'vlm_latin')
    ),
    ('chat_vlm.py', ['vlm', '--question', 'q', '--image', 'text.png'], 'text.png'),
    ('chat_vlm.py', ['vlm', '--question', 'q', '--image', 'folder'], 'folder'),
    ('chat_vlm.py', ['vlm', '--question', 'q', '--device', 'cuba'], 'cuba'),
    ('chat_vlm.py', ['vlm', '--question', 'q', '--dtype', 'floot'], 'floot'),
    ('chat_vlm.py', ['vlm', '--question', 'q', '--template', 'vicunna'], 'vicunna'),
    ('chat_vlm.py', ['vit.py', '--checkpoint', 'other.pth'], 'vit.py'),
    ('chat_vlm.py', ['vlm', '--temperature', 'nan'], '--temperature'),
    ('eval_vlm.py', ['vlm', '--benchmarks', 'pope', '--data-root', 'folder'], 'folder'),
    ('eval_vlm.py', ['vlm', '--benchmarks', 'pope', '--limit', '0'], '--limit'),
    ('eval_vlm.py', ['vlm', '--benchmarks', 'pope', '--out', 'text.txt'], 'text.txt'),
    ('eval_vlm.py', ['vlm', '--benchmarks', 'popo'], 'popo'),
    ('eval_vlm.py', ['vlm', '--benchmarks', 'pope', '--out', NOWHERE], NOWHERE),
    ('eval_vlm.py', ['--benchmarks', 'pope'], '--predictions'),
    *(
        (
            'eval_vlm.py',
            ['--predictions', 'a.jsonl', '--benchmarks', 'gqa', option, value],
            f'{option} is for a model',
        )
        for option, value in (
            *(('--head', 'reasoning'), ('--max-new-tokens', '3'), ('--dtype', 'half')),
            *(('--batch-size', '2'), ('--image-root', 'x'), ('--template', 'chatml')),
        )
    ),
    (
        'eval_vlm.py',
        ['--predictions', 'a.jsonl', '--benchmarks', 'gqa', '--grades', 'text.txt'],
        '--grades is for mm_vet',
    ),
    (
        'eval_vlm.py',
        ['--predictions', 'a.jsonl', '--benchmarks', 'mm_vet', '--grades', 'absent'],
        'absent',
    ),
    ('retrieve.py', ['index', 'absent.py', 'other.pth', 'folder'], 'absent.py'),
    ('retrieve.py', ['index', 'vit.py', 'other.pth', 'folder'], 'vit.py'),
    (
        'retrieve.py',
        ['index', 'vit.py', 'other.pth', 'folder', '--out', f'{NOWHERE}.safetensors'],
        NOWHERE,
    ),
    *(
        ('retrieve.py', ['query', index, 'q'], index)
        for index in ('absent', 'folder', 'cut.safetensors', 'good.safetensors')
    ),
    ('retrieve.py', ['query', 'text.txt', 'q'], 'text.txt'),
    *(
        ('export.py', [*model, '--format', 'onnx', '--out', out, *rest], name)
        for model, out, rest, name in (
            (('vit.py', 'other.pth'), f'{NOWHERE}.onnx', (), NOWHERE),
            (('vit.py', 'other.pth'), 'folder', (), 'folder'),
            (('vit.py', 'other.pth'), 'o.onnx', ('--opset', '0'), '--opset'),
            (('vit.py', 'other.pth'), 'o.onnx', (), 'other.pth'),
            (('vit.py', 'folder'), 'o.onnx', (), 'folder'),
            (('vit.py', 'text.pth'), 'o.onnx', (), 'text.pth'),
            (('vit.py', 'cut.safetensors'), 'o.onnx', (), 'cut.safetensors'),
            (('empty.py', 'other.pth'), 'o.onnx', (), 'empty.py'),
        )
    ),
    *(
        ('transfer_lm.py', [model, '--data', data, '--out', 'o', *rest], name)
        for model, data, rest, name in (
            ('absent', 'text.txt', (), 'absent'),
            ('folder', 'text.txt', (), 'folder'),
            ('lm_list', 'text.txt', (), 'lm_list'),
            ('vlm', 'text.txt', (), 'vision-language'),
            ('lm', 'absent', (), 'absent'),
            ('lm', 'text.txt', (), 'block_size'),
            ('lm', 'tokens.npz', (), '1000000'),
            ('lm', 'text.npz', (), 'text.npz'),
            ('lm', 'text.txt', ('--val', 'absent'), 'absent'),
            ('lm', 'text.txt', ('--recipe', 'mmmambo'), 'mmmambo'),
            ('lm', 'text.txt', ('--recipe', 'absent.py'), 'absent.py'),
            ('lm', 'text.txt', ('--recipe', 'vit.py'), 'width'),
            ('lm', 'text.txt', ('--recipe', 'latin.py'), 'latin.py'),
            ('lm', 'text.txt', ('--tokens', '5X'), '--tokens'),
            ('lm', 'text.txt', ('--layers', '9'), 'layers=[9]'),
            ('lm', 'text.txt', ('--layers', 'evenyl'), 'evenyl'),
            ('lm', 'text.txt', ('--ratio', '2'), '--ratio'),
            ('lm', 'text.txt', ('--layers', '1', '--ratio', '1'), '--ratio'),
            ('lm', 'text.txt', ('--mixer', 'Mambo'), 'Mambo'),
            ('lm', 'text.txt', ('--mamba-checkpoint', 'folder'), 'mamba_checkpoint'),
        )
    ),
    ('transfer_lm.py', ['lm', '--data', 'text.txt', '--out', 'lm'], 'lm is not empty'),
    ('transfer_lm.py', ['lm', '--data', 'text.txt', '--out', NOWHERE], NOWHERE),
    *(
        ('select_layers.py', [model, '--calibration', text, *rest], name)
        for model, text, rest, name in (
            ('absent', 'text.txt', (), 'absent'),
            ('folder', 'text.txt', (), 'folder'),
            ('lm', 'absent', (), 'absent'),
            ('lm', 'text.npz', (), 'text.npz'),
            ('lm', 'tokens.npz', (), '1000000'),
            ('lm', 'text.txt', ('--methods', 'best'), 'best'),
            ('lm', 'text.txt', ('--on', 'sight'), 'sight'),
            ('lm', 'text.txt', ('--units', 'tails'), 'tails'),
            ('lm', 'text.txt', ('--units', 'heads', '--mixer', 'Mamba'), 'Mamba'),
            ('lm', 'text.txt', ('--mixer', 'Mambo'), 'Mambo'),
            ('lm', 'text.txt', ('--out', 'text.txt'), 'text.txt'),
            ('lm', 'text.txt', ('--ratio', '0'), '--ratio'),
        )
    ),
    *(
        ('convert_lm.py', ['lm', '--dry-run', '--layers', file], name)
        for file, name in (
            ('absent.json', 'absent.json'),
            ('list.json', 'list.json'),
            ('object.json', 'object.json'),
        )
    ),
    ('report.py', ['absent'], 'absent'),
    ('report.py', ['folder'], 'folder'),
    ('report.py', ['text.txt'], 'text.txt'),
    ('print_config.py', ['absent.py'], 'absent.py'),
    ('print_config.py', ['folder'], 'folder'),
    ('print_config.py', ['latin.py'], 'latin.py'),
    ('print_config.py', ['list.json'], 'list.json'),
    ('analysis_tools/get_flops.py', ['folder'], 'folder'),
    ('analysis_tools/get_flops.py', ['empty.py'], 'empty.py'),
    ('analysis_tools/get_flops.py', ['vit.py', '--shape', '0'], '--shape'),
    ('analysis_tools/get_flops.py', ['vit.py', '--shape', '8', '8', '8', '8'], 'shape'),
    ('plan_run.py', ['absent.py'], 'absent.py'),
    ('plan_run.py', ['empty.py'], 'train_cfg'),
    ('plan_run.py', ['vit.py', '--gpus', '0'], '--gpus'),
    ('plan_run.py', ['vit.py', '--mfu', '1.5'], '--mfu'),
    ('plan_run.py', ['vit.py', '--mfu', '0'], '--mfu'),
    ('plan_run.py', ['vit.py', '--peak-tflops', 'nan'], '--peak-tflops'),
    ('plan_run.py', ['vit.py', '--device-memory', '-1'], '--device-memory'),
    ('plan_run.py', ['vit.py', '--strategy', 'zero'], '--strategy'),
    (
        'plan_run.py',
        ['vit.py', '--cfg-options', 'train_dataloader.dataset.split=half'],
        '--samples',
    ),
    ('analysis_tools/ablation.py', ['absent.py'], 'absent.py'),
    ('analysis_tools/ablation.py', ['vit.py', '--work-dir', NOWHERE], NOWHERE),
    *(
        ('analysis_tools/reasoning_format.py', [file], file)
        for file in ('absent', 'folder', 'list.json', 'latin.json', 'object.json')
    ),
    *(
        ('dataset_converters/didemo.py', ['--test', file, '--out', 'o'], file)
        for file in ('absent', 'folder', 'empty.json', 'object.json', 'latin.json')
    ),
    *(
        ('dataset_converters/msrvtt.py', ['--test', file, '--out', 'o'], file)
        for file in ('absent', 'folder', 'empty.json', 'list.json', 'latin.json')
    ),
    *(
        ('dataset_converters/llava_cot.py', [file, '--out', 'o'], file)
        for file in ('absent', 'folder', 'empty.json', 'list.json', 'latin.json')
    ),
    ('dataset_converters/shapes_reasoning.py', ['--out', 'text.txt'], 'text.txt'),
    ('dataset_converters/shapes_reasoning.py', ['--out', NOWHERE], NOWHERE),
    ('dataset_converters/word_vqa.py', ['shapes', NOWHERE], NOWHERE),
    ('dataset_converters/word_vqa.py', ['shapes', 'text.txt'], 'text.txt'),
    (
        'dataset_converters/word_vqa.py',
        ['easy_vqa', 'o', '--data-root', 'folder'],
        'folder',
    ),
    *(
        (f'benchmarks/{name}.py', [option, value], option)
        for name, option in (
            ('decode', '--repeats'),
            ('delta_rule', '--slow-repeat'),
            ('distillation_overhead', '--image-size'),
            ('export', '--threads'),
            ('gpu', '--minutes'),
            ('resolution', '--repeats'),
            ('resolution', '--memory-limit'),
            ('selective_scan', '--repeat'),
            ('teacher_cache', '--tokens'),
            ('training_step', '--batch-size'),
            ('tune_triton', '--rounds'),
        )
        for value in ('-1', 'nan')
    ),
    *(
        (f'benchmarks/{name}.py', [option, 'mambo'], 'mambo')
        for name, option in (
            ('delta_rule', '--cases'),
            ('export', '--models'),
            ('export', '--formats'),
            ('resolution', '--models'),
            ('selective_scan', '--cases'),
            ('teacher_cache', '--cases'),
            ('training_step', '--students'),
        )
    ),
    ('benchmarks/delta_rule.py', ['--cases'], '--cases'),
    ('benchmarks/export.py', ['--json', NOWHERE], NOWHERE),
    ('benchmarks/training_step.py', ['--json', 'folder'], 'folder'),
    ('benchmarks/gpu.py', ['text.txt', '--dry-run'], 'text.txt'),
    ('benchmarks/gpu.py', [NOWHERE, '--dry-run'], NOWHERE),
    ('benchmarks/gpu.py', ['o', '--markdown', 'folder'], 'folder'),
    ('benchmarks/gpu.py', ['o', '--parts', 'skan'], 'skan'),
    *(
        ('benchmarks/distillation_overhead.py', ['--config', path], path)
        for path in ('absent.py', 'folder', 'empty.py', 'vit.py')
    ),
    *(
        ('benchmarks/teacher_cache.py', ['--cases', 'images', '--config', path], path)
        for path in ('absent.py', 'folder', 'empty.py', 'vit.py')
    ),
    ('benchmarks/distillation_overhead.py', ['--device', 'cuba'], 'cuba'),
    *(
        ('analysis_tools/model_zoo.py', ['--json', file, '--out', 'o.md'], file)
        for file in ('folder', 'list.json', 'empty.json', 'latin.json', NOWHERE)
    ),
    ('analysis_tools/model_zoo.py', ['--seconds', 'nan'], '--seconds'),
    ('studies/stories260k.py', ['--data', 'folder'], 'folder'),
    ('studies/stories260k.py', ['--work-dir', 'text.txt'], 'text.txt'),
    ('studies/stories260k.py', ['--jobs', '0'], '--jobs'),
    ('studies/stories260k.py', ['--only', 'rank'], 'rank'),
    ('benchmarks/decode.py', ['--json', NOWHERE], NOWHERE),
    ('benchmarks/resolution.py', ['--sizes', '230'], '230 pixels are not a multiple'),
    ('benchmarks/resolution.py', ['--out', 'text.txt'], 'text.txt'),
    ('benchmarks/decode.py', ['--contexts', '0'], '--contexts'),
    ('benchmarks/decode.py', ['--device', 'cuba'], 'cuba'),
    ('benchmarks/decode.py', ['--models', 'pur'], 'pur'),
    ('quickstart.py', ['--work-dir', NOWHERE], NOWHERE),
    ('quickstart.py', ['--work-dir', 'text.txt'], 'text.txt'),
    ('quickstart_vqa.py', ['--work-dir', 'text.txt'], 'text.txt'),
    ('quickstart_retrieval.py', ['--work-dir', 'text.txt'], 'text.txt'),
]


@pytest.mark.parametrize(
    ('name', 'args', 'named'),
    [
        pytest.param(*mistake, id=f'{i} {Path(mistake[0]).stem} {mistake[2]}')
        for i, mistake in enumerate(MISTAKES)
    ],
)
def test_a_mistake_ends_in_one_line_that_names_it(told, files, name, args, named):
    before = listing(files)
    line = told(name, *args)
    assert '\n' not in line
    tool, _, text = line.partition(': error: ')
    assert tool.split()[0] == Path(name).name and named in text
    assert 'with --debug' not in line, 'not written for a user'
    assert listing(files) == before, 'something half-written is left'


def listing(folder):
    """Everything in a folder but logs of runs and compiled files."""
    return sorted(
        path
        for path in folder.rglob('*')
        if not {'work_dirs', '__pycache__'} & set(path.parts)
    )
