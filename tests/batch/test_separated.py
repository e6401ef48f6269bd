"""Tables as Excel, pandas and LibreOffice really write them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from fluxwerk.batch import plan
from fluxwerk.batch.manifest import read_manifest
from fluxwerk.errors import InvalidUsageError
from fluxwerk.ledger.ledger import Ledger
from support.jobs import ledger_with

FOX = [{"prompt": "fox", "seed": 7}, {"prompt": "owl", "seed": 8}]


def planned(folder: Path, content: str | bytes, name: str = "a.csv", **options: object) -> list[dict[str, object]]:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    ledger = ledger_with(0)
    plan(ledger, path, **options)
    return [Ledger.job_fields(row) for row in ledger.rows()]


def refused(folder: Path, content: str | bytes, name: str = "a.csv", **options: object) -> str:
    with pytest.raises(InvalidUsageError) as told:
        planned(folder, content, name, **options)
    return str(told.value)


@pytest.mark.parametrize(
    "table",
    [
        "prompt;seed\r\nfox;7\r\nowl;8\r\n",
        "sep=;\r\nprompt;seed\r\nfox;7\r\nowl;8\r\n",
        "\ufeffsep=,\r\nprompt,seed\r\nfox,7\r\nowl,8\r\n",
        "SEP=|\r\nprompt|seed\r\nfox|7\r\nowl|8\r\n",
        "prompt\tseed\nfox\t7\nowl\t8\n",
        "prompt,seed,,\r\nfox,7,,\r\nowl,8,,\r\n",
        ",prompt,seed\n0,fox,7\n1,owl,8\n",
        "Unnamed: 0,prompt,seed\n0,fox,7\n1,owl,8\n",
        "prompt,seed\nfox,7.0\nowl,8.0\n",
        " Prompt , SEED \nfox,7\nowl,8\n",
        "prompt,seed\nfox,7,,,\nowl,8\n",
        "\r\n;;\r\nprompt;seed;\r\nfox;7;\r\nowl;8;\r\n",
    ],
)
def test_a_table_is_read_as_its_program_wrote_it(tmp_path: Path, table: str):
    assert planned(tmp_path, table) == FOX


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_unicode_text_of_excel_is_read_by_its_mark(tmp_path: Path, encoding: str):
    table = "prompt\tseed\r\nfox\t7\r\nowl\t8\r\n"
    data = ("\ufeff" + table).encode(encoding) if encoding == "utf-16-le" else table.encode(encoding)
    assert planned(tmp_path, data) == FOX


def test_a_quoted_value_may_hold_the_other_separator(tmp_path: Path):
    table = 'prompt;model;seed\r\n"Ein Fuchs, rot";flux-2-pro;7\r\n'
    assert planned(tmp_path, table) == [{"prompt": "Ein Fuchs, rot", "seed": 7}]


def test_a_line_keeps_its_number_below_a_separator_line(tmp_path: Path):
    assert "line 4, seed" in refused(tmp_path, "sep=;\nprompt;seed\nfox;7\nowl;many\n")
    assert "line 3: there are 3 values for 2 columns; quote a value that holds ';'" in refused(
        tmp_path, "sep=;\nprompt;seed\nfox;7;red\n"
    )


def test_a_value_in_a_column_without_a_name_is_refused(tmp_path: Path):
    assert "column 3 has a value ('red') and no name" in refused(tmp_path, "prompt,seed,\nfox,7,red\n")
    assert "column 1 has a value ('a') and no name" in refused(tmp_path, ",prompt\na,fox\n")


@pytest.mark.parametrize(("cell", "seed"), [("7", 7), ("7.0", 7), ("7.00", 7), (" 7 ", 7), ('"7,0"', 7), ("-0.0", 0)])
def test_a_whole_number_may_be_written_with_zeros(tmp_path: Path, cell: str, seed: int):
    [job] = planned(tmp_path, f"prompt,seed\nfox,{cell}\n")
    assert job["seed"] == seed
    assert type(job["seed"]) is int


@pytest.mark.parametrize("cell", ["7.5", "1.000", '"1,000"', "7.0.0", ".0", "seven"])
def test_a_number_that_may_mean_another_is_refused(tmp_path: Path, cell: str):
    assert "line 2, seed" in refused(tmp_path, f"prompt,seed\nfox,{cell}\n")


def test_sizes_and_counts_may_be_written_with_zeros(tmp_path: Path):
    jobs = planned(tmp_path, "prompt,width,height,count,seed\nfox,512.0,768.0,2.0,\n", duplicates="keep")
    assert jobs == [{"prompt": "fox", "width": 512, "height": 768}] * 2
    rows = json.dumps({"prompt": "fox", "width": 512.0, "height": 768.0, "count": 2.0, "seed": float("nan")})
    assert planned(tmp_path, rows, "a.jsonl") == jobs


def test_a_decimal_comma_is_read_where_a_fraction_is_meant(tmp_path: Path):
    [job] = planned(tmp_path, "prompt;model;guidance\nfox;flux-2-flex;4,5\n")
    assert job["guidance"] == 4.5


def test_names_of_columns_are_read_in_any_case_in_json_lines(tmp_path: Path):
    assert planned(tmp_path, '{"Prompt": "fox", " SEED": 7}\n{"PROMPT": "owl", "Seed": 8}', "a.jsonl") == FOX
    assert "'prompt' is there twice" in refused(tmp_path, '{"Prompt": "fox", "prompt": "owl"}', "a.jsonl")


def test_names_of_columns_are_read_in_any_case_in_parquet(tmp_path: Path):
    arrow = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = arrow.table({"Prompt": ["fox", "owl"], "SEED": [7.0, 8.0], "__index_level_0__": [0, 1]})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert planned(tmp_path, (tmp_path / "a.parquet").read_bytes(), "a.parquet") == FOX


def test_a_text_of_windows_is_named_with_what_to_say_and_then_read(tmp_path: Path):
    table = "prompt,seed\r\nEin s\u00fc\u00dfer Fuchs \u20ac,7\r\n".encode("cp1252")
    told = refused(tmp_path, table)
    assert "line 2: byte 0xfc is not UTF-8; it looks like cp1252" in told
    assert "--encoding cp1252" in told
    assert planned(tmp_path, table, encoding="cp1252") == [{"prompt": "Ein s\u00fc\u00dfer Fuchs \u20ac", "seed": 7}]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_bad_byte_is_named_with_its_own_line(tmp_path: Path, name: str, end: str):
    row = {"a.csv": "a fox number {}", "a.jsonl": '{{"prompt": "a fox number {}"}}', "a.txt": "a fox number {}"}[name]
    lines = ["prompt" if name == "a.csv" else row.format(1), *(row.format(number) for number in range(2, 1000))]
    lines[899] = row.format("\u00df")
    assert "line 900: byte 0xdf" in refused(tmp_path, end.join(lines).encode("cp1252"), name)


def test_no_encoding_is_guessed_where_none_fits(tmp_path: Path):
    told = refused(tmp_path, b"prompt\na \x81 fox\n")
    assert "byte 0x81 is not UTF-8; save the file as UTF-8" in told
    assert "cp1252" not in told


@pytest.mark.parametrize("encoding", ["klingon", "base64", "rot13"])
def test_an_encoding_that_is_not_known_is_refused(tmp_path: Path, encoding: str):
    assert "--encoding" in refused(tmp_path, "prompt\nfox\n", encoding=encoding)


@pytest.mark.parametrize(
    ("model", "cell", "sent"),
    [
        ("flux-2-pro", "true", {"disable_pup": False}),
        ("flux-2-pro", "FALSE", {"disable_pup": True}),
        ("flux-2-max", "no", {"disable_pup": True}),
        ("flux-2-flex", "true", {"prompt_upsampling": True}),
    ],
)
def test_prompt_upsampling_in_a_table_is_read_for_every_model(
    tmp_path: Path, model: str, cell: str, sent: dict[str, bool]
):
    assert planned(tmp_path, f"prompt,model,prompt_upsampling\nfox,{model},{cell}\n") == [{"prompt": "fox", **sent}]


def test_prompt_upsampling_that_is_neither_is_refused_by_its_own_name(tmp_path: Path):
    told = refused(tmp_path, "prompt,model,prompt_upsampling\nfox,flux-2-pro,perhaps\n")
    assert "line 2, prompt_upsampling = 'perhaps': must be true or false" in told


@pytest.mark.parametrize("output", [["a"], {"a": 1}, True, 1.5])
def test_an_output_that_is_not_one_name_is_refused(tmp_path: Path, output: object):
    told = refused(tmp_path, json.dumps({"prompt": "fox", "output": output}), "a.jsonl")
    assert "line 1, output" in told
    assert "must be one file name" in told


@pytest.mark.skipif(sys.platform == "win32", reason="FIFOs are POSIX")
def test_only_regular_files_are_read(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "folder.png", "/dev/zero"):
        assert "it is not a regular file" in refused(tmp_path, f"prompt,images\nfox,{name}\n")
    with pytest.raises(InvalidUsageError, match="must be a regular file"):
        plan(ledger_with(0), tmp_path / "pipe.csv")


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path):
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(1 << 40)
    assert "must be at most 20 MB" in refused(tmp_path, "prompt,images\nfox,huge.png\n")


def test_lines_of_a_manifest_are_counted_from_one(tmp_path: Path):
    (tmp_path / "a.csv").write_text('\nprompt,tag\n"two\nlines",x\nowl,y\n')
    assert [line.number for line in read_manifest(tmp_path / "a.csv")] == [3, 5]
