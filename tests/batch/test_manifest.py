from __future__ import annotations

import csv
import json
import threading
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fluxwerk.batch import plan
from fluxwerk.batch.manifest import ManifestLine, fingerprint, read_manifest
from fluxwerk.batch.row import Defaults, Rows, request_hash
from fluxwerk.errors import ConflictError, InvalidUsageError
from fluxwerk.ledger.ledger import Ledger
from fluxwerk.ledger.plans import GONE, PlannedJob, PlanWriter, sweep
from fluxwerk.testing import PretendClock
from fluxwerk.testing.face_to_face import blank
from support.jobs import ledger_with


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def planned(ledger: Ledger) -> list[dict[str, object]]:
    return [{"line": row["line"], **Ledger.job_fields(row)} for row in ledger.rows()]


def faults(path: Path, **options: object) -> str:
    ledger = ledger_with(0)
    with pytest.raises(InvalidUsageError) as told:
        plan(ledger, path, **options)
    assert list(ledger.rows()) == [], "nothing is written when anything is wrong"
    return str(told.value)


def test_a_csv_from_a_spreadsheet_is_read(tmp_path: Path):
    """A csv from a spreadsheet is read with its mark its line ends and its quotes."""
    text = 'Prompt,model,seed\r\n"A ""red"" fox, asleep",flux-2-pro,1\r\n\r\n"two\r\nlines",klein-4b,\r\n'
    path = write(tmp_path, "a.csv", b"\xef\xbb\xbf" + text.encode())
    ledger = ledger_with(0)
    assert plan(ledger, path).jobs == 2
    assert planned(ledger) == [
        {"line": 2, "prompt": 'A "red" fox, asleep', "seed": 1},
        {"line": 4, "prompt": "two\r\nlines"},
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "prompt,size,seed,tag\na fox,512x768,7,x\n"),
        ("a.tsv", "prompt\tsize\tseed\ttag\na fox\t512x768\t7\tx\n"),
        ("a.jsonl", '{"prompt": "a fox", "width": 512, "height": 768, "seed": 7, "tag": "x"}\n'),
    ],
)
def test_the_same_row_is_the_same_request_in_every_format(tmp_path: Path, name: str, content: str):
    ledger = ledger_with(0)
    plan(ledger, write(tmp_path, name, content))
    job = ledger.job(1)
    assert job.hash == request_hash("flux-2-pro", {"prompt": "a fox", "width": 512, "height": 768, "seed": 7})
    assert job.tag == "x"


def test_a_parquet_file_is_read_by_its_rows(tmp_path: Path):
    pa = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"prompt": ["a", "b"], "seed": [1, None]}), tmp_path / "a.parquet")
    ledger = ledger_with(0)
    plan(ledger, tmp_path / "a.parquet")
    assert planned(ledger) == [{"line": 1, "prompt": "a", "seed": 1}, {"line": 2, "prompt": "b"}]
    whole = (tmp_path / "a.parquet").read_bytes()
    assert "not a whole Parquet file" in faults(write(tmp_path, "b.parquet", whole[:-50]))


