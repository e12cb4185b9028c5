"""The same engine on vLLM (extra `vllm`), for production GPUs: same requests, same pieces, same registry.

vLLM keeps its own batch, cache and adapters; queues and deadlines are ours. Needs a CUDA GPU, so no test here runs it.
"""

from __future__ import annotations

import asyncio
import math
import uuid
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from ftlib.errors import FtlibError
from ftlib.models.adapter_files import why_not_banked
from ftlib.registry.version import Version
from serve.engine.arrivals import Arrivals
from serve.engine.messages import Ask, Piece, Refusal, Refused, TokenLogprob
from serve.engine.options import EngineOptions

BUSY = Refusal(
    "Too many requests are waiting: try again in a moment.", None, "rate_limit_exceeded", 429, "rate_limit_error", 1
)
LATE = Refusal(
    "The answer was not finished in time: ask for fewer tokens.", None, "deadline_exceeded", 408, "timeout_error"
)
MAX_RANK = 64


class VllmEngine:
    """Answers for versions on one base, which vLLM loads itself."""

    def __init__(self, version: Version, options: EngineOptions, threads: int = 1) -> None:
        """Raises FtlibError when the base changed since training, vLLM is missing, or it cannot serve the adapter."""
        try:
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError:
            raise FtlibError("engine.type is 'vllm', which is not installed: pip install 'ftlib[vllm]'.") from None
        from ftlib.models.base import where
        from ftlib.registry.bases import base_of
        from serve.engine.model import Tokenizers, in_folder

        adapter = version.kind == "adapter"
        reason = why_not_banked(version.id, version.weights) if adapter else None
        if reason:
            raise FtlibError(f"vLLM cannot serve {version.id}: {reason}. Promote it merged, or use the bank.")
        section = base_of(version.manifest, version.id) if adapter else in_folder(version)
        self._options, self._arrivals, self._tokenizers = options, Arrivals(), Tokenizers()
        lora = {"enable_lora": True, "max_loras": options.max_adapters, "max_lora_rank": MAX_RANK} if adapter else {}
        self._engine: Any = AsyncLLM.from_engine_args(
            AsyncEngineArgs(
                model=where(section),
                revision=section.revision,
                dtype=section.dtype,
                trust_remote_code=section.trust_remote_code,
                max_num_seqs=options.max_rows,
                load_format="safetensors",
                **lora,
            )
        )
        self._context: int = self._engine.model_config.max_model_len
        self._inside = 0

    async def generate(self, ask: Ask) -> AsyncIterator[Piece | Refusal]:
        """One Refusal, or pieces of each choice up to its last one."""
        from serve.engine.model import encode, sentences

        try:
            ask.check_count(self._options.max_rows)
            await self._arrivals.wait(ask.version, min(ask.seconds or math.inf, self._options.deadline))
            with sentences(ask.version):
                tokenizer = self._tokenizers.get(ask.version, ask.bare)
                prompts = await asyncio.to_thread(encode, ask, tokenizer, self._context)
                read = self._tokenizers.decoder(tokenizer)(prompts[0]) if ask.tells_prompt else None
        except Refused as refused:
            yield refused.refusal
            return
        if self._inside >= self._options.max_rows + self._options.max_waiting:
            yield BUSY
            return
        heard: asyncio.Queue[Piece | Refusal | BaseException] = asyncio.Queue()
        tasks = [
            asyncio.create_task(self._listen(ask, number, prompt, sum(map(len, prompts)), heard))
            for number, prompt in enumerate(prompts)
        ]
        left = len(prompts) * ask.n
        self._inside += 1
        try:
            async with asyncio.timeout(min(ask.seconds or math.inf, self._options.deadline)):
                while left:
                    piece = await heard.get()
                    if isinstance(piece, BaseException):
                        raise piece
                    if isinstance(piece, Piece):
                        left -= piece.finish_reason is not None
                        piece, read = replace(piece, prompt=read), None
                    yield piece
        except TimeoutError:
            yield LATE
        finally:
            self._inside -= 1
            for task in tasks:
                task.cancel()  # vLLM frees the rows of a generator that is closed

    async def check_health(self) -> None:
        """Serve asks now and then."""
        await self._engine.check_health()

    async def _listen(self, ask: Ask, number: int, prompt: list[int], total: int, heard: asyncio.Queue[Any]) -> None:
        from vllm.lora.request import LoRARequest

        lora = None
        # The number is a cache's key there: versions are immutable, and so is theirs.
        if ask.version.kind == "adapter" and not ask.bare:
            lora = LoRARequest(ask.version.id, zlib.crc32(ask.version.id.encode()) or 1, str(ask.version.weights))
        counts: dict[int, int] = {}
        try:
            async for output in self._engine.generate(
                {"prompt_token_ids": prompt}, self._sampling(ask, len(prompt)), uuid.uuid4().hex, lora_request=lora
            ):
                for completion in output.outputs:
                    counts[completion.index] = counts.get(completion.index, 0) + len(completion.token_ids)
                    await heard.put(
                        Piece(
                            completion.text,
                            number * ask.n + completion.index,
                            tuple(
                                _told(token, at)
                                for token, at in zip(completion.token_ids, completion.logprobs or (), strict=False)
                            ),
                            completion.finish_reason,
                            counts[completion.index],
                            total,
                        )
                    )
        except Exception as error:
            await heard.put(error)

    def _sampling(self, ask: Ask, prompt: int) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        room = min(self._context - prompt, self._options.max_new_tokens)
        return SamplingParams(
            n=ask.n,
            temperature=ask.temperature,
            top_p=ask.top_p,
            top_k=ask.top_k or -1,
            min_p=ask.min_p,
            presence_penalty=ask.presence_penalty,
            frequency_penalty=ask.frequency_penalty,
            logit_bias=ask.logit_bias or None,
            seed=ask.seed,
            stop=list(ask.stop),
            max_tokens=min(room, ask.max_tokens or room),
            logprobs=ask.logprobs,
            output_kind=RequestOutputKind.DELTA if ask.stream else RequestOutputKind.FINAL_ONLY,
        )


def _told(token: int, likely: Any) -> TokenLogprob:
    """vLLM's {id: Logprob} of one place."""
    own = likely[token]
    others = sorted(likely.values(), key=lambda candidate: -candidate.logprob)
    top = tuple(TokenLogprob(candidate.decoded_token or "", candidate.logprob) for candidate in others)
    return TokenLogprob(own.decoded_token or "", own.logprob, top)
