"""``python -m deploy.local up|status|down``: all of a fleet on this machine, for trying. Needs Java 17, and Maven once; no Docker.

    up      start what does not run, wait for rows of every host, say what to ask. Twice does no harm.
    status  what runs, and what is stored of each host. Exit code 1 if not all of it runs.
    down    end all of it. The data stay until the directory is removed.

The directory is named by TASKTRAIL_FLEET_DIR; by default it is /var/lib/tasktrail-fleet for root, else below ~/.local/state. As root
this host is recorded too, by a recorder of its own, which `down` takes out of the kernel again.
"""

import argparse
import os
import signal
import sys
import time

from deploy.local.fleet import HOSTS, Fleet, default_directory
from schemas.errors import TasktrailError
from store.server import stored_address


def say(line: str) -> None:
    """One line to the person who watches."""
    print(line, file=sys.stderr, flush=True)


def show_hosts(fleet: Fleet) -> None:
    """A table of the hosts in the store."""
    print(f"{'HOST':<20}{'ROWS':>10}  LATEST PROCESS")
    for host in fleet.rows():
        age_s = max(0, int(time.time()) - host.latest)
        print(f"{host.name:<20}{host.rows:>10}  {age_s} s ago")


def show_questions(fleet: Fleet) -> None:
    """What to ask, and where everything is."""
    reader = stored_address(fleet.store, "reader")
    print(f"""
Ask it:

    export TASKTRAIL_CONFIG={fleet.settings}
    tasktrail hosts
    tasktrail find --exe '*/cc1' --since 1h
    tasktrail find --user www-data --exe '*memfd:*'
    tasktrail history {fleet.names[0]}:272
    tasktrail watch

other tools   {reader}  (its password: tasktrail store info --password)
Kafka         {(fleet.directory / "kafka-port").read_text().strip()} on 127.0.0.1
logs          {fleet.logs} and {fleet.directory}/kafka/kafka.log
end it        make fleet-down, or python -m deploy.local down""")


def up(fleet: Fleet) -> int:
    """Start, and say what to ask."""
    with fleet.lock():
        say("the fleet is up" if fleet.up() else "the fleet is up already; nothing was started")
    show_hosts(fleet)
    show_questions(fleet)
    return 0


def status(fleet: Fleet) -> int:
    """Tell which parts run."""
    living, found = fleet.living(), fleet.roll.read()
    if not found:
        say(f"no fleet in {fleet.directory}; start one by `make fleet`")
        return 1
    for process in found:
        print(f"{process.name:<20}{process.pid:>10}  {'runs' if process.name in living else 'has ended, see its log'}")
    if "store" in living:
        show_hosts(fleet)
    return 0 if len(living) == len(found) else 1


def down(fleet: Fleet) -> int:
    """End all of it."""
    if not fleet.directory.is_dir():
        say(f"no fleet in {fleet.directory}")
        return 0
    with fleet.lock():
        say("the fleet is down" if fleet.down() else "no fleet was up")
    say(f"its data stay in {fleet.directory}; remove that directory for a fresh start")
    return 0


def main() -> int:
    """The exit code of what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("up", "status", "down"))
    parser.add_argument("--hosts", type=int, default=HOSTS, help=f"how many hosts are played (default {HOSTS})")
    parser.add_argument("--no-record", action="store_true", help="do not record this host, also as root")
    chosen = parser.parse_args()
    fleet = Fleet(default_directory(), chosen.hosts, os.geteuid() == 0 and not chosen.no_record, say)
    try:
        code = {"up": up, "status": status, "down": down}[chosen.what](fleet)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except TasktrailError as failure:
        say(f"tasktrail: {failure}")
        return failure.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
