"""Small sets of questions with answers of one word: a tower, a LLaVA, its students."""

from config_runs import LATER, LOADERS, load
from tiny_easy_vqa import write_easy_vqa

from config_families.base import Family
from mmtransmamba.datasets.easy_vqa import words_of
from mmtransmamba.datasets.shapes_vqa import words
from mmtransmamba.datasets.vqa_start import write_start
from mmtransmamba.registry import DATASETS
from mmtransmamba.transfer.convert import convert

SETS = {'shapes': 'quickstart/vqa', 'easy_vqa': 'multimodal/easy_vqa/easy_vqa'}
SMALL = dict(hidden_size=24, intermediate_size=32)
STUDENTS = {
    'hybrid': dict(layers='interleaved', ratio=0.75),
    'pure': dict(ratio=1.0),
    'pure_gdn': dict(ratio=1.0, mixer='GatedDeltaNet'),
}


def set_of(name: str) -> str:
    return 'easy_vqa' if 'easy_vqa' in name else 'shapes'


class Words(Family):
    patterns = ('quickstart/vqa_*.py', 'multimodal/easy_vqa/*.py')
    # LLaVA reads the second to last layer of a tower.
    still = ('encoder.layers.2.', 'post_layernorm', '.k_proj.bias')

    def write(self, root):
        text = dict(SMALL, num_attention_heads=2, num_key_value_heads=2)
        for name, prefix in SETS.items():
            folder = root / name
            folder.mkdir()
            if name == 'shapes':
                write_start(folder / 'start', words(), 36, 12, **text)
            else:
                write_easy_vqa(folder, 'train')
                write_easy_vqa(folder, 'test')
                write_start(folder / 'start', words_of(folder), 64, 16, **text)
            tower = self.build(self.shrink(load(f'{prefix}_tower.py'), root))
            tower.tower.save_pretrained(folder / 'tower')
            tower.companions.save(folder / 'tower')
            if name == 'shapes':
                linear, _ = convert(tower.tower)
                linear.save_pretrained(folder / 'linear')
                tower.companions.save(folder / 'linear')
            teacher = self.build(self.shrink(load(f'{prefix}_teacher.py'), root))
            teacher.lm.save_pretrained(folder / 'teacher')
            teacher.companions.save(folder / 'teacher')
            for kind, options in STUDENTS.items():
                student, _ = convert(folder / 'teacher', **options)
                for stage, history in LATER.items():
                    student.config.get_text_config().transfer_history = history
                    student.save_pretrained(folder / f'{kind}-{stage}')
                    teacher.companions.save(folder / f'{kind}-{stage}')

    def shrink(self, cfg, root):
        root /= set_of(cfg.filename)
        for part in set(LOADERS) & set(cfg):
            cfg[part].batch_size = 3
            dataset = cfg[part].dataset
            dataset.processor = str(root / 'start')
            if dataset.type.startswith('mmtransmamba.EasyVQA'):
                dataset.data_root = str(root)
            else:
                dataset.num_scenes = 4
        model = cfg.model
        if 'processor' in model:
            model.processor = str(root / 'start')
        if model.type == 'mmtransmamba.PatchClassifier':
            if model.config is None:
                model.path = str(root / 'tower')
            else:
                model.config.update(SMALL)
        elif 'vision' in model:
            tower = 'linear' if 'linear' in model.vision else 'tower'
            model.vision, model.language = str(root / tower), str(root / 'start')
        else:
            # The longest name that the config's contains.
            kind = max((k for k in STUDENTS if k in cfg.filename), key=len)
            start = f'{kind}-{model.stage}' if model.stage in LATER else 'teacher'
            model.teacher.path = str(root / 'teacher')
            model.student.path = str(root / start)
        return cfg

    def check_training(self, name, cfg, model, steps):
        if 'linear' in name:
            names = {type(module).__name__ for module in model.modules()}
            assert not {each for each in names if each.endswith('Attention')}
            assert any('EncoderMixer' in each for each in names)
        if 'student' in cfg.model:
            kinds = model.student.config.get_text_config().layer_types
            attention = [kind for kind in kinds if kind != 'linear_attention']
            assert len(attention) == (0 if 'pure' in name else 1)
        if cfg.val_cfg is None:
            assert steps.losses['accuracy'] <= 100

    def check_metrics(self, name, cfg, metrics):
        assert 0 <= metrics['answers/accuracy'] <= 100
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        categories = {question.category for question in dataset.questions}
        assert {f'answers/{category}' for category in categories} <= set(metrics)
