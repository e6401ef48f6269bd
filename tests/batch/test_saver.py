from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk import imagefile
from fluxwerk.batch.provenance import embed, extract, origin, read_origin, write_sidecar
from fluxwerk.batch.saver import Saver
from fluxwerk.batch.template import beside, check_template, fault_of_name, file_name
from fluxwerk.engines import Order
from fluxwerk.engines.offline import OfflineEngine
from fluxwerk.errors import InvalidUsageError, StorageError
from fluxwerk.ledger.job import Job
from fluxwerk.storage import Bucket, Folder, open_storage, save
from fluxwerk.testing.face_to_face import blank
from support.jobs import ledger_with, status, task

PNG = blank(64, 48)


def ready_job(**changes: object) -> Job:
    ledger = ledger_with(1)
    worker = ledger.leases.register()
    accepted = ledger.submitted(ledger.submitting(worker, 1, "https://api.bfl.ai").jobs[0], task())
    assert accepted
    return replace(ledger.ready(accepted, status(accepted, cost="3")), **changes)


def keep(saver: Saver, data: bytes = PNG, **changes: object):
    job = ready_job(**changes)
    return saver.save(job, job.ready_status(), data)


def test_an_image_is_named_by_template_and_bytes(tmp_path: Path):
    """An image gets its name from the template and its ending from its bytes."""
    saved = keep(Saver(Folder(tmp_path)))
    assert Path(saved.path) == tmp_path / "00001-flux-2-pro-7.png"
    assert Path(saved.path).read_bytes() == PNG


def test_a_name_from_the_manifest_gets_a_suffix_if_it_has_none(tmp_path: Path):
    """A name from the manifest is used and gets an ending only if it has none."""
    saver = Saver(Folder(tmp_path))
    assert Path(keep(saver, output="cats/one").path) == tmp_path / "cats" / "one.png"
    assert Path(keep(saver, output="cats/two.jpg").path) == tmp_path / "cats" / "two.jpg"


def test_a_file_that_is_there_is_left_alone_and_the_image_gets_a_number(tmp_path: Path):
    theirs = tmp_path / "00001-flux-2-pro-7.png"
    theirs.write_bytes(b"somebody's work")
    saved = keep(Saver(Folder(tmp_path)))
    assert theirs.read_bytes() == b"somebody's work"
    assert Path(saved.path).name == "00001-flux-2-pro-7-2.png"
    assert Path(keep(Saver(Folder(tmp_path), overwrite=True)).path) == theirs
    assert theirs.read_bytes() == PNG


@pytest.mark.parametrize("provenance", ["sidecar", "embed", "none"])
def test_saving_twice_after_a_crash_gives_one_file(tmp_path: Path, provenance: str):
    saver = Saver(Folder(tmp_path), provenance=provenance)
    job = ready_job()
    first, second = (saver.save(job, job.ready_status(), PNG) for _ in range(2))
    assert first == second
    assert len([file for file in tmp_path.iterdir() if file.suffix == ".png"]) == 1


def test_the_origin_lies_beside_the_image_and_tells_everything_but_secrets(tmp_path: Path):
    saved = keep(Saver(Folder(tmp_path)))
    facts = read_origin(Path(saved.path))
    assert (facts["model"], facts["seed"], facts["task"], facts["cost"]) == ("flux-2-pro", 7, "task-1", 3)
    assert facts["prompt"] == facts["request"]["prompt"] == "image 0"
    assert "secret" not in json.dumps(facts)


def test_the_origin_holds_links_without_the_query_that_may_open_them(tmp_path: Path):
    link = "https://bucket.example/a.png?sig=CANARY"
    fields = {"prompt": "is it https://a.example/?q=1", "input_image": link, "images": [link], "raw": True}
    facts = read_origin(Path(keep(Saver(Folder(tmp_path)), fields=fields).path))
    cut = "https://bucket.example/a.png?…"
    assert facts["request"] == {**fields, "input_image": cut, "images": [cut]}


def test_without_prompts_the_origin_holds_no_prompt_hash(tmp_path: Path):
    """Without prompts the origin holds neither the prompt nor a hash to guess it by."""
    saved = keep(Saver(Folder(tmp_path), prompts=False))
    facts = read_origin(Path(saved.path))
    assert "image 0" not in json.dumps(facts)
    assert facts["request_hash"] is None


def test_an_offline_rendering_says_that_no_flux_made_it(tmp_path: Path):
    facts = read_origin(Path(keep(Saver(Folder(tmp_path)), engine="offline").path))
    assert (facts["engine"], facts["is_flux"]) == ("offline", False)


