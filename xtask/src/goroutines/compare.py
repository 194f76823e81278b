"""Compares `cdh bt --goroutines=all -o json` with what Go programs print themselves (GOTRACEBACK=crash).

    compare.py CDH SOURCES SCRATCH VERSION=GO [VERSION=GO ...] [--case NAME ...]

Builds each program of SOURCES with each GO and each set of flags, lets it crash, and compares goroutine ids, states,
functions, files, lines, creators and messages. The kernel's core pattern must be `core`. Prints a table; the exit
status is 1 if a difference has no known cause.
"""

import fcntl
import json
import os
import pathlib
import re
import resource
import subprocess
import sys
import tempfile

CASES = {
    "go": (
        "index slice error stringer wrapped string lines custom number float struct nilmap nil assertion closed again "
        "same nested goroutine divide overflow maprace unlock assembly deadlock many abort quit"
    ).split(),
    "cgo": "cfault cabort callback mixed".split(),
}
FLAGS = {
    "plain": [],
    "stripped": ["-ldflags=-s -w", "-trimpath"],
    "pie": ["-buildmode=pie", "-ldflags=-s -w"],
}
SYSCALL = "the text has the line saved on entry to a system call, cdh has the thread's own"
PREEMPTED = "the text has the line before the instruction at which a goroutine was preempted, cdh has its own"
LATER = "the goroutine went on between the text and the core"
TWICE = "several threads printed the same fatal error"
FAR = "the text leaves out the middle of a deep stack"
MANY = 60

HEADER = re.compile(r"goroutine (\d+) (?:gp=\S+ m=(?:\d+ mp=\S+|nil) )?\[([^\]]*)\](?: \{.*\})?:$")
PLACE = re.compile(r"\t(\S.*):(\d+)(?: \+0x[0-9a-f]+)?(?: fp=.*)?$")


def function_of(line):
    """The name before the last balanced parentheses."""
    depth = 0
    for at in range(len(line) - 1, -1, -1):
        depth += {")": 1, "(": -1}.get(line[at], 0)
        if depth == 0:
            return line[:at]
    return line


def parse(text):
    """Goroutines by id, each as often as it was printed, and messages."""
    goroutines, messages, current, pending = {}, [], None, None
    for line in text.split("\n"):
        header = HEADER.match(line)
        if header:
            current = {"state": header[2], "frames": [], "created": None, "cut": False}
            goroutines.setdefault(int(header[1]), []).append(current)
            continue
        if current is None or line == "":
            current = None
            if re.match(r"\t?panic: |fatal error: |\[signal ", line):
                messages.append(line.strip())
            continue
        created = re.match(r"created by (.*?)(?: in goroutine (\d+))?$", line)
        place = PLACE.match(line)
        if created:
            pending = (created[1], int(created[2]) if created[2] else None)
        elif place and pending:
            where = (place[1], int(place[2]))
            if isinstance(pending, tuple):
                current["created"] = pending + where
            elif not current["cut"]:
                current["frames"].append((pending,) + where)
            pending = None
        elif line.startswith("..."):
            current["cut"] = True
        elif line.endswith(")"):
            name = function_of(line)
            pending = "runtime.gopanic" if name == "panic" else name
    return goroutines, messages


def frame_of(frame):
    name = frame.get("function", {}).get("name", "??")
    place = frame.get("location", {})
    return (name.removesuffix(".abi0"), place.get("file"), place.get("line"))


def difference(ours, stack, text, causes):
    """What differs between one goroutine and one way in which the program printed it."""
    state, *marks = text["state"].split(", ")
    moving = ("running", "runnable", "syscall")
    if state != ours["state"] and state in moving and ours["state"] in moving:
        causes.add(LATER)
        return None
    if state != ours["state"]:
        return f"state {ours['state']} instead of {state}"
    if ("locked to thread" in marks) != ours.get("locked", False):
        return "locked to its thread or not"
    wanted, found = text["frames"], stack
    if wanted:
        if text["cut"]:
            causes.add(FAR)
            first = found.index(wanted[0]) if wanted[0] in found else 0
            found = found[first : first + len(wanted)]
        elif state in ("running", "syscall") and len(found) >= len(wanted):
            found = found[-len(wanted) :]
            entry = found and found[0][0] == wanted[0][0] and found[1:] == wanted[1:]
            if state == "syscall" and found != wanted and entry:
                causes.add(SYSCALL)
                found = wanted
        if found != wanted and len(found) == len(wanted):
            for at, name in enumerate(frame[0] for frame in found[:-1]):
                if name == "runtime.asyncPreempt" and found[at + 1][:2] == wanted[at + 1][:2]:
                    causes.add(PREEMPTED)
                    found = found[: at + 1] + [wanted[at + 1]] + found[at + 2 :]
        if found != wanted:
            return f"frames\n      cdh  {found}\n      text {wanted}"
    if text["created"]:
        created = ours.get("created_by")
        name, file, line = frame_of(created) if created else (None, None, None)
        if (name, ours.get("parent"), file, line) != text["created"]:
            return f"created by {name} {ours.get('parent')} {file}:{line} instead of {text['created']}"
    return None


