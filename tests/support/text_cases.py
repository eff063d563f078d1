"""A text bundle, and what transformers writes with its model."""

PROMPTS = ["a desk lamp, walnut", "kettle", "wall clock oak and a teapot", " desk desk desk", "x", "lamp lamp teapot"]


LIMIT = 24
