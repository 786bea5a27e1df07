"""The upstream accounts of one process, and which of them a connection uses.

Each API key opens an account of its own, with limits of its own. A session is placed on the account with most room
when it opens, and stays there. Keys may change while the gateway runs: what opens a connection looks at the keys
as they are then, so that a key that was taken away opens none any more, and its sessions move when they reconnect.

A new key in the place of one that was taken away is taken for another key of the same account: its limits count on.
That is so when a key is renewed, and where it is not, the limits are only kept too strictly for a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from wavegate_server.session.account import Account
from wavegate_server.session.context import UpstreamTarget
from wavegate_server.waves.regions import EVERYWHERE, Regions

logger = logging.getLogger(__name__)

REFUSED_FOR_S = 60.0
"""How long a key that the upstream refused is used only where there is no other. Without this, its account would
always look the emptiest, and get every session."""


class Upstreams:
    """Chooses the target of each connection. Used from one loop."""

    def __init__(
        self,
        template: UpstreamTarget,
        keys: Callable[[], tuple[str, ...]] | None = None,
        account: Callable[[], Account] = Account,
        regions: Regions = EVERYWHERE,
    ) -> None:
        """`template`: what all targets have in common; without `keys`, the one target that there is.

        `keys` is asked whenever something is to be opened, and gives one key at least. `account` makes the account
        of a key.
        """
        self.template = template
        self._keys = keys or (lambda: (template.key,))
        self._make = account
        self._regions = regions
        self._accounts: dict[str, Account] = {} if keys else {template.key: template.account}
        self._refused_until: dict[str, float] = {}
        self._turns = 0
        self._turn: dict[str, int] = {}
        """When a key was chosen last: of accounts with equal room, the one whose turn is longest ago is chosen."""
        self._refresh()

    def __repr__(self) -> str:
        return f"<Upstreams {len(self._accounts)} accounts>"

    @property
    def accounts(self) -> tuple[Account, ...]:
        """In the order of their keys."""
        return tuple(self._accounts.values())

    def choose(self, kind: str, language: str = "", current: UpstreamTarget | None = None) -> UpstreamTarget:
        """Where the next connection goes. `kind` is `tts` or `stt`; `language` as the caller wrote it, "" for any.

        With `current` the account stays the same, if its key still is one.
        """
        self._refresh()
        if current is None or current.key not in self._accounts:
            key = min(self._accounts, key=lambda each: self._fullness(each, kind))
            self._turns += 1
            self._turn[key] = self._turns
            current = replace(self.template, key=key, account=self._accounts[key])
        return self.located(current, kind, language)

    def located(self, target: UpstreamTarget, kind: str, language: str) -> UpstreamTarget:
        """The same account, at the host that serves this language."""
        base_url = self._regions.base_url(kind, language, self.template.base_url)
        return target if base_url == target.base_url else replace(target, base_url=base_url)

    def holds(self, target: UpstreamTarget) -> bool:
        """Whether connections may still be opened with this target's key."""
        self._refresh()
        return target.key in self._accounts

    def refused(self, target: UpstreamTarget) -> None:
        """The upstream refused this target's key (401, 403)."""
        if target.key not in self._accounts or len(self._accounts) == 1:
            return
        now = asyncio.get_running_loop().time()
        if now >= self._refused_until.get(target.key, 0.0):
            self._refused_until[target.key] = now + REFUSED_FOR_S
            logger.warning(
                "the upstream refused API key number %d of %d; the others are used instead for %g s",
                list(self._accounts).index(target.key) + 1,
                len(self._accounts),
                REFUSED_FOR_S,
            )

    async def aclose(self) -> None:
        """Close what was opened ahead."""
        await asyncio.gather(*(account.aclose() for account in self._accounts.values()))

    def _fullness(self, key: str, kind: str) -> tuple[float, ...]:
        account = self._accounts[key]
        refused = bool(self._refused_until) and (
            asyncio.get_running_loop().time() < self._refused_until.get(key, 0.0)
        )
        waiting = used = 0
        if kind == "tts":
            waiting = account.requests.waiting + account.sockets.waiting
            used = account.requests.used
        return (refused, waiting, used, account.sessions[kind], self._turn.get(key, 0))

    def _refresh(self) -> None:
        """See whether the keys have changed."""
        keys = dict.fromkeys(self._keys())
        if keys.keys() == self._accounts.keys():
            return
        gone = [account for key, account in self._accounts.items() if key not in keys]
        accounts = {}
        for key in keys:
            known = self._accounts.get(key)
            if known is None:
                known = gone.pop(0).successor() if gone else self._make()
            accounts[key] = known
        for account in gone:
            account.retire()
        self._accounts = accounts
        self._refused_until = {k: t for k, t in self._refused_until.items() if k in accounts}
        self._turn = {k: t for k, t in self._turn.items() if k in accounts}
