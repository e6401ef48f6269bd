"""The command line, through click's own runner and, where signals and pipes matter, in a process."""

import inspect
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from fluxwerk import catalog, errors
from fluxwerk.cli.exit import CODES, EXITS, code_of, explained
from fluxwerk.cli.group import COMMANDS, group
from fluxwerk.server.faults.rules import FaultRule
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.testing import loopback
from fluxwerk.types import Task

KEY = "a-key"


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BFL_API_KEY", raising=False)
    monkeypatch.delenv("BFL_BASE_URL", raising=False)
    return tmp_path


def fluxwerk(*words, **environment):
    return CliRunner().invoke(group, [str(word) for word in words], env=environment)


@pytest.fixture
def on_server(fluxwerk_server):
    def run(*words):
        return fluxwerk(*words, "--base-url", fluxwerk_server, BFL_API_KEY=KEY)

    return run


def look(name):
    with Image.open(name) as opened:
        opened.load()
        return opened


def draw(name, size=(256, 256), colour="red"):
    Image.new("RGB", size, colour).save(name)
    return name


def mask(name, size=(256, 256)):
    """A mask whose right half is repainted."""
    image = Image.new("L", size, 0)
    image.paste(255, (size[0] // 2, 0, *size))
    image.save(name)


def test_every_command_has_help_with_an_example_or_a_sentence():
    for name, (_, words) in COMMANDS.items():
        shown = fluxwerk(name, "--help")
        assert shown.exit_code == 0
        assert words.endswith(".")
        assert "Usage:" in shown.output


@pytest.mark.parametrize("name", ["generate", "edit", "fill", "serve", "webhook", "keys"])
def test_the_examples_of_a_command_stand_in_its_help_as_they_are_typed(name):
    shown = fluxwerk(name, "--help").output
    command = group.get_command(None, name)
    examples = inspect.cleandoc(command.help).partition("\b\n")[2].splitlines()
    assert any(line.startswith("fluxwerk ") for line in examples)
    assert all(f"  {line}\n" in shown for line in examples)


def test_a_closed_pipe_ends_without_a_message():
    command = [sys.executable, "-m", "fluxwerk", "models", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        running.stdout.close()
        assert running.stderr.read() == b""


def test_the_help_lists_every_command_and_every_exit_code():
    shown = fluxwerk("--help").output
    assert all(name in shown for name in COMMANDS)
    assert all(f"{code} {words}".split()[0] in shown for code, words in EXITS)


def test_help_and_version_load_neither_a_client_nor_a_server():
    program = (
        "import sys\nfrom fluxwerk.cli.group import group\n"
        "try:\n    group(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'httpx2', 'fastapi', 'PIL', 'rich', 'asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_the_version_is_printed():
    assert fluxwerk("--version").output.startswith("fluxwerk ")


def test_an_image_is_made_offline_and_the_line_says_what_it_is(own_folder):
    done = fluxwerk("generate", "a fox", "--width", 256, "--height", 128, "--seed", 7, "--offline", "-o", "fox.png")

    assert done.exit_code == 0, done.output
    assert look("fox.png").size == (256, 128)
    assert done.stdout == (
        "fox.png: 256×128, made by the offline engine, not by FLUX; model flux-2-pro, seed 7, "
        f"estimated 3 credits ($0.03), nothing charged,{done.stdout.rsplit(',', 1)[1]}"
    )
    assert done.stdout.endswith(" s\n")


def test_the_same_seed_makes_the_same_file(own_folder):
    for name in ("one.png", "two.png"):
        fluxwerk("generate", "a fox", "--width", 64, "--height", 64, "--seed", 7, "--offline", "-o", name)
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()


@pytest.mark.parametrize(
    ("name", "kind"), [("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.jpeg", "JPEG"), ("a.webp", "WEBP")]
)
def test_the_format_follows_the_name_of_the_file(on_server, name, kind):
    assert on_server("generate", "a fox", "--width", 64, "--height", 64, "-o", name).exit_code == 0
    assert look(name).format == kind


def test_without_a_name_the_file_is_called_after_model_and_seed(on_server):
    done = on_server("generate", "a fox", "--width", 64, "--height", 64, "--seed", 5)
    assert done.stdout.startswith("flux-2-pro-5.jpeg: ")
    assert Path("flux-2-pro-5.jpeg").is_file()


def test_json_is_one_object_on_stdout_with_everything_a_machine_needs(on_server, fluxwerk_server):
    done = on_server("generate", "a fox", "--width", 64, "--height", 64, "--seed", 5, "--json", "-o", "a.png")
    facts = json.loads(done.stdout)
    assert facts["file"] == "a.png"
    assert (facts["width"], facts["height"], facts["seed"], facts["model"]) == (64, 64, 5, "flux-2-pro")
    assert (facts["estimated_cost"], facts["cost"], facts["charged"]) == (3, 3, True)
    assert (facts["engine"], facts["is_flux"]) == ("offline", False)
    assert facts["task"]["polling_url"].startswith(fluxwerk_server)


def test_progress_goes_to_stderr_and_the_result_to_stdout(on_server):
    done = on_server("generate", "a fox", "--width", 64, "--height", 64, "-o", "a.png")
    assert "submitted as" in done.stderr
    assert "submitted" not in done.stdout


def test_images_are_edited_in_their_order(on_server):
    draw("one.png", colour="red")
    draw("two.png", colour="blue")
    done = on_server(
        "edit", "image 1 beside image 2", "-i", "one.png", "-i", "two.png", "--width", 512, "--height", 256
    )
    assert done.exit_code == 0, done.output


def test_only_what_the_mask_covers_is_repainted(on_server):
    draw("photo.png", (256, 256), "red")
    mask("mask.png")

    done = on_server("fill", "a lake", "-i", "photo.png", "--mask", "mask.png", "-o", "filled.png")

    assert done.exit_code == 0, done.output
    filled = look("filled.png").convert("RGB")
    assert filled.crop((0, 0, 128, 256)).getcolors() == [(128 * 256, (255, 0, 0))]
    assert filled.crop((128, 0, 256, 256)).getcolors() != [(128 * 256, (255, 0, 0))]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "mask: what is transparent is repainted, 50 % of the image; sent as black and white"),
        (("--mask-is", "white"), "mask: marks nothing: no part of it is white"),
        (("--mask-is", "black"), "--mask-is: 'black' must be one of 'transparent', 'white'"),
    ],
)
def test_the_command_says_how_it_read_a_mask_and_takes_a_word_for_it(own_folder, words, said):
    draw("photo.png")
    hole = Image.new("RGBA", (256, 256), (0, 0, 0, 255))
    hole.paste((0, 0, 0, 0), (0, 0, 256, 128))
    hole.save("mask.png")
    command = [sys.executable, "-m", "fluxwerk", "fill", "a lake", "-i", "photo.png", "--mask", "mask.png", "--offline"]

    done = subprocess.run([*command, *words, "-o", "a.png"], capture_output=True, text=True, check=False)

    assert said in done.stderr
    assert Path("a.png").exists() == (not words)


def test_a_still_of_another_format_is_converted_and_the_command_says_so(own_folder):
    draw("photo.tiff")
    command = [sys.executable, "-m", "fluxwerk", "edit", "x", "-i", "photo.tiff", "--offline", "-o", "a.png"]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert "input_image: converted from TIFF to PNG" in done.stderr.splitlines()


def test_a_dry_run_shows_request_and_price_and_sends_nothing(own_folder):
    draw("photo.png")
    done = fluxwerk("edit", "x", "-i", "photo.png", "--dry-run", "--no-upsampling")
    assert done.exit_code == 0
    assert "POST /v1/flux-2-pro" in done.stdout
    assert "disable_pup: True" in done.stdout
    assert "characters of base64" in done.stdout
    assert "about 4.5 credits ($0.045). Nothing was sent." in done.stdout


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_a_dry_run_shows_no_secret(how):
    words = ("--option", "webhook_url=https://example.com/hook", "--option", "webhook_secret=hush", "--dry-run")
    shown = fluxwerk("generate", "x", *words, *how).output
    assert "https://example.com/hook" in shown
    assert "hush" not in shown


def test_a_dry_run_for_machines_is_json_and_an_unknown_price_is_null(own_folder):
    draw("photo.png")
    done = fluxwerk("edit", "-m", "deblur", "-i", "photo.png", "--dry-run", "--json")
    shown = json.loads(done.stdout)
    assert (shown["path"], shown["estimated_cost"]) == ("/v1/flux-tools/deblur-v1", None)
    assert set(shown["body"]) == {"image"}


def test_a_prompt_for_a_model_that_takes_none_is_named(own_folder):
    draw("photo.png")
    assert fluxwerk("edit", "-m", "deblur", "-i", "photo.png", "--dry-run").exit_code == 0
    assert "no such option" in fluxwerk("edit", "x", "-m", "deblur", "-i", "photo.png", "--dry-run").stderr


def test_any_other_option_of_a_model_can_be_given_by_name(own_folder):
    words = ("generate", "x", "-m", "ultra", "--option", "image_prompt_strength=0.5", "--dry-run", "--json")
    assert json.loads(fluxwerk(*words).stdout)["body"]["image_prompt_strength"] == 0.5
    wrong = fluxwerk("generate", "x", "--option", "image_prompt_strength", "--dry-run")
    assert (wrong.exit_code, "NAME=VALUE" in wrong.stderr) == (2, True)


def test_every_fault_is_named_in_one_message(own_folder):
    done = fluxwerk("generate", "x", "--width", 33, "--option", "stepz=4", "--safety-tolerance", 6)
    assert done.exit_code == 2
    for part in ("width = 33", "at least 64", "stepz", "safety_tolerance = 6", "nothing was sent"):
        assert part in done.stderr


def test_a_misspelled_model_gets_a_suggestion(own_folder):
    done = fluxwerk("generate", "x", "-m", "flux-2-prow")
    assert (done.exit_code, "did you mean 'flux-2-pro'" in done.stderr) == (2, True)


def test_without_a_key_the_message_says_how_to_get_one(own_folder):
    done = fluxwerk("generate", "x", BFL_API_KEY="")
    assert done.exit_code == 3
    for part in ("dashboard.bfl.ai", "BFL_API_KEY", "--offline"):
        assert part in done.stderr


def test_a_key_is_read_from_an_env_file_and_from_dot_env(fluxwerk_server, monkeypatch):
    monkeypatch.delenv("BFL_API_KEY")
    Path("secrets.env").write_text("BFL_API_KEY=from-a-file\n")
    words = ("credits", "--base-url", fluxwerk_server)
    assert fluxwerk(*words).exit_code == 3
    assert fluxwerk(*words, "--env-file", "secrets.env").exit_code == 0
    Path(".env").write_text("BFL_API_KEY=from-dot-env\n")
    assert fluxwerk(*words).exit_code == 0


def test_offline_does_not_go_with_another_address(own_folder):
    done = fluxwerk("credits", "--offline", "--region", "eu")
    assert (done.exit_code, "--region" in done.stderr) == (2, True)


def test_a_contradicting_format_is_refused_before_a_submit(own_folder):
    """A format that contradicts the file is refused before anything is paid."""
    done = fluxwerk("generate", "x", "--format", "png", "-o", "a.jpg", "--offline")
    assert (done.exit_code, "contradicts the file name a.jpg" in done.stderr) == (2, True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_refused_before_a_submit(own_folder):
    """A folder that cannot be written is refused before anything is paid."""
    Path("locked").mkdir(mode=0o500)
    done = fluxwerk("generate", "x", "-o", "locked/a.png", "--offline")
    assert (done.exit_code, "cannot be written" in done.stderr) == (2, True)


def test_a_file_in_place_of_a_folder_is_refused_before_a_submit(own_folder):
    """A file in the place of a folder is refused before anything is paid."""
    Path("taken").write_text("")
    done = fluxwerk("generate", "x", "-o", "taken/a.png", "--offline")
    assert (done.exit_code, "cannot be written" in done.stderr) == (2, True)


def test_a_wrong_key_ends_with_the_code_for_authentication(own_folder):
    with loopback(accounts=Accounts(["the-right-one"])) as base:
        done = fluxwerk("credits", "--base-url", base, BFL_API_KEY="a-wrong-one")
    assert (done.exit_code, "a-wrong-one" in done.output) == (3, False)


def test_an_empty_account_ends_with_the_code_for_credits(own_folder):
    with loopback(accounts=Accounts(credit=0)) as base:
        done = fluxwerk("generate", "x", "--base-url", base, BFL_API_KEY=KEY)
    assert (done.exit_code, "Insufficient credits" in done.stderr) == (4, True)


def test_a_timeout_has_its_exit_code_and_says_how_to_collect(own_folder):
    """A short patience ends with the code for timeouts and says how to collect."""
    with loopback(pace=lambda _: 60.0) as base:
        done = fluxwerk("generate", "x", "--timeout", 0.5, "--base-url", base, BFL_API_KEY=KEY)
    assert done.exit_code == 6
    assert "fluxwerk wait " in done.stderr
    assert f"--polling-url '{base}/v1/get_result?id=" in done.stderr


def test_an_unreachable_service_ends_with_the_code_for_the_network(own_folder):
    done = fluxwerk("credits", "--base-url", "http://127.0.0.1:1", "--timeout", 0.3, BFL_API_KEY=KEY)
    assert done.exit_code in (6, 8)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.MissingKeyError(), 3),
        (errors.AuthenticationError(), 3),
        (errors.InsufficientCreditsError(), 4),
        (errors.ModerationError(), 5),
        (errors.TaskTimeoutError(), 6),
        (errors.InDoubtError(), 7),
        (errors.NoResponseError(), 8),
        (errors.RateLimitError(), 8),
        (errors.UntrustedURLError(), 8),
        (errors.UnknownModelError(), 2),
        (errors.TaskFailedError(), 1),
        (errors.LinkExpiredError(), 1),
    ],
)
def test_each_kind_of_ending_has_a_code_of_its_own(error, code):
    assert code_of(error) == code
    assert CODES[-1][0] is errors.FluxwerkError


