"""What happens on a simulated host: a random walk over its operations, some of them very often, some never, as the seed says."""

import random
from collections.abc import Callable

from schemas.events import Flag
from schemas.limits import FOLD_NS, REFRESH_NS
from tests.sim.host import CLONE_NEWPID, CLONE_PARENT, CLONE_VFORK, CLONE_VM, SIGCHLD, Host, NoPid, Process

STATUSES = (0, 0, 0, 1 << 8, 255 << 8, 9, 15, 11 | 128)


class Life:
    """One host and the seed's likings."""

    def __init__(self, rng: random.Random, exact: bool, pid_max: int = 0, size: int = 0) -> None:
        self.rng = rng
        self.exact = exact
        self.size = size or rng.choice((20, 100, 250))
        self.host = Host(rng, pid_max or rng.choice((20, 40, 120)))
        common = [self.fork, self.fork_exec, self.exec, self.exit, self.exit, self.rename]
        rare = [
            self.fork_by_thread,
            self.exec_by_thread,
            self.vfork,
            self.clone_parent,
            self.kthread,
            self.usermodehelper,
            self.failed_exec,
            self.double_fork,
            self.subreaper,
            self.pid_namespace,
            self.zombie,
            self.reuse_pid,
            self.fold_edge,
            self.exec_chain_with_children,
            self.worker_pool,
            self.host.clock,
            self.host.probe,
            self.host.handover,
            self.sleep,
            self.snapshot,
            self.snapshot_races,
            self.exit_of_seen,
        ]
        very_rare = [self.deep_execs, self.deep_forks, self.sleep_a_day, self.seen_before_fork, self.seen_before_exec]
        if exact:
            very_rare += [self.step_clock, self.reboot]
        else:
            very_rare += [self.outage, self.outage, self.new_ring, self.reboot]
        self.operations: list[Callable[[], object]] = common
        self.weights = [rng.choice((1, 5, 20)) for _ in common]
        self.operations = [*common, *rare, *very_rare]
        self.weights += [rng.choice((0, 1, 1, 4)) for _ in rare] + [rng.choice((0, 0.3)) for _ in very_rare]
        self.recorded = False

    def run(self) -> Host:
        """The whole life, ending a second after the last thing that happened."""
        self.begin()
        self.recorded = True
        for _ in range(self.size):
            self.step()
        self.settle()
        return self.host

    def settle(self) -> None:
        """A quiet second, then a clock mark: every image is old enough to be written."""
        self.host.advance(1_000_000_000)
        self.host.clock()

    def begin(self) -> None:
        """Processes from before the recorder, then the recorder."""
        host, rng = self.host, self.rng
        self.recorded = False
        reader, _ = host.fork(host.init)
        host.exec(reader, comm=b"tasktrail")
        host.reader = reader
        plain = [
            self.fork,
            self.fork_exec,
            self.exec,
            self.exit,
            self.double_fork,
            self.subreaper,
            self.worker_pool,
            self.fork_by_thread,
            self.zombie,
        ]
        for _ in range(rng.choice((0, 5, 40))):
            self.do(rng.choice(plain))
            host.advance(rng.randrange(1_000_000))
        host.start_recorder(reader, snapshot=self.exact, meanwhile=None if self.exact else self.while_attaching)
        if not self.exact:
            for _ in range(rng.choice((0, 0, 3, 10))):
                self.do(rng.choice(plain))
            self.snapshot()
        self.recorded = True

    def step(self) -> None:
        """One operation, then some time."""
        host, rng = self.host, self.rng
        self.do(rng.choices(self.operations, self.weights)[0])
        host.advance(rng.choice((rng.randrange(20_000), rng.randrange(20_000), rng.randrange(5_000_000), rng.randrange(300_000_000))))

    def do(self, operation: Callable[[], object]) -> None:
        """The operation, unless pids run out in the middle of it; before, room is made for it."""
        host = self.host
        if len(host.taken) > host.pid_max - 8:
            host.reap()
            for process in self.mortal()[: host.pid_max // 2]:
                if process.tgid in host.living:
                    host.exit(process, self.rng.choice(STATUSES))
        try:
            operation()
        except NoPid:
            host.marks.add("no pid")

    # -- whom --------------------------------------------------------------------------------------------------------------

    def mortal(self) -> list[Process]:
        """Living processes that may end, in random order."""
        host = self.host
        found = [p for p in host.living.values() if p not in (host.init, host.kthreadd, host.reader)]
        self.rng.shuffle(found)
        return found

    def one(self, kthread: bool = False) -> Process:
        """A living process that may do something; one of the newest in half of the cases."""
        host = self.host
        found = [p for p in host.living.values() if bool(p.flags & Flag.KTHREAD) == kthread and p is not host.reader]
        return self.rng.choice(found[-4:] if self.rng.random() < 0.5 else found)

    # -- operations ----------------------------------------------------------------------------------------------------------

    def fork(self) -> Process:
        """A plain fork."""
        return self.host.fork(self.one())[0]

    def fork_exec(self) -> Process:
        """The common case: fork, exec a little later."""
        child = self.fork()
        self.host.advance(self.rng.randrange(3_000_000))
        self.host.exec(child)
        return child

    def exec(self) -> None:
        """One more program in a living process."""
        self.host.exec(self.one())

    def exit(self) -> None:
        """One process ends."""
        for process in self.mortal()[:1]:
            self.host.exit(process, self.rng.choice(STATUSES))

    def zombie(self) -> None:
        """One process ends and nobody waits for it."""
        for process in self.mortal()[:1]:
            self.host.exit(process, self.rng.choice(STATUSES), reap=False)

    def rename(self) -> None:
        """prctl(PR_SET_NAME), now and then to a name like a probe's."""
        self.host.rename(self.one(), self.rng.choice((b"worker", b"tt:evil", b"a=>b;", b"\xfe\x00"[:1])))

    def fork_by_thread(self) -> None:
        """A thread forks."""
        process = self.one()
        tid = self.host.start_thread(process)
        self.host.fork(process, tid=tid)

    def exec_by_thread(self) -> None:
        """A thread that is not the leader execs: it takes the leader's identity."""
        process = self.one()
        tid = self.host.start_thread(process)
        self.host.start_thread(process)
        self.host.exec(process, tid=tid)

    def vfork(self) -> None:
        """posix_spawn."""
        child, _ = self.host.fork(self.one(), CLONE_VM | CLONE_VFORK | SIGCHLD)
        self.host.exec(child)

    def clone_parent(self) -> None:
        """The child becomes a sibling."""
        process = self.one()
        if process.parent is not None and process.ns_init is not process:
            child, _ = self.host.fork(process, CLONE_PARENT | SIGCHLD)
            if self.rng.random() < 0.5:
                self.host.exec(child)

    def kthread(self) -> None:
        """kthreadd makes a kernel thread, which gets its name after its birth."""
        worker, _ = self.host.fork(self.host.kthreadd, CLONE_VM | SIGCHLD, kthread=True)
        self.host.rename(worker, b"kworker/1:2")

    def usermodehelper(self) -> None:
        """A kernel worker starts a program; kthreadd is its kernel parent."""
        worker = self.one(kthread=True)
        if worker is not self.host.kthreadd:
            helper, _ = self.host.fork(worker, CLONE_VM | CLONE_PARENT | SIGCHLD, kthread=True)
            self.host.exec(helper)

    def failed_exec(self) -> None:
        """An exec fails after the old program is gone: the process dies in it."""
        for process in self.mortal()[:1]:
            self.host.exit(process, 11, failed_exec=True)
            self.host.marks.add("failed exec")

    def double_fork(self) -> None:
        """A daemon is born: its creator ends at once."""
        middle = self.fork()
        daemon, _ = self.host.fork(middle)
        self.host.exit(middle, 0)
        if self.rng.random() < 0.5 and daemon.tgid in self.host.living:
            self.host.exec(daemon)

    def subreaper(self) -> None:
        """prctl(PR_SET_CHILD_SUBREAPER)."""
        self.one().subreaper = True

    def pid_namespace(self) -> None:
        """A container's init."""
        child, _ = self.host.fork(self.one(), CLONE_NEWPID | SIGCHLD, new_pid_ns=True)
        self.host.exec(child)

    def reuse_pid(self) -> None:
        """The pid of a process that just ended is given again at once."""
        for process in self.mortal()[:1]:
            self.host.exit(process, 0)
            if process.tgid not in self.host.living:
                self.host.fork(self.one(), reuse=process.tgid)

    def fold_edge(self) -> None:
        """An exec just before or just after the limit for folding; now and then with a child in between."""
        child = self.fork()
        if self.rng.random() < 0.3:
            self.host.fork(child)
        assert child.fork is not None
        due_ns = child.fork.time_ns + FOLD_NS + self.rng.choice((-3, -2, -1, 0, 1, 2, 100_000))
        jitter, self.host.jitter = self.host.jitter, False
        self.host.advance(max(due_ns - self.host.t - 1, 0))
        if self.rng.random() < 0.5:
            self.host.exec(child)
        elif child in self.mortal():
            self.host.exit(child, 0)
        self.host.jitter = jitter

    def exec_chain_with_children(self) -> None:
        """Programs that replace each other in one pid, each leaving a child."""
        process = self.one()
        for _ in range(self.rng.randrange(2, 5)):
            self.host.exec(process)
            self.host.fork(process)
            self.host.advance(self.rng.choice((1000, FOLD_NS)))

    def worker_pool(self) -> None:
        """Workers that never exec."""
        creator = self.one()
        for _ in range(self.rng.randrange(1, 5)):
            self.host.fork(creator)

    def deep_execs(self) -> None:
        """More execs than a chain holds."""
        process = self.one()
        for _ in range(66):
            self.host.exec(process)

    def deep_forks(self) -> None:
        """More creators than a row holds."""
        process = self.fork()
        for _ in range(66):
            child, _ = self.host.fork(process)
            if process in self.mortal():
                self.host.exit(process, 0)
            process = child

    # -- time ------------------------------------------------------------------------------------------------------------------

    def sleep(self) -> None:
        """Nothing happens for a while."""
        self.host.advance(self.rng.randrange(3_600_000_000_000))

    def sleep_a_day(self) -> None:
        """Over a boundary of the refresh; now and then exactly onto it."""
        host = self.host
        boundary = (host.t // REFRESH_NS + 1) * REFRESH_NS
        if self.rng.random() < 0.5:
            jitter, host.jitter = host.jitter, False
            host.t = boundary - 1
            self.rng.choice((self.rename, self.exec, self.exit, self.fork))()
            host.jitter = jitter
        else:
            host.advance(REFRESH_NS * self.rng.randrange(1, 4))
        self.host.clock()

    def step_clock(self) -> None:
        """Somebody sets the clock; it is known from the next clock mark on."""
        self.host.offset_ns += self.rng.randrange(-(10**13), 10**13)
        self.host.clock()

    # -- the recorder ------------------------------------------------------------------------------------------------------------

    def snapshot(self) -> None:
        """One in a quiet moment."""
        self.host.take_snapshot()

    def snapshot_races(self) -> None:
        """Processes come, go and exec while the iterator runs."""
        host = self.host
        snapshot = host.begin_snapshot()
        for _ in range(self.rng.randrange(1, 6)):
            host.see(self.rng.sample(list(host.living.values()), self.rng.randrange(len(host.living))))
            self.rng.choice((self.fork, self.fork_exec, self.exec, self.exit, self.reuse_pid, self.zombie))()
        host.end_snapshot()
        snapshot.raced = True

    def seen_before_fork(self) -> None:
        """The iterator sees a process whose record comes after the snapshot."""
        host = self.host
        host.begin_snapshot()
        child, record = host.fork(self.one(), defer=True)
        child.raced = child.images[0].raced = True
        host.end_snapshot()
        record()

    def seen_before_exec(self) -> None:
        """The iterator sees an exec id whose record comes after the snapshot."""
        host = self.host
        host.begin_snapshot()
        process = self.one()
        old = process.image
        record = host.exec(process, defer=True)
        old.raced = process.image.raced = True
        host.end_snapshot()
        if self.rng.random() < 0.5:
            host.advance(1000)
            if process is not host.kthreadd:
                host.fork(host.kthreadd, kthread=True)
        record()

    def exit_of_seen(self) -> None:
        """A process that the iterator saw ends before the snapshot does."""
        host = self.host
        host.begin_snapshot()
        for process in self.mortal()[:1]:
            host.see([process])
            host.exit(process, 0)
        host.end_snapshot()

    # -- faults ------------------------------------------------------------------------------------------------------------------

    def unseen(self) -> None:
        """Things that happen while nobody records."""
        for _ in range(self.rng.randrange(6)):
            self.do(self.rng.choice((self.fork, self.fork_exec, self.exec, self.exit, self.reuse_pid, self.double_fork)))
            self.host.advance(self.rng.randrange(400_000_000))

    def outage(self) -> None:
        """The links are lost; processes go on; the reader attaches anew and looks."""
        host = self.host
        host.stop_recording()
        self.unseen()
        host.reattach()
        if self.rng.random() < 0.8:
            host.take_snapshot()

    def new_ring(self) -> None:
        """The recorder is unloaded and loaded: another ring."""
        host = self.host
        host.stop_recording()
        host.advance(1000)
        self.unseen()
        assert host.reader is not None
        host.start_recorder(host.reader, meanwhile=None if self.exact else self.while_attaching)

    def while_attaching(self) -> None:
        """Things that happen between the attachment of the programs and the mark that tells it."""
        for _ in range(self.rng.choice((0, 0, 1, 3))):
            self.do(self.rng.choice((self.fork, self.fork_exec, self.exec, self.exit)))
            self.host.advance(self.rng.randrange(1_000_000))

    def reboot(self) -> None:
        """The host starts anew."""
        self.host.start_boot()
        self.begin()
