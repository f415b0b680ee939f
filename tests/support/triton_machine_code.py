"""Triton kernels compiled for NVIDIA GPUs, without one, and what came out.

Triton brings the assembler and the disassembler along. Run in a process that does not
have ``TRITON_INTERPRET`` set, because the variable replaces ``triton.jit``.
"""

import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TOOLS = Path(triton.__file__).parent / 'backends' / 'nvidia' / 'bin'


class Code(NamedTuple):
    """Machine code of a kernel.

    Attributes:
        registers (int): Of a thread.
        stack (int): Bytes of a thread, which spilled registers take.
        shared (int): Bytes of shared memory of a program.
        loops (list[Counter]): Operations of every loop, the longest first.
        whole (Counter): Operations of the whole kernel.
    """

    registers: int
    stack: int
    shared: int
    loops: list[Counter]
    whole: Counter


def compiled(kernel, arguments: dict, capability: int, warps: int = 1) -> Code:
    """Compile as a launch with these arguments does.

    Args:
        kernel (JITFunction): The kernel.
        arguments (dict): By name ``'*fp32'`` and the like for a pointer, ``'fp32'``
            for a number, an integer for a size, ``('constexpr', value)`` for what is
            compiled in.
        capability (int): 80, 90, ...
        warps (int): Warps of a program.
    """
    signature, constants, attributes = {}, {}, {}
    for i, parameter in enumerate(kernel.params):
        name, value = parameter.name, arguments[parameter.name]
        if isinstance(value, tuple):
            signature[name], constants[name] = value
        elif isinstance(value, str):
            signature[name] = value
            pointer = value.startswith('*')
            if pointer and not parameter.do_not_specialize_on_alignment:
                attributes[(i,)] = [['tt.divisibility', 16]]
        elif value == 1 and not parameter.do_not_specialize:
            signature[name], constants[name] = 'constexpr', 1
        else:
            signature[name] = 'i32'
            if value % 16 == 0 and not parameter.do_not_specialize:
                attributes[(i,)] = [['tt.divisibility', 16]]
    source = ASTSource(
        fn=kernel, signature=signature, constexprs=constants, attrs=attributes
    )
    with tempfile.TemporaryDirectory() as cache, triton.knobs.cache.scope():
        triton.knobs.cache.dir = cache
        built = triton.compile(
            source,
            target=GPUTarget('cuda', capability, 32),
            options=dict(num_warps=warps, num_stages=1, enable_fp_fusion=True),
        )
    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        file.write(built.asm['cubin'])
        file.flush()
        usage = _run('cuobjdump', '-res-usage', file.name)
        text = _run('nvdisasm', '-c', file.name)
    registers, stack = map(int, re.search(r'REG:(\d+) STACK:(\d+)', usage).groups())
    return Code(registers, stack, built.metadata.shared, *_operations(text))


def _run(tool: str, *arguments: str) -> str:
    command = [str(TOOLS / tool), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _operations(text: str) -> tuple[list[Counter], Counter]:
    """Operations between the target of each branch backwards and the branch; all."""
    labels, operations, loops = {}, [], []
    for line in text.splitlines():
        label = re.match(r'\s*(\.L_\S+):', line)
        code = re.search(r'/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z].*?);', line)
        if label:
            labels[label.group(1)] = len(operations)
        elif code:
            operations.append(code.group(1))
            target = re.search(r'BRA.*?(\.L_[^\s)]+)', code.group(1))
            if target and target.group(1) in labels:
                body = operations[labels[target.group(1)] :]
                loops.append(Counter(_operation(x) for x in body))
    loops = [x for x in loops if x.total() > 4]
    loops.sort(key=Counter.total, reverse=True)
    return loops, Counter(map(_operation, operations))


def _operation(instruction: str) -> str:
    """``LDG.128`` of a load of 16 bytes, else the name alone."""
    name = instruction.split()[0]
    wide = '.128' if name.startswith('LDG') and '.128' in name else ''
    return name.split('.')[0] + wide
