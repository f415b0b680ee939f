"""Chat templates, and the learned characters of a rendered conversation."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from weakref import WeakKeyDictionary

from mmengine.logging import print_log

from mmtransmamba.datasets.conversations.conversation import (
    IMAGE,
    BadSampleError,
    Turn,
)
from mmtransmamba.utils.chat_templates import LLAVA_V1, TEXT_OF

TEMPLATES = {
    'llava_v1': LLAVA_V1,
    'llava_plain': TEXT_OF
    + "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ image_token * (text_of(message['content']).split(image_token) | length - 1) }}"
    "{% elif message['role'] == 'assistant' %}{% generation %}"
    "{{ text_of(message['content']) + '\\n' }}{% endgeneration %}"
    '{% endif %}{% endfor %}',
}
"""Templates that may be chosen by name, for tokenizers without one of their own.

``llava_v1`` is the conversation of Vicuna and LLaVA-1.5, ``llava_plain`` what LLaVA's
projector is pre-trained on: the image and its caption, the instruction left out.
"""

_GENERATION = re.compile(r'\{%-?\s*generation\s*-?%\}')
_SENTINEL = '\ue000{}\ue001'  # from a private area of Unicode
_FIXED_DAY = datetime(2024, 7, 26)  # Llama 3.2's template has it if there is no clock
# In the place of the function of this name, which reads the clock. transformers lets
# no variable be a function.
_FIXED_CLOCK = (
    '{%- macro strftime_now(format) -%}{{ format'
    + ''.join(
        f" | replace('%{code}', '{_FIXED_DAY.strftime('%' + code)}')"
        for code in (*'YyBbmdjAaHIMSp', '-d', '-m')
    )
    + ' }}{%- endmacro -%}'
)

Span = tuple[int, int]


class ChatTemplate:
    """A Jinja chat template together with the special tokens it writes.

    Args:
        name: Name in errors.
        text: The template.
        variables: Variables of the template besides the messages.
        marks: Texts of the tokenizer's special and added tokens.
        image_token: Text of an image in the output.
    """

    def __init__(
        self,
        name: str,
        text: str,
        variables: Mapping[str, Any],
        marks: Sequence[str],
        image_token: str,
    ) -> None:
        self.name = name
        self.text = _FIXED_CLOCK + text
        # Llama 3 writes the current date, but samples must not change from day to day.
        today = dict(date_string=_FIXED_DAY.strftime('%d %b %Y'))
        self.variables = today | dict(variables)
        self.variables['image_token'] = image_token
        self.image_token = image_token
        self.marks = tuple(marks)
        self.has_tag = bool(_GENERATION.search(text))
        self._structures: dict[tuple[str, ...], _Structure] = {}
        self._warned = False
        self._in_parts = name not in TEMPLATES and self._takes_parts()

    def prompt(self, turns: Sequence[Turn]) -> str:
        """The text of a prompt, up to the start of the assistant's answer."""
        return self._render(self._messages(turns), prompt=True)[0]

    def conversation(self, turns: Sequence[Turn]) -> tuple[str, list[Span]]:
        """The whole text, and the spans of the assistant's turns.

        Returns:
            The text, and start and end of each of the assistant's turns, including the
            template's end-of-turn mark.

        Raises:
            ValueError: The template writes the start of a conversation differently from
                the prompt.
            BadSampleError: The template changes the words.
        """
        messages = self._messages(turns)
        if self.has_tag:
            text, spans = self._render(messages, spans=True)
            if len(spans) != sum(turn.role == 'assistant' for turn in turns):
                raise ValueError(
                    f'The chat template {self.name} has a {{% generation %}} tag, but '
                    f'marks {len(spans)} turns of the assistant among the '
                    f'roles {[turn.role for turn in turns]}.'
                )
        else:
            text, _ = self._render(messages)
            roles = tuple(turn.role for turn in turns)
            if roles not in self._structures:
                self._structures[roles] = _Structure(self, roles)
            spans = self._structures[roles].spans(text, self._texts(turns))
        said = [text[begin:end] for begin, end in spans]
        if not self._warned and not all(words.endswith(self.marks) for words in said):
            self._warned = True
            print_log(
                f'The chat template {self.name} writes no special token at the end of '
                'an answer: a model that is trained with it does not learn to stop.',
                'current',
                logging.WARNING,
            )
        return text, spans

    def _texts(self, turns: Sequence[Turn]) -> list[str]:
        return [turn.text.replace(IMAGE, self.image_token) for turn in turns]

    def _messages(self, turns: Sequence[Turn]) -> list[dict]:
        texts = zip(turns, self._texts(turns), strict=True)
        return [self._message(turn.role, text) for turn, text in texts]

    def _message(self, role: str, text: str) -> dict:
        content = [dict(type='text', text=text)] if self._in_parts else text
        return dict(role=role, content=content)

    def _render(
        self, messages: list[dict], prompt: bool = False, spans: bool = False
    ) -> tuple[str, list[Span]]:
        from jinja2 import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            texts, found = render_jinja_template(
                [messages],
                chat_template=self.text,
                add_generation_prompt=prompt,
                return_assistant_tokens_mask=spans,
                **self.variables,
            )
        except (TemplateError, TypeError) as error:
            raise BadSampleError(
                'template',
                f'The chat template {self.name} cannot render the roles '
                f'{[message["role"] for message in messages]}: {error}',
            ) from error
        return texts[0], [tuple(span) for span in found[0]] if spans else []

    def _takes_parts(self) -> bool:
        """Whether a message's content must be a list, as for processors."""
        probe = _SENTINEL.format('probe')
        errors = []
        for in_parts in (False, True):
            self._in_parts = in_parts
            try:
                text, _ = self._render([self._message('user', probe)], prompt=True)
            except BadSampleError as error:
                errors.append(error.message)
                continue
            # A template for plain text prints a list in Python's notation.
            if probe in text and "'type'" not in text:
                return in_parts
        raise ValueError(
            f"The chat template {self.name} does not write the user's text, neither "
            f'as a string nor as a list of parts. {" ".join(errors)}'
        )


