"""An OpenAI-compatible endpoint: so many requests a minute and at a time, sent again where that helps, never beyond the cost.

One thread decides what is sent, and when; a pool of threads waits for answers. The key goes into one header, and nowhere else.
"""

from __future__ import annotations

import heapq
import itertools
import os
import random
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from sdpg.config.solutions import Endpoint
from sdpg.solutions.asking import Answer, Ask, Refused, Stop, most_tokens, tokens_in
from sdpg.solutions.client import Broken, Client, Denied, Failed, Reply
from sdpg.solutions.journal import Journal

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds between two tries of one request; they double, up to the second
IN_A_ROW = 5  # refused prompts without any answer, after which the fault is not the prompts'
SAID_FROM = 10.0  # seconds of a pause
LOOK_EVERY = 0.5  # seconds between two looks for a wish to stop


class EndpointError(ValueError):
    """Nothing more can be asked; what was answered is kept."""


def read_key(settings: Endpoint) -> str | None:
    """Return the key from the environment. Raises EndpointError, without it, for none, or one that no header can carry."""
    if settings.key_env is None:
        return None
    key, name = os.environ.get(settings.key_env, "").strip(), settings.key_env
    if not key:
        raise EndpointError(
            f"data.solutions.endpoint.key_env: the environment variable {name} is not set; put the key of {settings.host} "
            f"into it (export {name}=...), or set key_env to null for an endpoint without keys"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise EndpointError(f"the environment variable {name} (data.solutions.endpoint.key_env) has characters that no key has")
    return key


class EndpointWriter:
    """Writer (see `asking.Writer`) that asks over HTTP. The journal knows of each request before it is sent.

    Raises EndpointError without a key that it needs.
    """

    def __init__(self, settings: Endpoint, journal: Journal):
        self.settings, self.journal, self.host, self.cost = settings, journal, settings.host, settings.cost
        self.client = Client(settings, read_key(settings))
        self.next_at = 0.0  # when the next request may be sent, by time.monotonic
        self.crowded = 0  # 429s in a row
        self.answered = bool(journal.answers)
        self.refused: list[Refused] = []  # in a row

    def ceiling(self, ask: Ask) -> float:
        """Return the most that a request can cost."""
        return self.cost(most_tokens(ask.prompt), self.settings.max_tokens)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def ask(self, asks: Iterable[Ask], stop: Stop) -> Iterator[Answer | Refused]:
        """See `Writer.ask`. Raises EndpointError in one line once nothing more can be asked, after the answers on their way."""
        ready = deque((ask, 0) for ask in asks)
        later: list[tuple[float, int, Ask, int]] = []
        running: dict[Future, tuple[Ask, int, float]] = {}
        numbers, trouble = itertools.count(), ""
        with ThreadPoolExecutor(self.settings.concurrency, "ask") as pool:
            while running or ((ready or later) and not trouble and not stop.asked):
                now = time.monotonic()
                while later and later[0][0] <= now:
                    _, _, ask, failures = heapq.heappop(later)
                    ready.appendleft((ask, failures))
                going = not trouble and not stop.asked
                if ready and going and len(running) < self.settings.concurrency and now >= self.next_at:
                    if self._affordable(ready[0][0]):
                        ask, failures = ready.popleft()
                        self.next_at = now + 60 / self.settings.requests_per_minute
                        self.journal.add("asked", ask.request, ceiling=self.ceiling(ask))
                        running[pool.submit(self.client.send, ask.prompt)] = ask, failures, now
                        continue
                    if not running:
                        trouble = self._too_dear()
                        continue
                due = [self.next_at] if ready and len(running) < self.settings.concurrency else []
                due += [later[0][0]] if later else []
                pause = min([LOOK_EVERY, *(max(0.001, at - now) for at in due)])
                if not running:
                    time.sleep(pause)
                    continue
                for future in wait(running, timeout=pause, return_when=FIRST_COMPLETED).done:
                    ask, failures, began = running.pop(future)
                    result = self._settled(ask, future, time.monotonic() - began)
                    if isinstance(result, Failed):
                        trouble = trouble or self._trouble(result, failures)
                        if not trouble:
                            at = time.monotonic() + self._pause(result, failures)
                            heapq.heappush(later, (at, next(numbers), ask, failures + 1))
                    elif isinstance(result, Denied):
                        trouble = trouble or result.message
                    else:
                        yield from self._passed(result)
                        if len(self.refused) >= IN_A_ROW and not self.answered:
                            trouble = trouble or f"{self.host} refuses every prompt: {self.refused[-1].why}"
        if self.refused and not self.answered and not trouble and not stop.asked:
            trouble = f"{self.host} refuses every prompt: {self.refused[-1].why}"
        if trouble:
            raise EndpointError(f"data.solutions.endpoint: {trouble}")

    def _passed(self, result: Answer | Refused) -> Iterator[Answer | Refused]:
        """Yield an answer; refusals only once there was an answer, since before it the fault may be the settings'."""
        if isinstance(result, Refused):
            self.refused.append(result)
        else:
            self.answered = True
            yield result
        if self.answered:
            yield from self.refused
            self.refused = []

    def _settled(self, ask: Ask, future: Future, seconds: float) -> Answer | Refused | Failed | Denied:
        """Return what became of a request; the journal is told, but for answers, of which the caller tells it."""
        try:
            reply = future.result()
        except Broken as error:
            self.journal.add("failed", ask.request)
            return Refused(ask, str(error))
        except Denied as error:
            self.journal.add("failed", ask.request)
            return error
        except Failed as error:
            self.journal.add("lost" if error.maybe_billed else "failed", ask.request)
            return error
        self.crowded = 0
        return self._answer(ask, reply, seconds)

    def _answer(self, ask: Ask, reply: Reply, seconds: float) -> Answer:
        counted = reply.prompt_tokens is not None and reply.completion_tokens is not None
        tokens = (reply.prompt_tokens, reply.completion_tokens) if counted else (tokens_in(ask.prompt), tokens_in(reply.text))
        return Answer(ask, reply.text, reply.finish, *tokens, round(seconds, 3), reply.model, guessed=not counted)

    def _affordable(self, ask: Ask) -> bool:
        return self.journal.committed + self.ceiling(ask) <= self.settings.max_cost + 1e-9

    def _too_dear(self) -> str:
        return (
            f"another request might go beyond max_cost={self.settings.max_cost:g}: {self.journal.spent:.4g} are spent; raise "
            "it, or lower max_tokens or tries"
        )

    def _pause(self, failed: Failed, failures: int) -> float:
        """Return the seconds until a request is sent again. Where the endpoint is crowded, all others wait as well."""
        own = min(LONGEST_WAIT, FIRST_WAIT * 2**failures) * random.uniform(0.5, 1.0)
        pause = max(own, failed.retry_after or 0.0)
        if failed.crowded or failed.retry_after:
            self.crowded += 1
            everyone = failed.retry_after or min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(self.crowded - 1, 16))
            self.next_at = max(self.next_at, time.monotonic() + everyone)
        if pause >= SAID_FROM:
            print(f"waiting {pause:.0f} s: {failed.message}", file=sys.stderr, flush=True)
        return pause

    def _trouble(self, failed: Failed, failures: int) -> str:
        """Return why a failure ends the work, or "" for one after which the request is sent again."""
        if failed.retry_after and failed.retry_after > self.settings.longest_wait:
            return (
                f"{failed.message}; it asks to wait {failed.retry_after:.0f} s, longest_wait is {self.settings.longest_wait:g}"
                "; run the same command later"
            )
        if failures >= self.settings.retries:
            return f"{failed.message}; sent {failures + 1} times, which is all that retries={self.settings.retries} allows"
        return ""


def identity(settings: Endpoint) -> dict[str, Any]:
    """Return all that a response depends on, but for the prompt and the number of the try; wherever the model is served."""
    return {"kind": "endpoint", **settings.model_dump(include={"model", "extra", "temperature", "max_tokens"})}