def compare(text, document, causes):
    goroutines, messages = parse(text)
    reports = document.get("runtimes", [])
    if not reports or "tasks" not in reports[0]:
        return 0, 0, [f"no goroutines: {reports and reports[0].get('gaps')}"]
    report, wrong, frames = reports[0], [], 0
    ours = {task["id"]: task for task in report["tasks"]["list"]}
    for number, variants in goroutines.items():
        # 0 is the scheduler's own.
        if number == 0:
            continue
        if number not in ours:
            wrong.append(f"goroutine {number} is missing")
            continue
        task = ours[number]
        stack = report["tasks"]["stacks"][task["stack"]]["frames"] if "stack" in task else []
        stack = [frame_of(frame) for frame in stack]
        found = [difference(task, stack, text, causes) for text in variants]
        frames += len(variants[0]["frames"])
        if None not in found:
            wrong.append(f"goroutine {number}: {found[0]}")
    extra = sorted(set(ours) - set(goroutines))
    if extra:
        wrong.append(f"goroutines that the text lacks: {extra}")
    printed = []
    for message in report["messages"]:
        first = message["text"].split("\n")[0]
        note = f" [{message['note']}]" if "note" in message and "\n" not in message["text"] else ""
        is_signal = message["kind"] == "signal"
        printed.append(f"[signal {first}]" if is_signal else f"{message['kind']}: {first}{note}")
    if printed != messages and printed == list(dict.fromkeys(messages)):
        causes.add(TWICE)
    elif printed != messages:
        wrong.append(f"messages {printed} instead of {messages}")
    return len(goroutines), frames, wrong


def crash(program, case, scratch):
    """Text and core of a run."""
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for old in scratch.glob("core*"):
        old.unlink()
    environment = {**os.environ, "GOTRACEBACK": "crash"}
    # Tests change the core pattern while they hold this lock.
    with open(pathlib.Path(tempfile.gettempdir(), "cdh-kernel-settings.lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = subprocess.run(
            [program, case], cwd=scratch, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, timeout=120
        )
    cores = list(scratch.glob("core*"))
    return run.stderr.decode(errors="replace"), cores[0] if cores else None


def main(arguments):
    cdh, sources, scratch, *rest = arguments
    end = rest.index("--case") if "--case" in rest else len(rest)
    versions = dict(word.split("=", 1) for word in rest[:end])
    wanted = rest[end + 1 :] or None
    sources, scratch = pathlib.Path(sources).resolve(), pathlib.Path(scratch).resolve()
    scratch.mkdir(parents=True, exist_ok=True)
    failed, causes, sums = 0, {}, [0, 0, 0]
    print(f"{'version':10} {'build':14} {'cores':>5} {'goroutines':>10} {'frames':>7}  differences")
    for version, go in versions.items():
        environment = {
            **os.environ,
            "GO111MODULE": "off",
            "GOTOOLCHAIN": "local",
            "GOCACHE": str(scratch / "cache"),
        }
        for name, cases in CASES.items():
            for build, flags in FLAGS.items():
                program = scratch / f"{name}-{version}-{build}"
                subprocess.run(
                    [go, "build", *flags, "-o", program, "."], cwd=sources / name, env=environment, check=True
                )
                count, total, frames, bad = 0, 0, 0, []
                for case in [case for case in cases if wanted is None or case in wanted]:
                    text, core = crash(program, case, scratch)
                    if core is None:
                        bad.append(f"{case}: no core")
                        continue
                    command = [cdh, "bt", core, "--exe", program, "--goroutines=all", "-o", "json", "--limit", "100000"]
                    command.append("--no-cache")
                    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                    core.unlink()
                    own = set()
                    try:
                        document = json.loads(answer.stdout)
                        goroutines, compared, wrong = compare(text, document, own)
                    except ValueError:
                        goroutines, compared, wrong = 0, 0, [answer.stderr.decode(errors="replace")]
                    for cause in own:
                        causes[cause] = causes.get(cause, 0) + 1
                    count, total, frames = count + 1, total + goroutines, frames + compared
                    bad += [f"{case}: {one}" for one in wrong]
                print(f"{version:10} {name + ' ' + build:14} {count:5} {total:10} {frames:7}  {len(bad)}")
                for one in bad[:MANY]:
                    print(f"    {one[:2000]}")
                sums = [a + b for a, b in zip(sums, (count, total, frames))]
                failed += len(bad)
                program.unlink()
    print(f"{sums[0]} cores, {sums[1]} goroutines, {sums[2]} frames, {failed} differences")
    for cause, count in causes.items():
        print(f"not counted in {count} cores: {cause}")
    return 1 if failed else 0


sys.exit(main(sys.argv[1:]))
