"""Settings: defaults, then one TOML file, then the environment, then flags; each value knows whence it came.

    settings = read_settings({"store": store_flag}).settings

The file is /etc/tasktrail/tasktrail.toml (another by --config or TASKTRAIL_CONFIG); its keys are the field names below. The
environment's names are TASKTRAIL_ and the field's name in capitals. Sizes may be written as numbers or as "16MiB".
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from schemas import limits
from schemas.errors import BadInput

FILE = "/etc/tasktrail/tasktrail.toml"
PREFIX = "TASKTRAIL_"
_WORDS = {"spool_sync": ("always", "never")}
_UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True, slots=True)
class Settings:
    """What is in force.

    store           directory of the embedded store, or clickhouse://user@host:port/database of another server
    retention_days  days after which the rows of ended images go; those of living ones and of their ancestors stay
    ring_bytes      size of the kernel ring, a power of two
    argv_bytes      argument bytes kept of one exec, at most schemas.limits.ARGV_BYTES_MAX; 0 keeps none
    argv_mask       regular expressions: what they match in arguments is overwritten before it is written anywhere; the word "secrets"
                    stands for common ones (producers.masking). A list in the file, one a line in the environment
    memory_bytes    memory that the embedded ClickHouse may take
    http_port       port of the embedded ClickHouse on 127.0.0.1 for HTTP, 0 for any that is free
    tcp_port        the same for the native protocol
    pin_dir         directory below a bpffs for the recorder's programs and maps; no dots in it
    run_dir         directory for locks and waiting snapshots of what runs
    state_dir       directory that keeps this host's id, the spool, and the join's state when the store is another server
    kafka           some brokers of the fleet's Kafka, host:port,host:port
    kafka_ca        file with the certificates that vouch for the brokers, or "system"; given, the connection is encrypted
    kafka_cert      file with our own certificate for Kafka, and
    kafka_key       file with its key
    kafka_user      name for SASL, and
    kafka_password_file  file with the password
    kafka_mechanism SASL mechanism: SCRAM-SHA-512 if none is given, SCRAM-SHA-256, or PLAIN, which wants kafka_ca
    kafka_prefix    what our topics and groups begin with there, such as "web.", where one Kafka serves several fleets
    spool_bytes     disk that `produce` may take while Kafka is away; beyond, the oldest is thrown away and told as a loss
    spool_sync      "always": what is in the spool outlives a power cut; "never": only a kill
    sign_key_file   file with this host's key: batches are signed with it (`tasktrail keys`)
    sign_master_file  file with the fleet's master key: workers then take only what is signed
    metrics         address for Prometheus, 127.0.0.1:9477 or [::]:9477; none if empty
    """

    store: str = "/var/lib/tasktrail"
    retention_days: int = 90
    ring_bytes: int = limits.RING_BYTES_DEFAULT
    argv_bytes: int = limits.ARGV_BYTES_MAX
    argv_mask: tuple[str, ...] = ()
    memory_bytes: int = 1 << 30
    http_port: int = 0
    tcp_port: int = 0
    pin_dir: str = "/sys/fs/bpf/tasktrail"
    run_dir: str = "/run/tasktrail"
    state_dir: str = "/var/lib/tasktrail"
    kafka: str = ""
    kafka_ca: str = ""
    kafka_cert: str = ""
    kafka_key: str = ""
    kafka_user: str = ""
    kafka_password_file: str = ""
    kafka_mechanism: str = ""
    kafka_prefix: str = ""
    spool_bytes: int = 1 << 30
    spool_sync: str = "always"
    sign_key_file: str = ""
    sign_master_file: str = ""
    metrics: str = ""


@dataclass(frozen=True, slots=True)
class InForce:
    """The settings and, for each field, where its value came from (``default``, a file's path, ``$NAME`` or ``--flag``)."""

    settings: Settings
    origins: Mapping[str, str]


NAMES = tuple(field.name for field in fields(Settings))
"""All settings' names, in the order that people see them."""

_RANGES = {
    "retention_days": (1, limits.RETENTION_DAYS_MAX),
    "ring_bytes": (1 << 16, 1 << 30),
    "argv_bytes": (0, limits.ARGV_BYTES_MAX),
    "memory_bytes": (256 << 20, 1 << 50),
    "http_port": (0, 65_535),
    "tcp_port": (0, 65_535),
    "spool_bytes": (8 << 20, 1 << 50),
}


def parse_size(text: str) -> int:
    """Bytes that a text such as ``4096``, ``16MiB`` or ``1G`` means. Raises ValueError."""
    number = text.strip().rstrip("KkMmGgIiBb")
    unit = text.strip()[len(number) :].upper()
    return int(number) * _UNITS[unit] if unit in _UNITS else int(text)


def _value(name: str, given: object, origin: str) -> str | int | tuple[str, ...]:
    """The value as its field wants it. Raises BadInput naming where it came from."""
    wants = type(getattr(Settings(), name))
    if wants is tuple:
        lines = given.splitlines() if isinstance(given, str) else given
        if not isinstance(lines, list | tuple) or not all(isinstance(one, str) and one for one in lines):
            raise BadInput(f"setting {name} from {origin} is {given!r}", "give a list of texts that are not empty")
        return tuple(lines)
    if wants is str:
        if not isinstance(given, str) or not given or "\0" in given:
            raise BadInput(f"setting {name} from {origin} is {given!r}", "give a text that is not empty")
        if given not in _WORDS.get(name, (given,)):
            raise BadInput(f"setting {name} from {origin} is {given!r}", "give " + " or ".join(_WORDS[name]))
        return given
    if isinstance(given, str):
        try:
            given = parse_size(given)
        except ValueError:
            raise BadInput(f"setting {name} from {origin} is {given!r}, not a number", "write it like 90 or, for sizes, 16MiB") from None
    low, high = _RANGES[name]
    if not isinstance(given, int) or isinstance(given, bool) or not low <= given <= high:
        raise BadInput(f"setting {name} from {origin} is {given!r}", f"give a number from {low} to {high}")
    if name == "ring_bytes" and given & (given - 1):
        raise BadInput(f"setting {name} from {origin} is {given}", "give a power of two, such as 16MiB")
    return given


def _from_file(path: str, must_exist: bool) -> dict[str, object]:
    """The file's keys; none if it is not there and need not be."""
    try:
        with Path(path).open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        if must_exist:
            raise BadInput(f"settings file {path} is not there", "write it or leave out --config and TASKTRAIL_CONFIG") from None
        return {}
    except OSError as failure:
        raise BadInput(f"settings file {path} cannot be read: {failure.strerror}", "run as a user who may read it") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as failure:
        raise BadInput(f"settings file {path} is not TOML: {failure}", "mend it; `tasktrail config --help` shows a whole one") from None


def read_settings(flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None, file: str | None = None) -> InForce:
    """The settings in force.

    flags    what the command line gave, by field name; None as a value means that it gave nothing
    environ  the environment, os.environ by default
    file     the TOML file, by default $TASKTRAIL_CONFIG, else /etc/tasktrail/tasktrail.toml if that is there

    Raises BadInput for an unknown key, a value that does not fit, or a file that cannot be read.
    """
    environ = os.environ if environ is None else environ
    named = file or environ.get(PREFIX + "CONFIG")
    path = named or FILE
    values: dict[str, str | int | tuple[str, ...]] = {}
    origins = dict.fromkeys(NAMES, "default")
    layers: list[tuple[str, Mapping[str, object]]] = [
        (path, _from_file(path, must_exist=bool(named))),
        ("$", {name: environ[PREFIX + name.upper()] for name in NAMES if PREFIX + name.upper() in environ}),
        ("--", {name: value for name, value in (flags or {}).items() if value is not None}),
    ]
    for source, layer in layers:
        for name, given in layer.items():
            origin = {"$": f"${PREFIX}{name.upper()}", "--": "--" + name.replace("_", "-")}.get(source, source)
            if name not in NAMES:
                raise BadInput(f"setting {name!r} from {origin} is not known", "`tasktrail config` lists those there are")
            values[name] = _value(name, given, origin)
            origins[name] = origin
    return InForce(replace(Settings(), **values), origins)  # type: ignore[arg-type]  # _value gave each its field's type
