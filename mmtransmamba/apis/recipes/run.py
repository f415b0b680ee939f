"""One command for a whole transfer: convert, train, evaluate, report."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmengine.device import get_device

from mmtransmamba.apis.experiment import ExperimentResult, run_experiment
from mmtransmamba.apis.recipes.measure import measure
from mmtransmamba.apis.recipes.plan import PlannedStage, TransferPlan, make_plan
from mmtransmamba.apis.recipes.recipe import CONVERTED, STUDENT, Recipe, read_recipe
from mmtransmamba.apis.recipes.report import write_transfer_report
from mmtransmamba.apis.recipes.request import FILE, PLAN, Request
from mmtransmamba.apis.recipes.text import TransferText
from mmtransmamba.apis.recipes.training import stage_config
from mmtransmamba.models.folders.lm import load_lm, read_lm
from mmtransmamba.models.folders.vlm import is_vision_language
from mmtransmamba.models.language.layer_choice import count_layers_of
from mmtransmamba.transfer.convert import plan_conversion, write_model
from mmtransmamba.transfer.convert.candidates import kv_heads
from mmtransmamba.transfer.convert.hybrid_config import hybrid_config
from mmtransmamba.transfer.convert.proof import Proof, prove
from mmtransmamba.transfer.convert.ranking import read_choice
from mmtransmamba.transfer.convert.spec import Conversion
from mmtransmamba.utils.checkpoint_files import put_in_place, write
from mmtransmamba.utils.text_files import read_json
from mmtransmamba.visualization.records import scalar_files

SCORES = 'scores.json'
RANKING_TOKENS = 8192


@dataclass
class TransferResult:
    """A finished transfer.

    Attributes:
        out: Its folder.
        student: Folder of the student, for ``from_pretrained``.
        report: The page about it.
        plan: Its plan.
        scores: Comparison with the teacher on held-out text by step: ``'converted'``,
            then each stage.
        seconds: Wall-clock time by step.
    """

    out: Path
    student: Path
    report: Path
    plan: TransferPlan
    scores: dict[str, Proof]
    seconds: dict[str, float]


def transfer_lm(
    teacher: str | Path,
    data: str | Path,
    out: str | Path,
    recipe: str = 'calibrated',
    tokens: int = 5_000_000,
    only_plan: bool = False,
    show: Callable[[str], None] = print,
    **options: Any,
) -> TransferResult | TransferPlan:
    """Transfer a language model by a recipe, from conversion to report.

    An interrupted transfer goes on when it is called again with the same arguments, and
    gives the same student.

    Args:
        teacher: Folder of a causal language model of transformers.
        data: Text to train on, a part of which is held out: a ``.jsonl`` or text file,
            or a pattern of such files, or an ``.npz`` with ``tokens`` ``[N, L]``.
        out: Folder to write: ``student``, ``report.html``, ``scores.json``, the
            converted model before the training, and the work directory of each stage.
        recipe: Name or file of a recipe, see
            :func:`~mmtransmamba.apis.recipes.recipe.read_recipe`.
        tokens: Budget of all stages together, which also sets batch and steps.
        only_plan: Return the plan, and train nothing.
        show: Called with each message.
        **options: Other attributes of
            :class:`~mmtransmamba.apis.recipes.request.Request`, such as ``layers``,
            ``ratio``, ``mixer`` and ``seed``.

    Raises:
        FileNotFoundError: A folder or file does not exist.
        ValueError: The recipe, the conversion or the data are wrong, or the folder has
            another transfer.

    Example:
        >>> import mmtransmamba
        >>> mmtransmamba.transfer_lm(  # doctest: +SKIP
        ...     'checkpoints/smollm2', 'text.jsonl', 'out', recipe='mmmamba'
        ... )
    """
    # The request is recorded as JSON.
    options = {n: str(v) if isinstance(v, Path) else v for n, v in options.items()}
    request = Request(str(teacher), str(data), str(out), recipe, tokens, **options)
    before, claimed = Path(out).is_dir(), (Path(out) / FILE).is_file()
    config = _check_teacher(request)
    recipe = request.claim()
    try:
        plan, text = _plan(request, recipe, config)
    except Exception:
        if not before:
            shutil.rmtree(out)
        elif not claimed:  # it was empty
            _empty(Path(out))
        raise
    show(str(plan))
    if only_plan:
        return plan
    return _Transfer(request, recipe, plan, text, show).run()


def _check_teacher(request: Request) -> Any:
    """Config of the teacher, after a check of everything that needs no text."""
    if is_vision_language(request.teacher):
        raise ValueError(
            f'{request.teacher} is a vision-language model; recipes are for language '
            'models. See docs/vision_language.md.'
        )
    request.check_files()
    config, _ = read_lm(request.teacher)
    given = request.conversion(read_recipe(request.recipe))
    spec = Conversion(**given, calibration=Path(request.data))
    if spec.layers != 'auto':
        hybrid_config(config, read_choice(spec, config)[0])
    return config


def _plan(
    request: Request, recipe: Recipe, config: Any
) -> tuple[TransferPlan, TransferText]:
    """The plan; measured once."""
    text = TransferText(request, config)
    path = Path(request.out) / PLAN
    if path.is_file():
        record = read_json(path)
        stages = [PlannedStage(**stage) for stage in record.pop('stages')]
        return TransferPlan(stages, **record), text
    given = request.conversion(recipe)
    spec = Conversion(**given, calibration=Path(request.data))
    plan = make_plan(request, recipe, text, config, spec.initialisation.calibrated)
    plan.layers = _describe(spec, recipe, config, request.tokens)
    measure(plan, recipe, request.teacher, given)
    write(path, (json.dumps(asdict(plan), indent=1) + '\n').encode())
    return plan, text


def _describe(spec: Conversion, recipe: Recipe, config: Any, tokens: int) -> str:
    depth = config.num_hidden_layers
    _, ranking = read_choice(spec, config)
    if ranking is not None and ranking.unit == 'heads':
        every = depth * kv_heads(config)
        count = count_layers_of(spec.ratio, every, 'head')
        share = f'{count} of {every} key-value heads, {spec.layers},'
    elif isinstance(spec.layers, str):
        share = (
            f'{count_layers_of(spec.ratio, depth)} of {depth} layers, {spec.layers},'
        )
    else:
        share = f'layers {", ".join(map(str, spec.layers))} of {depth}'
    return (
        f'Recipe {recipe.name}, {tokens:,} tokens: {share} become {spec.mixer_type} '
        f'(init={spec.init}).'
    )


class _Transfer:
    """The steps of a transfer, each of which is done once."""

    def __init__(
        self,
        request: Request,
        recipe: Recipe,
        plan: TransferPlan,
        text: TransferText,
        show: Callable[[str], None],
    ) -> None:
        self.request, self.recipe, self.plan, self.text = request, recipe, plan, text
        self.show = show
        self.out = Path(request.out)

    def run(self) -> TransferResult:
        """Do everything that is not done yet."""
        given = self.request.conversion(self.recipe)
        folder, last = self._convert(given), f'init:{given["init"]}'
        self._score(CONVERTED, folder)
        for number, planned in enumerate(self.plan.stages, 1):
            work_dir = self.out / f'{number}_{planned.name}'
            result = self._train(planned, work_dir, folder, last)
            folder, last = work_dir / STUDENT, planned.name
            self._note(last, _seconds(result, work_dir))
            self._score(last, folder)
        student = self.out / STUDENT
        if not student.is_dir():
            partial = student.with_name(f'{STUDENT}.partial')
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(folder, partial)
            put_in_place(partial, student)
        scores = {name: Proof(**row) for name, row in self._record()['scores'].items()}
        seconds = self._record()['seconds']
        report = write_transfer_report(
            self.out, self.recipe.name, self.request.teacher, self.plan, scores, seconds
        )
        self.show(f'The student is in {student}, the report in {report}.')
        return TransferResult(self.out, student, report, self.plan, scores, seconds)

    def _convert(self, given: dict[str, Any]) -> Path:
        folder = self.out / CONVERTED
        if folder.is_dir():
            return folder
        start = time.perf_counter()
        spec = Conversion(**given, calibration=Path(self.request.data))
        text: dict[str, Any] = {}
        if spec.initialisation.calibrated:
            text['calibration'] = self.text.last_rows(self.plan.calibration_tokens)
            text['calibration_steps'] = self.plan.calibration_steps
        elif spec.layers == 'auto':
            text['calibration'] = self.text.last_rows(RANKING_TOKENS)
        plan = plan_conversion(self.request.teacher, Conversion(**given, **text))
        if plan.ranking is not None:
            self.show(str(plan.ranking))
        write_model(plan, folder)
        self._note(CONVERTED, time.perf_counter() - start)
        return folder

    def _train(
        self, planned: PlannedStage, work_dir: Path, student: Path, last: str
    ) -> ExperimentResult:
        stage = self.recipe.stages[planned.index]
        self.show(f'Stage {planned.name}, {planned.tokens:,} tokens.')
        cfg = stage_config(self.request, stage, planned, self.text, str(student), last)
        result = run_experiment(cfg, work_dir)
        # The student is saved; the checkpoint was for going on.
        for checkpoint in work_dir.glob('*.pth'):
            checkpoint.unlink()
        return result

    def _record(self) -> dict[str, dict]:
        path = self.out / SCORES
        return read_json(path) if path.is_file() else dict(scores={}, seconds={})

    def _save(self, record: dict[str, dict]) -> None:
        write(self.out / SCORES, (json.dumps(record, indent=1) + '\n').encode())

    def _note(self, step: str, seconds: float) -> None:
        record = self._record()
        record['seconds'].setdefault(step, seconds)
        self._save(record)

    def _score(self, step: str, folder: Path) -> None:
        """Compare a student with the teacher on held-out text, once."""
        record = self._record()
        if step not in record['scores']:
            models = (
                load_lm(path).eval().to(get_device())
                for path in (folder, self.request.teacher)
            )
            proof = prove(*models, self.text.held_out_batches())
            record['scores'][step] = asdict(proof)
            self._save(record)
        self.show(f'{step}: {Proof(**record["scores"][step])}')


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _seconds(result: ExperimentResult, work_dir: Path) -> float:
    """Time of a training, over all its sittings.

    Of an interrupted one, each sitting is counted from its start to its last record.
    """
    if result.seconds is not None:
        return result.seconds
    total = 0.0
    for file in scalar_files(work_dir):
        started = time.strptime(file.parts[-3], '%Y%m%d_%H%M%S')
        total += max(0.0, file.stat().st_mtime - time.mktime(started))
    return total
