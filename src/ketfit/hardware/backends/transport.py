"""Sessions of requests that begin no write once nobody waits for the response.

The thread of an abandoned request cannot be stopped: it may hang in the resolution of a name, in a connection or in a
TLS handshake, and end that after its caller has submitted again. Its connection therefore checks, when it is open and
before each write, that somebody still waits. Headers and body are two writes, and a request that lacks one of them is
not valid.

What this cannot call back is a write that has begun. The operating system may deliver its bytes later, and the provider
may accept the job: a submission that ends with a `BackendTimeoutError` has an unknown outcome, and its tag must be
looked for in the provider's list of jobs.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from requests import Session
from requests.adapters import HTTPAdapter

if TYPE_CHECKING:
    from urllib3 import PoolManager
    from urllib3.connectionpool import HTTPConnectionPool


def abandonable_session(abandoned: threading.Event) -> Session:
    """Return a session for one request, which begins no write after `abandoned` is set."""
    session = Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, _AbandonableAdapter(abandoned))
    return session


class _AbandonableAdapter(HTTPAdapter):
    def __init__(self, abandoned: threading.Event) -> None:
        self._abandoned = abandoned
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        """Make the manager of direct connections."""
        super().init_poolmanager(*arguments, **named)
        self._replace_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **named: Any) -> PoolManager:
        """Return the manager of the connections through a proxy."""
        manager: PoolManager = super().proxy_manager_for(proxy, **named)
        self._replace_pools(manager)
        return manager

    def _replace_pools(self, manager: PoolManager) -> None:
        pools = manager.pool_classes_by_scheme
        manager.pool_classes_by_scheme = {scheme: self._abandonable(pool) for scheme, pool in pools.items()}

    def _abandonable(self, pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
        connection = type(
            "AbandonableConnection", (_AbandonableConnection, pool.ConnectionCls), {"abandoned": self._abandoned}
        )
        return type(f"Abandonable{pool.__name__}", (pool,), {"ConnectionCls": connection})


class _AbandonableConnection:
    """A mix-in for connections of urllib3, whose bytes all go through `send`."""

    abandoned: threading.Event

    def connect(self) -> None:
        """Connect, TLS handshake included, and check that somebody still waits."""
        super().connect()  # type: ignore[misc]
        self._check()

    def send(self, data: Any) -> None:
        """Write bytes, if somebody still waits."""
        self._check()
        super().send(data)  # type: ignore[misc]

    def _check(self) -> None:
        if self.abandoned.is_set():
            raise TimeoutError("nobody waits for this request any more")
