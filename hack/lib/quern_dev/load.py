"""Real load on an OpenAI-compatible endpoint: a fixed number of clients, each asking again when it has its answer."""

import asyncio
import itertools
import threading
import time
from dataclasses import dataclass, field

import openai

_QUESTIONS = (
    "Explain in a few sentences how a windmill grinds grain.",
    "Write a short story about a lighthouse keeper and a cat.",
    "What should I pack for a week of walking in the mountains?",
    "Describe how bread rises, step by step.",
    "List some reasons why rivers bend, with a sentence for each.",
    "Tell me about the history of the printing press.",
    "How does a sailing boat move against the wind?",
    "Give advice to somebody who starts to learn the violin.",
)
_RETRY_SECONDS = 0.5


@dataclass
class Totals:
    """What has been seen so far. Read it from any thread; the figures only grow."""

    requests: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    errors: int = 0
    last_error: str = ""
    first_token_seconds: list = field(default_factory=list)


class Load:
    """`with Load(url, model, clients=4) as load:` runs in a thread of its own until the block ends.

    Bounded: `clients` requests at a time, and no longer than `limit_seconds`.
    """

    def __init__(self, base_url: str, model: str, *, clients: int, max_tokens: int = 64, limit_seconds: float = 600,
                 api_key: str = "none"):
        self.totals = Totals()
        self._make_client = lambda: openai.AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=0, timeout=120)
        self._model, self._clients, self._max_tokens = model, clients, max_tokens
        self._deadline = time.monotonic() + limit_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._started = 0.0

    def __enter__(self):
        self._started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(timeout=130)

    def tokens_per_second(self) -> float:
        """Output tokens per second since the start."""
        return self.totals.output_tokens / max(time.monotonic() - self._started, 1e-9)

    def _run(self):
        asyncio.run(self._all())

    async def _all(self):
        async with self._make_client() as client:
            tasks = [asyncio.create_task(self._one(client, number)) for number in range(self._clients)]
            while not self._over() and not all(task.done() for task in tasks):
                await asyncio.sleep(0.2)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _over(self) -> bool:
        return self._stop.is_set() or time.monotonic() > self._deadline

    async def _one(self, client, number):
        for turn in itertools.count():
            try:
                await self._ask(client, _QUESTIONS[(number + turn) % len(_QUESTIONS)], seed=1000 * number + turn)
            except openai.OpenAIError as error:
                self.totals.errors += 1
                self.totals.last_error = f"{type(error).__name__}: {error}"[:200]
                await asyncio.sleep(_RETRY_SECONDS)

    async def _ask(self, client, question, seed):
        start = time.monotonic()
        stream = await client.chat.completions.create(
            model=self._model, messages=[{"role": "user", "content": question}], max_tokens=self._max_tokens, seed=seed,
            stream=True, stream_options={"include_usage": True})
        first = True
        async for chunk in stream:
            if first and chunk.choices and chunk.choices[0].delta.content:
                self.totals.first_token_seconds.append(time.monotonic() - start)
                first = False
            if chunk.usage:
                self.totals.prompt_tokens += chunk.usage.prompt_tokens
                self.totals.output_tokens += chunk.usage.completion_tokens
        self.totals.requests += 1
