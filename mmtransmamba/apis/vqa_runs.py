"""A tower, a teacher and its students on a set of questions about pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmtransmamba import apis
from mmtransmamba.datasets.vqa_start import write_start

LOADERS = ('train', 'val', 'test')


@dataclass(frozen=True)
class QuestionSet:
    """A small set of questions, and where the configs of its trainings are.

    Attributes:
        configs: Path of a config, with ``{}`` in the place of the training's name.
        words: Its vocabulary.
        image_size, patch_size: Of the vision tower, in pixels.
        dataset: Options of all its data sets, such as ``data_root``.
    """

    configs: str
    words: Sequence[str]
    image_size: int
    patch_size: int
    dataset: dict[str, Any] = field(default_factory=dict)

    def config(self, name: str) -> Path:
        """The config of a training."""
        return Path(self.configs.format(name))


def train_students(
    questions: QuestionSet,
    work_dir: Path,
    seed: int,
    students: Sequence[str],
    scratch: bool = True,
) -> dict[str, Path]:
    """Train what has not been trained: tower, teacher, students, control.

    Args:
        questions: The set.
        work_dir: Gets a folder for each training.
        seed: Seed of all trainings.
        students: Students by the names in their configs. Each goes through three
            stages.
        scratch: Whether the control is trained, from the labels alone.

    Returns:
        Folders of the trained models by name.
    """
    start = work_dir / f'start_seed{seed}'
    if not (start / 'processor_config.json').is_file():
        sides = dict(image_size=questions.image_size, patch_size=questions.patch_size)
        write_start(start, questions.words, **sides, seed=seed)
    data = {
        part: {
            f'{part}_dataloader.dataset.{name}': value
            for name, value in ({'processor': str(start)} | questions.dataset).items()
        }
        for part in LOADERS
    }

    def run(name: str, options: dict[str, Any], folder: str = 'model') -> Path:
        place = work_dir / f'{name}_seed{seed}'
        options = {'randomness.seed': seed} | data['train'] | options
        apis.run_experiment(questions.config(name), place, options)
        return place / folder

    test = data['val'] | data['test']
    tower = run('tower', {'model.processor': str(start)})
    new = {'model.vision': str(tower), 'model.language': str(start)} | test
    folders = {'teacher': run('teacher', new)}
    for name in students:
        before = folders['teacher']
        for stage in (1, 2, 3):
            options = {
                'model.student.path': str(before),
                'model.teacher.path': str(folders['teacher']),
            }
            before = run(f'{name}_stage{stage}', options | test, 'student')
        folders[name] = before
    if scratch:
        folders['scratch'] = run('pure_scratch', new)
    return folders