def test_a_damaged_parquet_file_is_refused(tmp_path: Path):
    """A parquet file whose pages are damaged or whose prompts are bytes is refused."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra parquet is not installed")
    arrow = pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"prompt": [f"a fox number {number}" for number in range(5000)]}), path)
    data = bytearray(path.read_bytes())
    data[200 : len(data) // 2] = bytes(len(data) // 2 - 200)
    told = faults(write(tmp_path, "b.parquet", bytes(data)))
    assert "b.parquet" in told
    assert "None" not in told
    parquet.write_table(arrow.table({"prompt": [b"fox"]}), path)
    assert "line 1, prompt: must be a text" in faults(path)


def test_a_text_file_holds_a_prompt_a_line(tmp_path: Path):
    ledger = ledger_with(0)
    plan(ledger, write(tmp_path, "a.txt", "a fox\n\n  a wolf, howling  \n"), model="klein-4b")
    assert planned(ledger) == [{"line": 1, "prompt": "a fox"}, {"line": 3, "prompt": "a wolf, howling"}]
    assert ledger.job(1).model == "flux-2-klein-4b"


def test_every_fault_is_told_with_its_line_its_field_and_what_is_allowed(tmp_path: Path):
    path = write(
        tmp_path,
        "a.csv",
        "prompt,model,width,count,output,size\n"
        "fox,flux-9,,,,\n"
        "fox,flux-2-pro,63,,,\n"
        "fox,flux-2-pro,wide,,,\n"
        "fox,flux-2-pro,,0,,\n"
        "fox,flux-2-pro,,,../fox.png,\n"
        "fox,flux-2-pro,,,,12\n"
        "fox,flux-2-pro,64,,,64x64\n"
        ",flux-2-pro,,,,\n",
    )
    told = faults(path)
    places = [
        "line 2, model",
        "line 3, width = 63",
        "line 4, width = 'wide'",
        "line 5, count = '0'",
        "line 6, output = '../fox.png'",
        "line 7, size = '12'",
        "line 8, size",
        "line 9, prompt",
    ]
    assert [place for place in places if place not in told] == []
    assert "nothing was written or sent" in told


def test_an_unknown_column_is_a_fault_with_a_suggestion(tmp_path: Path):
    assert "did you mean 'seed'" in faults(write(tmp_path, "a.csv", "prompt,sead\nfox,1\n"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "", "the file is empty"),
        ("a.csv", "prompt\n", "holds no rows"),
        ("a.csv", "a red fox\n", "must name the columns"),
        ("a.csv", "prompt,prompt\na,b\n", "'prompt' is there twice"),
        ("a.csv", "prompt,model\na,flux-2-pro,extra\n", "3 values for 2 columns"),
        ("a.csv", 'prompt\n"never closed\n', "the quotes do not fit"),
        ("a.csv", b"prompt\na \xff fox\n", "byte 0xff is not UTF-8"),
        ("a.csv", b"\x00\x01\x02\x03PK\n", "must name the columns"),
        ("a.jsonl", '{"prompt": "a"}\n{"prompt": \n', "line 2: this is not JSON"),
        ("a.jsonl", "[1]\n", "each line must be an object"),
        ("a.jsonl", '{"prompt": 7}\n{"prompt": "a", "tag": 7}\n', "line 2, tag"),
        ("a.jsonl", '{"prompt": ["a"]}\n', "line 1, prompt: must be a text"),
        ("a.csv", "prompt,size\na,²x²\n", "line 2, size = '²x²': must look like 1024x768"),
        ("a.csv", "prompt,size\na," + "9" * 5000 + "x10\n", "must look like 1024x768"),
        ("a.csv", "prompt,count\na," + "9" * 5000 + "\n", "line 2, count"),
        ("a.csv", "prompt,images\na,b\0.png\n", "line 2, images"),
        ("a.xlsx", "", "must end in one of .csv"),
    ],
)
def test_a_damaged_manifest_is_refused_with_the_place(tmp_path: Path, name: str, content: str | bytes, words: str):
    assert words in faults(write(tmp_path, name, content))


def test_a_prompt_of_five_megabytes_is_a_fault_in_every_format(tmp_path: Path):
    novel = "a fox " * 850_000
    assert "longer than 131072" in faults(write(tmp_path, "a.csv", f'prompt\n"a"\n"{novel}"\n'))
    assert "line 1, prompt" in faults(write(tmp_path, "a.jsonl", json.dumps({"prompt": novel})))
    assert "at most 131072" in faults(write(tmp_path, "a.txt", novel))


def test_a_manifest_that_is_missing_is_named(tmp_path: Path):
    with pytest.raises(InvalidUsageError, match=r"gone\.csv.*No such file"):
        plan(ledger_with(0), tmp_path / "gone.csv")
    with pytest.raises(InvalidUsageError, match="cannot be read"):
        list(read_manifest(tmp_path / "gone.csv"))
    assert fingerprint(write(tmp_path, "a.txt", "a")) == fingerprint(write(tmp_path, "b.txt", "a"))


def test_fifty_faults_are_enough(tmp_path: Path):
    told = faults(write(tmp_path, "a.csv", "prompt,width\n" + "fox,1\n" * 500))
    assert told.count("line ") == 50
    assert "there may be more" in told
    told = faults(write(tmp_path, "b.txt", "fox\n" * 5000))
    assert told.count("line 5: ") == told.count("there may be more") == 1


def test_duplicates_are_refused_skipped_or_kept(tmp_path: Path):
    path = write(tmp_path, "a.txt", "fox\nwolf\nfox\n")
    assert "line 3: asks for the same as line 1" in faults(path)
    ledger = ledger_with(0)
    found = plan(ledger, path, duplicates="skip")
    assert (found.jobs, found.skipped, found.duplicates) == (2, 1, [(3, "line 1")])
    assert plan(ledger_with(0), path, duplicates="keep").jobs == 3
    assert "must be one of" in faults(path, duplicates="maybe")


def test_a_row_that_another_manifest_asked_for_is_a_duplicate_too(tmp_path: Path):
    ledger = ledger_with(0)
    plan(ledger, write(tmp_path, "a.txt", "fox\nwolf\n"))
    grown = write(tmp_path, "b.txt", "fox\nwolf\nbear\n")
    with pytest.raises(InvalidUsageError, match=r"line 1: asks for the same as job 1 of a\.txt"):
        plan(ledger, grown)
    assert plan(ledger, grown, duplicates="skip").jobs == 1


def test_planning_the_same_manifest_twice_adds_nothing(tmp_path: Path):
    ledger = ledger_with(0)
    path = write(tmp_path, "a.txt", "fox\nwolf\n")
    assert not plan(ledger, path).already
    assert plan(ledger, path).already
    assert len(planned(ledger)) == 2


@pytest.mark.parametrize("policy", ["keep", "refuse"])
def test_two_processes_that_plan_the_same_manifest_at_once_plan_it_once(tmp_path: Path, policy: str):
    path = write(tmp_path, "a.txt", "\n".join(f"fox {number}" for number in range(4500)))
    ledger = ledger_with(0)
    inner: list[bool] = []

    def meanwhile(_: int) -> None:
        if not inner:
            inner.append(plan(ledger, path, duplicates=policy).already)

    assert plan(ledger, path, duplicates=policy, on_line=meanwhile).already
    assert (inner, len(planned(ledger))) == ([False], 4500)


def test_a_process_that_plans_the_same_names_at_once_waits_for_the_other(tmp_path: Path):
    path = write(tmp_path, "a.csv", "prompt,output\n" + "".join(f"fox {n},{n}.png\n" for n in range(2500)))
    ahead, behind = threading.Event(), threading.Event()

    class Patient(PretendClock):
        def sleep(self, seconds: float) -> None:
            behind.set()
            assert seconds > 0
            first.join(10)

    def meanwhile(_: int) -> None:
        ahead.set()
        assert behind.wait(10)

    def lead() -> None:
        with Ledger.open(tmp_path / "a.ledger") as ledger:
            plan(ledger, path, on_line=meanwhile)

    Ledger.open(tmp_path / "a.ledger").close()
    first = threading.Thread(target=lead)
    first.start()
    assert ahead.wait(10)
    with Ledger.open(tmp_path / "a.ledger") as ledger:
        assert plan(ledger, path, clock=Patient()).already
        assert len(planned(ledger)) == 2500


def test_names_that_another_process_never_lets_go_of_end_the_planning(tmp_path: Path):
    ledger = ledger_with(0)
    other = PlanWriter(ledger.database, "b.csv", "another")
    job = PlannedJob(1, 1, "flux-2-pro", "standard", "{}", "a" * 64, None, output="a.png")
    other.add([job], {"standard": 24})
    known_late = "prompt,output\n" + "".join(f"fox {n},{n}.png\n" for n in range(10))
    with pytest.raises(InvalidUsageError, match="is the name of another image already"):
        plan(ledger, write(tmp_path, "c.csv", "prompt,output\nfox,a.png\n"))
    same = PlanWriter(ledger.database, "a.csv", fingerprint(write(tmp_path, "a.csv", known_late)))
    same.add([replace(job, output="3.png")], {"standard": 24})
    with pytest.raises(ConflictError, match="planning images with the same names"):
        plan(ledger, tmp_path / "a.csv", clock=PretendClock())
    assert {row["output"] for row in ledger.rows()} == {"a.png", "3.png"}


def test_a_plan_that_was_taken_for_abandoned_is_made_again(tmp_path: Path):
    clock = PretendClock()
    ledger = Ledger.open(":memory:", clock=clock.now)
    swept: list[int] = []

    def fall_asleep(line: int) -> None:
        if not swept:
            swept.append(line)
            clock.sleep(100)
            sweep(ledger.database)

    path = write(tmp_path, "a.txt", "\n".join(f"fox {number}" for number in range(5000)))
    assert plan(ledger, path, on_line=fall_asleep, clock=clock).jobs == 5000
    assert [row["line"] for row in planned(ledger)] == list(range(1, 5001))


def test_a_sheet_that_is_being_swept_away_is_not_opened_without_its_jobs(tmp_path: Path):
    ledger = ledger_with(0)
    writer = PlanWriter(ledger.database, "a.txt", "a")
    with ledger.database.write() as transaction:
        transaction.run("update sheets set touched = :gone", gone=GONE)
    with pytest.raises(ConflictError, match="deleted it"):
        writer.open()


def test_a_row_may_ask_for_several_images(tmp_path: Path):
    """A row may ask for several images with seeds and names of their own."""
    ledger = ledger_with(0)
    text = "prompt,count,seed,output\nfox,3,5,foxes/fox.png\nwolf,2,,\n"
    found = plan(ledger, write(tmp_path, "a.csv", text))
    assert (found.jobs, found.total) == (5, 15)
    jobs = [ledger.job(number) for number in range(1, 6)]
    assert [job.fields.get("seed") for job in jobs] == [5, 6, 7, None, None]
    assert [job.output for job in jobs[:3]] == ["foxes/fox-1.png", "foxes/fox-2.png", "foxes/fox-3.png"]


def test_two_rows_with_one_name_are_a_fault(tmp_path: Path):
    told = faults(write(tmp_path, "a.csv", "prompt,output\nfox,a.png\nwolf,a.png\n"))
    assert "line 3, output = 'a.png': is the name of another image already: that of line 2" in told
    ledger = ledger_with(0)
    plan(ledger, write(tmp_path, "b.csv", "prompt,output\nfox,a.png\n"))
    with pytest.raises(InvalidUsageError, match="that of job 1"):
        plan(ledger, write(tmp_path, "c.csv", "prompt,output\nbear,a.png\n"))


def test_a_name_below_another_image_is_a_fault_in_either_order(tmp_path: Path):
    told = faults(write(tmp_path, "a.csv", "prompt,output\nfox,a.png\nwolf,a.png/b.png\n"))
    assert "line 3, output = 'a.png/b.png': lies below another image: that of line 2" in told
    told = faults(write(tmp_path, "b.csv", "prompt,output\nfox,a.png/b/c.png\nwolf,a.png\n"))
    assert "line 3, output = 'a.png': is the folder of another image: that of line 2" in told
    ledger = ledger_with(0)
    plan(ledger, write(tmp_path, "c.csv", "prompt,output\nfox,a.png\nwolf,cats\nbear,cats/a.png\n"))
    with pytest.raises(InvalidUsageError, match="lies below another image: that of job 1"):
        plan(ledger, write(tmp_path, "d.csv", "prompt,output\nowl,a.png/b.png\n"))


def test_input_images_are_found_beside_the_manifest(tmp_path: Path):
    """Input images are found beside the manifest and known by their content."""
    (tmp_path / "in").mkdir()
    write(tmp_path, "in/cat.png", blank(100, 80))
    write(tmp_path, "in/same.png", blank(100, 80))
    write(tmp_path, "in/dog.png", blank(80, 100))
    text = (
        "prompt,images\nfirst,in/cat.png;in/dog.png\nsecond,https://example.com/a.png\nfirst,in/same.png;in/dog.png\n"
    )
    assert "line 4: asks for the same as line 2" in faults(write(tmp_path, "a.csv", text))
    ledger = ledger_with(0)
    plan(ledger, tmp_path / "a.csv", duplicates="skip")
    first, second = ledger.job(1).fields, ledger.job(2).fields
    assert first["input_image"].startswith("sha256:")
    assert first["input_image_2"] != first["input_image"]
    assert second["input_image"] == "https://example.com/a.png"
    assert ledger.job(1).estimate == Decimal(6)
    assert first != second


def test_faults_of_input_images_name_the_line_and_the_file(tmp_path: Path):
    write(tmp_path, "small.png", blank(8, 8))
    told = faults(write(tmp_path, "a.csv", "prompt,input_image\na,gone.png\nb,small.png\nc,gone.png\n"))
    assert "line 2, input_image = 'gone.png': there is no such file" in told
    assert "line 3, input_image = 'small.png': must be at least" in told
    assert "line 4, input_image" in told


def test_an_input_that_would_be_rewritten_is_named_with_its_line(tmp_path: Path):
    """An image or mask that would have to be rewritten is named with its line of the manifest."""
    mask, hole = Image.new("L", (256, 256)), Image.new("RGBA", (256, 256), (0, 0, 0, 255))
    mask.paste(255, (0, 0, 99, 99))
    hole.paste((0, 0, 0, 0), (0, 0, 99, 99))
    mask.save(tmp_path / "mask.png")
    hole.save(tmp_path / "hole.png")
    Image.new("L", (256, 256)).save(tmp_path / "black.png")
    Image.new("RGB", (256, 256)).save(tmp_path / "photo.bmp")
    told = faults(
        write(
            tmp_path,
            "a.csv",
            "prompt,model,image,mask\na,fill,photo.bmp,mask.png\nb,fill,hole.png,hole.png\nc,fill,black.png,black.png\n",
        )
    )
    assert "line 2, image = 'photo.bmp': must be a whole PNG, JPEG or WebP; its format is BMP" in told
    assert "line 3, mask = 'hole.png': must be black and white here (white is repainted)" in told
    assert "line 4, mask = 'black.png': marks nothing" in told
    text = "prompt,model,image,mask\na,fill,hole.png,mask.png\n"
    assert plan(ledger_with(0), write(tmp_path, "b.csv", text)).jobs == 1


def test_a_price_that_is_not_public_is_said_and_may_be_assumed(tmp_path: Path):
    (tmp_path / "fox.png").write_bytes(blank(64, 64))
    path = write(tmp_path, "a.csv", "image,model\nfox.png,flux-tools-deblur\n")
    [bill] = plan(ledger_with(0), path).bills
    assert (bill.unpriced, bill.credits) == (1, 0)
    [bill] = plan(ledger_with(0), path, assume_price=Decimal(9)).bills
    assert (bill.unpriced, bill.credits) == (0, 9)


@given(st.dictionaries(st.text(min_size=1), st.none() | st.integers() | st.text(), max_size=5))
def test_the_hash_does_not_depend_on_the_order_of_the_fields(fields: dict[str, object]):
    turned = dict(reversed(fields.items()))
    assert request_hash("m", fields) == request_hash("m", turned)
    assert request_hash("m", fields) != request_hash("n", fields)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).map(str.strip).filter(bool),
                min_size=1, max_size=5, unique=True))  # fmt: skip
def test_any_prompt_survives_a_csv(tmp_path_factory: pytest.TempPathFactory, prompts: list[str]):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt"])
        writer.writerows([prompt] for prompt in prompts)
    assert [line.columns["prompt"] for line in read_manifest(path)] == prompts


cells = st.fixed_dictionaries(
    {"prompt": st.sampled_from(["fox", "owl", "", None, "x" * 200_000, ["fox"]])},
    optional={
        "seed": st.sampled_from(["7", 7, 7.5, True, "many", -1, 2**40]),
        "model": st.sampled_from(["flux-2-pro", "flux-2-flex", "flux-pro-1.1-ultra", "flux-kontext-max", "nothing"]),
        "size": st.sampled_from(["64x64", "1024x768", "64"]),
        "steps": st.sampled_from(["20", 20, True, 1]),
        "raw": st.sampled_from(["yes", True, 1, "1"]),
        "tag": st.sampled_from(["a", 7]),
        "count": st.sampled_from([2, "x"]),
        "webhook_url": st.sampled_from(["https://example.com/" + "x" * 2000]),
    },
)


def outcome(rows: Rows, columns: dict[str, object]) -> object:
    given = {name: value for name, value in columns.items() if value is not None}
    try:
        return list(rows.planned_jobs(ManifestLine(1, given)))
    except InvalidUsageError as fault:
        return str(fault)


@given(st.lists(cells, max_size=6))
def test_a_row_is_read_alike_whatever_was_read_before_it(table: list[dict[str, object]]):
    defaults = Defaults("flux-2-pro", Path(), {})
    many, few = Rows(defaults), Rows(defaults, kept=1)
    for columns in [*table, *table]:
        alone = outcome(Rows(defaults), columns)
        assert outcome(many, columns) == alone
        assert outcome(few, columns) == alone


def test_long_prompts_are_written_before_they_pile_up(tmp_path: Path):
    text = "".join(f"{number} {'fox ' * 30_000}\n" for number in range(100))
    seen: list[int] = []
    assert plan(ledger_with(0), write(tmp_path, "a.txt", text), on_line=seen.append).jobs == 100
    assert len(seen) == 2
    assert plan(ledger_with(0), [{"prompt": "fox " * 30_000, "count": 100}], on_line=seen.append).jobs == 100
    assert len(seen) == 4


def test_only_so_many_images_are_remembered(tmp_path: Path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(blank(80 + number, 80))
    rows = Rows(Defaults("flux-2-pro", tmp_path, {}), kept=2)
    lines = [ManifestLine(1, {"prompt": "edit", "images": f"{number}.png"}) for number in (0, 1, 2, 0)]
    hashes = [job.hash for line in lines for job in rows.planned_jobs(line)]
    assert hashes[0] == hashes[3]
    assert len(set(hashes)) == 3
    assert len(rows._seen) <= 2


def test_the_same_image_is_measured_and_hashed_once(tmp_path: Path):
    write(tmp_path, "cat.png", blank(100, 80))
    path = write(tmp_path, "a.csv", "prompt,images\n" + "".join(f"{n},cat.png\n" for n in range(50)))
    ledger = ledger_with(0)
    plan(ledger, path)
    with ledger.database.read() as transaction:
        [row] = transaction.all("select * from inputs")
    assert (row["width"], row["height"], row["path"]) == (100, 80, str((tmp_path / "cat.png").resolve()))


def test_half_a_character_is_a_fault_of_its_line(tmp_path: Path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"prompt": "a fox"}\n{"prompt": "\\ud800 fox"}\n')
    with pytest.raises(InvalidUsageError, match="half a character"):
        list(read_manifest(file))
