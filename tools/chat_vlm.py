"""Talk to a vision-language model about images.

    chat_vlm.py MODEL --image FILE --question "What is this?"   # one answer
    chat_vlm.py MODEL [--image FILE]                            # a conversation

MODEL is a folder as transformers saves it, a hybrid included, or OWNER/NAME on the hub;
with --checkpoint it is a config, and that the checkpoint of its training. In a
conversation a line is a question, and commands are

    /image FILE   show an image with the next question
    /new          begin anew
    /quit         end (so does the end of the input)
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

# A clean checkout needs no installation of the package itself.
_ROOT = Path(__file__).absolute().parent.parent
if (_ROOT / 'mmtransmamba' / '__init__.py').is_file():
    sys.path.insert(0, str(_ROOT))

import mmtransmamba  # noqa: F401, I001  (first: it bridges the imports that follow)
from mmtransmamba.apis.vlm import VisionLanguageChat
from mmtransmamba.datasets.conversations import IMAGE, Conversation, Turn, load_image

HEADS = {'answer': 'AnswerHead', 'reasoning': 'ReasoningHead'}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('model', help='folder, name on the hub, or config')
    parser.add_argument('--checkpoint', help='weights of the config')
    parser.add_argument(
        '--image',
        action='append',
        default=[],
        metavar='FILE',
        help='shown with the first question; may be given several times',
    )
    parser.add_argument('--question', help='answer this and end')
    parser.add_argument(
        '--max-new-tokens', type=int, help="default: the head's, or 512"
    )
    parser.add_argument(
        '--temperature',
        type=float,
        default=0.0,
        help='0 (the default) takes the likeliest token, else tokens are drawn',
    )
    parser.add_argument(
        '--device', default='auto', help='default: the GPU if there is one'
    )
    parser.add_argument('--dtype', help="such as bfloat16; default: the folder's own")
    parser.add_argument(
        '--head',
        choices=list(HEADS),
        help='reasoning: responses in four sections, ended by their conclusion',
    )
    parser.add_argument(
        '--template', help='chat template by name, for a model without its own'
    )
    args = parser.parse_args()
    if args.temperature < 0:
        parser.error(f'--temperature must not be negative, got {args.temperature}')
    if args.max_new_tokens is not None and args.max_new_tokens < 1:
        parser.error(f'--max-new-tokens must be positive, got {args.max_new_tokens}')
    return args


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
        """Forget everything."""
        self.said = Conversation([])
        self.shown = []

    def show(self, file: str) -> None:
        """Show an image with the next question.

        Raises:
            ValueError: There is no such image.
        """
        self.shown.append(load_image(Path(file).expanduser()))

    def ask(self, question: str) -> Iterator[str]:
        """Pieces of the answer to a question.

        If the answer is broken off, what there is of it stays in the conversation; if
        there is none, the question is taken back.
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
    """Print an answer as it comes."""
    for piece in talk.ask(question):
        print(piece, end='', flush=True)
    print()


def converse(talk: Talk) -> None:
    """Read questions and commands until the end of the input."""
    prompt = ''
    if sys.stdin.isatty():
        import readline  # noqa: F401  (lets lines be edited)

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


def main() -> None:
    args = parse_args()
    generation = dict(temperature=args.temperature)
    if args.max_new_tokens is not None:
        generation['max_new_tokens'] = args.max_new_tokens
    options = dict(
        device=args.device,
        dtype=args.dtype,
        head=dict(type=HEADS[args.head]) if args.head else None,
        template=args.template,
    )
    try:
        # Before the model, which may take minutes to load.
        images = [load_image(file) for file in args.image]
        if args.checkpoint is None:
            chat = VisionLanguageChat(args.model, **options)
        else:
            chat = VisionLanguageChat.from_config(
                args.model, args.checkpoint, **options
            )
        talk = Talk(chat, **generation)
        talk.shown += images
        if args.question is not None:
            say(talk, args.question)
            return
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f'{Path(__file__).name}: error: {error}')
    converse(talk)


if __name__ == '__main__':
    main()
