"""Text search in videos: a trained retriever, and an index of a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmtransmamba.apis.configs import read_config
from mmtransmamba.datasets.video_text import (
    CorruptVideoError,
    list_videos,
    read_video,
)
from mmtransmamba.engine.student import student_config
from mmtransmamba.models import load_pretrained
from mmtransmamba.models.retrieval import TextVideoRetriever
from mmtransmamba.models.teachers.fingerprints import weights_hash
from mmtransmamba.registry import MODELS, TASK_UTILS
from mmtransmamba.utils.checkpoint_files import write
from mmtransmamba.utils.config_data import as_data, check_data
from mmtransmamba.utils.text_files import parse_json

FORMAT = 'mmtransmamba video index 2'
OLD_FORMAT = 'mmtransmamba video index 1'
"""It named the model's config file, which is code."""


class Retriever:
    """A trained text-video retrieval model, with the processing of its inputs.

    Args:
        config: A config of ``configs/video_retrieval`` or of the quickstart, or its
            file. Besides the model it has ``test_pipeline``, which reads a video file,
            and ``tokenizer``. For a distiller, the student is used.
        checkpoint: File of the trained weights.
        device: Device of the model.

    Attributes:
        checkpoint: Path of the checkpoint.
        settings: Plain data from which :meth:`for_queries` rebuilds the model; None if
            the model has parts from other packages.

    Raises:
        FileNotFoundError: A file does not exist.
        ValueError: The config lacks these parts, the model is not a retriever, or the
            device does not exist.
        CheckpointError: The checkpoint does not fit the model.
    """

    def __init__(
        self,
        config: str | Path | Config,
        checkpoint: str | Path,
        device: str | torch.device = 'cpu',
    ) -> None:
        config = read_config(config)
        parts = ('model', 'test_pipeline', 'tokenizer')
        missing = [name for name in parts if name not in config]
        if missing:
            raise ValueError(
                f'{config.filename or "The config"} has no {" and no ".join(missing)}: '
                'it is none of text-video retrieval.'
            )
        settings = dict(student_config(config.model))
        if config.get('data_preprocessor'):
            settings['data_preprocessor'] = config.data_preprocessor
        # The checkpoint already contains the initial weights.
        settings.pop('text_checkpoint', None)
        with DefaultScope.overwrite_default_scope('mmtransmamba'):
            self.model = MODELS.build(settings)
            self.tokenizer = TASK_UTILS.build(config.tokenizer)
            self.pipeline = Compose(config.test_pipeline)
        if not isinstance(self.model, TextVideoRetriever):
            raise ValueError(
                f'{type(self.model).__name__} is not a model of text-video retrieval.'
            )
        load_pretrained(self.model, checkpoint)
        self.checkpoint = str(Path(checkpoint).absolute())
        self.settings = as_data(dict(model=settings, tokenizer=config.tokenizer))
        try:
            self.model.to(device).eval()
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f'device={str(device)!r} cannot be used: {error}'
            ) from error

    @classmethod
    def for_queries(
        cls,
        settings: Mapping[str, Any],
        checkpoint: str | Path,
        device: str | torch.device = 'cpu',
    ) -> Retriever:
        """A retriever that embeds texts, built from the contents of an index.

        Args:
            settings: An index's ``settings``. They are data: only parts of this package
                that they name are imported or called.
            checkpoint, device: As above.

        Raises:
            ValueError: The settings name something else.
        """
        check_data(settings)
        return cls(Config(dict(settings, test_pipeline=[])), checkpoint, device)

    def read_video(self, path: str | Path) -> Tensor:
        """Pixels of a video file in the format of the model's preprocessor.

        Returns:
            uint8 ``[3, T, H, W]``.

        Raises:
            CorruptVideoError: The file cannot be decoded.
        """
        return read_video(self.pipeline, path)

    @torch.no_grad()
    def embed_videos(self, videos: Tensor) -> Tensor:
        """Embeddings ``[B, D]`` on the CPU of pixels ``[B, 3, T, H, W]``."""
        data = self.model.data_preprocessor(dict(video=videos))
        return self.model(data['inputs']).cpu()

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings ``[n, D]`` on the CPU of ``texts``.

        Raises:
            ValueError: There is no text, or the tokenizer does not know a word.
        """
        if isinstance(texts, str) or not texts:
            raise ValueError(f'Texts must be a list of one string at least: {texts!r}')
        device = next(self.model.parameters()).device
        tokens = {k: v.to(device) for k, v in self.tokenizer(texts).items()}
        return self.model.encode_text(**tokens).cpu()


@dataclass
class VideoIndex:
    """Embeddings of videos.

    Attributes:
        names: Names of the videos, N.
        features: Embeddings, float32 ``[N, D]``, of length 1.
        info: Further stored data: the ``checkpoint`` of the model that computed the
            embeddings, the hash of its ``weights``, and the ``folder`` of the videos.
        settings: Settings of the model and its tokenizer for
            :meth:`Retriever.for_queries`; None if it has parts from other packages.
    """

    names: list[str]
    features: Tensor
    info: dict[str, str]
    settings: dict[str, Any] | None = None

    def search(self, query: Tensor, count: int) -> list[tuple[str, float]]:
        """Names and cosines of the videos nearest to an embedding ``[D]``.

        Args:
            query: The embedding.
            count: Number of videos, at least 1; all if there are fewer.

        Raises:
            ValueError: The count is not positive, or the query has another width or is
                not finite.
        """
        if count < 1:
            raise ValueError(
                f'The number of videos to find must be 1 at least: {count}'
            )
        if query.shape != self.features.shape[1:]:
            raise ValueError(
                f'The index has embeddings of {self.features.shape[1]} channels, the '
                f'query {tuple(query.shape)}: they come from different models.'
            )
        if not bool(query.isfinite().all()):
            raise ValueError(
                'The embedding of the query is NaN or infinite: nothing is near it.'
            )
        cosines = self.features @ query
        found = cosines.topk(min(count, len(self.names)))
        return [
            (self.names[i], value)
            for value, i in zip(found.values.tolist(), found.indices, strict=True)
        ]

    def check_weights(self, retriever: Retriever) -> None:
        """Check that a model embeds texts for these embeddings of videos.

        An index of an older version does not say which weights it was made with.

        Raises:
            ValueError: The model's weights are not those that made the index.
        """
        weights = self.info.get('weights')
        if weights is not None and weights != weights_hash(retriever.model):
            raise ValueError(
                f'the weights in {retriever.checkpoint} are not those that the index '
                'was made with; give their checkpoint, or index the videos anew'
            )

    def save(self, path: str | Path) -> None:
        """Write a ``.safetensors`` file: tensors and strings, nothing executable."""
        from safetensors.torch import save

        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = dict(
            format=FORMAT,
            names=json.dumps(self.names),
            info=json.dumps(self.info),
            settings=json.dumps(self.settings),
        )
        write(path, save({'features': self.features.contiguous()}, text))

    @classmethod
    def load(cls, path: str | Path) -> VideoIndex:
        """Read a file written by :meth:`save`.

        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: The file is of another kind.
        """
        from safetensors import SafetensorError, safe_open

        if not Path(path).is_file():
            raise FileNotFoundError(f'There is no index at {path}.')
        try:
            with safe_open(path, 'pt') as file:
                text = file.metadata() or {}
                if text.get('format') not in (FORMAT, OLD_FORMAT):
                    raise ValueError(f'{path} is not an index of videos.')
                features = file.get_tensor('features')
        except SafetensorError as error:
            raise ValueError(f'{path} is not an index of videos: {error}') from error
        try:
            names, info = parse_json(text['names']), parse_json(text['info'])
            settings = parse_json(text.get('settings', 'null'))
        except (KeyError, ValueError) as error:
            raise ValueError(
                f'{path} is not an index of videos: its names or their origin cannot '
                f'be read ({type(error).__name__}: {error}).'
            ) from error
        if not isinstance(names, list) or not isinstance(info, dict):
            raise ValueError(
                f'{path} is not an index of videos: its names are not a list.'
            )
        if features.ndim != 2 or len(names) != len(features):
            raise ValueError(
                f'{path} has {len(names)} names for embeddings of the shape '
                f'{list(features.shape)}.'
            )
        _check_features(features, names, f'{path}: ')
        return cls(names, features, info, settings)


class _VideoFiles(Dataset):
    """Pixels of files, or the error messages for files that do not decode."""

    def __init__(self, retriever: Retriever, paths: list[Path]) -> None:
        self.read = retriever.read_video
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[int, Tensor | str]:
        try:
            return index, self.read(self.paths[index])
        except CorruptVideoError as error:
            return index, str(error)


def index_folder(
    retriever: Retriever,
    folder: str | Path,
    batch_size: int = 8,
    num_workers: int = 0,
    progress: Callable[[Iterable], Iterable] = iter,
) -> tuple[VideoIndex, list[str]]:
    """Embed all videos below a folder.

    Args:
        retriever: The model.
        folder: Folder searched for videos, by extension, including its subfolders.
        batch_size: Videos per batch.
        num_workers: Number of decoding processes.
        progress: Wraps the batches; ``tqdm`` for example.

    Returns:
        The index, with names relative to the folder, and the error messages for files
        that are missing from it because they do not decode.

    Raises:
        FileNotFoundError: The folder does not exist, or contains no video.
        ValueError: Not one video decodes, or the model computes NaN for one.
    """
    folder = Path(folder)
    paths = list_videos(folder)
    if not paths:
        raise FileNotFoundError(f'There is no video in {folder}.')
    loader = DataLoader(
        _VideoFiles(retriever, paths),
        batch_size,
        num_workers=num_workers,
        collate_fn=list,
    )
    names, features, faults = [], [], []
    for batch in progress(loader):
        faults += [video for _, video in batch if isinstance(video, str)]
        good = [(i, video) for i, video in batch if not isinstance(video, str)]
        if good:
            names += [paths[i].relative_to(folder).as_posix() for i, _ in good]
            features.append(retriever.embed_videos(torch.stack([v for _, v in good])))
    if not names:
        raise ValueError(
            f'None of the {len(paths)} videos in {folder} can be decoded: {faults[0]}'
        )
    info = dict(
        folder=str(folder.absolute()),
        checkpoint=retriever.checkpoint,
        weights=weights_hash(retriever.model),
    )
    index = VideoIndex(names, torch.cat(features), info, retriever.settings)
    _check_features(index.features, names)
    return index, faults


def _check_features(features: Tensor, names: Sequence[str], where: str = '') -> None:
    """Refuse embeddings that cannot be compared.

    Raises:
        ValueError: An embedding is NaN or infinite; the message names its video.
    """
    bad = (~features.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f'{where}the embeddings of {len(bad)} of {len(names)} videos are NaN or '
            f'infinite, that of {names[bad[0]]} first.'
        )
