"""A conversation with a vision-language model in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from mmtransmamba.datasets.conversations import IMAGE, Conversation, Turn, load_image

from .vlm import VisionLanguageChat


class Talk:
    """A conversation with a model.

    Args:
        chat: The model.
        **generation: Settings of transformers' ``generate``.
    """

    def __init__(self, chat: VisionLanguageChat, **generation: object) -> None:
        self.chat = chat
        self.generation = generation
        self.begin()

    def begin(self) -> None:
        """Clear the conversation."""
        self.said = Conversation([])
        self.shown = []

    def show(self, file: str) -> None:
        """Attach an image to the next question.

        Raises:
            ValueError: The image does not exist.
        """
        self.shown.append(load_image(Path(file).expanduser()))

    def ask(self, question: str) -> Iterator[str]:
        """Stream the answer to a question.

        If the answer is interrupted, the part received stays in the conversation; if
        there is none, the question is removed.
        """
        turns, images = list(self.said.turns), list(self.said.images)
        text = f'{IMAGE}\n' * len(self.shown) + question.replace(IMAGE, '')
        asked = Conversation([*turns, Turn('user', text)], images + self.shown)
        answer = ''
        try:
            for piece in self.chat.stream(asked, **self.generation):
                answer += piece
                yield piece
        finally:
            if answer.strip():
                asked.turns.append(Turn('assistant', answer.strip()))
                self.said, self.shown = asked, []


def say(talk: Talk, question: str) -> None:
    """Print an answer while it is generated."""
    for piece in talk.ask(question):
        print(piece, end='', flush=True)
    print()


def converse(talk: Talk) -> None:
    """Read questions and commands until the end of the input."""
    prompt = ''
    if sys.stdin.isatty():
        import readline  # noqa: F401  (enables line editing)

        print('A question, /image FILE, /new or /quit.')
        prompt = '> '
    while True:
        try:
            line = input(prompt).strip()
        except (EOFError, KeyboardInterrupt):
            if prompt:
                print()
            return
        command, _, rest = line.partition(' ')
        try:
            if command == '/quit':
                return
            if command == '/new':
                talk.begin()
            elif command == '/image' and not rest:
                print('/image needs a file.')
            elif command == '/image':
                talk.show(rest.strip())
            elif command.startswith('/'):
                print(f'There is no command {command}; there are /image, /new, /quit.')
            elif line:
                say(talk, line)
        except KeyboardInterrupt:
            print(' (broken off)')
        except ValueError as error:
            print(error)
