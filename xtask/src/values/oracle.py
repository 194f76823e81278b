"""Run by gdb on a core: prints the variables of all threads as JSON, an object for each frame.

Only frames that have a symbol are looked into. Values are those that `print -raw-values` prints.
"""

import json
import re

import gdb

FRAMES = 64
VARIABLES = 4096
# As much as cdh reads.
ELEMENTS = 200
OPTIONS = dict(raw=True, max_elements=ELEMENTS, repeat_threshold=10, max_depth=20, symbols=True, unions=True,
               address=True, deref_refs=True, actual_objects=False, static_members=True)


def text_of(value):
    try:
        return value.format_string(**OPTIONS)
    except gdb.error as error:
        return f"<error: {error}>"


def location_of(name, pc):
    """What gdb says about where a variable is."""
    try:
        text = gdb.execute(f"info address {name}", to_string=True)
    except gdb.error:
        return ""
    for part in re.finditer(r"Range (0x[0-9a-f]+)-(0x[0-9a-f]+): ((?:(?! Range ).|\n)*)", text):
        if int(part[1], 16) <= pc < int(part[2], 16):
            return " ".join(part[3].split())
    return " ".join(text.split()) if "multi-location" not in text else ""


def variables(frame):
    """Arguments, and locals of the innermost block first: name, type, value, location."""
    arguments, found = [], []
    try:
        block = frame.block()
    except RuntimeError:
        return None
    while block is not None and not block.is_global and not block.is_static:
        for symbol in block:
            if not (symbol.is_argument or symbol.is_variable or symbol.is_constant):
                continue
            try:
                text = text_of(frame.read_var(symbol, block))
            except (gdb.error, RuntimeError, ValueError, NotImplementedError) as error:
                text = f"<error: {error}>"
            # Where it is only matters of a caller, whose registers the called function may have changed.
            is_caller = frame.newer() is not None
            location = location_of(symbol.name, frame.pc() - 1) if is_caller else ""
            found_one = (symbol.print_name, str(symbol.type), text, location)
            (arguments if symbol.is_argument else found).append(found_one)
        if block.function is not None:
            break
        block = block.superblock
    return {"arguments": arguments[:VARIABLES], "locals": found[:VARIABLES]}


for thread in sorted(gdb.selected_inferior().threads(), key=lambda thread: thread.num):
    thread.switch()
    frames = []
    frame = None
    try:
        frame = gdb.newest_frame()
        while frame and len(frames) < FRAMES:
            # Values are printed in the language of the selected frame.
            frame.select()
            frames.append({"pc": frame.pc(), "name": frame.name(), **(variables(frame) or {})})
            frame = frame.older()
    except gdb.error:
        pass
    print("ORACLE " + json.dumps({"tid": thread.ptid[1] or thread.ptid[2], "frames": frames}))
