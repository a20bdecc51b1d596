#!/bin/sh
# The guest's first process: a recorder before anything else, then the rest of a boot, then the tests, then the results.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 PYTHONPATH=/job/site:/job PYTHONDONTWRITEBYTECODE=1
exec </dev/null >/dev/console 2>&1
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
# As udev makes it. Without it Linux 5.10 with TOMOYO, as Debian's is, refuses every execveat() that goes by a descriptor.
ln -s /proc/self/fd /dev/fd
ip link set lo up 2>/dev/null
mkdir -p /run/results /run/boot
cd /job || exit

# What is there before the recorder.
sleep 3600 & echo $! >/run/boot/before
setsid sh -c 'echo $$ >>/run/boot/before; exec sleep 3600' &
sleep 0.1

echo "guest: loading"
python3 -m tasktrail record load --ring-size 8MiB & loader=$!
wait $loader; echo "$loader $?" >/run/boot/loader

# The boot goes on: services in the foreground, daemons by double fork, helpers that end at once, a pid namespace.
for number in 1 2 3 4 5 6 7 8 9 10; do
  sh -c 'echo $$ >>/run/boot/since; exec sleep 3600' &
  sh -c '(sh -c "echo \$\$ >>/run/boot/since; exec sleep 3600" &)'
  sh -c "echo \$\$ >>/run/boot/since; exit $number"
  /job/programs/tiny a b
done
unshare -pf sh -c 'exec /job/programs/tiny'
echo "guest: booted"

# As the first child of a session leader would: init must not be what the tests run in.
setsid sh /job/tests/kernels/inside/tests.sh & tests=$!
wait $tests
cp /proc/version /run/results/version
dmesg >/run/results/dmesg 2>/dev/null
tar -C /run/results -cf /dev/vdc .
sync
busybox reboot -f
