"""Many images side by side: `python many.py prompts.txt folder`, one prompt a line.

The client keeps within the account's slots. A failure does not stop the other images, and each image has the number of
its line.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from fluxwerk import AsyncClient


async def main(prompts: list[str], folder: Path) -> int:
    """Generate an image for each prompt and return how many failed."""
    failures = 0
    async with AsyncClient() as client:
        requests = [client.request(prompt, model="flux-2-klein-4b", width=512, height=512) for prompt in prompts]
        numbers = {id(request): number for number, request in enumerate(requests, 1)}
        async for result in client.generate_many(requests):
            number = numbers[id(result.request)]
            if result.image:
                file = await asyncio.to_thread(result.image.save, folder / f"{number:05}.{result.image.suffix}")
                print(f"{number}: {file}, cost {result.image.cost} credits")
            else:
                failures += 1
                print(f"{number}: {type(result.error).__name__}: {result.error}", file=sys.stderr)
    return failures


if __name__ == "__main__":
    lines = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    failed = asyncio.run(main([line for line in lines if line.strip()], Path(sys.argv[2])))
    sys.exit(f"{failed} failed" if failed else 0)
