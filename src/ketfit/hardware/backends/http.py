"""One request to a provider, sent exactly once and ended by a deadline, with a typed error for whatever goes wrong.

Whether to ask again is for the caller; nothing here, and nothing below, repeats a request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ketfit.errors import (
    BackendError,
    BackendTimeoutError,
    ConnectionLostError,
    MissingExtraError,
    RateLimitError,
    RequestRejectedError,
    ServerError,
)
from ketfit.storage.deadline import call_with_deadline


@dataclass(frozen=True)
class ApiClient:
    """Whom requests go to, for the errors.

    Attributes:
        name: As users know it.
        url: Base address.
        secrets: What no message may show.
        key: The variable of the environment that holds the key.
    """

    name: str
    url: str
    secrets: tuple[str, ...]
    key: str

    def __repr__(self) -> str:
        return f"Provider({self.name!r}, {self.url!r})"

    def send(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        timeout_s: float,
        params: Mapping[str, Any] | None = None,
        data: str | bytes | Mapping[str, str] | None = None,
    ) -> str:
        """The text of the answer to one request.

        Raises:
            BackendTimeoutError: it is not complete within `timeout_s` seconds in all.
            ConnectionLostError: the connection broke, or there was none.
            RateLimitError, RequestRejectedError: the request was not accepted.
            ServerError: the answer is 5xx, 408 or 409.
        """
        try:
            import requests
        except ImportError as error:
            raise MissingExtraError(self.name, "'ketfit[hardware]'") from error
        what = f"{method} /{path}"

        def request() -> tuple[int, str, str | None]:
            answer = requests.request(
                method,
                f"{self.url}/{path}",
                params=params,
                data=data,
                headers=dict(headers),
                auth=lambda prepared: prepared,  # else a matching entry of ~/.netrc would take the place of our key
                timeout=timeout_s,
                allow_redirects=False,
            )
            return answer.status_code, answer.text, answer.headers.get("Retry-After")

        try:
            status, text, pause = call_with_deadline(timeout_s, request)
        except (TimeoutError, requests.exceptions.Timeout):
            raise BackendTimeoutError(f"{what}: no complete answer within {timeout_s:g} s") from None
        except requests.exceptions.RequestException as error:
            # Of the error only its kind: its text could hold parts of the request.
            raise ConnectionLostError(f"{what}: {type(error).__name__} at {self.url}") from None
        if status >= 300:
            raise self._refusal(what, status, text, pause)
        return text

    def parse(self, text: str, what: str, decoder: type[json.JSONDecoder] | None = None) -> Any:
        """What JSON says.

        Raises:
            ServerError: it is none.
        """
        try:
            return json.loads(text, cls=decoder)
        except ValueError:
            raise ServerError(f"{self.name} answered {what} with no JSON") from None

    def _refusal(self, what: str, status: int, text: str, pause: str | None) -> BackendError:
        said = _message(text)
        for secret in self.secrets:
            said = said.replace(secret, "***")
        message = f"{self.name} answered {what} with {status}: {said[:200]}"
        if status in (401, 403):
            return RequestRejectedError(f"{message}; check the key in {self.key}")
        if status == 429:
            return RateLimitError(message, float(pause) if pause and pause.isdecimal() else None)
        return ServerError(message) if status >= 500 or status in (408, 409) else RequestRejectedError(message)


def _message(text: str) -> str:
    """What went wrong in an answer's own words: ``message``, ``error`` or the first of ``errors``."""
    try:
        answer = json.loads(text)
    except ValueError:
        return text
    if not isinstance(answer, dict):
        return str(answer)
    inner = answer.get("error")
    many = answer.get("errors")
    if isinstance(many, list) and many and isinstance(many[0], dict):
        inner = many[0]
    said = answer.get("message") or answer.get("errorMessage")
    return str(said or (inner.get("message") if isinstance(inner, dict) else inner) or answer)
