"""Compares the variables of `cdh bt --locals --raw` with those that gdb reads from the same cores.

    compare.py CDH GDB SOURCES SCRATCH [--directory DIR ...] [NAME ...]

Builds the programs beside this file, those of `cdh why`'s tests and those of the fixtures with every compiler and set of
flags, lets them crash, and compares. A DIR holds a `core` and its program, the only other ELF file. With NAMEs, only
programs whose names contain one. The kernel's core pattern must be `core`. Prints a table and each difference that has
no known cause; the exit status is 1 if there is one.
"""

import argparse
import collections
import difflib
import fcntl
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile

SECONDS = 20
FRAMES = 64
# Where Debian's packages of debug information are.
GDB = "-nx -q -batch".split() + [
    word
    for setting in ("debuginfod enabled off", "auto-load off", "debug-file-directory /usr/lib/debug", "width 0")
    for word in ("-iex", f"set {setting}")
]
C = {
    "-O0": ["-O0"],
    "-O2": ["-O2"],
    "-Os": ["-Os"],
    "-O2 LTO": ["-O2", "-flto"],
    "-O2 DWARF 4": ["-O2", "-gdwarf-4"],
    "-Og split": ["-Og", "-gsplit-dwarf"],
    "-O1 type units": ["-O1", "-fdebug-types-section"],
}
RUST = {
    "-O0": ["-Copt-level=0"],
    "-O3": ["-Copt-level=3"],
    "-Os": ["-Copt-level=s"],
    "-O3 LTO": ["-Copt-level=3", "-Clto=fat"],
}
LOST = "<optimized out>"
UNREAD = "<not in the core>"
KEPT = (LOST, UNREAD, "<repeats ", "<No data fields>", "<synthetic pointer>", "<vtable for", "<error: ", "<incomplete ")
# Registers that a called function may change.
CLOBBERED = re.compile(r"\$(rax|rcx|rdx|rsi|rdi|r8|r9|r10|r11|xmm\d+)\b|breg[0-2458]\b|breg(9|1[01])\b")


def compilers():
    """(label, extension, command) of every build that this machine can make."""
    found = []
    for label, c, cxx in ("gcc", "gcc", "g++"), ("clang", "clang", "clang++"):
        for extension, tool in ("c", c), ("cc", cxx):
            if shutil.which(tool):
                found += [(f"{label} {name}", extension, [tool, "-g", "-w", *flags]) for name, flags in C.items()]
    if shutil.which("rustc"):
        found += [(f"rustc {name}", "rs", ["rustc", "-g", "--edition=2021", "-Cpanic=abort", *flags])
                  for name, flags in RUST.items()]
    return found


def build(source, command, place):
    """The program, or None."""
    text = source.read_text()
    field = re.search(r"^// flags: (.*)$", text, re.M)
    flags = field[1].split() if field else []
    kept = place / source.name
    if kept.exists() and kept.read_text() == text and (place / "program").exists():
        return place / "program"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    shutil.copy(source, place)
    libraries = [] if source.suffix == ".rs" else ["-lm", "-lpthread", "-ldl"]
    made = subprocess.run([*command, source.name, *flags, "-o", "program", *libraries], cwd=place, capture_output=True)
    return place / "program" if made.returncode == 0 else None


def crash(source, program):
    """The core, or None."""
    field = re.search(r"^// env: (.*)$", source.read_text(), re.M)
    environment = {**os.environ, **dict(word.split("=", 1) for word in (field[1].split() if field else []))}
    endless = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    kept = next(iter(program.parent.glob("core*")), None)
    if kept:
        return kept
    # Tests change the core pattern while they hold this lock.
    with open(pathlib.Path(tempfile.gettempdir(), "cdh-kernel-settings.lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            subprocess.run([program], cwd=program.parent, env=environment, timeout=SECONDS, stdin=subprocess.DEVNULL,
                           capture_output=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, endless))
        except subprocess.TimeoutExpired:
            pass
    return next(iter(program.parent.glob("core*")), None)


def of_gdb(gdb, program, core):
    oracle = pathlib.Path(__file__).with_name("oracle.py")
    run = subprocess.run([gdb, *GDB, "-x", oracle, program, core], cwd=program.parent, capture_output=True, timeout=300)
    lines = run.stdout.decode(errors="replace").splitlines()
    threads = [json.loads(line.removeprefix("ORACLE ")) for line in lines if line.startswith("ORACLE ")]
    return {thread["tid"]: thread["frames"] for thread in threads}


