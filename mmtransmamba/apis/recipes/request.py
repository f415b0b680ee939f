"""The request for a transfer, and the settings that follow from its one dial."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmtransmamba.apis.recipes.recipe import Recipe, read_recipe
from mmtransmamba.models.folders.identity import describe_files
from mmtransmamba.models.language.mixers.fields import as_fields
from mmtransmamba.transfer.convert.spec import Conversion
from mmtransmamba.utils.checkpoint_files import write
from mmtransmamba.utils.text_files import find_files, read_json

FILE, PLAN, PACKED = 'request.json', 'plan.json', 'packed'
PLANNED = {FILE, PLAN, PACKED}
"""What a folder has before the transfer begins."""
BLOCK = 512
"""Tokens of a sequence, as in RADLADS; fewer if the teacher's context is shorter."""
MOST_ROWS = 128
"""Sequences of a step, as in mmMamba."""
ROWS_PER_STEP = 64
"""Sequences of the budget for which a step has one: steps = 8 * sqrt(sequences)."""
MOST_LR = 2e-3
"""Limit of the scaled learning rate, unless the source's own is higher."""
MICRO_TOKENS = 4096
"""Tokens of a forward pass; a step accumulates several."""


@dataclass(frozen=True)
class Request:
    """The arguments of a transfer.

    Attributes:
        teacher: Folder of a causal language model of transformers.
        data: A ``.jsonl`` or text file, a pattern of such files, or an ``.npz`` with
            ``tokens`` ``[N, L]``.
        out: Folder to write.
        recipe: Name or file of a recipe.
        tokens: Budget of all stages together, the calibration included.
        layers, ratio, mixer: Override the recipe's, see
            :class:`~mmtransmamba.transfer.convert.Conversion`.
        mamba_checkpoint: Mamba-1 model for ``init='subclone'``.
        val: File of held-out text; by default a part of ``data`` is held out.
        text_key, prompt_key: See :class:`~mmtransmamba.datasets.PackedText`.
        seed: Of new parameters and of the order of the data.
    """

    teacher: str
    data: str
    out: str
    recipe: str = 'calibrated'
    tokens: int = 5_000_000
    layers: str | Sequence[int] | None = None
    ratio: float | None = None
    mixer: str | Mapping[str, Any] | None = None
    mamba_checkpoint: str | None = None
    val: str | None = None
    text_key: str = 'text'
    prompt_key: str | None = None
    seed: int = 0

    def conversion(self, recipe: Recipe) -> dict[str, Any]:
        """Arguments of the conversion: the recipe's with those that were given."""
        given = dict(layers=Conversion.layers, init=Conversion.init)
        given |= recipe.convert
        if self.layers is not None:
            given['layers'] = self.layers
            if not isinstance(self.layers, str):
                given.pop('ratio', None)
        for name in ('ratio', 'mixer', 'mamba_checkpoint'):
            if getattr(self, name) is not None:
                given[name] = getattr(self, name)
        if isinstance(self.mixer, Mapping) and 'type' not in self.mixer:
            own = as_fields(recipe.convert.get('mixer') or {})
            given['mixer'] = own | dict(self.mixer)
        return given | dict(seed=self.seed)

    def check_files(self) -> None:
        """Check the names of the texts, and that one of them has the keys to read.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: A key is given, and there are token ids only.
        """
        files = [file for file in (self.data, self.val) if file is not None]
        for file in files:
            if not find_files(file):
                raise FileNotFoundError(f'There is no text at {file}.')
        if not all(map(has_token_ids, files)):
            return
        for name, default in (('text_key', 'text'), ('prompt_key', None)):
            value = getattr(self, name)
            if value != default:
                raise ValueError(
                    f'{name}={value!r} goes with texts in a .jsonl file; '
                    f'{" and ".join(files)} has token ids.'
                )

    def claim(self) -> Recipe:
        """Record the request in its folder, or check that it is the same.

        A folder that has no more than a plan takes any request.

        Raises:
            ValueError: The folder is that of another transfer, or of anything else; or
                the teacher or a text has changed since it began.
        """
        recipe = read_recipe(self.recipe)
        record = asdict(self) | dict(stages=recipe.text, files=self._files())
        record = json.loads(json.dumps(record))
        record.pop('out')
        folder = Path(self.out)
        path = folder / FILE
        there = read_json(path) if path.is_file() else None
        entries = {entry.name for entry in folder.glob('*')}
        if there is None and entries:
            raise ValueError(
                f'{self.out} is not empty and holds no transfer; choose another folder'
            )
        if entries - PLANNED:
            self._check_same(there, record)
        elif record != there:
            (folder / PLAN).unlink(missing_ok=True)
            write(path, (json.dumps(record, indent=1) + '\n').encode())
        return recipe

    def _files(self) -> dict[str, dict[str, list[int]]]:
        """Size and time of each file that the transfer reads."""
        files = {}
        if Path(self.teacher).exists():
            files[self.teacher] = describe_files(self.teacher)
        for text in (self.data, self.val):
            for file in find_files(text) if text is not None else ():
                files[file] = describe_files(file)
        return files

    def _check_same(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        for name, value in now.items():
            was = before.get(name)
            if name == 'stages' and was != value:
                raise ValueError(
                    f'{self.out} holds a transfer by another version of the recipe '
                    f'{self.recipe}; choose another folder, or remove this one'
                )
            if name != 'files' and was != value:
                raise ValueError(
                    f'{self.out} holds a transfer with {name}={was!r}, not {value!r}; '
                    'choose another folder, or remove this one'
                )
        files = before.get('files', now['files'])  # an earlier version kept none
        for name in {**files, **now['files']}:
            if files.get(name) != now['files'].get(name):
                raise ValueError(
                    f'{name} has changed since the transfer in {self.out} began; bring '
                    'it back, choose another folder, or remove this one'
                )


def has_token_ids(file: str) -> bool:
    """Whether a file of a request has token ids instead of text."""
    return Path(file).suffix == '.npz'


def rows_of(tokens: int, block: int) -> int:
    """Sequences of a step: a power of two near ``sqrt(sequences / 64)``.

    So batch and number of steps both grow with the square root of the budget: 5M tokens
    in blocks of 512 are 610 steps of 16, and 500M are 7,629 steps of 128.
    """
    rows = math.sqrt(max(tokens / block / ROWS_PER_STEP, 1))
    return min(2 ** round(math.log2(rows)), MOST_ROWS)


def scaled_lr(lr: float, source: int, width: int) -> float:
    """A source's learning rate for a model of another hidden size.

    Adam's rate falls with the width (µP, arXiv:2203.03466, Table 3, for hidden
    matrices), so a smaller model gets a larger one, up to :data:`MOST_LR`.
    """
    return min(lr * source / width, max(lr, MOST_LR))