def test_a_task_is_collected_later_by_its_id_and_url(on_server, fluxwerk_server):
    facts = json.loads(on_server("generate", "x", "--width", 64, "--height", 64, "--json", "-o", "a.png").stdout)
    task = facts["task"]
    done = on_server("wait", task["id"], "--polling-url", task["polling_url"], "-o", "b.png")
    assert done.exit_code == 0, done.output
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    assert on_server("wait", task["id"], "--json").exit_code == 0


def test_a_foreign_polling_url_is_not_asked(on_server):
    done = on_server("wait", "1", "--polling-url", "https://evil.example/v1/get_result?id=1")
    assert (done.exit_code, "evil.example" in done.stderr) == (8, True)


def test_nothing_can_be_collected_from_an_offline_server(own_folder):
    assert fluxwerk("wait", "1", "--offline").exit_code == 2


def test_the_balance_is_shown_with_its_dollars(on_server):
    assert "credits ($" in on_server("credits").stdout
    assert json.loads(on_server("credits", "--json").stdout)["credits"] > 0


def test_a_price_is_estimated_from_sizes_and_files(own_folder):
    draw("photo.png", (1024, 1024))
    assert "about 4.5 credits ($0.045)" in fluxwerk("price", "flux-2-pro", "--width", 1920, "--height", 1080).stdout
    assert "about 10 credits ($0.10)" in fluxwerk("price", "max", "-i", "photo.png").stdout
    many = json.loads(fluxwerk("price", "klein-4b", "-i", "1024x1024", "-n", 10, "--json").stdout)
    assert (many["estimated_cost_each"], many["estimated_cost"]) == (1.5, 15)
    assert "unconfirmed" in fluxwerk("price", "expand").stdout


