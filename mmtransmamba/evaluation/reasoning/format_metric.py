"""A metric for responses in the format of four sections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import BaseMetric

from mmtransmamba.registry import METRICS
from mmtransmamba.utils.reasoning_text import (
    SECTIONS,
    extract_answer,
    parse_response,
)


@METRICS.register_module()
class ReasoningFormat(BaseMetric):
    """Share of well-formed responses, in percent of all responses.

    * ``reasoning/well_formed``: the four sections, each once, in order, closed, not
      empty, and nothing outside them;
    * ``reasoning/summary``, ``…/caption``, ``…/reasoning``, ``…/conclusion``: this
      section is present, closed and not empty;
    * ``reasoning/order``: all four sections are opened, in order;
    * ``reasoning/duplicates``, ``reasoning/outside``, ``reasoning/stray``: a section
      occurs twice, there is text outside the sections, a closing tag has no opening
      tag;
    * ``reasoning/truncated``: the text ends within a section or a tag;
    * ``reasoning/no_answer``, ``reasoning/unclosed_answer``: no answer was extracted,
      or it came from a conclusion without its closing tag;
    * ``reasoning/words_summary`` and so on: mean number of words in this section, over
      the responses that have it.

    A data sample is a dict with ``text``, the whole response.

    Args:
        **kwargs: Arguments of mmengine's ``BaseMetric``.
    """

    default_prefix = 'reasoning'

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            self.results.append(_describe(sample['text']))

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Shares and means over all responses.

        Raises:
            ValueError: There are no responses.
        """
        if not results:
            raise ValueError('ReasoningFormat: there is no response to look at.')
        figures = {
            name: 100 * sum(r['is'][name] for r in results) / len(results)
            for name in results[0]['is']
        }
        for name in SECTIONS:
            words = [r['words'][name] for r in results if name in r['words']]
            if words:
                figures[f'words_{name.lower()}'] = sum(words) / len(words)
        return figures


def _describe(text: str) -> dict[str, Any]:
    response = parse_response(text)
    source = extract_answer(text).source
    flags = dict(well_formed=response.well_formed)
    flags |= {name.lower(): response.has(name) for name in SECTIONS}
    flags |= dict(
        order=response.in_order,
        duplicates=bool(response.duplicates),
        outside=bool(response.outside),
        stray=bool(response.stray_tags),
        truncated=response.truncated,
        no_answer=source == 'none',
        unclosed_answer=source == 'unclosed',
    )
    words = {
        name: sum(len(section.text.split()) for section in response.all(name))
        for name in SECTIONS
        if response.all(name)
    }
    return {'is': flags, 'words': words}
