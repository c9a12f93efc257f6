"""A connection string of any form keeps its form, and gets the sidecar's place."""

from __future__ import annotations

from pathlib import Path

import execpool
import psycopg.conninfo
import pytest
from execpool import dsn
from execpool.naming import Naming, options
from execpool.settings import Settings
from execpool.sidecar import Sidecar


@pytest.fixture
def sidecar(tmp_path: Path) -> Sidecar:
    return Sidecar(str(tmp_path))


@pytest.mark.parametrize(
    ("given", "swapped"),
    [
        ("postgresql://u:p@h:1/d", "postgresql://u@/d?host=DIR&port=5432"),
        ("postgres://u:p@h/d?sslmode=require", "postgres://u@/d?host=DIR&port=5432"),
        ("postgresql+asyncpg://u:p%40@h:1/d?ssl=true", "postgresql+asyncpg://u@/d?host=DIR&port=5432"),
        ("postgresql+psycopg://u@[::1]:1/d", "postgresql+psycopg://u@/d?host=DIR&port=5432"),
        ("postgresql://u@h1:1,h2:2/d", "postgresql://u@/d?host=DIR&port=5432"),
        ("postgresql://u@/d?host=/var/run/postgresql", "postgresql://u@/d?host=DIR&port=5432"),
        ("postgresql:///d", "postgresql:///d?host=DIR&port=5432"),
        ("postgresql://u@h", "postgresql://u@/?host=DIR&port=5432"),
        ("postgresql://u%40x@h/d%2Fe", "postgresql://u%40x@/d%2Fe?host=DIR&port=5432"),
        (
            "postgresql://u@h/d?application_name=a%20b&connect_timeout=3&channel_binding=require",
            "postgresql://u@/d?host=DIR&port=5432&application_name=a%20b&connect_timeout=3",
        ),
        ("host=h port=1 user=u dbname=d password=p", "user=u dbname=d host=DIR port=5432"),
        ("user='a b' password='it\\'s' sslmode = require", "user='a b' host=DIR port=5432"),
        ("dbname = d", "dbname=d host=DIR port=5432"),
        ("", "host=DIR port=5432"),
    ],
)
def test_host_and_port_are_swapped_and_what_the_sidecar_does_itself_is_dropped(
    sidecar: Sidecar, given: str, swapped: str
) -> None:
    assert dsn.through(sidecar, given) == swapped.replace("DIR", sidecar.directory)


def test_a_password_that_is_not_encoded_is_told_and_not_taken_for_a_database(sidecar: Sidecar) -> None:
    for given in ("postgresql://u:s3cr/t@h/d", "postgresql://u:s3cr@t/s3cr@h:1/d?sslmode=require"):
        with pytest.raises(execpool.ConfigurationError, match="write / as %2F") as told:
            dsn.through(sidecar, given)
        assert "s3cr" not in str(told.value)


@pytest.mark.parametrize(
    ("given", "url", "keywords"),
    [
        ("postgresql+asyncpg://u@h/d", "postgresql://u@h/d", {}),
        ("postgresql://u@h/d?connect_timeout=3", "postgresql://u@h/d", {"timeout": 3.0}),
        ("postgresql://u@h/d?connect_timeout=0&a=%20", "postgresql://u@h/d?a=%20", {}),
        ("not a url", "not a url", {}),
        (
            "postgresql+asyncpg://u@h/d?ssl=require&prepared_statement_cache_size=0&statement_cache_size=0"
            "&command_timeout=2.5&search_path=a",
            "postgresql://u@h/d?search_path=a",
            {"ssl": "require", "statement_cache_size": 0, "command_timeout": 2.5},
        ),
        (
            "postgresql://u@h/d?sslmode=require&channel_binding=require&gssencmode=disable&keepalives_idle=3",
            "postgresql://u@h/d?sslmode=require",
            {},
        ),
        # Of asyncpg's own form it is a setting of the server, as ever.
        ("postgresql://u@h/d?command_timeout=3", "postgresql://u@h/d?command_timeout=3", {}),
    ],
)
def test_asyncpg_gets_what_it_can_read(given: str, url: str, keywords: dict[str, object]) -> None:
    assert dsn.for_asyncpg(given, {}) == (url, keywords)
    assert dsn.for_asyncpg(given, {"timeout": 7}) == (url, keywords | {"timeout": 7})


