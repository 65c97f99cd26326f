"""An engine of texts behind an address: a client of chat servers, by the standard library."""

import http.client
import json
import time
import urllib.error
import urllib.request
from typing import Any

from ..._core import check_count, fault
from ._variable import Engine

# What is worth trying again: too many requests, and faults of the server's own.
_PASSING = {408, 429, 500, 502, 503, 504}


def chat_engine(
    address: str,
    model: str,
    *,
    token: str | None = None,
    system: str | None = None,
    temperature: float = 0.0,
    timeout: float = 120.0,
    retries: int = 2,
) -> Engine:
    """Ask a server that speaks the chat protocol of OpenAI, such as one of your own at home.

    Args:
        address: of the interface, ``http://localhost:8000/v1``, to which ``/chat/completions`` is added.
        model: its name there.
        token: sent as a bearer's, where the server asks for one. Nothing is read from the environment.
        system: what the model is told first.
        temperature: of the answer's draws, 0 by default.
        timeout: seconds to wait for an answer.
        retries: how often a request is made again after a fault that may pass, after 1, 2, 4, … seconds.

    Returns:
        ``prompt -> answer``.

    Raises:
        ValueError: an argument makes no sense.
        RuntimeError: when called: no answer, with the server's own words, or one of another form.

    Example:
        >>> from nablax import estimate
        >>> engine = estimate.chat_engine("http://localhost:8000/v1", "a-model")
        >>> callable(engine)
        True

    Cost: one request a call, more after faults.
    """
    if not (isinstance(address, str) and address.startswith(("http://", "https://"))):
        raise fault(expected="an address that begins with http:// or https://", got=repr(address), fix="Add it.")
    if not timeout > 0:
        raise fault(expected="a timeout above 0 seconds", got=timeout, fix="Pass timeout=120.0.")
    check_count(retries, what="retries", least=0)
    place = address.rstrip("/") + "/chat/completions"
    headers = {"Content-Type": "application/json"} | ({} if token is None else {"Authorization": f"Bearer {token}"})
    before = [] if system is None else [{"role": "system", "content": system}]

    def engine(prompt: str) -> str:
        messages = [*before, {"role": "user", "content": prompt}]
        body = json.dumps({"model": model, "messages": messages, "temperature": temperature}).encode()
        request = urllib.request.Request(place, body, headers, method="POST")
        for tried in range(retries + 1):
            try:
                with urllib.request.urlopen(request, timeout=timeout) as reply:
                    return _content(reply.read(), place)
            except urllib.error.HTTPError as error:
                said = error.read().decode(errors="replace")[:500]
                trouble, passing = f"{error.code} {error.reason}: {said}", error.code in _PASSING
            except (OSError, http.client.HTTPException) as error:
                trouble, passing = str(error) or type(error).__name__, True
            if not passing or tried == retries:
                break
            time.sleep(2**tried)
        raise RuntimeError(f"expected an answer of {model} from {place}, got {trouble}. Asked {tried + 1} times.")

    return engine


def _content(reply: bytes, place: str) -> str:
    found: Any = None
    try:
        found = json.loads(reply)
        content = found["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        content = None
    if not isinstance(content, str):
        raise RuntimeError(
            f"expected choices[0].message.content, a text, from {place}, got {reply[:500]!r}. Is it a chat server?"
        )
    return content


__all__ = ["chat_engine"]
