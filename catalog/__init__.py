"""Items, identifiers, the item trie, histories and prompts. Needs numpy and msgspec only."""

from .histories.read import read_histories
from .histories.requests import HistoryRequest
from .items import Catalog
from .prompts.compile import compile_prompt
from .prompts.encoder import EncodedPrompt, PromptEncoder, PromptSpec
from .prompts.options import PromptOptions
from .records import Reject
from .trie import ItemTrie

__all__ = [
    "Catalog",
    "EncodedPrompt",
    "HistoryRequest",
    "ItemTrie",
    "PromptEncoder",
    "PromptOptions",
    "PromptSpec",
    "Reject",
    "compile_prompt",
    "read_histories",
]
