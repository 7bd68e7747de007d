#!/usr/bin/env python3
"""What TCP promises to programs on one host, asked of two sockets on loopback.

    semantics.py [--nonblocking] [--seconds N] [NAME...]
    semantics.py --list

Each check runs in a process of its own and gives a line: "pass NAME", "skip NAME: why" or "fail NAME: why". The exit code is 1 if
one failed. With --nonblocking all sockets are O_NONBLOCK, and wait in poll(2); checks of calls that wait themselves are skipped.

Nothing here knows by which way bytes go: on plain TCP, past it, or both by turns. So the same lines are expected of each way.
"""
import argparse
import os
import signal
import socket
import subprocess
import sys

import checks
from ends import CALL_SECONDS, Failed, Skipped


def run_here(name, nonblocking):
    """Runs one check in this process and says its line."""
    if nonblocking:
        # Python's sockets with a time limit are O_NONBLOCK underneath.
        socket.setdefaulttimeout(CALL_SECONDS)
    check = checks.ALL[name]
    try:
        if nonblocking and check.is_of_blocking:
            raise Skipped("it's of calls that wait")
        check.run()
        print("pass", name)
    except Skipped as why:
        print(f"skip {name}: {why}")
    except Failed as why:
        print(f"fail {name}: {why}")
    except Exception as error:
        print(f"fail {name}: {type(error).__name__}: {error}")
    sys.stdout.flush()
    # Threads may still wait for what doesn't come.
    os._exit(0)


def run_apart(name, options):
    """Runs one check in a process group of its own, which ends with it, and returns its line."""
    command = [sys.executable, __file__, "--here", name]
    if options.nonblocking:
        command.append("--nonblocking")
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        said, _ = child.communicate(timeout=options.seconds)
        lines = [line for line in said.splitlines() if line.split(" ")[0] in ("pass", "skip", "fail")]
        return lines[-1] if lines else f"fail {name}: it ended without a word: {said.strip()[-300:]}"
    except subprocess.TimeoutExpired:
        return f"fail {name}: it hangs"
    finally:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="checks to run [default: all]")
    parser.add_argument("--nonblocking", action="store_true", help="with sockets that don't wait")
    parser.add_argument("--seconds", type=float, default=30, help="that a check may take")
    parser.add_argument("--list", action="store_true", help="say what each check asks, and end")
    parser.add_argument("--here", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        run_here(options.here, options.nonblocking)
    if options.list:
        for name, check in checks.ALL.items():
            print(f"{name}: {check.promise}")
        return 0
    unknown = [name for name in options.names if name not in checks.ALL]
    if unknown:
        parser.error(f"no check is called {unknown[0]}; --list names them")
    failed = False
    for name in options.names or checks.ALL:
        line = run_apart(name, options)
        failed |= line.startswith("fail")
        print(line, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
