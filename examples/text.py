"""Text, drafted from what was written before: `python examples/text.py TEXT_BUNDLE [PROMPT ...]`."""

import sys

from specbeam.text import TextGenerator

bundle, *prompts = sys.argv[1:]
prompts = prompts or ["a desk lamp, walnut", "a desk lamp, oak"]
generator = TextGenerator.open(bundle, batching=4)  # pool="POOL" drafts from earlier texts, too
plain = TextGenerator.open(bundle, drafting=None, batching=4)  # greedy decoding, a token a call

drafted, expected = generator.generate(prompts, max_new_tokens=24), plain.generate(prompts, max_new_tokens=24)
for prompt, text in zip(prompts, drafted, strict=True):
    print(f"{prompt!r} -> {text.text!r} ({text.finish})")
    print(f"  {len(text.tokens)} tokens in {text.stats.target_calls} calls of the target")
print(f"the same as greedy decoding: {[text.tokens for text in drafted] == [text.tokens for text in expected]}")