def of_cdh(cdh, program, core):
    command = [cdh, "bt", core, "--exe", program, "--locals", "--raw", "--all-threads", "--no-cache", "--no-fold"]
    run = subprocess.run([*command, "--offline", "--limit", str(FRAMES), "-o", "json"], capture_output=True, timeout=300)
    if run.returncode:
        sys.exit(f"{core}: {run.stderr.decode()}")
    return {thread["tid"]: thread["frames"] for thread in json.loads(run.stdout)["backtrace"]["threads"]}


def pairs(theirs, ours):
    """Frames of gdb and of cdh that are the same."""
    def name(frame):
        return frame["pc"]

    matcher = difflib.SequenceMatcher(None, [name(f) for f in theirs], [name(f) for f in ours], autojunk=False)
    for block in matcher.get_matching_blocks():
        for number in range(block.size):
            yield theirs[block.a + number], ours[block.b + number]


def variables(frame, kind):
    """Values of cdh by name, each as often as the name is used."""
    found = collections.defaultdict(list)
    for variable in frame.get(kind) or []:
        found[variable["name"]].append(variable)
    return found


def without_labels(text):
    """The names of base classes are left out: gdb writes those of template arguments in another way."""
    parts, depth = [], 0
    for at, letter in enumerate(text):
        starts = letter == "<" and (text[at - 1 : at] in "{ " or at == 0) and not text.startswith(KEPT, at)
        if depth or starts:
            depth += {"<": 1, ">": -1}.get(letter, 0)
            if not depth:
                parts.append("<>")
        else:
            parts.append(letter)
    return "".join(parts)


def normal(text):
    """The same text for what is only written differently."""
    text = re.sub(r"<error: Cannot access memory at address 0x[0-9a-f]+>", UNREAD, text)
    text = text.replace("<error reading variable: value has been optimized out>", LOST)
    text = re.sub(r"<incomplete sequence (\\\d+)>", r'"\1"', text)
    # gdb writes the types of pointers to members, and parameters of functions, beside their names.
    text = re.sub(r"\([^()]*\([^()]*::\*\)\([^()]*\)( const)?\) (?=0x)", "", text)
    text = re.sub(r"^(&virtual [^(]*)\(.*$", r"\1", text)
    return without_labels(text)


def is_lost(text):
    """Whether no part of a value is known."""
    if LOST not in text:
        return False
    left = text.replace(LOST, "")
    while re.search(r"<[^<>]*>", left):
        left = re.sub(r"<[^<>]*>", "", left)
    left = re.sub(r"[A-Za-z_][\w:]*", "", left)
    return not re.search(r"\w", left)


def known(theirs, ours, location):
    """The cause of a difference, if it is a known one."""
    if LOST in ours and CLOBBERED.search(location) and "entry_value" not in location:
        return "gdb takes a register of the caller that the called function may have changed"
    if LOST in ours and re.search(r"<error|<invalid address>|<incomplete type>|^<not in the core>$", theirs):
        return "gdb has an error in place of a value that is optimized out"
    if "entry_value" in location and not is_lost(ours):
        return "gdb does not follow a value at entry to its call site, or from an inlined function to the wrong one"
    if re.search(r"<error|<incomplete type>", theirs):
        return "gdb has an error in place of the value"
    if UNREAD in ours and UNREAD not in theirs:
        return "gdb reads zeros, or today's file, where the core holds no memory"
    if re.fullmatch(re.escape(ours).replace(r"=\ \{\}", r"=\ 0x[0-9a-f]+"), theirs):
        return "gdb prints an array of no elements as its address"
    if is_lost(ours) and "optimized out" in location:
        return "gdb prints something of a variable that it calls optimized out"
    if LOST in ours and re.search(r"\bempty\b|optimized out", location) and "::" in theirs:
        return "gdb takes the discriminant of an enum that is optimized out for 0"
    if re.fullmatch(r"0x[0-9a-f]+", ours) and theirs.startswith(ours + " b\""):
        return "gdb prints the bytes that a pointer of Rust points to"
    if theirs.startswith("<synthetic pointer>") and ours == "<synthetic pointer>":
        return "gdb follows a pointer that is itself optimized out"
    cut = r"""(, )?("(\\.|[^"\\])*"|'[^']*' <repeats \d+ times>)(?=\.\.\.)"""
    if re.sub(cut, "", theirs) == re.sub(cut, "", ours):
        return "long texts end at another character"
    names = [set(re.findall(r"\w+ = ", text)) for text in (theirs, ours)]
    if len(ours) > len(theirs) and names[0] == names[1] and "_vptr" in ours:
        return "gdb prints a virtual base class once"
    return None