class _Structure:
    """The text that a template without the generation tag writes around the turns.

    The template is rendered with marks in place of the texts, once for the whole
    conversation and once for each prompt within it. A prompt must be a prefix of the
    whole. The text after it is the assistant's.
    """

    def __init__(self, template: ChatTemplate, roles: tuple[str, ...]) -> None:
        self.template = template
        self.roles = roles
        self.pieces = self._pieces(len(roles), prompt=False)
        self.before = {}
        self.after = {}
        for i, role in enumerate(roles):
            if role == 'assistant':
                header = self._header(i)
                self.before[i] = len(self.pieces[i]) - len(header)
                self.after[i] = self._end_of_turn(i)

    def _pieces(self, count: int, prompt: bool) -> list[str]:
        marks = [_SENTINEL.format(i) for i in range(count)]
        messages = [
            self.template._message(role, mark)
            for role, mark in zip(self.roles, marks, strict=False)
        ]
        text, _ = self.template._render(messages, prompt=prompt)
        pieces = []
        for mark in marks:
            piece, found, text = text.partition(mark)
            if not found:
                raise BadSampleError(
                    'template',
                    f'The chat template {self.template.name} does not write all of '
                    f'the turns {self.roles[:count]}, or not in their order',
                )
            pieces.append(piece)
        return [*pieces, text]

    def _header(self, turn: int) -> str:
        *earlier, header = self._pieces(turn, prompt=True)
        whole = self.pieces[turn]
        if earlier != self.pieces[:turn] or not whole.startswith(header):
            raise ValueError(
                f'The chat template {self.template.name} has no {{% generation %}} '
                f'tag, and its prompt for turn {turn} of the roles '
                f'{list(self.roles)} is not how the whole conversation begins, so '
                "that the assistant's tokens cannot be found: the prompt has "
                f'{[*earlier, header]} around the texts, the conversation '
                f'{self.pieces[: turn + 1]}. Mark the answers in the template, or '
                f'choose one of {sorted(TEMPLATES)}.'
            )
        return header

    def _end_of_turn(self, turn: int) -> int:
        """The length of the part after an answer that the model must write itself."""
        closed = self._pieces(turn + 1, prompt=False)[-1]
        # In a longer conversation, the header of the next turn follows directly.
        piece = os.path.commonprefix([closed, self.pieces[turn + 1]])
        ends = [
            piece.index(mark) + len(mark)
            for mark in self.template.marks
            if mark in piece
        ]
        if ends:
            return min(ends)
        # Without a special token, the end is text, such as a line break.
        return len(piece.rstrip()) or len(piece)

    def spans(self, text: str, said: Sequence[str]) -> list[Span]:
        """The spans of the assistant's turns in a rendered conversation."""
        at = len(self.pieces[0])
        spans = []
        if text.startswith(self.pieces[0]):
            for i, words in enumerate(said):
                follows = self.pieces[i + 1]
                # Many templates strip the texts.
                for form in (words, words.strip(), words.lstrip(), words.rstrip()):
                    if text.startswith(form + follows, at):
                        break
                else:
                    break
                end = at + len(form)
                if i in self.before:
                    spans.append((at - self.before[i], end + self.after[i]))
                at = end + len(follows)
            else:
                if at == len(text):
                    return spans
        raise BadSampleError(
            'template',
            f'the chat template {self.template.name} changes what is said in '
            f'{[words[:60] for words in said]}',
        )


_known: WeakKeyDictionary[Any, dict] = WeakKeyDictionary()


def chat_template(
    processor: Any, template: str | None = None, variables: Mapping | None = None
) -> ChatTemplate:
    """The chat template of a processor or tokenizer, or an explicit one.

    Args:
        processor: A transformers processor or tokenizer.
        template: A name from :data:`TEMPLATES`, or a Jinja template.
        variables: Variables of the template besides the messages, such as
            ``enable_thinking``.

    Raises:
        ValueError: There is no template, or none of this name.
    """
    tokenizer = getattr(processor, 'tokenizer', processor)
    name, text = _find(processor, tokenizer, template)
    key = (text, repr(sorted((variables or {}).items())), len(tokenizer))
    known = _known.setdefault(processor, {})
    if key not in known:
        token = getattr(processor, 'image_token', None)
        added = [str(token) for token in tokenizer.added_tokens_decoder.values()]
        known[key] = ChatTemplate(
            name,
            text,
            dict(tokenizer.special_tokens_map, **(variables or {})),
            [*tokenizer.all_special_tokens, *added],
            token or getattr(tokenizer, 'image_token', None) or IMAGE,
        )
    return known[key]


def _find(processor: Any, tokenizer: Any, template: str | None) -> tuple[str, str]:
    if template in TEMPLATES:
        return template, TEMPLATES[template]
    if template is not None:
        if '{' not in template:
            raise ValueError(
                f'There is no chat template {template!r}; known are '
                f'{sorted(TEMPLATES)}, and a Jinja template may be given.'
            )
        return 'that was given', template
    where = getattr(tokenizer, 'name_or_path', '') or type(tokenizer).__name__
    own = getattr(processor, 'chat_template', None) or tokenizer.chat_template
    if isinstance(own, Mapping):
        own = own.get('default')
    if not own:
        raise ValueError(
            f'The tokenizer of "{where}" has no chat template; choose one of '
            f'{sorted(TEMPLATES)} or give a Jinja template.'
        )
    return f'of "{where}"', own
