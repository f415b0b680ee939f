"""Captions of text-video retrieval sets: the official files, and mmaction's JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmtransmamba.utils.checkpoint_files import write
from mmtransmamba.utils.text_files import TextFileError, read_json, read_table

Captions = dict[str, list[str]]
"""Captions by the name of their video file, as in mmaction's ``VideoTextDataset``."""


class AnnotationError(ValueError):
    """An annotation file without the expected content."""


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f'There is no file of annotations at {path}.')


def _read_json(path: Path) -> Any:
    _check_file(path)
    try:
        return read_json(path)
    except TextFileError as error:
        raise AnnotationError(str(error)) from error


def _read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    _check_file(path)
    try:
        names, rows = read_table(path)
    except TextFileError as error:
        raise AnnotationError(str(error)) from error
    missing = [name for name in columns if name not in names]
    if missing:
        raise AnnotationError(f'{path} has the columns {names}, but needs {missing}.')
    if not rows:
        raise AnnotationError(f'{path} has no row below its columns.')
    for row in rows:
        empty = [name for name in columns if not (row[name] or '').strip()]
        if empty:
            raise AnnotationError(
                f'{path}: a row has no {" and no ".join(empty)}: {row!r:.200}'
            )
    return rows


def _field(row: Any, name: str, kind: type, path: Path) -> Any:
    value = row.get(name) if isinstance(row, dict) else None
    if not isinstance(value, kind):
        raise AnnotationError(
            f'{path}: an entry has no {name!r} of type {kind.__name__}: {row!r:.200}'
        )
    return value


def read_msrvtt_train(split: str | Path, captions: str | Path) -> Captions:
    """Captions of a training split of MSR-VTT, 20 per video.

    Args:
        split: ``MSRVTT_train.9k.csv`` (or ``7k``), with the column ``video_id``.
        captions: ``MSRVTT_data.json``, with ``sentences`` of ``video_id`` and
            ``caption``.

    Returns:
        Captions by ``VIDEO_ID.mp4``, videos in the order of the split.

    Raises:
        FileNotFoundError: A file is missing.
        AnnotationError: A file has other content, or a video has no caption.
    """
    split, captions = Path(split), Path(captions)
    data = _read_json(captions)
    by_video: Captions = {}
    for sentence in _field(data, 'sentences', list, captions):
        video = _field(sentence, 'video_id', str, captions)
        caption = _field(sentence, 'caption', str, captions)
        by_video.setdefault(video, []).append(caption)
    videos = [row['video_id'] for row in _read_csv(split, ['video_id'])]
    without = [video for video in videos if video not in by_video]
    if without:
        raise AnnotationError(
            f'{captions} has no caption of {len(without)} of the {len(videos)} videos '
            f'in {split}: {", ".join(without[:5])}, …'
        )
    return {f'{video}.mp4': by_video[video] for video in videos}


def read_msrvtt_test(split: str | Path) -> Captions:
    """The 1k-A test split of MSR-VTT (JSFUSION), one caption per video.

    Args:
        split: ``MSRVTT_JSFUSION_test.csv``, with ``video_id`` and ``sentence``.

    Returns:
        Captions by ``VIDEO_ID.mp4``.

    Raises:
        FileNotFoundError: The file is missing.
        AnnotationError: The file has other content.
    """
    captions: Captions = {}
    for row in _read_csv(Path(split), ['video_id', 'sentence']):
        captions.setdefault(f'{row["video_id"]}.mp4', []).append(row['sentence'])
    return captions


def read_didemo(path: str | Path) -> Captions:
    """DiDeMo for paragraph retrieval; the joined descriptions are a video's caption.

    Args:
        path: ``train_data.json``, ``val_data.json`` or ``test_data.json`` of
            LocalizingMoments, also with ``.gz``: a list with ``video`` and
            ``description``. Descriptions are joined in the order of the file.

    Returns:
        One caption by the name of the video, whose extension may be missing.

    Raises:
        FileNotFoundError: The file is missing.
        AnnotationError: The file has other content.
    """
    path = Path(path)
    moments = _read_json(path)
    if not (isinstance(moments, list) and moments):
        raise AnnotationError(f'{path} holds no list of moments.')
    parts: Captions = {}
    for moment in moments:
        video = _field(moment, 'video', str, path)
        parts.setdefault(video, []).append(_field(moment, 'description', str, path))
    return {video: [' '.join(map(str.strip, each))] for video, each in parts.items()}


def read_captions(path: str | Path) -> Captions:
    """mmaction's JSON: ``{file name: [captions]}``.

    Raises:
        FileNotFoundError: The file is missing.
        AnnotationError: The file has other content, or is empty.
    """
    path = Path(path)
    captions = _read_json(path)
    well_formed = isinstance(captions, dict) and all(
        isinstance(each, list) and each and all(isinstance(text, str) for text in each)
        for each in captions.values()
    )
    if not (captions and well_formed):
        raise AnnotationError(
            f'{path} must map names of video files to lists of captions, '
            'with one video and a caption each at least.'
        )
    return captions


def write_captions(captions: Captions, path: str | Path) -> None:
    """Write mmaction's JSON."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, json.dumps(captions, indent=1, ensure_ascii=False).encode())


VIDEO_SUFFIXES = (
    '.3gp', '.avi', '.flv', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm',
    '.wmv',
)  # fmt: skip


def list_videos(folder: str | Path) -> list[Path]:
    """Video files below a folder, by their extension, sorted.

    Raises:
        FileNotFoundError: The folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f'There is no folder {folder}.')
    return sorted(
        path
        for path in folder.rglob('*')
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()
    )


def match_files(captions: Captions, folder: str | Path) -> tuple[Captions, list[str]]:
    """Map captions to the names of the files that exist.

    A name without a file matches the single file of the same name with another
    extension, for example after DiDeMo's many formats were all converted to one.

    Args:
        captions: Captions by the name in the annotation.
        folder: Folder of the videos; names in the result are relative to it.

    Returns:
        Captions by file name, and the names without a file of their own: of several
        names that only another extension would match to one file, none does.

    Raises:
        FileNotFoundError: The folder does not exist.
    """
    folder = Path(folder)
    files = [path.relative_to(folder).as_posix() for path in list_videos(folder)]
    stems = Counter(_stem(name) for name in files)
    by_stem = {_stem(name): name for name in files if stems[_stem(name)] == 1}
    exact = {name for name in captions if (folder / name).is_file()}
    alike = {name: by_stem.get(_stem(name)) for name in captions if name not in exact}
    wanted = Counter(alike.values())
    matched, missing = {}, []
    for name, texts in captions.items():
        file = alike.get(name)
        if name in exact:
            matched[name] = texts
        elif file is not None and file not in exact and wanted[file] == 1:
            matched[file] = texts
        else:
            missing.append(name)
    return matched, missing


def _stem(name: str) -> str:
    """The name without a video extension, or without a dot at the end."""
    head, dot, suffix = name.rpartition('.')
    known = f'.{suffix.lower()}' in VIDEO_SUFFIXES or not suffix
    return head if dot and known else name
