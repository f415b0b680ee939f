"""Streaming of the text that a model generates."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from threading import Event, Thread
from typing import Any

from torch import Tensor, nn


def until_stop(text: str, stops: Sequence[str]) -> str:
    """The text up to and including the first stop string.

    The token that completes a stop string may contain more, such as a line break.
    """
    found = [(text.find(stop), stop) for stop in stops if stop in text]
    if not found:
        return text
    place, stop = min(found)
    return text[: place + len(stop)]


def stream_text(
    head: nn.Module,
    model: nn.Module,
    processor: Any,
    batch: dict[str, Tensor],
    stops: Sequence[str] = (),
) -> Iterator[str]:
    """Stream the text that a head generates for one prompt.

    The model runs in a separate thread. It stops when the caller does.

    Args:
        head: Its ``generation`` holds the settings of transformers' ``generate``.
        model, processor, batch: See
            :meth:`~mmtransmamba.models.multimodal.heads.VisionLanguageHead.generate`.
        stops: Strings that end the text, and are part of it.

    Raises:
        ValueError: Beam search is used, whose text is not known before the end.
        Exception: Any error of the model.
    """
    from transformers import StoppingCriteriaList, TextIteratorStreamer

    if head.generation.get('num_beams', 1) > 1:
        raise ValueError(
            f'{type(head).__name__}: text of {head.generation["num_beams"]} beams '
            'cannot be streamed; set num_beams=1.'
        )
    tokenizer = getattr(processor, 'tokenizer', processor)
    streamer = TextIteratorStreamer(
        tokenizer, skip_prompt=True, skip_special_tokens=True
    )
    stopped = Event()
    head = copy.copy(head)
    head.generation = head.generation | dict(
        streamer=streamer,
        stopping_criteria=StoppingCriteriaList(
            [*(head.generation.get('stopping_criteria') or ()), _Stopped(stopped)]
        ),
    )
    errors = []

    def run() -> None:
        try:
            head.generate(model, processor, batch)
        except BaseException as error:
            errors.append(error)
            streamer.on_finalized_text('', stream_end=True)

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        yield from _without_rest(streamer, stops)
    finally:
        stopped.set()
        thread.join()
    if errors:
        raise errors[0]


class _Stopped:
    """Stops generation when an event is set."""

    def __init__(self, event: Event) -> None:
        self.event = event

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        return input_ids.new_full((len(input_ids),), self.event.is_set()).bool()


def _without_rest(pieces: Iterator[str], stops: Sequence[str]) -> Iterator[str]:
    """Pieces of the text up to the end that :func:`until_stop` finds."""
    text = ''
    for piece in pieces:
        kept = until_stop(text + piece, stops)
        if kept[len(text) :]:
            yield kept[len(text) :]
        if kept != text + piece or any(kept.endswith(stop) for stop in stops):
            return
        text = kept
