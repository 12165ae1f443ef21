"""One request to an OpenAI-compatible endpoint, with limits of time and size, and what its failure means."""

from __future__ import annotations

import email.utils
import json
import time
from dataclasses import dataclass
from typing import Any

import httpx

from sdpg.config.solutions import Endpoint

MOST_BYTES = 8 * 2**20  # of a response
CONNECT_SECONDS = 10.0
AGAIN = {408, 409, 425, 429, *range(500, 600)}  # states in which the same request may be answered later
THIS_PROMPT = {400, 413, 422}  # what some endpoints say of one prompt, and others of every one
NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached", "insufficient_balance")


@dataclass(frozen=True)
class Reply:
    """A response; tokens: None where the endpoint did not count them."""

    text: str
    finish: str
    prompt_tokens: int | None
    completion_tokens: int | None
    model: str


class Failed(Exception):
    """It may be answered if it is sent again. crowded: too many requests. maybe_billed: the endpoint may have worked on it."""

    def __init__(self, message: str, *, retry_after: float | None = None, crowded: bool = False, maybe_billed: bool = False):
        super().__init__(message)
        self.message, self.retry_after, self.crowded, self.maybe_billed = message, retry_after, crowded, maybe_billed


class Denied(Exception):
    """No request will be answered. The message says what to do."""

    def __init__(self, message: str):
        super().__init__(message)
        self.message = message


class Broken(Exception):
    """This prompt will not be answered."""


class Client:
    """Sends prompts. Its errors never have the key in them, nor anything like it that the endpoint says."""

    def __init__(self, settings: Endpoint, key: str | None):
        self.settings, self._key = settings, key
        try:
            self._client = httpx.Client(
                timeout=httpx.Timeout(settings.timeout, connect=min(CONNECT_SECONDS, settings.timeout)),
                limits=httpx.Limits(max_connections=settings.concurrency),
                headers={"Authorization": f"Bearer {key}"} if key else {},
                follow_redirects=False,  # elsewhere the key has no business
            )
        except (ImportError, ValueError, httpx.InvalidURL) as error:  # of the proxies in the environment
            raise ValueError(f"the proxies in the environment (HTTPS_PROXY, ...) cannot be used: {self.said(error)}") from None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def send(self, prompt: str) -> Reply:
        """Send a prompt and wait for its response. Raises Failed, Denied, Broken."""
        s = self.settings
        body = {"model": s.model, "messages": [{"role": "user", "content": prompt}], "temperature": s.temperature}
        sent = False
        try:
            request = self._client.build_request(
                "POST", f"{s.base_url}/chat/completions", json=body | {s.tokens_key: s.max_tokens} | s.extra
            )
            sent = True
            state, headers, content = self._exchange(request)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError) as error:
            raise Failed(f"{s.host} cannot be reached ({self.said(error)}); is it running, and base_url right?") from None
        except (httpx.TimeoutException, TimeoutError):
            raise Failed(f"{s.host} gave no answer within timeout={s.timeout:g} s", maybe_billed=sent) from None
        except httpx.InvalidURL as error:
            raise Denied(f"base_url {s.base_url} is no address ({self.said(error)})") from None
        except httpx.HTTPError as error:
            raise Failed(f"{s.host} broke the connection ({self.said(error)})", maybe_billed=sent) from None
        if state == 200:
            return self._reply(content)
        raise self._refusal(state, headers, content)

    def _exchange(self, request: httpx.Request) -> tuple[int, httpx.Headers, bytes]:
        end = time.monotonic() + self.settings.timeout
        response = self._client.send(request, stream=True)
        try:
            content = b""
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > MOST_BYTES:
                    raise Failed(f"{self.settings.host} answered with more than {MOST_BYTES} bytes", maybe_billed=True)
                if time.monotonic() > end:
                    raise TimeoutError
            return response.status_code, response.headers, content
        finally:
            response.close()

    def _reply(self, content: bytes) -> Reply:
        """Return a response by what an endpoint must say of it."""
        try:
            value = json.loads(content)
            choice, usage = value["choices"][0], value.get("usage") or {}
            text, finish = choice["message"].get("content"), choice.get("finish_reason")
            tokens = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
            if not isinstance(text, str | None) or not isinstance(usage, dict):
                raise TypeError("content is no text")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise Failed(
                f"{self.settings.host} answered with what is no chat completion: {self.said(content)!r}", maybe_billed=True
            ) from None
        counted = [n if isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 10**9 else None for n in tokens]
        return Reply(text or "", str(finish or "stop")[:40], *counted, self.said(value.get("model") or "", 100))

    def _refusal(self, state: int, headers: httpx.Headers, content: bytes) -> Exception:
        s = self.settings
        code, said = _error_of(content)
        who = f"{s.host} answers {state}" + (f" ({self.said(said)})" if said else "")
        if code in NO_MONEY or state == 402:
            return Denied(f"{who}: no credit is left there")
        if state in AGAIN:
            return Failed(who, retry_after=_seconds(headers.get("retry-after")), crowded=state in (429, 503, 529))
        if state in (401, 403):
            key = f"the key in {s.key_env} is not taken" if s.key_env else "it asks for a key: name its variable in key_env"
            return Denied(f"{who}: {key}")
        if state == 404:
            return Denied(f"{who}: it has no such page or model; base_url is {s.base_url}, model {s.model!r}")
        if state in THIS_PROMPT:
            return Broken(who)
        if 300 <= state < 400:
            return Denied(f"{who}: it points elsewhere; give its present address as base_url")
        return Denied(f"{who}: that is no answer of an OpenAI-compatible endpoint; is base_url right?")

    def said(self, value: Any, most: int = 160) -> str:
        """Return what another side said: one line, short, without the key."""
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        text = text.replace(self._key, "[key]") if self._key else text
        text = " ".join("".join(char if char.isprintable() else " " for char in text[: 10 * most]).split())
        if self._key and len(self._key) >= 8:  # providers repeat its ends
            text = text.replace(self._key[:6], "[key]").replace(self._key[-4:], "[key]")
        return text if len(text) <= most else text[:most] + "..."


def _error_of(content: bytes) -> tuple[str, str]:
    """Return (code, message) of {"error": {"code":, "message":}}, which some send without the outer part."""
    try:
        value = json.loads(content)
        error = value.get("error", value)
        if isinstance(error, str):
            return "", error
        return str(error.get("code") or error.get("type") or ""), str(error.get("message") or error.get("detail") or "")
    except (ValueError, AttributeError, RecursionError):
        return "", content[:400].decode("utf-8", "replace")


def _seconds(text: str | None) -> float | None:
    """Return a Retry-After, seconds or a date, in seconds; None without one."""
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(seconds, 0.0), 1e9) if seconds == seconds else None
