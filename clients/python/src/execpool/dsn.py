"""Connection strings: the database's own, with the sidecar's socket in the place of host and port.

What says how the connection is encrypted or how the user proves who it is goes, too: the way to
the sidecar is a socket within the pod, and the database's password is the sidecar's business."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import parse_qsl, quote, unquote, urlencode

from .errors import ConfigurationError
from .sidecar import Sidecar

_URL = re.compile(r"^(?P<scheme>postgres(?:ql)?(?:\+\w+)?)://(?P<rest>.*)$", re.DOTALL)

_PLACE = frozenset({"host", "hostaddr", "port", "unix_sock"})
_DROPPED = frozenset(
    {
        "password", "passfile", "ssl", "sslmode", "sslnegotiation", "requiressl", "sslcompression",
        "sslcert", "sslkey", "sslpassword", "sslcertmode", "sslrootcert", "sslcrl", "sslcrldir",
        "sslsni", "ssl_min_protocol_version", "ssl_max_protocol_version", "channel_binding",
        "require_auth", "gssencmode", "gsslib", "gssdelegation", "krbsrvname", "direct_tls",
        "ssl_context", "load_balance_hosts",
    }
)  # fmt: skip

_CERTIFICATES = frozenset(
    {
        "sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl", "sslnegotiation",
        "ssl_min_protocol_version", "ssl_max_protocol_version",
    }
)  # fmt: skip
_LIBPQS_ALONE = frozenset(
    {
        "channel_binding", "gssencmode", "gssdelegation", "keepalives", "keepalives_idle",
        "keepalives_interval", "keepalives_count", "tcp_user_timeout", "load_balance_hosts",
    }
)  # fmt: skip
"""What asyncpg has not, and would take for settings of the server."""
_SQLALCHEMYS = frozenset({"prepared_statement_cache_size", "prepared_statement_name_func", "async_fallback"})
_NUMBERS: dict[str, Callable[[Any], float]] = {
    "timeout": float,
    "command_timeout": float,
    "statement_cache_size": int,
    "max_cached_statement_lifetime": int,
    "max_cacheable_statement_size": int,
}


def is_postgres(dsn: str) -> bool:
    """Whether a string is a PostgreSQL URL or a list of `key=value`."""
    return bool(_URL.match(dsn)) or (dsn != "" and "://" not in dsn and "=" in dsn)


def scheme(url: str, name: str) -> str:
    """The same URL with another scheme, such as `postgresql+psycopg`."""
    match = _URL.match(url)
    if match is None:
        raise ConfigurationError(f"{redacted(url)!r} is not a PostgreSQL URL")
    return f"{name}://{match['rest']}"


def driver(url: str) -> str | None:
    """The driver that SQLAlchemy's form of a URL names: `asyncpg` of `postgresql+asyncpg://`."""
    match = _URL.match(url)
    return match["scheme"].partition("+")[2] or None if match else None