def test_an_unknown_price_is_refused_and_never_zero(own_folder):
    done = fluxwerk("price", "deblur")
    assert (done.exit_code, "not public" in done.stderr, done.stdout) == (2, True, "")


@pytest.mark.parametrize("image", ["nothing.png", "notes.txt"])
def test_a_price_for_something_that_is_no_image_names_it(own_folder, image):
    Path("notes.txt").write_text("hello")
    done = fluxwerk("price", "pro", "-i", image)
    assert (done.exit_code, image in done.stderr) == (2, True)


def test_the_models_are_listed_and_each_can_be_looked_at(own_folder):
    listed = fluxwerk("models").stdout
    assert all(name in listed for name in catalog.list_models())
    shown = fluxwerk("models", "flux-pro-1.1-raw").stdout
    assert "it is Ultra with raw" in shown
    assert "prompt_upsampling        true or false (default true)" in fluxwerk("models", "flux-2-flex").stdout
    rows = [json.loads(line) for line in fluxwerk("models", "--json").stdout.splitlines()]
    assert [row["name"] for row in rows] == list(catalog.list_models())


def test_a_port_that_is_taken_and_a_network_that_is_none_are_named(fluxwerk_server):
    port = fluxwerk_server.rpartition(":")[2]
    taken = fluxwerk("serve", "--port", port)
    assert (taken.exit_code, port in taken.stderr) == (2, True)
    assert "10.0.0.0/99" in fluxwerk("serve", "--allow-network", "10.0.0.0/99").stderr
    assert "--credits" in fluxwerk("serve", "--credits", "plenty").stderr