@pytest.mark.parametrize("output_format", ["png", "jpeg"])
def test_an_origin_inside_the_file_is_found_again_and_the_file_is_whole(tmp_path: Path, output_format: str):
    picture = OfflineEngine().render(Order("flux-2-pro", "a fox", 1, 128, 96, output_format))
    saved = keep(Saver(Folder(tmp_path), provenance="embed"), picture)
    data = Path(saved.path).read_bytes()
    assert imagefile.fault(data) is None
    pil = pytest.importorskip("PIL.Image")
    with pil.open(saved.path) as image:
        image.load()
        assert image.size == (128, 96)
    assert read_origin(Path(saved.path))["prompt"] == "image 0"
    assert not Path(f"{saved.path}.json").exists()


def test_where_nothing_fits_inside_the_origin_lies_beside(tmp_path: Path):
    picture = OfflineEngine().render(Order("flux-2-pro", "a fox", 1, 128, 96, "webp"))
    saved = keep(Saver(Folder(tmp_path), provenance="embed"), picture)
    assert Path(f"{saved.path}.json").exists()
    jpeg = OfflineEngine().render(Order("flux-2-pro", "a fox", 1, 64, 64, "jpeg"))
    assert embed(jpeg, {"fluxwerk": 1, "model": "m", "prompt": "x" * 70_000}) is None


def test_a_jpeg_without_a_jfif_header_takes_an_origin_too():
    assert extract(embed(b"\xff\xd8\xff\xdb\0\0", {"fluxwerk": 1, "model": "m"}) or b"") == {
        "fluxwerk": 1,
        "model": "m",
    }


@given(st.text(), st.text())
def test_any_prompt_survives_in_a_png(prompt: str, tag: str):
    facts = {"fluxwerk": 1, "model": "m", "prompt": prompt.encode("utf-8", "replace").decode(), "tag": tag}
    facts["tag"] = facts["tag"].encode("utf-8", "replace").decode()
    inside = embed(PNG, facts)
    assert inside
    assert imagefile.fault(inside) is None
    assert extract(inside) == facts


def test_a_file_without_an_origin_says_so(tmp_path: Path):
    save(PNG, tmp_path / "a.png")
    with pytest.raises(InvalidUsageError, match="has no origin"):
        read_origin(tmp_path / "a.png")
    save(b"{}", tmp_path / "a.png.json")
    with pytest.raises(InvalidUsageError, match="has no origin"):
        read_origin(tmp_path / "a.png")
    for facts in ('{"fluxwerk": 1, "model": "m", "request": "abc"}', '{"fluxwerk": 1, "model": ["m"]}', "[1]"):
        save(facts.encode(), tmp_path / "a.png.json")
        with pytest.raises(InvalidUsageError, match="has no origin"):
            read_origin(tmp_path / "a.png")
    with pytest.raises(InvalidUsageError, match="cannot be read"):
        read_origin(tmp_path / "gone.png")
    assert extract(b"<fluxwerk:origin>no json</fluxwerk:origin>") is None
    job = ready_job()
    assert b'"model": "flux-2-pro"' in write_sidecar(origin(job, job.ready_status()))


@pytest.mark.parametrize(
    "name",
    ["", "/etc/passwd", "../a.png", "a/../../b.png", "a//b", "a/./b", "C:\\a.png", "a\\..\\b", "a\0b", "a\nb", "con",
     "nul.png", "a ", " a", "a.", "x" * 2000, "a/" + "x" * 300, "a:b"],
)  # fmt: skip
def test_a_name_outside_the_folder_is_refused(name: str):
    """A name that leads out of the folder or breaks a file system is refused."""
    assert fault_of_name(name)


@given(st.text(max_size=60))
def test_no_name_that_is_allowed_leaves_the_folder(name: str):
    if fault_of_name(name) is None:
        root = Path("/images")
        assert Path(os.path.normpath(root / name)).is_relative_to(root)


@given(st.text(max_size=40))
def test_no_tag_makes_a_folder_of_its_own(tag: str):
    name = file_name("{index}-{tag}.{ext}", {"index": 1, "tag": tag or "none", "ext": "png"})
    assert "/" not in name
    assert "\\" not in name


@pytest.mark.parametrize(
    "template",
    [
        "{tag}{tag}{tag}{tag}{index}",
        "{index}/../{seed}",
        "{nothing}",
        "{index",
        "{index:z}",
        "/{index}",
        "{seed}.{ext}",
        "{index.__class__}",
    ],
)
def test_a_template_that_cannot_be_kept_is_refused(template: str):
    with pytest.raises(InvalidUsageError, match="--name"):
        check_template(template)


def test_files_are_overwritten_only_under_names_that_no_other_job_has():
    assert check_template("{hash}.{ext}") == "{hash}.{ext}"
    with pytest.raises(InvalidUsageError, match=r"must hold \{index\} where files are overwritten"):
        Saver(Folder("images"), "{hash}.{ext}", overwrite=True)


@pytest.mark.parametrize("tag", ["con", "NUL", "aux.txt", "..", "/", "a/../../b", "x" * 200, " "])
def test_no_tag_makes_a_name_that_may_not_be_used(tag: str):
    assert fault_of_name(file_name("{tag}/{index}", {"index": 1, "tag": tag, "ext": "png"})) is None