def for_asyncpg(url: str, keywords: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A URL without what asyncpg can't read of libpq's and SQLAlchemy's, and the keywords in its place."""
    match = _URL.match(url)
    if match is None:
        return url, dict(keywords)
    before, mark, query = match["rest"].partition("?")
    asked = parse_qsl(query, keep_blank_values=True)
    gone = _LIBPQS_ALONE | {"connect_timeout"}
    words: dict[str, Any] = {}
    if "+" in match["scheme"]:
        # What SQLAlchemy gives asyncpg by keywords, or keeps for itself.
        gone |= _NUMBERS.keys() | _SQLALCHEMYS | {"ssl"}
        words = {key: value for key, value in asked if key in _NUMBERS or key == "ssl"}
    words = _numbers(words)
    seconds = _number("connect_timeout", dict(asked).get("connect_timeout") or 0, float)
    if seconds > 0:  # for libpq 0 is no limit
        words.setdefault("timeout", seconds)
    kept = [(key, value) for key, value in asked if key not in gone]
    if len(kept) != len(asked):
        mark, query = "?" if kept else "", urlencode(kept, safe="/", quote_via=quote)
    return f"postgresql://{before}{mark}{query}", words | dict(keywords)


def asyncpg_keywords(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of libpq's, as SQLAlchemy reads them off a URL, as asyncpg names them."""
    words = _numbers({name: value for name, value in keywords.items() if name not in _LIBPQS_ALONE})
    settings = dict(words.pop("server_settings", None) or {})
    if (name := words.pop("application_name", None)) is not None:
        settings.setdefault("application_name", name)
    if (options := words.pop("options", None)) is not None:
        settings.setdefault("options", options)  # a startup parameter, too
    if (mode := words.pop("sslmode", None)) is not None:
        words.setdefault("ssl", mode)
    seconds = _number("connect_timeout", words.pop("connect_timeout", None) or 0, float)
    if seconds > 0:
        words.setdefault("timeout", seconds)
    return words | ({"server_settings": settings} if settings else {})


def certificates_in_dsn(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The same with the files of certificates in a URL, as asyncpg takes them nowhere else."""
    files = {name: value for name, value in keywords.items() if name in _CERTIFICATES}
    if not files or keywords.get("dsn"):
        return dict(keywords)
    rest = {name: value for name, value in keywords.items() if name not in files}
    return rest | {"dsn": f"postgresql://?{urlencode(files, safe='/', quote_via=quote)}"}


def _numbers(words: Mapping[str, Any]) -> dict[str, Any]:
    """Those as numbers that a URL has as text."""
    return {
        name: _number(name, value, _NUMBERS[name]) if name in _NUMBERS and isinstance(value, str) else value
        for name, value in words.items()
    }


def _number(name: str, value: Any, kind: Callable[[Any], float]) -> float:
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise ConfigurationError(f"{name}={value!r} of the database's URL is no number") from None


def redacted(dsn: str) -> str:
    """A connection string without its password, for messages. One that is not encoded as it should
    be may have any character: what is before the last `@` may be of it."""
    dsn = re.sub(r"(://[^:/@?]*):.*@", r"\1:***@", dsn, flags=re.DOTALL)
    return re.sub(r"(password\s*=\s*)('(?:\\.|[^'])*'|[^\s&]*)", r"\1***", dsn)


def through(sidecar: Sidecar, dsn: str) -> str:
    """A connection string of any form, by which the sidecar is reached; of the same form.

    One that names the sidecar's socket already is left as it is."""
    match = _URL.match(dsn)
    if match is not None:
        return _url_through(sidecar, match["scheme"], match["rest"], dsn)
    if "://" in dsn:
        raise ConfigurationError(f"{redacted(dsn)!r} is not a PostgreSQL URL")
    words = parse_keywords(dsn)
    swapped = keywords_through(sidecar, words)
    return dsn if swapped == words else format_keywords(swapped)


def keywords_through(sidecar: Sidecar, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The same for parameters as libpq and asyncpg name them."""
    if keywords.get("host") == sidecar.directory and not keywords.get("hostaddr"):
        return dict(keywords)
    gone = _PLACE | _DROPPED
    kept = {name: value for name, value in keywords.items() if name not in gone}
    return kept | {"host": sidecar.directory, "port": sidecar.port}


def _url_through(sidecar: Sidecar, name: str, rest: str, whole: str) -> str:
    rest, _, fragment = rest.partition("#")
    before, _, query = rest.partition("?")
    authority, slash, database = before.partition("/")
    if "@" in database:
        raise ConfigurationError(
            f"{redacted(whole)!r} has an @ after its first /, as a URL has whose password is not "
            "percent-encoded: write / as %2F and @ as %40"
        )
    user, _, hosts = authority.rpartition("@")
    asked = parse_qsl(query, keep_blank_values=True)
    host = dict(asked).get("host") or unquote(hosts)
    if host.rstrip("/") == sidecar.directory:
        return whole
    kept = [(key, value) for key, value in asked if key not in _PLACE | _DROPPED]
    place = [("host", sidecar.directory), ("port", str(sidecar.port))]
    user = user.partition(":")[0]
    query = urlencode(place + kept, safe="/", quote_via=quote)
    at = f"{user}@" if user else ""
    fragment = f"#{fragment}" if fragment else ""
    return f"{name}://{at}{slash or '/'}{database}?{query}{fragment}"


def with_options(dsn: str, options: str) -> str:
    """A connection string with `options` after those that it has."""
    match = _URL.match(dsn)
    if match is None:
        words = parse_keywords(dsn)
        words["options"] = joined(words.get("options"), options)
        return format_keywords(words)
    before, _, query = dsn.partition("?")
    asked = parse_qsl(query, keep_blank_values=True)
    had = dict(asked).get("options")
    kept = [(key, value) for key, value in asked if key != "options"]
    kept.append(("options", joined(had, options)))
    return f"{before}?{urlencode(kept, safe='/', quote_via=quote)}"


def joined(had: str | None, options: str) -> str:
    """Command-line options, one after the other."""
    return " ".join(part for part in (had, options) if part)


def parse_keywords(dsn: str) -> dict[str, str]:
    """Reads libpq's form `key=value key='a value'`."""
    words: dict[str, str] = {}
    at = 0
    pair = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:\\.|[^'\\])*)'|((?:\\.|[^\s'\\])*))(?=\s|$)", re.DOTALL)
    while dsn[at:].strip():
        match = pair.match(dsn, at)
        if match is None:
            raise ConfigurationError(
                f"{redacted(dsn)!r} is neither a PostgreSQL URL nor a list of key=value"
            )
        value = match[2] if match[2] is not None else match[3]
        words[match[1]] = re.sub(r"\\(.)", r"\1", cast(str, value), flags=re.DOTALL)
        at = match.end()
    return words


def format_keywords(words: Mapping[str, Any]) -> str:
    """Writes libpq's form."""

    def quoted(value: object) -> str:
        text = str(value)
        if text and not re.search(r"[\s'\\]", text):
            return text
        return "'" + re.sub(r"(['\\])", r"\\\1", text) + "'"

    return " ".join(f"{name}={quoted(value)}" for name, value in words.items())
