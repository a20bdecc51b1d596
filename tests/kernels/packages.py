"""Kernel packages, from where this machine's own apt gets its packages.

Nothing here names a mirror: the archive that serves this machine's release is asked for the releases that have the other kernels.
"""

import functools
import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from schemas.errors import Unavailable


class Kernel(NamedTuple):
    """A kernel to boot.

    name          how a person asks for it: the series, and the architecture if it is not amd64
    series        begin of its version; empty for the newest that the release has
    release       Debian's release that has it
    architecture  as Debian calls it
    """

    name: str
    series: str
    release: str
    architecture: str = "amd64"


KERNELS = (
    Kernel("5.10", "5.10.", "bullseye"),
    Kernel("6.1", "6.1.", "bookworm"),
    Kernel("6.12", "6.12.", "trixie"),
    Kernel("newest", "", "sid"),
    Kernel("6.1-arm64", "6.1.", "bookworm", "arm64"),
    Kernel("6.12-arm64", "6.12.", "trixie", "arm64"),
)


class Files(NamedTuple):
    """What was taken out of a kernel's packages.

    package  name and version of the package
    release  what `uname -r` will say
    image    the kernel that qemu boots
    modules  directory with its modules
    """

    package: str
    release: str
    image: Path
    modules: Path


def cache_dir() -> Path:
    """Where packages and images are kept between runs: $TASKTRAIL_CACHE, or kernels of tasktrail below the user's cache directory."""
    chosen = os.environ.get("TASKTRAIL_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = Path(chosen) if chosen else base / "tasktrail" / "kernels"
    path.mkdir(parents=True, exist_ok=True)
    return path


def run(*command: str | Path, seconds: float = 600, cwd: Path | None = None) -> str:
    """What the command prints; raises Unavailable with the last line of what it complains about."""
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=seconds, cwd=cwd)
    except FileNotFoundError:
        raise Unavailable(f"there is no {command[0]} on this machine", "install what docs/kernels.md names") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{command[0]} did not end within {seconds:.0f} s") from None
    if done.returncode:
        said = [line for line in (done.stderr + done.stdout).strip().split("\n") if line.strip()]
        raise Unavailable(f"{Path(command[0]).name}: {said[-1] if said else f'exit status {done.returncode}'}")
    return done.stdout


class Archive(NamedTuple):
    """This machine's own archive: the site, and the release that the machine has from it."""

    site: str
    release: str


@functools.cache
def archive() -> Archive:
    """From apt's own list of what it is set up to fetch. Raises Unavailable when that has no main component of this machine's release."""
    codename = re.search(r"^VERSION_CODENAME=\"?(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    wanted = codename[1] if codename else ""
    for line in run("apt-get", "indextargets", "--format", "$(SITE) $(RELEASE) $(COMPONENT) $(CREATED_BY)").split("\n"):
        if line.endswith(f" {wanted} main Packages"):
            return Archive(line.split()[0], wanted)
    raise Unavailable(f"apt has no source for the main component of {wanted or 'this release'}", "run this on Debian")


class Apt:
    """An apt of its own for one release and architecture: lists and packages lie in the cache, the machine's own are not touched."""

    def __init__(self, release: str, architecture: str) -> None:
        """Fetches the release's list of packages. Raises Unavailable when the archive does not serve it."""
        self._state = cache_dir() / f"apt-{release}-{architecture}"
        for name in ("state/lists/partial", "cache/archives/partial", "packages"):
            (self._state / name).mkdir(parents=True, exist_ok=True)
        sources = self._state / "sources.list"
        sources.write_text(f"deb {archive().site} {release} main\n")
        options = {
            "Dir::State": self._state / "state",
            "Dir::State::status": "/dev/null",
            "Dir::Cache": self._state / "cache",
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": "-",
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "APT::Sandbox::User": "root",
            "APT::Update::Error-Mode": "any",
            "Acquire::Languages": "none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        }
        self._options = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        run("apt-get", *self._options, "-qq", "update")

    def versions(self, pattern: str) -> dict[str, str]:
        """Names that match the regular expression as a whole, with their newest versions."""
        names = [name for name in run("apt-cache", *self._options, "pkgnames").split() if re.fullmatch(pattern, name)]
        found: dict[str, str] = {}
        for name in names:
            shown = run("apt-cache", *self._options, "show", "--no-all-versions", name)
            if version := re.search(r"^Version: (\S+)$", shown, re.MULTILINE):
                found[name] = version[1]
        return found

    def depends(self, name: str) -> list[str]:
        """Names of the packages that it depends on, alternatives left out."""
        shown = run("apt-cache", *self._options, "show", "--no-all-versions", name)
        line = re.search(r"^Depends: (.*)$", shown, re.MULTILINE)
        return [re.split(r"[ (|]", one.strip())[0] for one in line[1].split(",")] if line else []

    def fetch(self, name: str) -> Path:
        """The package's file, taken from the cache if it is there."""
        where = self._state / "packages"
        file = run("apt-get", *self._options, "download", "--print-uris", name, cwd=where).split()[1]
        if not (where / file).exists():
            run("apt-get", *self._options, "-qq", "download", name, cwd=where)
        return where / file


def _version_key(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def fetch(kernel: Kernel) -> Files:
    """The newest of the kernel's series, unpacked in the cache. Raises Unavailable when it is not served."""
    apt = Apt(kernel.release, kernel.architecture)
    pattern = rf"linux-image-{re.escape(kernel.series)}[\d.]*[-+\w]*-cloud-{kernel.architecture}"
    names = apt.versions(pattern if kernel.series else rf"linux-image-\d[-+.\w]*-cloud-{kernel.architecture}")
    if not names:
        raise Unavailable(f"{kernel.release} has no cloud kernel {kernel.series}x for {kernel.architecture}")
    name = max(names, key=_version_key)
    release = name.removeprefix("linux-image-")
    target = cache_dir() / f"kernel-{name}_{names[name].replace(':', '_')}"
    if not target.exists():
        fresh = target.with_name(target.name + ".new")
        # From 7.0 on the files are in linux-binary-… and linux-modules-…, which the image's package depends on.
        parts = [one for one in apt.depends(name) if one.startswith(("linux-binary-", "linux-modules-"))]
        for part in (name, *parts):
            run("dpkg-deb", "-x", apt.fetch(part), fresh)
        fresh.rename(target)
    image = next(target.glob("boot/vmlinuz-*"), None) or next(target.rglob("vmlinuz*"), None)
    modules = next((path for path in target.rglob("modules/" + release) if path.is_dir()), None)
    if image is None or modules is None:
        raise Unavailable(f"{name} has no kernel image or no modules where they are looked for")
    return Files(f"{name} {names[name]}", release, image, modules)
