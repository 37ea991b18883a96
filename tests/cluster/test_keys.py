"""``llumi keys`` on the command line."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cluster import keys as command
from cluster.cli import main
from configs.access import ORDINARY
from configs.errors import UsageError
from configs.load import load
from serving.access import keys
from serving.access.place import keys_file, with_places


def llumi(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        main(["keys", *arguments])
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    shown = capsys.readouterr()
    return code, shown.out, shown.err


@pytest.fixture
def at(tmp_path: Path) -> list[str]:
    return ["demo", "--set", f"output={tmp_path}"]


def test_a_key_is_printed_alone_on_the_last_line_and_kept_as_a_hash(
    at: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = llumi(capsys, "create", *at, "--name", "the portal")
    key = out.splitlines()[-1]
    file = tmp_path / "serving" / "keys.json"
    assert code == 0
    assert out == f"{key}\n"
    entry = keys.find(keys.read(file), key)
    assert entry is not None
    assert (entry.name, entry.scopes) == ("the portal", ORDINARY)
    assert key not in file.read_text()
    assert entry.id in err
    assert "the portal" in err
    assert key not in err
    assert entry.expires is not None
    assert timedelta(days=364) < entry.expires - datetime.now(UTC) <= timedelta(days=365)


def test_scopes_end_and_limits_are_those_asked_for(
    at: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--scope", "acute", "--scope", "generate", "--expires", "never", "--rate", "5", "--concurrent", "2"]
    _, out, _ = llumi(capsys, "create", *at, "--name", "night desk", *options)
    entry = keys.find(keys.read(tmp_path / "serving" / "keys.json"), out.strip())
    assert entry is not None
    assert entry.scopes == ("generate", "acute")
    assert (entry.expires, entry.requests_per_minute, entry.concurrent) == (None, 5, 2)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (["--scope", "everything"], "generate, improve, chat"),
        (["--expires", "soon"], "90d"),
        (["--expires", "2020-01-01"], "not in the future"),
        (["--expires", "0d"], "not in the future"),
        (["--expires", "99999999999d"], "90d"),
    ],
)
def test_what_cannot_be_made_is_told_with_the_way_out(
    at: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str], told: str
) -> None:
    code, out, err = llumi(capsys, "create", *at, "--name", "portal", *option)
    assert (code, out) == (2, "")
    assert told in err
    assert not (tmp_path / "serving").exists()


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "\x1b[31mred", "x" * 81])
def test_a_name_that_cannot_be_shown_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="--name"):
        command.named(name)


def test_times_are_read_as_people_write_them() -> None:
    near = command.moment("12h")
    assert near is not None
    assert timedelta(hours=11) < near - datetime.now(UTC) <= timedelta(hours=12)
    assert command.moment("2099-01-31") == datetime(2099, 1, 31, tzinfo=UTC)
    assert command.moment("2099-01-31T12:00+02:00") == datetime(2099, 1, 31, 10, tzinfo=UTC)
    assert command.moment("never") is None


def test_the_list_shows_every_key_and_no_secret(at: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "llumi keys create" in llumi(capsys, "list", *at)[1]
    first = llumi(capsys, "create", *at, "--name", "portal")[1].strip()
    second = llumi(capsys, "create", *at, "--name", "night desk", "--scope", "acute")[1].strip()
    assert llumi(capsys, "revoke", *at, first.split("_")[1])[0] == 0
    _, shown, _ = llumi(capsys, "list", *at)
    _, as_json, _ = llumi(capsys, "list", *at, "--json")
    for text in (shown, as_json):
        for key in (first, second):
            assert key.split("_")[1] in text
            assert key.split("_")[2] not in text
    assert "revoked" in shown
    assert "active" in shown
    entries = {entry["name"]: entry for entry in json.loads(as_json)["keys"]}
    assert entries["portal"]["revoked"] is not None
    assert entries["night desk"]["scopes"] == ["acute"]
    assert "hash" not in entries["portal"]


def test_a_key_that_is_not_there_cannot_be_revoked(at: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = llumi(capsys, "revoke", *at, "0123456789ab")
    assert code == 2
    assert "llumi keys list" in err


def test_the_service_reads_the_file_that_the_command_writes(tmp_path: Path) -> None:
    plain = load("demo", [f"output={tmp_path}"])
    assert with_places(plain).access.keys_file == str(keys_file(plain)) == str(tmp_path / "serving" / "keys.json")
    named = load("demo", [f"output={tmp_path}", f"serving.access.keys_file={tmp_path / 'mine.json'}"])
    assert with_places(named).access.keys_file == str(tmp_path / "mine.json")


def test_a_key_for_a_while_is_revoked_afterwards(tmp_path: Path) -> None:
    settings = load("demo", [f"output={tmp_path}"])
    with command.for_a_while(settings, "demo") as key:
        assert key is not None
        entry = keys.find(keys.read(keys_file(settings)), key)
        assert entry is not None
        assert entry.state(keys.now()) == "active"
        assert not command.without_keys(settings)
    assert keys.read(keys_file(settings))[entry.id].state(keys.now()) == "revoked"
    assert "llumi keys create" in command.without_keys(settings)[0]
    with command.for_a_while(load("demo", ["serving.auth=none"]), "demo") as key:
        assert key is None
