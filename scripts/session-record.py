"""Types a session into a real shell in a pseudo terminal, for scripts/record.

session-record.py DIRECTORY LEADER: runs bash in DIRECTORY, types each command at a person's pace, waits for the next
prompt, and prints the transcript: a line for the size, then one for each thing that happened, `SECONDS KIND TEXT`,
where KIND is `>` (this command is typed from here on) or `|` (the terminal got these characters). In TEXT, `\\e`,
`\\r`, `\\n` and `\\\\` stand for what they usually do. What is not here: how it is drawn (session-render.py).
"""

import codecs
import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time

COLUMNS, ROWS = 92, 30
# Green, then bold for what is typed; PS0 ends the bold before the command prints.
PROMPT = "\x1b[32m$\x1b[0;1m "
PROMPT_END = "\x1b[0m"
# Seconds between two keys, before the first one, and before Return.
KEY, THINK, LOOK = 0.035, 1.2, 0.4
# Seconds that a command may take; a debug build on a busy machine needs far less.
COMMAND_LIMIT = 60

# Each with what its output must have, or the session is not the one that we mean to show. The leader is killed while
# t3 runs; nothing that was accepted is lost, and nothing runs twice.
COMMANDS = [
    ("quorate cluster status", "3 of 3 members answer"),
    ("quorate task run -- echo 'hello, quorum'", "hello, quorum\r"),
    ("quorate task run --attach numbers.txt -- sha256sum numbers.txt", "  numbers.txt\r"),
    ("quorate task submit -- sh -c 'for n in 1 2 3 4; do echo step $n; sleep 3; done'", "\nt3 "),
    ("quorate dev kill {leader}    # the leader, in the middle of it", "killed by SIGKILL"),
    ("quorate task wait t3", "t3  succeeded"),
    ("quorate task logs t3    # each step once", "step 1\r\nstep 2\r\nstep 3\r\nstep 4\r\n\x1b"),
    ("quorate task why t3", "It succeeded."),
    ("quorate cluster status", "2 of 3 members answer"),
]


class Session:
    def __init__(self, directory: str) -> None:
        environment = {name: value for name, value in os.environ.items() if name == "PATH" or name.startswith("QUORATE_")}
        environment |= {"HOME": directory, "TERM": "xterm-256color", "LANG": "C.UTF-8", "PS1": PROMPT, "PS0": PROMPT_END}
        child, self.terminal = pty.fork()
        if child == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
            os.chdir(directory)
            os.execvpe("bash", ["bash", "--noprofile", "--norc", "--noediting", "-i"], environment)
        self.start = time.monotonic()
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.shown = ""

    def line(self, kind: str, text: str) -> None:
        for character, name in (("\\", "\\\\"), ("\x1b", "\\e"), ("\r", "\\r"), ("\n", "\\n")):
            text = text.replace(character, name)
        print(f"{time.monotonic() - self.start:.3f} {kind} {text}")

    def read(self, seconds: float) -> None:
        """Notes all that is shown within this time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not select.select([self.terminal], [], [], left)[0]:
                return
            text = self.decoder.decode(os.read(self.terminal, 65536))
            self.shown += text
            self.line("|", text)

    def prompt(self, expected: str) -> None:
        end = time.monotonic() + COMMAND_LIMIT
        while not self.shown.endswith(PROMPT):
            if time.monotonic() > end:
                sys.exit(f"no prompt within {COMMAND_LIMIT} s; the terminal shows: {self.shown[-400:]!r}")
            self.read(0.05)
        if expected not in self.shown:
            sys.exit(f"{expected!r} was expected; the terminal shows: {self.shown!r}")
        self.shown = ""

    def run(self, command: str, expected: str) -> None:
        self.read(THINK)
        self.line(">", command)
        for key in command:
            os.write(self.terminal, key.encode())
            self.read(KEY)
        self.read(LOOK)
        os.write(self.terminal, b"\n")
        self.prompt(expected)


def main() -> None:
    directory, leader = sys.argv[1:]
    print(f"{COLUMNS}x{ROWS}")
    session = Session(directory)
    session.prompt(PROMPT)
    for command, expected in COMMANDS:
        session.run(command.format(leader=leader), expected)
    os.close(session.terminal)


if __name__ == "__main__":
    main()
