"""The failures that Tasktrail tells apart. Anything else that escapes a module is a bug in it."""


class TasktrailError(Exception):
    """A failure that a person can mend: one sentence naming the object, then the cure.

    problem  what is wrong, naming the object
    cure     what to do about it; may be empty where nothing can be done
    """

    exit_code = 1

    def __init__(self, problem: str, cure: str = "") -> None:
        super().__init__(f"{problem}; {cure}" if cure else problem)
        self.problem = problem
        self.cure = cure


class BadInput(TasktrailError):
    """The person asked for something that does not exist or cannot be read (exit code 2)."""

    exit_code = 2


class DecodeError(TasktrailError):
    """Bytes that are not a batch or a record of ours: count them, set them aside, go on (exit code 3)."""

    exit_code = 3


class Unavailable(TasktrailError):
    """An edge is down (store, broker, recorder): hold back and try again, never drop (exit code 4)."""

    exit_code = 4
