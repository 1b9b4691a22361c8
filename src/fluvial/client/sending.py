"""Batches from an outbox to a gateway: one at a time, in order, until each is acknowledged."""

import hashlib
import logging
import random
import threading
from collections.abc import Sequence
from typing import Any

import httpx

from fluvial.client.outbox import Outbox, Waiting

log = logging.getLogger(__name__)

FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 30.0
# The batch itself is wrong: sending it again as it is will not help.
BATCH_IS_WRONG = frozenset({400, 422})
# The caller is: nothing can be sent until somebody changes the key, the topic or the gateway.
CALLER_IS_WRONG = frozenset({401, 403, 404, 405})


class Sender:
    """Runs in a thread of its own; with several gateways it goes on with the next one when one fails."""

    def __init__(
        self,
        outbox: Outbox,
        gateways: Sequence[str],
        key: str,
        *,
        batch_events: int,
        batch_seconds: float,
        timeout_seconds: float,
    ) -> None:
        self._outbox = outbox
        self._gateways = [g.rstrip("/") for g in gateways]
        self._batch_events = batch_events
        self._batch_seconds = batch_seconds
        self._closing = threading.Event()
        self._http = httpx.Client(timeout=timeout_seconds, headers={"Authorization": f"Bearer {key}"})
        self._at = random.randrange(len(self._gateways))  # noqa: S311 – spreads clients over gateways
        self._most = batch_events
        self.last_problem: str | None = None
        self.acknowledged = 0

    def run(self) -> None:
        """Send until `close`."""
        failures = 0
        while not self._closing.is_set():
            self._outbox.wait(1, 1.0)
            if not self._outbox.waiting:
                continue
            if not failures:
                self._outbox.wait(self._batch_events, self._batch_seconds)
            batch = self._outbox.oldest(self._most)
            if not batch:
                continue
            delay = self._send(batch, failures)
            failures = 0 if delay is None else failures + 1
            if delay is not None:
                self._closing.wait(delay)
        self._http.close()

    def close(self) -> None:
        """Stop after the batch that is on its way."""
        self._closing.set()
        self._outbox.stop_waiting()

    def _send(self, batch: list[Waiting], failures: int) -> float | None:
        """Send a batch; return None when it is settled, else how long to wait before the next try."""
        gateway = self._gateways[self._at % len(self._gateways)]
        body = "\n".join(w.event for w in batch).encode()
        # The same batch has the same name, so that a gateway that answered already need not do it again.
        name = hashlib.blake2b(body, digest_size=16, person=b"fluvial-batch").hexdigest()
        headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": name}
        try:
            answer = self._http.post(f"{gateway}/v1/topics/{batch[0].topic}/events", content=body, headers=headers)
        except httpx.HTTPError as e:
            return self._failed(f"{gateway}: {type(e).__name__}: {e}", failures)
        if answer.status_code == 200 or answer.status_code in BATCH_IS_WRONG:
            return self._settle(batch, answer)
        if answer.status_code == 413 and len(batch) > 1:
            self._most = max(1, len(batch) // 2)
            return 0.0
        if answer.status_code == 413:
            self._outbox.settle([], [(batch[0], "larger than the gateway takes")])
            return None
        why = f"{gateway}: {answer.status_code} {_detail(answer)}"
        if answer.status_code in CALLER_IS_WRONG:
            log.error("%s; nothing is lost, the buffer keeps it", why)
            failures = max(failures, 5)
        return self._failed(why, failures, answer.headers.get("retry-after"))

    def _settle(self, batch: list[Waiting], answer: httpx.Response) -> float | None:
        found = _json(answer)
        places = {r["index"]: r["reason"] for r in found.get("rejected", []) if isinstance(r, dict)}
        if answer.status_code in BATCH_IS_WRONG and not places:
            places = dict.fromkeys(range(len(batch)), _detail(answer))
        rejected = [(w, str(places[i])) for i, w in enumerate(batch) if i in places]
        accepted = [w for i, w in enumerate(batch) if i not in places]
        if answer.status_code == 200 and found.get("accepted") != len(accepted):
            return self._failed("the gateway's answer does not add up", 5)
        self.acknowledged += len(accepted)
        self.last_problem = None
        self._most = self._batch_events
        self._outbox.settle(accepted, rejected)
        for w, reason in rejected[:3]:
            log.warning("event %d was refused: %s; it is kept among the rejected ones", w.number, reason)
        return None

    def _failed(self, why: str, failures: int, retry_after: str | None = None) -> float:
        if why != self.last_problem:
            log.warning("%s; %s events wait and are sent again", why, f"{self._outbox.waiting:,}")
        self.last_problem = why
        self._at += 1
        jitter = random.uniform(0.5, 1.0)  # noqa: S311
        delay: float = jitter * min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** min(failures, 20))
        asked = float(retry_after) if retry_after and retry_after.isdigit() else 0.0
        return max(delay, min(asked, LONGEST_DELAY_SECONDS) * random.uniform(1.0, 1.2))  # noqa: S311


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _detail(answer: httpx.Response) -> str:
    return str(_json(answer).get("detail", answer.text[:200]))
