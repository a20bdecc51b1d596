#!/bin/sh
# Inside the guest's root, by chroot: users, programs, services.
set -eu
echo web-17 > /etc/hostname
printf '127.0.0.1 localhost web-17\n' > /etc/hosts
printf '/dev/vda / ext4 defaults 0 1\n' > /etc/fstab
printf '[Match]\nName=e*\n[Network]\nAddress=10.0.2.15/24\n' > /etc/systemd/network/10-wired.network
systemctl enable systemd-networkd ssh cron 2>/dev/null
: > /etc/machine-id
useradd --create-home --shell /bin/bash alice
printf 'alice ALL=(ALL) NOPASSWD: ALL\n' > /etc/sudoers.d/alice
for home in /root /home/alice; do mkdir -p -m 700 "$home/.ssh"; cp /guest/key.pub "$home/.ssh/authorized_keys"; done
cp -r /guest/hello /guest/weekly.py /guest/odd.py /home/alice
gcc -o /home/alice/crash /guest/crash.c
gcc -pthread -o /home/alice/threads /guest/threads.c
gcc -o /usr/local/sbin/beacond /guest/beacond.c
install -m 755 /guest/rotate-reports /usr/local/sbin
install -D -m 755 /guest/shop.py /srv/shop/shop.py
install -m 644 /guest/intruder.py /srv/shop
printf '* * * * * root /usr/local/sbin/rotate-reports\n' > /etc/cron.d/reports
printf '[Unit]\nDescription=shop\n[Service]\nUser=www-data\nExecStart=/srv/shop/shop.py\n[Install]\nWantedBy=multi-user.target\n' > /etc/systemd/system/shop.service
printf '[Service]\nExecStart=/usr/local/bin/tasktrail record dump /root/web-17.tt --until-interrupted\nKillSignal=SIGINT\n' > /etc/systemd/system/tasktrail-dump.service
systemctl enable shop 2>/dev/null
mkdir -p /guest/greet/DEBIAN /guest/greet/usr/bin
printf '#!/bin/sh\necho "good day, $(id -un)"\n' > /guest/greet/usr/bin/greet
printf 'Package: greet\nVersion: 1.0\nArchitecture: all\nMaintainer: alice <alice@web-17>\nDescription: says good day\n' > /guest/greet/DEBIAN/control
printf '#!/bin/sh\nset -e\ngetent passwd greet >/dev/null || useradd --system greet\n' > /guest/greet/DEBIAN/postinst
chmod 755 /guest/greet/usr/bin/greet /guest/greet/DEBIAN/postinst
dpkg-deb --build --root-owner-group /guest/greet /home/alice/greet_1.0_all.deb
chown -R alice:alice /home/alice
chmod 755 /home/alice/*.py
printf '#!/usr/bin/python3\nfrom tasktrail.cli import main\nmain()\n' > /usr/local/bin/tasktrail
chmod 755 /usr/local/bin/tasktrail
