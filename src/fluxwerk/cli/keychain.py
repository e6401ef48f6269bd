"""The key of a user: in `.env` of a folder, or in the keyring of the system."""

from __future__ import annotations

import os
import re
from pathlib import Path

from fluxwerk import storage
from fluxwerk.errors import InvalidUsageError

SERVICE, KEY_NAME = "fluxwerk", "BFL_API_KEY"
ASSIGNMENT = re.compile(r"^\s*(?:export\s+)?BFL_API_KEY\s*=.*$", re.MULTILINE)


def write_env(folder: Path, key: str) -> Path:
    """Put the key into `.env`, readable by its owner only, in the place of an earlier one."""
    file = folder / ".env"
    held = file.read_text(encoding="utf-8") if file.exists() else ""
    line = f"{KEY_NAME}={key}"
    if ASSIGNMENT.search(held):
        text = ASSIGNMENT.sub(lambda _: line, held)
    else:
        text = held + ("" if not held or held.endswith("\n") else "\n") + line + "\n"
    # No moment passes in which others could read the file, not even under the name that it has while it is written.
    before = os.umask(0o077)
    try:
        storage.save(text.encode(), file)
    finally:
        os.umask(before)
    file.chmod(0o600)
    return file


def ignore_env(folder: Path) -> bool:
    """Have git ignore `.env`; return whether `.gitignore` had to be changed."""
    file = folder / ".gitignore"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    if {".env", "/.env", ".env*", "*.env"} & {line.strip() for line in lines}:
        return False
    storage.save("\n".join([*lines, ".env", ""]).encode(), file)
    return True


def write_keyring(key: str) -> None:
    """Put the key into the keyring of the system; raises `InvalidUsageError` where there is none."""
    try:
        import keyring  # noqa: PLC0415  (an extra)
        from keyring.errors import KeyringError  # noqa: PLC0415
    except ModuleNotFoundError:
        raise InvalidUsageError(
            "--keyring needs the package keyring. Install it: pip install 'fluxwerk[keyring]'"
        ) from None
    try:
        keyring.set_password(SERVICE, KEY_NAME, key)
    except KeyringError as error:
        raise InvalidUsageError(
            f"The keyring does not take the key ({error}). Leave out --keyring to use .env."
        ) from None


def read_keyring() -> str | None:
    """Return the key of the keyring, or `None`; without the package, or without a keyring, there is none."""
    try:
        import keyring  # noqa: PLC0415
        from keyring.errors import KeyringError  # noqa: PLC0415
    except ModuleNotFoundError:
        return None
    try:
        return keyring.get_password(SERVICE, KEY_NAME)
    except KeyringError:
        return None
