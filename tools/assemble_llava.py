"""Assemble a LLaVA from a vision tower and a language model.

Works offline on local folders. The projector between them is randomly initialised:
train it with configs/multimodal/llava.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from _tool import Parser, out_folder, seed_number, tool, whole


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument('vision', type=Path, help='folder of a CLIP or SigLIP')
    parser.add_argument('language', type=Path, help='folder of a causal language model')
    parser.add_argument('--out', type=out_folder, required=True, help='folder to write')
    parser.add_argument(
        '--tokenizer', type=Path, help='its folder, by default that of the language'
    )
    parser.add_argument(
        '--chat-template', type=Path, help="file to use instead of LLaVA-1.5's"
    )
    parser.add_argument('--image-token', default='<image>')
    parser.add_argument('--feature-layer', type=whole(), default=-2)
    parser.add_argument('--seed', type=seed_number, default=0, help='of the projector')
    return parser.parse_args()


@tool(parse_args)
def main(args: argparse.Namespace) -> None:
    if args.out.exists():
        raise FileExistsError(f'{args.out} exists; give another folder.')
    from mmtransmamba.models.folders import assemble_llava
    from mmtransmamba.utils.checkpoint_files import put_in_place
    from mmtransmamba.utils.text_files import read_text

    template = args.chat_template
    model, processor = assemble_llava(
        args.vision,
        args.language,
        tokenizer=args.tokenizer,
        image_token=args.image_token,
        feature_layer=args.feature_layer,
        chat_template=None if template is None else read_text(template),
        seed=args.seed,
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f'{args.out.name}.', dir=args.out.parent) as folder:
        partial = Path(folder) / args.out.name
        model.save_pretrained(partial)
        processor.save_pretrained(partial)
        put_in_place(partial, args.out)
    count = sum(p.numel() for p in model.model.multi_modal_projector.parameters())
    print(f'written to {args.out}; {count:,} parameters of the projector are new')


if __name__ == '__main__':
    main()
