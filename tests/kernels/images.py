"""What a guest boots from: a root file system, an initial one with the modules that lead to it, and the job as a tar on a disk."""

import gzip
import lzma
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from schemas.errors import Unavailable
from tests.kernels.packages import Files, archive, cache_dir, run

PROJECT = Path(__file__).resolve().parents[2]
ROOT_PACKAGES = ["base-files", "base-passwd", "libc-bin", "coreutils", "dash", "grep", "sed", "util-linux", "bsdutils", "mount"]
ROOT_PACKAGES += ["python3", "python3-bpfcc", "bpftool", "busybox-static"]
MODULES = ["virtio_pci", "virtio_mmio", "virtio_blk", "ext4", "crc32c_generic", "overlay", "binfmt_misc"]
"""Modules that are loaded before the root file system is there; what a kernel has built in, or lacks, is left out."""
WITHOUT = ("man", "doc", "locale", "info")
PACKAGES_OF_OURS = ("schemas", "producers", "streams", "store", "queries", "tasktrail")
SITE_PACKAGES = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "click", "py.py")
"""Pure Python that the tests need and the distribution's root has not."""

_COMPILERS = {"amd64": "gcc", "arm64": "aarch64-linux-gnu-gcc"}
_INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /root
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$module; done
tries=0
while [ ! -b /dev/vdc ] && [ $tries -lt 100 ]; do /bin/busybox sleep 0.1; tries=$((tries + 1)); done
/bin/busybox mount -t ext4 /dev/vda /root
/bin/busybox mkdir -p /root/job
/bin/busybox tar -x -f /dev/vdb -C /root/job
for name in proc sys dev; do /bin/busybox mount --move /$name /root/$name; done
exec /bin/busybox switch_root /root /job/tests/kernels/inside/init.sh
"""


def root_image(architecture: str) -> Path:
    """An ext4 image with Python and bcc, made once from the machine's own release and kept.

    Its packages are unpacked and not configured, so that another architecture's root needs nothing that runs its programs.
    """
    wanted = zlib.crc32(" ".join((archive().release, *ROOT_PACKAGES)).encode())
    image = cache_dir() / f"root-{archive().release}-{architecture}-{wanted:08x}.ext4"
    if image.exists():
        return image
    with tempfile.TemporaryDirectory(dir=cache_dir()) as directory:
        root = Path(directory) / "root"
        without = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in WITHOUT]
        hook = "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr"
        chosen = ["--variant=extract", "--mode=root", hook, f"--architectures={architecture}", f"--include={','.join(ROOT_PACKAGES)}"]
        run("mmdebstrap", *chosen, *without, archive().release, root, f"deb {archive().site} {archive().release} main", seconds=900)
        for name in ("passwd", "group"):
            shutil.copy(root / "usr/share/base-passwd" / f"{name}.master", root / "etc" / name)
        (root / "etc/machine-id").write_text("0" * 31 + "1\n")
        # What the packages' own scripts would do, and the slowest part of a start of Python without KVM.
        for library in root.glob("usr/lib/python3*"):
            subprocess.run([sys.executable, "-m", "compileall", "-q", "-j", "2", str(library)], capture_output=True, check=False)
        fresh = Path(directory) / "image"
        run("mke2fs", "-q", "-t", "ext4", "-O", "^metadata_csum,^orphan_file", "-d", root, fresh, "900M")
        fresh.rename(image)
    return image


def _unpacked(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".zst":
        return subprocess.run(["zstd", "-dqc", str(path)], check=True, capture_output=True).stdout
    return data


def modules_in_order(files: Files, names: Iterable[str]) -> list[tuple[str, bytes]]:
    """These modules and what they depend on, each after what it needs, with their bytes; those that the kernel lacks are left out."""
    there = {re.sub(r"\.ko(\.\w+)?$", "", path.name).replace("-", "_"): path for path in files.modules.rglob("*.ko*")}
    ordered: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in ordered or name not in there:
            return
        data = _unpacked(there[name])
        depends = re.search(rb"\0depends=([^\0]*)\0", data)
        for one in depends[1].decode().split(",") if depends else []:
            add(one.replace("-", "_"))
        ordered[name] = data

    for name in names:
        add(name)
    return list(ordered.items())


def _cpio_entry(name: str, mode: int, data: bytes) -> bytes:
    numbers = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def initial_file_system(files: Files, busybox: bytes, target: Path) -> None:
    """Writes a cpio archive whose init loads the modules, mounts the root, unpacks the job and goes there."""
    modules = modules_in_order(files, MODULES)
    order = "".join(f"{name}\n" for name, _ in modules).encode()
    entries = [_cpio_entry(name, 0o40755, b"") for name in ("bin", "modules")]
    entries += [_cpio_entry("init", 0o100755, _INIT.encode()), _cpio_entry("bin/busybox", 0o100755, busybox)]
    entries += [_cpio_entry("modules/order", 0o100644, order)]
    entries += [_cpio_entry(f"modules/{name}", 0o100644, data) for name, data in modules]
    target.write_bytes(gzip.compress(b"".join(entries) + _cpio_entry("TRAILER!!!", 0, b""), 1))


def busybox_of(image: Path) -> bytes:
    """The static busybox in a root image."""
    with tempfile.NamedTemporaryFile() as file:
        run("debugfs", "-R", f"dump /usr/bin/busybox {file.name}", image)
        return Path(file.name).read_bytes()


def compile_programs(architecture: str, directory: Path) -> None:
    """The kernel tests' helper programs, static, for the guest."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in (PROJECT / "tests/kernel/programs").glob("*.c"):
        options = ["-nostdlib"] if path.stem == "tiny" else ["-pthread"]
        run(_COMPILERS[architecture], "-O1", "-static", *options, "-o", directory / path.stem, path)


def _wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    name = Path(entry.name).name
    return None if name in ("testing", "demo_data") or name.endswith(".so") else entry


def _copy_site_package(name: str, target: Path) -> None:
    where = next((Path(path) for path in sys.path if (Path(path) / name).exists()), None)
    if where is None:
        raise Unavailable(f"there is no {name} in this Python's environment", "run `make setup`")
    for found in (where / name, *where.glob(f"{name}-*.dist-info")):
        if found.is_dir():
            shutil.copytree(found, target / found.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(found, target / found.name)


def job(architecture: str, target: Path, tests: Sequence[str] = ()) -> None:
    """Writes the project, its tests and what they need as a tar. ``tests`` are run instead of those in inside/chosen."""
    with tempfile.TemporaryDirectory() as directory:
        stage = Path(directory)
        stage.chmod(0o755)  # tests run programs as other users
        for name in (*PACKAGES_OF_OURS, "tests/kernel", "tests/kernels/inside"):
            shutil.copytree(PROJECT / name, stage / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in SITE_PACKAGES:
            _copy_site_package(name, stage / "site")
        if tests:
            (stage / "tests/kernels/inside/chosen").write_text("".join(f"{test}\n" for test in tests))
        compile_programs(architecture, stage / "programs")
        subprocess.run([sys.executable, "-m", "compileall", "-q", str(stage)], check=True)
        with tarfile.open(target, "w") as tar:
            tar.add(stage, ".", filter=_wanted)
