"""Common English nouns that serve as keys, values and names."""

KEYS = tuple(
    'apple arm bank bear bell bird boat bone book box bread bridge brush bus cake '
    'camp card cat chair clock cloud coat corn cow cup desk dog door dress drum duck '
    'ear egg eye farm fish flag flower fork frog game garden gate glass goat gold '
    'grass hammer hat heart horse house ice island jar key king kite knife lake lamp '
    'leaf letter lion'.split()
)
VALUES = tuple(
    'map mask milk mirror moon mouse mouth nail neck nest net nose ocean oil onion '
    'orange oven owl paint pan paper park peach pen phone piano pig pillow plane plant '
    'plate pond pool potato queen rabbit radio rain ring river road rock roof room '
    'rope rose salt sand school seed sheep ship shirt shoe shop snake snow soap sock '
    'soup spoon star stone stove street sugar sun table tail tiger'.split()
)
CITIES = tuple(
    'Athens Berlin Boston Cairo Chicago Delhi Dublin Geneva Hanoi Havana Lima Lisbon '
    'London Madrid Milan Moscow Oslo Paris Prague Rome Seoul Sydney Tokyo '
    'Vienna'.split()
)
