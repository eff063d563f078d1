"""Items, identifiers, the item trie, histories and prompts. Needs numpy and msgspec only."""

from .history import HistoryRequest, Reject, read_histories
from .items import Catalog
from .prompt import EncodedPrompt, PromptEncoder, PromptSpec, compile_prompt
from .prompt_options import PromptOptions
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
