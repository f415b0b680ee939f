"""LLaVA-1.5's conversation as a chat template, shared by data and models."""

from __future__ import annotations

import json

TEXT_OF = (
    '{%- macro text_of(content) -%}{% if content is string %}{{ content }}{% else %}'
    "{% for part in content %}{% if part['type'] == 'image' %}"
    "{{ image_token + '\\n' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    '{% endif %}{%- endmacro -%}'
)
"""A macro: the text of a message, which is a string or a list of parts."""

LLAVA_V1 = (
    TEXT_OF
    + "{% if messages[0]['role'] == 'system' %}{{ text_of(messages[0]['content']) }}"
    '{% else %}A chat between a curious user and an artificial intelligence '
    'assistant. The assistant gives helpful, detailed, and polite answers to the '
    "user's questions.{% endif %}{{ ' ' }}"
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ 'USER: ' + text_of(message['content']) + ' ' }}"
    "{% elif message['role'] == 'assistant' %}{{ 'ASSISTANT: ' }}"
    "{% generation %}{{ text_of(message['content']) }}{{ eos_token }}"
    '{% endgeneration %}{% endif %}{% endfor %}'
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""The conversation of Vicuna and LLaVA-1.5; needs the variable ``image_token``."""


def with_image_token(template: str, image_token: str) -> str:
    """A template that defines the image token itself, as a saved folder requires."""
    return f'{{%- set image_token = {json.dumps(image_token)} -%}}{template}'


def check_chat_template(template: str) -> None:
    """Refuse a chat template that is not a Jinja template.

    Raises:
        ValueError: The template is empty or does not parse; the message names the line.
    """
    from jinja2 import TemplateSyntaxError
    from transformers.utils.chat_template_utils import render_jinja_template

    if not template.strip():
        raise ValueError('The chat template is empty.')
    try:
        render_jinja_template([[dict(role='user', content='')]], chat_template=template)
    except TemplateSyntaxError as error:
        raise ValueError(
            f'The chat template does not parse, line {error.lineno}: {error.message}'
        ) from error
    except Exception:  # unsupported roles or missing variables: reported when used
        return