def test_an_engine_gives_asyncpg_its_certificates_by_a_url_as_it_takes_them_nowhere_else() -> None:
    words = dsn.asyncpg_keywords(
        {
            "host": "h", "sslmode": "verify-full", "sslrootcert": "/a b/ca.pem", "channel_binding": "require",
            "command_timeout": "3", "connect_timeout": "2", "keepalives": "1",
        }
    )  # fmt: skip
    assert dsn.certificates_in_dsn(words) == {
        "host": "h", "ssl": "verify-full", "command_timeout": 3.0, "timeout": 2.0,
        "dsn": "postgresql://?sslrootcert=/a%20b/ca.pem",
    }  # fmt: skip


def test_a_time_out_that_is_no_number_is_told() -> None:
    with pytest.raises(execpool.ConfigurationError, match="connect_timeout='abc' of the database's URL"):
        dsn.for_asyncpg("postgresql://u@h/d?connect_timeout=abc", {})
    with pytest.raises(execpool.ConfigurationError, match="statement_cache_size='1.5'"):
        dsn.for_asyncpg("postgresql+asyncpg://u@h/d?statement_cache_size=1.5", {})
    with pytest.raises(execpool.ConfigurationError, match="connect_timeout='abc'"):
        dsn.asyncpg_keywords({"connect_timeout": "abc"})


@pytest.mark.parametrize(
    "given",
    [
        "postgresql://u@/d?host=DIR",
        "postgresql://u@/d?host=DIR&port=6000&options=-c%20execpool.execution_id%3Dmine",
        "host=DIR user=u password=kept",
    ],
)
def test_what_names_the_socket_already_is_used_as_it_is(sidecar: Sidecar, given: str) -> None:
    given = given.replace("DIR", sidecar.directory)
    assert dsn.through(sidecar, given) == given


def test_the_port_is_the_number_in_the_sockets_name(sidecar: Sidecar) -> None:
    for name in (".s.PGSQL.6001.lock", ".s.PGSQL.6001", "control.sock"):
        (Path(sidecar.directory) / name).touch()
    assert dsn.keywords_through(sidecar, {"host": "h", "port": 1})["port"] == 6001


def test_libpq_reads_what_was_written(sidecar: Sidecar) -> None:
    naming = Naming("run-1", r"a b\c.py:3 main < x.py:1 'q'", "tool\tname", None)
    for given in ("postgresql://u@h/d?options=-c%20geqo%3Doff", "user=u dbname=d options='-c geqo=off'"):
        read = psycopg.conninfo.conninfo_to_dict(
            dsn.with_options(dsn.through(sidecar, given), naming.options())
        )
        assert read["host"] == sidecar.directory and read["user"] == "u" and read["dbname"] == "d"
        assert read["options"] == (
            r"-c geqo=off -c execpool.execution_id=run-1 "
            r"-c execpool.caller=a\ b\\c.py:3\ main\ <\ x.py:1\ 'q' -c execpool.label=tool" + "\\\tname"
        )
    assert options({}) == ""


def test_a_password_is_in_no_message() -> None:
    for given in ("mysql://u:hunter2@h/d", "password=hunter2 oops", "password='hunter2 x' oops"):
        with pytest.raises(execpool.ConfigurationError) as told:
            dsn.through(Sidecar("/d"), given)
        assert "hunter2" not in str(told.value) and "***" in str(told.value)


@pytest.mark.parametrize("password", ["hunter2", "hun/ter2", "hun?ter2", "hun@ter2", "hun#/:ter2"])
def test_a_password_that_is_not_encoded_is_not_told_either(password: str) -> None:
    assert dsn.redacted(f"postgresql://u:{password}@h/d?a=b") == "postgresql://u:***@h/d?a=b"


def test_settings_do_not_show_their_password() -> None:
    shown = repr(Settings(database_url="postgresql://u:hunter2@h/d"))
    assert "hunter2" not in shown and "OPTIONAL" in shown


def test_the_driver_of_sqlalchemys_form_is_told() -> None:
    assert dsn.driver("postgresql+asyncpg://h/d") == "asyncpg" and dsn.driver("postgresql://h/d") is None
    assert dsn.scheme("postgres://h/d", "postgresql+psycopg") == "postgresql+psycopg://h/d"


def test_settings_say_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXECPOOL", "on")
    with pytest.raises(execpool.ConfigurationError, match="'on' is none of required, optional, off"):
        execpool.ExecutionScope("a").__enter__()
    monkeypatch.setenv("EXECPOOL", "off")
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with pytest.raises(execpool.ConfigurationError, match="set DATABASE_URL"):
        execpool.database_url()
