"""The words of the synthetic catalog: what its codes mean, level by level.

Neighbouring codes are related: six kinds make a department, six styles make a family.
"""

KINDS = (  # level a: 8 departments of 6
    "desk lamp", "floor lamp", "bookshelf", "armchair", "side table", "wall clock",
    "kettle", "teapot", "frying pan", "chef's knife", "cutting board", "spice rack",
    "backpack", "duffel bag", "travel pillow", "passport wallet", "packing cube", "water bottle",
    "tent", "sleeping bag", "camp stove", "headlamp", "trail map case", "folding chair",
    "yoga mat", "dumbbell", "jump rope", "foam roller", "kettlebell", "resistance band",
    "fountain pen", "notebook", "ink bottle", "pencil case", "letter tray", "desk pad",
    "planter", "watering can", "pruning shears", "garden trowel", "seed box", "bird feeder",
    "headphones", "speaker", "phone stand", "charging dock", "keyboard", "cable organiser",
)  # fmt: skip

STYLES = (  # level b: 8 families of 6
    "Walnut", "Oak", "Ash", "Bamboo", "Cherry", "Teak",
    "Brass", "Copper", "Steel", "Iron", "Nickel", "Bronze",
    "Linen", "Cotton", "Wool", "Felt", "Canvas", "Velvet",
    "Ceramic", "Porcelain", "Stoneware", "Terracotta", "Marble", "Glass",
    "Leather", "Suede", "Cork", "Rattan", "Jute", "Wicker",
    "Titanium", "Carbon", "Aluminium", "Nylon", "Silicone", "Acrylic",
    "Vintage", "Classic", "Rustic", "Baroque", "Colonial", "Nautical",
    "Modern", "Minimal", "Nordic", "Industrial", "Urban", "Studio",
)  # fmt: skip

SIZES = (  # level c
    "small", "medium", "large", "extra large", "slim", "wide", "tall", "compact",
    "travel size", "set of two", "set of four", "foldable", "stackable", "padded", "light", "heavy duty",
)  # fmt: skip

COLOURS = (  # level d
    "white", "black", "grey", "navy", "sky blue", "teal", "sage", "olive", "forest", "mustard", "amber", "rust",
    "red", "coral", "rose", "plum", "lilac", "sand", "cream", "cocoa", "charcoal", "silver", "gold", "natural",
)  # fmt: skip

KINDS_PER_DEPARTMENT = 6
STYLES_PER_FAMILY = 6