def test_a_template_may_make_folders():
    facts = {"index": 3, "model": "flux-2-pro", "tag": "cats/dogs", "ext": "png"}
    assert file_name(check_template("{tag}/{model}-{index:03}.{ext}"), facts) == "cats_dogs/flux-2-pro-003.png"
    assert beside("a/b.png", 2) == "a/b-2.png"
    assert beside("a.b/c", 2) == "a.b/c-2"


def test_an_unknown_provenance_is_refused(tmp_path: Path):
    with pytest.raises(InvalidUsageError, match="sidecar, embed, none"):
        Saver(Folder(tmp_path), provenance="tattoo")


def test_a_folder_takes_a_name_once_and_never_lets_one_out(tmp_path: Path):
    folder = Folder(tmp_path / "images")
    assert folder.get("a.png") is None
    assert Path(folder.put("a/b.png", b"1")).read_bytes() == b"1"
    with pytest.raises(FileExistsError):
        folder.put("a/b.png", b"2")
    assert folder.get("a/b.png") == b"1"
    folder.put("a/b.png", b"2", overwrite=True)
    assert folder.get("a/b.png") == b"2"
    with pytest.raises(InvalidUsageError, match="leads out"):
        folder.put("../b.png", b"1")
    assert list((tmp_path / "images" / "a").iterdir()) == [tmp_path / "images" / "a" / "b.png"]
    assert "images" in repr(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_a_link_that_leads_out_of_the_folder_is_not_followed(tmp_path: Path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "out").symlink_to(tmp_path)
    with pytest.raises(InvalidUsageError, match="leads out"):
        Folder(tmp_path / "images").put("out/a.png", b"1")


def test_a_name_that_this_folder_can_never_take_is_the_names_fault(tmp_path: Path):
    folder = Folder(tmp_path)
    folder.put("a.png", b"1")
    (tmp_path / "cats").mkdir()
    for name in ("a.png/b/c.png", "x" * 300):
        with pytest.raises(InvalidUsageError, match="cannot be the name of a file here"):
            folder.put(name, b"1")
    if sys.platform != "win32":
        with pytest.raises(InvalidUsageError, match="cannot be the name of a file here"):
            folder.put("cats", b"1", overwrite=True)


def test_a_folder_that_cannot_be_written_says_which_and_why(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="file"):
        Folder(tmp_path / "file" / "images").put("a.png", b"1")


def test_a_bucket_takes_a_name_once():
    pytest.importorskip("obstore", reason="the extra storage is not installed")
    bucket = open_storage("memory:///some/prefix")
    assert isinstance(bucket, Bucket)
    assert bucket.get("a/b.png") is None
    assert bucket.put("a/b.png", b"1") == "memory:///some/prefix/a/b.png"
    with pytest.raises(FileExistsError):
        bucket.put("a/b.png", b"2")
    bucket.put("a/b.png", b"2", overwrite=True)
    assert bucket.get("a/b.png") == b"2"
    assert "prefix" in repr(bucket)


def test_an_image_is_kept_in_a_bucket_as_in_a_folder():
    pytest.importorskip("obstore", reason="the extra storage is not installed")
    bucket = open_storage("memory:///")
    saved = keep(Saver(bucket))
    assert saved.path.endswith("/00001-flux-2-pro-7.png")
    assert bucket.get("00001-flux-2-pro-7.png.json")


def test_a_bucket_that_cannot_be_reached_takes_nothing_and_says_so():
    pytest.importorskip("obstore", reason="the extra storage is not installed")
    s3 = pytest.importorskip("obstore.store").S3Store
    bucket = Bucket("memory:///")
    bucket._store = s3(
        "b", endpoint="http://127.0.0.1:9", region="x", access_key_id="a", secret_access_key="b",
        client_options={"allow_http": True, "timeout": "1s"}, retry_config={"max_retries": 0},
    )  # fmt: skip
    with pytest.raises(StorageError, match="Nothing can be stored at") as told:
        bucket.put("a", b"1")
    assert "127.0.0.1:9" in str(told.value)
    assert "\n" not in str(told.value)


def test_a_place_that_is_no_storage_is_refused():
    with pytest.raises(InvalidUsageError, match="must be a folder or start with s3://"):
        open_storage("ftp://example.com")
    assert isinstance(open_storage("images"), Folder)
    assert ready_job(settled=Decimal(0)).cost == 0


@pytest.mark.parametrize("provenance", ["sidecar", "embed"])
def test_what_proves_a_webhook_is_written_nowhere(tmp_path: Path, provenance: str):
    fields = {"prompt": "a fox", "webhook_url": "https://example.com/CANARY", "webhook_secret": "CANARY"}
    keep(Saver(Folder(tmp_path), provenance=provenance), fields=fields)
    written = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert written
    assert not any(b"CANARY" in data for data in written)
