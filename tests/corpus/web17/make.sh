#!/bin/bash
# Makes the recording again, as root on Debian with debootstrap and qemu-system-x86 (no KVM needed; five minutes):
#     tests/corpus/web17/make.sh DIRECTORY      leaves DIRECTORY/web-17.tt
# A Debian 12 with its own kernel runs in a virtual machine, so that a recording holds nothing of the machine that makes it.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
project=$here/../../..
mkdir -p "$1" && cd "$1"
ssh_port=2217 http_port=2280

packages=systemd,systemd-sysv,libpam-systemd,dbus,udev,kmod,procps,openssh-server,sudo,cron,gcc,make,libc6-dev,iproute2,netbase
packages+=,python3,python3-bpfcc,linux-image-cloud-amd64
[ -d root ] || debootstrap --variant=minbase --include="$packages" bookworm root
[ -f key ] || ssh-keygen -q -t ed25519 -N '' -C alice -f key
if [ ! -f disk.img ]; then
    cp -r "$here/guest" root/guest && cp key.pub root/guest
    chroot root sh /guest/setup.sh && rm -r root/guest root/etc/resolv.conf
    python=root/usr/local/lib/python3.11/dist-packages
    mkdir -p "$python"
    git -C "$project" archive HEAD schemas producers streams store queries tasktrail | tar x -C "$python"
    cp -r "$("$project/.venv/bin/python" -c 'import click; print(click.__path__[0])')" "$python"
    truncate -s 3G disk.img && mkfs.ext4 -q -F -d root disk.img
fi

qemu-system-x86_64 -accel tcg -cpu max -smp 1 -m 2G -nographic -nodefaults -serial file:serial.log \
    -kernel root/boot/vmlinuz-* -initrd root/boot/initrd.img-* -append "root=/dev/vda console=ttyS0 quiet" \
    -drive file=disk.img,format=raw,if=virtio,cache=unsafe,snapshot=on -device virtio-rng-pci -device virtio-net-pci,netdev=n \
    -netdev "user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:$ssh_port-:22,hostfwd=tcp:127.0.0.1:$http_port-:8080" &
machine=$!
trap 'kill $machine' EXIT
until grep -q 'web-17 login:' serial.log 2>/dev/null; do sleep 1; done
python3 "$here/session.py" key $ssh_port $http_port web-17.tt
