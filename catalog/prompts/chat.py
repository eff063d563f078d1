"""A tokenizer's chat template: what it renders, and whether it uses what it is given."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import PromptError
from ..identifiers import Tokenizer, Warn
from ..items import some

OURS = {"messages", "add_generation_prompt"}  # variables that are always given
HELPERS = {"raise_exception", "strftime_now"}  # functions that transformers gives


@dataclass(frozen=True)
class Chat:
    """A chat template with the system message and the variables of all its conversations."""

    tokenizer: Tokenizer
    system: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)

    def render(self, text: str) -> str:
        """The conversation with `text` as the user's message, ready for the answer.

        Raises `PromptError` where there is no template, or it does not take these messages.
        """
        messages = [{"role": "user", "content": text}]
        if self.system is not None:
            messages.insert(0, {"role": "system", "content": self.system})
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    messages, add_generation_prompt=True, tokenize=False, **self.variables
                )
            )
        except Exception as error:  # Jinja's own errors, and those a template raises
            raise self._unusable(error) from None

    def _unusable(self, error: Exception) -> PromptError:
        message = str(error).strip().splitlines()
        remedy = (
            "Give the tokenizer a chat template that takes one user message, or write it out as a literal template."
            if self.system is None
            else "If it takes no system message, leave --system out and begin --prompt with its text."
        )
        return PromptError(
            f"the tokenizer's chat template cannot be applied{'' if self.system is None else ' with --system'}: "
            f"{message[0] if message else type(error).__name__}. {remedy}"
        )

    def check(self, warn: Warn) -> None:
        """Raise `PromptError` for a system message or a variable that the template has no use for.

        `warn` is told of variables whose values change nothing: some are what the template takes without them.
        """
        known = self.mentioned() if self.variables else set()
        unknown = sorted(self.variables.keys() - known)
        if unknown:
            raise PromptError(
                f"the tokenizer's chat template never mentions {some(unknown)} of --chat-variable. Its variables are: "
                f"{', '.join(sorted(known)) or 'none'}."
            )
        sample = "x"
        if self.system is not None and self.render(sample) == replace(self, system=None).render(sample):
            raise PromptError(
                "the tokenizer's chat template ignores the system message: with --system it renders the same text. "
                "Leave --system out and begin --prompt with its text, or write the prompt out as a literal template."
            )

        for name in self.variables:
            if self._idle(name, sample):
                warn(f"--chat-variable {name}={self.variables[name]!r} changes nothing in the prompt")

    def _idle(self, name: str, sample: str) -> bool:
        """Whether the template renders the same without a variable."""
        others = {other: value for other, value in self.variables.items() if other != name}
        rendered = self.render(sample)
        try:
            return rendered == replace(self, variables=others).render(sample)
        except PromptError:  # it cannot do without
            return False

    def mentioned(self) -> set[str]:
        """Variables that the template looks up and that may be given."""
        from jinja2 import meta, nodes
        from jinja2.ext import Extension, loopcontrols
        from jinja2.parser import Parser
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        class Generation(Extension):
            """{% generation %}, by which transformers marks the answers."""

            tags = {"generation"}  # noqa: RUF012 (the base class's is no class variable to mypy)

            def parse(self, parser: Parser) -> list[nodes.Node]:
                next(parser.stream)
                return parser.parse_statements(("name:endgeneration",), drop_needle=True)

        environment = ImmutableSandboxedEnvironment(extensions=[Generation, loopcontrols])
        try:
            found = meta.find_undeclared_variables(environment.parse(self.tokenizer.get_chat_template()))
        except Exception as error:  # there is no template, or Jinja cannot read it
            raise self._unusable(error) from None
        return found - OURS - HELPERS - environment.globals.keys()
