"""The dialects that are translated to chat: body → checked fields → chat body, and chat's refusals in their own words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vsrv.api import messages_request, responses_request
from vsrv.api.dialect_fields import COUNT_TOKENS, INPUT_TOKENS, MESSAGES, RESPONSES, TRANSLATED
from vsrv.api.fields import Fields
from vsrv.api.schema import ModelFacts
from vsrv.api.translation import Style, Translated, restated
from vsrv.errors import UserError


@dataclass(frozen=True, slots=True)
class Translator:
    """One dialect. `names` are its names of chat's fields; `reworded` changes a refusal further; `prompt_only`: nothing is generated."""

    dialect: str
    to_chat: Callable[[Fields, ModelFacts, Style], Translated]
    names: Mapping[str, str]
    reworded: Callable[[UserError, ModelFacts], UserError] | None = None
    prompt_only: bool = False

    def fields(self, body: dict[str, Any], facts: ModelFacts) -> Fields:
        """Types and bounds of every field that is there. Raises UserError 400."""
        fields = Fields(body, TRANSLATED[self.dialect], facts)
        fields.check()
        return fields

    def restated(self, error: UserError, facts: ModelFacts) -> UserError:
        error = restated(error, self.names)
        return error if self.reworded is None else self.reworded(error, facts)


TRANSLATORS: Mapping[str, Translator] = {
    translator.dialect: translator
    for translator in (
        Translator(
            MESSAGES, messages_request.messages_to_chat, messages_request.NAMES, messages_request.too_long
        ),
        Translator(
            COUNT_TOKENS,
            messages_request.count_to_chat,
            messages_request.NAMES,
            messages_request.too_long,
            prompt_only=True,
        ),
        Translator(RESPONSES, responses_request.responses_to_chat, responses_request.NAMES),
        Translator(
            INPUT_TOKENS, responses_request.responses_to_chat, responses_request.NAMES, prompt_only=True
        ),
    )
}
