"""The types of each model's options are those of the catalogue."""

from __future__ import annotations

import ast

from support import model_options


def test_the_module_is_what_the_catalogue_makes():
    written = model_options.MODULE.read_text(encoding="utf-8")

    # The formatter, which the tests do not need, changes only how the module looks.
    assert dumped(written) == dumped(model_options.write()), "python tests/support/model_options.py writes it"


def dumped(module: str) -> str:
    return ast.dump(ast.parse(module))
