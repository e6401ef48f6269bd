"""One image: `BFL_API_KEY=… python quickstart.py "A red fox"`.

With `BFL_BASE_URL=http://127.0.0.1:8000` the same program uses `fluxwerk serve`.
"""

from __future__ import annotations

import sys

from fluxwerk import Client, FluxwerkError, ModerationError, TaskTimeoutError


def main(prompt: str) -> None:
    """Estimate, generate, save."""
    with Client() as client:
        print(f"about {client.estimate('flux-2-pro', 1024, 768)} credits")
        try:
            image = client.generate(prompt, model="flux-2-pro", width=1024, height=768)
        except ModerationError as error:
            sys.exit(f"Moderation stopped the {error.stage}: {', '.join(error.reasons) or 'no reasons given'}")
        except TaskTimeoutError as error:
            sys.exit(f"{error}")  # the message says how to collect the image later, because it is paid for
        except FluxwerkError as error:
            sys.exit(f"{type(error).__name__}: {error}")
    file = image.save(f"quickstart.{image.suffix}")
    print(f"{file}: {image.width}×{image.height}, seed {image.seed}, cost {image.cost} credits")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "A serene mountain landscape at sunset")
