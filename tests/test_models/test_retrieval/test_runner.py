"""Teacher, student and metric inside mmengine's Runner."""

import pytest
import torch
from mmengine.runner import Runner
from tiny_retrievers import STUDENT, TEACHER, captions, training_batch

from mmtransmamba.models import load_pretrained, read_state_dict
from mmtransmamba.registry import MODELS

DISTILLER = dict(
    type='mmtransmamba.MultiDirectionDistiller',
    student=STUDENT,
    teacher=dict(
        type='mmtransmamba.CLIP4ClipTeacher', model=TEACHER, checkpoint='random'
    ),
    terms=dict(
        similarity=dict(type='mmtransmamba.SimilarityTerm'),
        direction=dict(type='mmtransmamba.DirectionTerm'),
    ),
)


class Videos(torch.utils.data.Dataset):
    """Six random videos: with a caption for training, with two for evaluation."""

    def __init__(self, training):
        self.batch = training_batch(6)
        self.training = training

    def __len__(self):
        return 6

    def __getitem__(self, i):
        if self.training:
            return {key: value[i] for key, value in self.batch.items()}
        names = ('video', 'video_id')
        sample = {key: self.batch[key][i] for key in names}
        return sample | dict(captions=captions(2, seed=i))


def collate(samples):
    columns = {key: [s[key] for s in samples] for key in samples[0]}
    return {
        key: torch.stack(values) if isinstance(values[0], torch.Tensor) else values
        for key, values in columns.items()
    }


def run(model, tmp_path):
    torch.manual_seed(0)
    loaders = [
        torch.utils.data.DataLoader(Videos(training), 3, collate_fn=collate)
        for training in (True, False)
    ]
    runner = Runner(
        model=model,
        work_dir=str(tmp_path),
        train_dataloader=loaders[0],
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        val_dataloader=loaders[1],
        val_cfg=dict(),
        val_evaluator=dict(type='mmtransmamba.TextVideoRetrievalMetric'),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1),
            checkpoint=dict(
                type='CheckpointHook', save_best='retrieval/t2v_R@1', rule='greater'
            ),
        ),
        default_scope='mmtransmamba',
        log_level='WARNING',
        experiment_name=tmp_path.name,
    )
    runner.train()
    return runner


@pytest.mark.parametrize('model', [TEACHER, STUDENT, DISTILLER])
def test_training_evaluates_and_saves(model, tmp_path):
    runner = run(model, tmp_path)
    scalars = runner.message_hub.log_scalars
    # Six videos with two captions each.
    assert 1 <= scalars['val/retrieval/t2v_MeanR'].current() <= 6
    assert 1 <= scalars['val/retrieval/v2t_MeanR'].current() <= 11
    assert scalars['val/retrieval/t2v_R@10'].current() == 100
    assert scalars['train/logit_scale'].current() != pytest.approx(1 / 0.07, rel=1e-6)
    assert list(tmp_path.glob('best_retrieval_t2v_R@1_epoch_*.pth'))


def test_checkpoint_of_a_distilled_run_is_a_plain_student(tmp_path):
    runner = run(DISTILLER, tmp_path)
    file = tmp_path / 'epoch_2.pth'
    assert not any('vision_model' in key for key in read_state_dict(file))
    plain = MODELS.build(STUDENT)
    report = load_pretrained(plain, file)
    assert not report.missing
    assert all(key.startswith('distiller.') for key in report.left_over)
    student = runner.model.student.state_dict()
    assert all(torch.equal(t, student[k]) for k, t in plain.state_dict().items())


def test_checkpoint_of_a_trained_teacher_teaches(tmp_path):
    runner = run(TEACHER, tmp_path)
    teacher = MODELS.build(
        DISTILLER['teacher'] | dict(checkpoint=str(tmp_path / 'epoch_2.pth'))
    )
    trained = runner.model.state_dict()
    assert all(
        torch.equal(t, trained[k]) for k, t in teacher.model.state_dict().items()
    )
