"""One of two processes in the test that they train as one."""

import torch
import torch.nn.functional as F
from tiny_retrievers import STUDENT, training_batch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mmtransmamba.models.retrieval import PairEmbeddings
from mmtransmamba.models.retrieval.gather import gather_rows
from mmtransmamba.registry import MODELS
from mmtransmamba.transfer.terms import DistillBatch, SimilarityTerm

# Three pairs on one rank and two on the other; a video of one is also on the other.
SPLIT = [3, 2]
VIDEO_IDS = ['a', 'b', 'c', 'b', 'd']


def part_of(batch, rank):
    """A rank's rows of a batch."""
    begin = sum(SPLIT[:rank])
    return {key: value[begin : begin + SPLIT[rank]] for key, value in batch.items()}


def whole_batch():
    return training_batch(sum(SPLIT)) | dict(video_id=VIDEO_IDS)


def retriever():
    torch.manual_seed(0)
    model = MODELS.build(STUDENT | dict(frozen_text=False))
    model.init_weights()
    with torch.no_grad():  # a class token of zero has no gradient to compare
        model.backbone.cls_token.normal_()
    return model


def step(model, batch):
    """Loss and gradients of one step."""
    inner = getattr(model, 'module', model)
    loss = model(**inner.data_preprocessor(batch, True), mode='loss')['loss']
    loss.backward()
    return loss.item(), {n: p.grad for n, p in inner.named_parameters()}


class Distilled(nn.Module):
    """The similarity term alone, beside a retriever."""

    def __init__(self):
        super().__init__()
        self.student = retriever()
        self.data_preprocessor = self.student.data_preprocessor
        self.term = SimilarityTerm(weight=2.0, temperature=3.0)

    def forward(self, inputs, data_samples, mode):
        student = self.student.embed_pairs(inputs, data_samples)
        # Any function of the own rows will do as the teacher's embeddings.
        video = F.normalize(inputs.flatten(1)[:, :16], dim=-1)
        text = F.normalize(inputs.flatten(1)[:, 16:32], dim=-1)
        teacher = PairEmbeddings(video, text, torch.tensor(20.0))
        batch = DistillBatch(
            student=None,
            feature=None,
            logits=None,
            extra=student,
            teacher=type('Output', (), dict(pairs=teacher)),
            teacher_tokens=None,
            layer_map=[],
            token_index=None,
        )
        # As a distiller: both losses read one gathering of the student's pairs.
        task = self.student.pair_losses(student, data_samples)['loss']
        return dict(loss=task + self.term(batch)[''])


MODELS_TO_COMPARE = dict(contrastive=retriever, distilled=Distilled)


def run_rank(rank, folder):
    """Save the steps of one rank, and what gathering gives it."""
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=len(SPLIT)
    )
    results = {}
    for name, build in MODELS_TO_COMPARE.items():
        model = DistributedDataParallel(build())
        results[name] = step(model, part_of(whole_batch(), rank))
    rows = torch.full((SPLIT[rank], 1), float(rank), requires_grad=True)
    gathered, begin = gather_rows(rows)
    (gathered[:, 0] * torch.arange(5.0) * (rank + 1)).sum().backward()
    results['rows'] = gathered.detach(), begin, rows.grad
    torch.save(results, f'{folder}/rank{rank}.pt')
    dist.destroy_process_group()
