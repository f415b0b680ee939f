"""The operands of the gated delta rule in the form that torch operators take them."""

OPERANDS = ('q', 'k', 'v', 'g', 'beta', 'initial_state')
# Schemas are written out because older torch does not infer them from annotations like
# ``Tensor | None``.
OPERAND_SCHEMA = (
    'Tensor q, Tensor k, Tensor v, Tensor g, Tensor beta, Tensor? initial_state, '
    'float scale'
)
