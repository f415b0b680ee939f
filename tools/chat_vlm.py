"""Talk to a vision-language model about images.

    chat_vlm.py MODEL --image FILE --question "What is this?"   # one answer
    chat_vlm.py MODEL [--image FILE]                            # a conversation

MODEL is a folder as transformers saves it (hybrids included) or OWNER/NAME on the hub.
With --checkpoint, MODEL is a config and the option is the checkpoint of its training.
In a conversation, each line is a question. The commands are

    /image FILE   show an image with the next question
    /new          start a new conversation
    /quit         end (so does the end of the input)
"""

import argparse

from _tool import Parser, positive, real, tool

HEADS = {'answer': 'AnswerHead', 'reasoning': 'ReasoningHead'}


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
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
        '--max-new-tokens', type=positive, help="default: the head's, or 512"
    )
    parser.add_argument(
        '--temperature',
        type=real(0),
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
    return parser.parse_args()


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    from mmtransmamba.apis.vlm import VisionLanguageChat
    from mmtransmamba.apis.vlm_talk import Talk, converse, say
    from mmtransmamba.datasets.conversations import load_image

    generation = dict(temperature=args.temperature)
    if args.max_new_tokens is not None:
        generation['max_new_tokens'] = args.max_new_tokens
    options = dict(
        device=args.device,
        dtype=args.dtype,
        head=dict(type=HEADS[args.head]) if args.head else None,
        template=args.template,
    )
    # Before the model, which may take minutes to load.
    images = [load_image(file) for file in args.image]
    if args.checkpoint is None:
        chat = VisionLanguageChat(args.model, **options)
    else:
        chat = VisionLanguageChat.from_config(args.model, args.checkpoint, **options)
    talk = Talk(chat, **generation)
    talk.shown += images
    if args.question is not None:
        say(talk, args.question)
    else:
        converse(talk)


if __name__ == '__main__':
    main()
