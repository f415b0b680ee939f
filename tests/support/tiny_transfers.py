"""A tiny teacher with a tiny text, and transfers that kill themselves."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import torch
from byte_tokenizer import write_tokenizer
from tiny_decoders import tiny_teacher, tokens

from mmtransmamba.apis.recipes import transfer_lm
from mmtransmamba.utils import checkpoint_files

WORDS = 'the cat sat on a mat and saw that it was good to be there again '


def write_files(root: Path) -> Path:
    """A folder with ``teacher``, ``text.jsonl`` with prompts, and ``tokens.npz``."""
    model = tiny_teacher(
        vocab_size=258, tie_word_embeddings=True, max_position_embeddings=32
    )
    model.save_pretrained(root / 'teacher')
    write_tokenizer(root / 'teacher')
    rows = [dict(text=WORDS[:24], question=f'What is {i}?') for i in range(24)]
    (root / 'text.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    np.savez(root / 'tokens.npz', tokens=tokens(rows=24, length=16).numpy())
    return root


def transfer(root: Path, out: Path, recipe: str, **options):
    """A transfer of these files that takes a second or two."""
    given = dict(data=root / 'tokens.npz', tokens=512, show=lambda text: None)
    return transfer_lm(root / 'teacher', out=out, recipe=recipe, **given | options)


def transfer_killed(
    root: Path, out: Path, recipe: str, tokens: int, kill_at: int | None
) -> None:
    """Go on with a transfer, and die at the ``kill_at``-th event.

    An event is a step of the optimizer, or a file or folder that gets its name.
    """
    events = 0

    def event():
        nonlocal events
        events += 1
        if events == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    replace, step = os.replace, torch.optim.AdamW.step

    def replacing(*paths):
        replace(*paths)
        event()

    def stepping(*args, **kwargs):
        event()
        return step(*args, **kwargs)

    checkpoint_files.os.replace = replacing
    torch.optim.AdamW.step = stepping
    transfer(root, out, recipe, tokens=tokens)
