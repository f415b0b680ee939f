"""The page of a run and its sections."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from mmtransmamba.utils.checkpoint_files import write
from mmtransmamba.visualization.report.charts import heat_map, line_chart, number
from mmtransmamba.visualization.report.environment import this_machine
from mmtransmamba.visualization.report.inheritance import Inheritance, Part
from mmtransmamba.visualization.report.markup import (
    document,
    duration,
    grid,
    large,
    none,
    table,
)
from mmtransmamba.visualization.report.reading import (
    Run,
    best,
    lower_is_better,
    part,
    read_run,
)

_CHARTS = 24
_ROWS = 400  # in a table of tensors


def write_report(work_dir: str | Path, path: str | Path | None = None) -> Path:
    """Write the report of a run, or of a converted model, as one HTML file.

    The page shows final results, curves, layer weights, inherited weights, pictures,
    the config and the environment, as far as the folder contains them. It needs neither
    a network nor scripts.

    Args:
        work_dir: The run's folder.
        path: File to write; ``report.html`` in the folder by default.

    Returns:
        The file.

    Raises:
        FileNotFoundError: The folder contains no run.
        ValueError: ``path`` is a folder, or its parent folder does not exist.

    Example:
        >>> from mmtransmamba.visualization.report import write_report
        >>> write_report('work_dirs/digits_transfer')  # doctest: +SKIP
    """
    run = read_run(work_dir)
    path = run.work_dir / 'report.html' if path is None else Path(path)
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f'{path} must be a file in a folder that exists.')
    # Names in JSON may contain unpaired surrogates, which cannot be encoded.
    write(path, render(run).encode('utf-8', 'replace'))
    return path


def render(run: Run) -> str:
    """The page of a run as text."""
    sections = [
        ('results', 'Results', _results(run)),
        ('curves', 'Curves', _curves(run)),
        ('layer-weights', 'Layer weights', _layer_weights(run)),
        ('inheritance', 'Inherited weights', _inheritance(run)),
        ('pictures', 'Pictures', _pictures(run)),
        ('config', 'Config', _config(run)),
        ('environment', 'Environment', _environment(run)),
    ]
    return document(
        run.title,
        _kind(run),
        summary(run),
        _tiles(run),
        sections,
        f'{_notes(run)}<p>Written by mmtransmamba from '
        f'{escape(str(run.work_dir))}.</p>',
    )


def summary(run: Run) -> str:
    """One sentence about a run."""
    model = part(run.config, 'model')
    student = _model_name(part(model, 'student') or model)
    teacher = _teacher_name(part(model, 'teacher'))
    if student and teacher:
        subject = f'{student} learned from {teacher}'
    elif student:
        subject = f'{student} was trained'
    elif run.inheritance and not run.losses:
        subject = 'A model was converted'
    else:
        subject = 'A model was trained'
    if run.epochs is not None:
        subject += f' for {_count(run.epochs, "epoch")}'
    elif run.iterations is not None:
        subject += f' for {_count(run.iterations, "iteration")}'
    if run.resumed:
        subject += f', in {run.resumed + 1} sittings'
    if student and teacher:
        kinds = _short(part(model, 'type')), _short(part(model, 'teacher', 'type'))
        subject += f' ({" with ".join(filter(None, kinds))})'
    return f'{subject}.'


def _kind(run: Run) -> str:
    if part(run.config, 'model', 'teacher'):
        return 'Distillation run'
    if run.inheritance and not (run.losses or run.config):
        return 'Conversion'
    return 'Training run'


def _short(name: Any) -> str:
    return str(name or '').rpartition('.')[2]


def _model_name(model: Any) -> str:
    """The backbone's name if there is one, otherwise the model's."""
    inner = part(model, 'backbone') or part(model, 'model')
    return _short(part(inner, 'type') or part(model, 'type'))


def _teacher_name(teacher: Any) -> str:
    model = part(teacher, 'model')
    if isinstance(model, str) and model:
        return Path(model).stem
    return _model_name(model) or _short(part(teacher, 'type'))


def _count(value: int, what: str) -> str:
    return f'{value:,} {what}{"" if value == 1 else "s"}'


def _tiles(run: Run) -> list[tuple[str, str]]:
    tiles = []
    for name, points in list(run.metrics.items())[:2]:
        found = best(name, points)
        if found is not None:
            tiles.append((number(found[1]), f'best {name}'))
    if run.epochs is not None:
        tiles.append((f'{run.epochs:,}', 'epochs' if run.epochs != 1 else 'epoch'))
    elif run.iterations is not None:
        tiles.append((f'{run.iterations:,}', 'iterations'))
    if run.seconds is not None:
        tiles.append((duration(run.seconds), 'wall-clock time'))
    if run.parameters is not None:
        tiles.append((large(run.parameters), 'parameters'))
    for found in run.inheritance[:1]:
        tiles.append((_percent(found.inherited, found.parameters), 'inherited'))
    return tiles


def _percent(share: int, whole: int) -> str:
    return f'{100 * share / max(whole, 1):.1f} %'


def _results(run: Run) -> str:
    if not run.metrics:
        return none('No validation is on record.')
    time = 'epoch' if run.by_epoch else 'iteration'
    teacher = bool(run.teacher)
    # A distiller logs its student's metrics.
    model = 'Student' if part(run.config, 'model', 'teacher') or teacher else 'Model'
    head = ['Metric', *(['Teacher'] if teacher else []), f'{model}, last']
    head += ['Best', f'Best at {time}', 'Better is']
    rows = []
    for name, points in run.metrics.items():
        found = best(name, points)
        row = [name]
        if teacher:
            row.append(number(run.teacher[name]) if name in run.teacher else '–')
        row += [number(points[-1][1])]
        row += ['–', '–'] if found is None else [number(found[1]), f'{found[0]:,}']
        rows.append([*row, 'lower' if lower_is_better(name) else 'higher'])
    made = table(head, rows, range(1, len(head) - 1))
    extent = [
        _count(run.epochs, 'epoch') if run.epochs is not None else '',
        _count(run.iterations, 'iteration') if run.iterations is not None else '',
        f'{run.seconds:,.0f} s' if run.seconds is not None else 'time not known',
        f'{run.parameters:,} parameters' if run.parameters is not None else '',
    ]
    words = '; '.join(filter(None, extent))
    return f'<div class="card">{made}</div><p class="note">{words}.</p>'


def _curves(run: Run) -> str:
    time = 'epoch' if run.by_epoch else 'iteration'
    charts = []
    for name, points in run.metrics.items():
        value = run.teacher.get(name)
        reference = None if value is None else ('teacher', value)
        charts.append(line_chart({name: points}, name, time, reference, log=True))
    losses = dict(run.losses)
    total = losses.pop('loss', None)
    if total is not None:
        title = 'loss, all terms' if losses else 'loss'
        charts.append(line_chart({'loss': total}, title, run.train_axis, log=True))
    if run.rates:
        charts.append(line_chart(run.rates, 'learning rate', run.train_axis))
    for name, points in {**losses, **run.extras}.items():
        charts.append(line_chart({name: points}, name, run.train_axis, log=True))
    parts = [grid(charts[:_CHARTS])] if charts else []
    if len(charts) > _CHARTS:
        parts.append(none(f'{len(charts) - _CHARTS} further curves are left out.'))
    missing = [
        words
        for words, found in (
            ('validation', run.metrics),
            ('loss', run.losses),
            ('learning rate', run.rates),
        )
        if not found
    ]
    if missing:
        parts.append(none(f'Not on record: {", ".join(missing)}.'))
    return ''.join(parts)


def _layer_weights(run: Run) -> str:
    if not run.layer_weights:
        return none('None on record; the hook LayerWeightsHook writes them.')
    terms: dict[str, dict[str, Any]] = {}
    for name, points in run.layer_weights.items():
        term, _, layer = name.rpartition('/')
        label = f'block {int(layer) + 1}' if layer.isdecimal() else layer
        terms.setdefault(term or 'layers', {})[label] = points
    maps = (heat_map(rows, f'term {term}') for term, rows in terms.items())
    return f'<div class="wide">{"".join(maps)}</div>'


def _inheritance(run: Run) -> str:
    if not run.inheritance:
        return none('No subclone_report.json and no conversion_report.json.')
    return ''.join(map(_account, run.inheritance))


def _account(found: Inheritance) -> str:
    whole = found.parameters
    shares = [
        ('taken', 'inherited', found.inherited),
        ('fresh', 'fresh', found.fresh),
        ('kept', "kept from the model's initialisation", found.kept),
    ]
    shares = [share for share in shares if share[2] > 0]
    bar = ''.join(
        f'<span class="{style}" style="flex:{100 * size / max(whole, 1):.2f}"></span>'
        for style, _, size in shares
    )
    key = ''.join(
        f'<span><i class="{style}"></i>{words} {size:,} '
        f'({_percent(size, whole)})</span>'
        for style, words, size in shares
    )
    spoken = ', '.join(f'{words} {_percent(size, whole)}' for _, words, size in shares)
    rows = [
        [
            p.name,
            f'{p.tensors:,}',
            f'{p.values:,}',
            f'{p.inherited:,}',
            _percent(p.inherited, p.values),
        ]
        for p in found.actions
    ]
    all_tensors = sum(p.tensors for p in found.actions)
    rows.append(
        [
            'in all',
            f'{all_tensors:,}',
            f'{whole:,}',
            f'{found.inherited:,}',
            _percent(found.inherited, whole),
        ]
    )
    unused = found.unused
    rows.append(
        [
            "unused, of the source's",
            f'{unused.tensors:,}',
            f'{unused.values:,}',
            '–',
            '–',
        ]
    )
    made = table(
        ['Action', 'Tensors', 'Parameters', 'Inherited', 'Share'], rows, range(1, 5)
    )
    return (
        f'<p class="note">{escape(found.file)}. {escape(found.title)}.</p>'
        f'<div class="bar" role="img" aria-label="{spoken}">{bar}</div>'
        f'<div class="key">{key}</div><div class="card">{made}</div>'
        + _tensors('Every tensor of the model', found.details)
        + _tensors('Unused tensors of the source', found.unused_names)
    )


def _tensors(title: str, parts: Sequence[Part]) -> str:
    if not parts:
        return ''
    detailed = any(p.words for p in parts)
    head = ['Tensors (* is a number)', 'Count', 'Parameters']
    if detailed:
        head += ['Inherited', 'Action', 'From', 'Part or reason', 'Rest']
    rows = []
    for p in parts[:_ROWS]:
        row = [p.name, f'{p.tensors:,}', f'{p.values:,}']
        if detailed:
            row += [_percent(p.inherited, p.values), *p.words]
        rows.append(row)
    made = table(head, rows, range(1, 4 if detailed else 3))
    if len(parts) > _ROWS:
        made += none(f'{len(parts) - _ROWS:,} further rows are left out.')
    return f'<details><summary>{title}</summary><div>{made}</div></details>'


def _pictures(run: Run) -> str:
    if not run.pictures:
        return none('The run left none.')
    figures = ''.join(
        f'<figure><figcaption>{escape(each.name)}</figcaption>'
        f'<img src="{each.data_uri}" alt="Picture {escape(each.name)} of the run">'
        '</figure>'
        for each in run.pictures
    )
    return f'<div class="wide">{figures}</div>'


def _config(run: Run) -> str:
    if not run.config_text:
        return none('No config is in the folder.')
    return (
        f'<details><summary>{escape(run.config_file)}</summary>'
        f'<pre tabindex="0">{escape(run.config_text)}</pre></details>'
    )


def _environment(run: Run) -> str:
    logged = run.environment
    first = (
        f'<div class="card">{table(["Logged by the run", ""], logged.items())}</div>'
        if logged
        else none('The run logged none.')
    )
    here = table(['Where this report was written', ''], this_machine().items())
    return (
        f'{first}<details><summary>The machine that wrote this report</summary>'
        f'<div>{here}</div></details>'
        '<p class="note">The command is not known: runs do not record it.</p>'
    )


def _notes(run: Run) -> str:
    return ''.join(f'<p class="bad">{escape(note)}</p>' for note in run.notes)
