"""Turn the reasoning tags (<SUMMARY>, …) into tokens of a vision-language model.

This is optional: by default, the tags are ordinary text. Run it before the model learns
to reason, and convert the student from the result.
"""

import argparse

from _tool import Parser, out_folder, tool


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument('model', help='folder of the model with its processor')
    parser.add_argument('--out', type=out_folder, required=True, help='folder to write')
    return parser.parse_args()


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    from mmtransmamba.models.folders import load_vlm
    from mmtransmamba.models.folders.companions import Companions
    from mmtransmamba.models.multimodal.reasoning_tags import add_reasoning_tags
    from mmtransmamba.utils.reasoning_text import TAGS

    if args.out.exists():
        raise FileExistsError(f'{args.out} exists.')
    companions = Companions(args.model)
    model = load_vlm(args.model)
    ids = add_reasoning_tags(model, companions.processor)
    model.save_pretrained(args.out)
    companions.processor.save_pretrained(args.out)
    for tag, number in zip(TAGS, ids, strict=True):
        print(f'{tag:14} {number}')
    print(f'written to {args.out}')


if __name__ == '__main__':
    main()
