"""The releases of vLLM with whose internal interfaces the plugin was tested."""

import re

OLDEST, NEXT = (0, 32), (0, 33)


def installed() -> str:
    """Version of the imported vLLM; its distribution may have another name."""
    import vllm

    return vllm.__version__


def is_supported() -> bool:
    """Whether the installed vLLM is in the window ``OLDEST <= version < NEXT``."""
    numbers = re.match(r'(\d+)\.(\d+)', installed())
    if numbers is None:
        return False
    return OLDEST <= tuple(map(int, numbers.groups())) < NEXT


def check() -> None:
    """Refuse other releases of vLLM.

    Raises:
        ImportError: vLLM is older or newer than the tested releases.
    """
    if not is_supported():
        window = f'vllm>={_text(OLDEST)},<{_text(NEXT)}'
        raise ImportError(
            f'vLLM {installed()}: the plugin of mmtransmamba needs {window}; install '
            'that, or export the model (tools/export_lm.py --to granite)'
        )


def _text(version: tuple[int, int]) -> str:
    return '.'.join(map(str, version))
