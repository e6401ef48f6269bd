"""The fields of the live service's models, as its OpenAPI of April 2026 has them."""

from __future__ import annotations

import json
from pathlib import Path

LIVE = json.loads((Path(__file__).parents[1] / "data" / "live-fields.json").read_text(encoding="utf-8"))
