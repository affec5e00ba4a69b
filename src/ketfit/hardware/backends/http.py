"""HTTP requests to a provider, each sent exactly once and ended by a deadline, with a typed error for every failure.

Nothing here or below repeats a request; the caller decides about retries.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from ketfit.errors import (
    BackendError,
    BackendTimeoutError,
    ConnectionLostError,
    RateLimitError,
    RequestRejectedError,
    ServerError,
    optional_imports,
)
from ketfit.storage.deadline import call_with_deadline

MAX_RETRY_AFTER_S = 365 * 86_400.0
"""Longest wait that a provider can ask for, a year: nobody waits longer, and no clock can."""


@dataclass(frozen=True)
class Response:
    """The text of a response, and what an error about it names: the provider, and method and path of the request."""

    provider: str
    request_line: str
    text: str

    def json(self, cls: type[json.JSONDecoder] | None = None) -> Any:
        """Return the content of a JSON response, decoded by `cls`.

        Raises:
            ServerError: The response is not JSON.
        """
        try:
            return json.loads(self.text, cls=cls)
        except ValueError:
            raise ServerError(f"{self.provider} answered {self.request_line} with no JSON") from None


@dataclass(frozen=True)
class ApiClient:
    """The address of a provider, with what its error messages name and hide.

    Attributes:
        name: Name of the provider.
        url: Base address.
        secrets: Texts to redact from errors.
        key: Environment variable that holds the key.
        timeout_s: Seconds until a whole response must have arrived.
    """

    name: str
    url: str
    secrets: tuple[str, ...]
    key: str
    timeout_s: float

    def __repr__(self) -> str:
        return f"ApiClient({self.name!r}, {self.url!r})"

    def send(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        params: Mapping[str, Any] | None = None,
        data: str | bytes | Mapping[str, str] | None = None,
    ) -> Response:
        """Send one request and return the response.

        After an error no part of the request is sent any more, except for a write that had begun before; see
        `ketfit.hardware.backends.transport`.

        Args:
            method: HTTP method.
            path: Path below the base address.
            headers: HTTP headers.
            params: Query parameters.
            data: Request body.

        Raises:
            BackendTimeoutError: The response is not complete within `timeout_s` seconds in all.
            ConnectionLostError: The connection broke, or there was none.
            RateLimitError, RequestRejectedError: The request was not accepted.
            ServerError: The status is 5xx, 408 or 409.
        """
        with optional_imports(self.name, "hardware"):
            import requests

            from ketfit.hardware.backends.transport import abandonable_session
        request_line = f"{method} /{path}"
        abandoned = threading.Event()

        def request() -> tuple[int, str, str | None]:
            with abandonable_session(abandoned) as session:
                response = session.request(
                    method,
                    f"{self.url}/{path}",
                    params=params,
                    data=data,
                    headers=dict(headers),
                    auth=lambda prepared: prepared,  # otherwise a matching entry of ~/.netrc would replace our key
                    timeout=self.timeout_s,
                    allow_redirects=False,
                )
            return response.status_code, response.text, response.headers.get("Retry-After")

        try:
            status, text, retry_after = call_with_deadline(self.timeout_s, request, abandoned=abandoned)
        except (TimeoutError, requests.exceptions.Timeout):
            raise BackendTimeoutError(f"{request_line}: no complete answer within {self.timeout_s:g} s") from None
        except requests.exceptions.RequestException as error:
            # Only the type of the error: its text could contain parts of the request.
            raise ConnectionLostError(f"{request_line}: {type(error).__name__} at {self.url}") from None
        if status >= 300:
            raise self._error(request_line, status, text, retry_after)
        return Response(self.name, request_line, text)

    def _error(self, request_line: str, status: int, text: str, retry_after: str | None) -> BackendError:
        reason = _error_message(text)
        for secret in self.secrets:
            reason = reason.replace(secret, "***")
        message = f"{self.name} answered {request_line} with {status}: {reason[:200]}"
        if status in (401, 403):
            return RequestRejectedError(f"{message}; check the key in {self.key}")
        seconds = None if retry_after is None else _seconds_until(retry_after)
        if status == 429:
            return RateLimitError(message, seconds)
        if status >= 500 or status in (408, 409):
            return ServerError(message, seconds)
        return RequestRejectedError(message)


def _seconds_until(retry_after: str) -> float | None:
    """Return the seconds of a Retry-After header, a number or a date (RFC 9110, 10.2.3); None if it is neither."""
    if retry_after.isdecimal():
        seconds = float(retry_after)
    else:
        try:
            date = parsedate_to_datetime(retry_after)
        except (ValueError, OverflowError):
            return None
        utc = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
        seconds = max(0.0, (utc - datetime.now(timezone.utc)).total_seconds())
    return seconds if seconds <= MAX_RETRY_AFTER_S else None


def _error_message(text: str) -> str:
    """Return the ``message``, the ``error`` or the first of the ``errors`` of a response."""
    try:
        body = json.loads(text)
    except ValueError:
        return text
    if not isinstance(body, dict):
        return str(body)
    error, errors = body.get("error"), body.get("errors")
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        error = errors[0]
    message = body.get("message") or body.get("errorMessage")
    return str(message or (error.get("message") if isinstance(error, dict) else error) or body)
