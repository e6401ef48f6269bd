"""Many images side by side: `python many.py prompts.txt folder`, one prompt a line.

One failure stops nobody else, and every image keeps the number of its line.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from fluxwerk import AsyncClient, Error

AT_ONCE = 24  # what the service allows an account for most models


async def main(prompts: list[str], folder: Path) -> int:
    """Generate an image for each prompt and return how many failed."""
    slots, failures = asyncio.Semaphore(AT_ONCE), 0

    async def make(number: int, prompt: str) -> None:
        nonlocal failures
        async with slots:
            try:
                image = await client.generate(prompt, model="flux-2-klein-4b", width=512, height=512)
            except Error as error:
                failures += 1
                print(f"{number}: {type(error).__name__}: {error}", file=sys.stderr)
            else:
                file = await asyncio.to_thread(image.save, folder / f"{number:05}.{image.suffix}")
                print(f"{number}: {file}, cost {image.cost} credits")

    async with AsyncClient() as client, asyncio.TaskGroup() as group:
        for number, prompt in enumerate(prompts, 1):
            group.create_task(make(number, prompt))
    return failures


if __name__ == "__main__":
    lines = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    failed = asyncio.run(main([line for line in lines if line.strip()], Path(sys.argv[2])))
    sys.exit(f"{failed} failed" if failed else 0)