def judge(theirs, ours, location):
    """Whether a value of gdb and one of cdh are equal, or what is wrong, and why that is so."""
    theirs, text = normal(theirs), normal(ours)
    if theirs == text or is_lost(theirs) and is_lost(text):
        return "equal", None
    cause = known(theirs, text, location)
    if cause:
        return "explained", cause
    if is_lost(theirs) or not is_lost(text) and text.count(LOST) < theirs.count(LOST):
        return "invented", None
    return "missed" if is_lost(text) else "different", None


def compare(theirs, ours, table, causes, report):
    for tid, frames in theirs.items():
        for theirs_frame, ours_frame in pairs(frames, ours.get(tid, [])):
            # gdb does not look into functions that it does not find.
            if "arguments" not in theirs_frame:
                continue
            for kind in "arguments", "locals":
                left = variables(ours_frame, kind)
                for name, type_name, text, location in theirs_frame[kind]:
                    # Of several variables with one name, the same one.
                    left[name].sort(key=lambda value: judge(text, value["value"], location)[0] != "equal")
                    value, cause = left[name].pop(0) if left[name] else None, None
                    if value is not None:
                        verdict, cause = judge(text, value["value"], location)
                    elif ours_frame.get("tail_call"):
                        verdict, cause = "explained", "of functions that a tail call left, cdh shows no variables"
                    elif is_lost(text):
                        verdict, cause = "explained", "gdb lists a variable without a value, of a block without code"
                    else:
                        verdict = "absent"
                    table["values"] += 1
                    table[verdict] += 1
                    causes[cause] += cause is not None
                    if verdict not in ("equal", "explained"):
                        where = f"{theirs_frame['name']} {kind[:-1]} {name} ({type_name}) {location}"
                        report(verdict, where, text, value and value["value"])
                for name, values in left.items():
                    for value in values:
                        table["extra"] += 1
                        where = f"{theirs_frame['name']} {kind[:-1]} {name} ({value['type']})"
                        report("extra", where, None, value["value"])


def main():
    parser = argparse.ArgumentParser()
    for name in "cdh", "gdb", "sources", "scratch":
        parser.add_argument(name, type=pathlib.Path)
    parser.add_argument("--directory", type=pathlib.Path, action="append", default=[])
    parser.add_argument("--build", action="append", help="only this one")
    parser.add_argument("names", nargs="*")
    options = parser.parse_intermixed_args()
    root = options.sources.resolve().parents[2]
    places = [options.sources, root / "crates/cause/tests/programs", *sorted((root / "tests/fixtures").iterdir())]
    sources = [file for place in places if place.is_dir() for file in sorted(place.iterdir())
               if file.suffix in (".c", ".cc", ".rs")]
    wanted = [file for file in sources if not options.names or any(name in str(file) for name in options.names)]
    tables, causes = collections.defaultdict(collections.Counter), collections.Counter()

    def one(label, case, program, core):
        table = tables[label]
        table["cores"] += 1

        def report(verdict, where, theirs, ours):
            print(f"{verdict}: {case}: {where}\n    gdb {theirs}\n    cdh {ours}", flush=True)

        try:
            compare(of_gdb(options.gdb, program, core), of_cdh(options.cdh, program, core), table, causes, report)
        except subprocess.TimeoutExpired as error:
            print(f"{case}: {error}")

    for directory in options.directory:
        elf = [file for file in sorted(directory.iterdir()) if not file.name.startswith("core")]
        program = next(file for file in elf if file.read_bytes()[:4] == b"\x7fELF")
        one(directory.parent.name, directory.name, program.resolve(), next(directory.glob("core*")).resolve())
    builds = [one for one in compilers() if not options.build or one[0] in options.build]
    for label, extension, command in builds if not options.directory else []:
        for source in wanted:
            if source.suffix != f".{extension}":
                continue
            case = f"{source.name} {label}"
            place = options.scratch / f"{source.parent.name}-{case}".replace(" ", "-")
            program = build(source, command, place)
            core = crash(source, program) if program else None
            if core:
                one(label, case, program, core)
    columns = "cores values equal explained missed different invented absent extra".split()
    print(f"{'build':20}" + "".join(f"{name:>10}" for name in columns))
    total = collections.Counter()
    for label, table in tables.items():
        total += table
        print(f"{label:20}" + "".join(f"{table[name]:>10}" for name in columns))
    print(f"{'total':20}" + "".join(f"{total[name]:>10}" for name in columns))
    print(f"{100 * total['equal'] / max(1, total['values']):.2f} % equal")
    for cause, count in causes.most_common():
        if count:
            print(f"{count:>10} explained: {cause}")
    left = sum(total[name] for name in ("missed", "different", "invented", "absent", "extra"))
    sys.exit(1 if left or not total["values"] else 0)


main()
