"""Crashes the programs beside this file and compares the Python frames of every thread with faulthandler's text.

compare.py CDH SOURCES SCRATCH [--pystack PROGRAM] PYTHON[@ROOT]...

A PYTHON runs below the directory ROOT, if there is one. faulthandler's text of a program is in SCRATCH/LABEL/NAME.txt.
"""

import collections
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import time

# faulthandler prints this many frames of a thread, and characters of a name.
FRAMES = 100
NAME = 500
SECONDS = 30
# Why faulthandler's text has less than there is.
REASONS = {
    "subinterpreter": "faulthandler prints the threads and frames of one interpreter",
    "overflow": "faulthandler's own stack ended",
}


def escaped(text):
    def one(character):
        code = ord(character)
        if 32 <= code < 127:
            return character
        return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"

    return "".join(map(one, text[:NAME])) + ("..." if len(text) > NAME else "")


def stated(text):
    """(is the current thread, frames) of each thread in faulthandler's text."""
    threads, frames = [], None
    for line in text.splitlines():
        title = re.match(r"(Current thread|Thread) 0x[0-9a-f]+.* \(most recent call first\):$", line)
        frame = re.match(r'  File "?(.*?)"?, line (\d+|\?\?\?) in (.*)$', line)
        if title:
            frames = []
            threads.append((title[1] == "Current thread", frames))
        elif frame and frames is not None:
            # Code that the interpreter runs for itself has no file.
            if frame[1] != "???":
                frames.append(frame.groups())
        elif line not in ("  ...", "  <no Python frame>", "  Garbage-collecting"):
            frames = None
    return threads


def of_cdh(cdh, core, root):
    command = [cdh, "bt", "--all-threads", "--no-args", "--no-cache", "-o", "json", "--limit", "300000", core]
    if root:
        command += ["--sysroot", root]
    answer = subprocess.run(command, capture_output=True)
    if answer.returncode:
        sys.exit(f"{core}: {answer.stderr.decode()}")
    threads = []
    for thread in json.loads(answer.stdout)["backtrace"]["threads"]:
        frames = [
            (escaped(frame["location"]["file"]), str(frame["location"]["line"] or "???"), escaped(frame["function"]["raw"]))
            for frame in thread["frames"]
            if frame.get("language") == "Python"
        ]
        threads.append((thread["crashing"], frames))
    return threads


def of_pystack(pystack, python, core, root):
    command = [pystack, "core", core, root + python, "--native"]
    if root:
        command += ["--lib-search-root", root]
    answer = subprocess.run(command, capture_output=True, timeout=120)
    threads = []
    for line in re.sub(r"\x1b\[[0-9;]*m", "", answer.stdout.decode(errors="replace")).splitlines():
        frame = re.match(r'    \(Python\) File "(.*)", line (\d+), in (.*)$', line)
        if line.startswith("Traceback for thread"):
            threads.append((True, []))
        elif frame and threads:
            # It prints qualified names, and the innermost frame last.
            threads[-1][1].insert(0, (escaped(frame[1]), frame[2], escaped(frame[3].split(".")[-1])))
    return threads


def equal(wanted, found):
    """Whether each thread of the text is one of those found, and no other one has Python frames."""
    left = list(found)
    for current, frames in sorted(wanted, key=lambda thread: -len(thread[1])):
        length = FRAMES if len(frames) == FRAMES else None
        same = [one for one in left if one[1][:length] == frames and (one[0] or not current)]
        if not same:
            return False
        left.remove(same[0])
    return not any(frames for _, frames in left)


def crash(python, root, program, place):
    """Runs `program` in a directory of its own; its core and faulthandler's text, or None."""
    command = [python, "-X", "faulthandler", f"../{program.name}"]
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)

    def prepare():
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        if root:
            os.chroot(root)
            os.chdir("/" + str(place.relative_to(root)))

    environment = dict(os.environ, PYTHONIOENCODING="utf-8")
    process = subprocess.Popen(command, cwd=place, preexec_fn=prepare, env=environment,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        text = process.communicate(timeout=SECONDS)[1].decode(errors="replace")
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None
    core = place / "core"
    return (core, text) if core.exists() else None


def main():
    cdh, sources, scratch, *rest = sys.argv[1:]
    pystack = None
    if rest[:1] == ["--pystack"]:
        pystack, rest = rest[1], rest[2:]
    sources, scratch = pathlib.Path(sources), pathlib.Path(scratch)
    total = collections.Counter()
    for word in rest:
        python, _, root = word.partition("@")
        place = pathlib.Path(root) / "tmp/faulthandler" if root else scratch / python.strip("/").replace("/", "-")
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for file in sources.glob("*.py"):
            shutil.copy(file, place)
        # The stable ABI: built with the headers of any version, where there are some.
        include = subprocess.run([sys.executable, "-c", "import sysconfig; print(sysconfig.get_paths()['include'])"],
                                 capture_output=True, text=True).stdout.strip()
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-g", f"-I{include}", sources / "_native.c", "-o",
                        place / "_native.abi3.so"], capture_output=True)
        counts = collections.Counter()
        for program in sorted(sources.glob("*.py")):
            if program.name == "compare.py":
                continue
            made = crash(python, root, program, place / program.stem)
            if not made:
                counts["no core"] += 1
                continue
            core, text = made
            wanted = stated(text)
            start = time.monotonic()
            same = equal(wanted, of_cdh(cdh, core, root))
            counts["seconds"] += time.monotonic() - start
            counts["cores"] += 1
            counts["equal"] += same
            if not same:
                print(f"  {word} {program.stem}: differs", REASONS.get(program.stem, "UNEXPLAINED"))
                counts["unexplained"] += program.stem not in REASONS
            if pystack:
                start = time.monotonic()
                counts["pystack equal"] += equal(wanted, of_pystack(pystack, python, core, root))
                counts["pystack seconds"] += time.monotonic() - start
            core.unlink()
        print(word, {name: round(count, 1) for name, count in counts.items()}, flush=True)
        total += counts
        if root:
            shutil.rmtree(place, ignore_errors=True)
    print("total", {name: round(count, 1) for name, count in total.items()})
    sys.exit(1 if total["unexplained"] or not total["cores"] else 0)


main()
