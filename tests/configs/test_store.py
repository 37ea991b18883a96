"""Where the feedback store is: what a URL may hold, and what it comes to."""

import re

import pytest
from pydantic import ValidationError

from configs.store import StoreSettings


def test_without_a_url_it_is_a_file_below_the_output() -> None:
    assert StoreSettings().address("/data/run") == "sqlite:////data/run/serving/feedback.db"


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_postgresql_is_reached_by_psycopg(scheme: str) -> None:
    settings = StoreSettings(url=f"{scheme}://llumi@db:5433/llumi?passfile=/etc/llumi/pgpass")
    assert settings.address("x") == "postgresql+psycopg://llumi@db:5433/llumi?passfile=/etc/llumi/pgpass"


def test_paths_are_made_to_hold_wherever_a_replica_runs(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))
    found = StoreSettings(keep_text=True, key_file="keys").resolved("run")
    assert (found.url, found.key_file) == (f"sqlite:///{tmp_path}/run/serving/feedback.db", f"{tmp_path}/keys")


@pytest.mark.parametrize(
    "url",
    ["postgresql://u:hunter2@db/llumi", "postgresql://u@db/llumi?password=hunter2", "postgresql://u:@db/llumi"],
)
def test_a_password_in_the_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ValidationError, match="passfile") as caught:
        StoreSettings(url=url)
    assert "hunter2" not in "; ".join(error["msg"] for error in caught.value.errors())


@pytest.mark.parametrize(
    "url", ["mysql://h/d", "feedback.db", "sqlite:///relative.db", "sqlite://", "postgresql://h:port/d"]
)
def test_other_databases_and_relative_paths_are_refused_with_what_is_taken(url: str) -> None:
    with pytest.raises(ValidationError, match=re.compile("expected postgresql|four slashes|cannot be told apart")):
        StoreSettings(url=url)


def test_texts_are_not_kept_without_a_key() -> None:
    with pytest.raises(ValidationError, match="llumi feedback key PATH"):
        StoreSettings(keep_text=True)
