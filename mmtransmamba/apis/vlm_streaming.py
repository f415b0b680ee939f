"""Text of a model piece by piece, while it is being generated."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from threading import Event, Thread
from typing import Any

from torch import Tensor, nn


def until_stop(text: str, stops: Sequence[str]) -> str:
    """The text up to the first of some stop strings, and with it.

    The token that completes one may have more, a line break for example.
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
    """Pieces of what a head generates for one prompt.

    The model runs in a thread of its own. It stops when the caller does.

    Args:
        head: Its ``generation`` holds the settings of transformers' ``generate``.
        model, processor, batch: See
            :meth:`~mmtransmamba.models.multimodal.heads.VisionLanguageHead.generate`.
        stops: What ends the text, and is its end.

    Raises:
        ValueError: Beams are searched, whose text is not known before the end.
        Exception: Whatever goes wrong in the model.
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
        stopping_criteria=StoppingCriteriaList([_Stopped(stopped)]),
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
    """Ends generation when an event is set."""

    def __init__(self, event: Event) -> None:
        self.event = event

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        return input_ids.new_full((len(input_ids),), self.event.is_set()).bool()


def _without_rest(pieces: Iterator[str], stops: Sequence[str]) -> Iterator[str]:
    """Pieces of the text that :func:`until_stop` leaves of all of them."""
    text = ''
    for piece in pieces:
        kept = until_stop(text + piece, stops)
        if kept[len(text) :]:
            yield kept[len(text) :]
        if kept != text + piece or any(kept.endswith(stop) for stop in stops):
            return
        text = kept