def test_ctrl_c_while_waiting_tells_how_to_collect_what_is_paid_for(own_folder):
    with loopback(pace=lambda _: 60.0) as base:
        words = ["-m", "fluxwerk", "generate", "x", "--base-url", base]
        with subprocess.Popen(
            [sys.executable, *words], stderr=subprocess.PIPE, text=True, env={**os.environ, "BFL_API_KEY": KEY}
        ) as process:
            first = process.stderr.readline()
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
    task = first.split()[-1]
    assert process.returncode == 130
    assert f"fluxwerk wait {task} --polling-url '{base}/v1/get_result?id={task}'" in rest
    assert "Traceback" not in rest


def test_a_submit_in_doubt_is_said_once(own_folder):
    with loopback(trouble=[FaultRule(on="submit", do="reset", accepted=True)]) as base:
        command = [sys.executable, "-m", "fluxwerk", "generate", "x", "--base-url", base]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "BFL_API_KEY": KEY}
        )
    assert done.returncode == 7
    assert done.stderr.count("may have been charged") == 1


def test_an_error_that_carries_a_task_says_that_it_is_paid_for(capsys):
    with pytest.raises(SystemExit) as ended, explained():
        raise errors.UntrustedURLError("no", task=Task("abc", "https://api.bfl.ai/v1/get_result?id=abc"))
    assert ended.value.code == 8
    assert "fluxwerk wait abc" in capsys.readouterr().err


def test_a_disk_that_is_full_ends_with_a_message_and_not_with_a_traceback(capsys):
    with pytest.raises(SystemExit) as ended, explained():
        raise OSError(28, "No space left on device", "/tmp/a.png")
    assert ended.value.code == 1
    assert "No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "trouble"),
    [
        (("--json",), {}),
        ((), {}),
        ((), {"on": "download", "do": "status", "status": 403}),
        ((), {"on": "download", "do": "redirect", "to": "http://evil.example/?sig=CANARYsig"}),
        ((), {"on": "submit", "do": "page", "status": 500}),
        ((), {"on": "poll", "do": "status", "status": 403}),
    ],
)
def test_no_output_of_the_command_line_shows_a_key_or_a_signed_query(own_folder, words, trouble):
    rules = [FaultRule.model_validate(trouble)] if trouble else []
    with loopback(trouble=rules) as base:
        command = ("generate", "x", "--width", 64, "--height", 64, "--timeout", 3, "-o", "a.png", *words)
        done = fluxwerk(*command, "--base-url", base, BFL_API_KEY="CANARY-key-of-mine")
    assert "CANARY" not in done.output + repr(done.exception)
    assert "sig=" not in done.output
