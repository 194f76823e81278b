/* Prints the layout of the CPython whose headers it is compiled with, for `layouts/python/3.*.toml`:
 *
 *   gcc -I$PREFIX/include/python3.12 -I$PREFIX/include/python3.12/internal offsets.c && ./a.out > 3.12.toml
 *
 * Layouts are those of release builds with a GIL. The fields read here are where they are in all patch releases of a
 * version that were compared: 3.9.2 and 3.9.18, 3.11.2 and 3.11.7, 3.13.0 and 3.13.5. */
#define Py_BUILD_CORE 1
#include <Python.h>
#include <frameobject.h>
#include <stdio.h>
#include <stddef.h>
#include <string.h>
#if PY_VERSION_HEX >= 0x03090000
#include "internal/pycore_interp.h"
#endif
#if PY_VERSION_HEX >= 0x03080000 && PY_VERSION_HEX < 0x03090000
#include "internal/pycore_pystate.h"
#endif
#if PY_VERSION_HEX >= 0x03090000
#include "internal/pycore_runtime.h"
#endif
#if PY_VERSION_HEX >= 0x030e0000
#include "internal/pycore_interpframe_structs.h"
#include "internal/pycore_interpframe.h"
#include "internal/pycore_tstate.h"
#elif PY_VERSION_HEX >= 0x030b0000
#include "internal/pycore_frame.h"
#endif
#if PY_VERSION_HEX >= 0x030b0000
#include "internal/pycore_code.h"
#include "internal/pycore_dict.h"
#include "internal/pycore_moduleobject.h"
#endif
#include "internal/pycore_gil.h"
#define O(name, type, field) printf("%s = %zu\n", name, offsetof(type, field));
#define V PY_VERSION_HEX
static int bit(unsigned w) { int n = 0; while (!(w & 1)) { w >>= 1; n++; } return n; }
int main(void) {
    printf("# CPython " PY_VERSION ", x86_64. Written by offsets.c.\nminor = %d\n\n", PY_MINOR_VERSION);
    printf("[runtime]\n");
    O("interpreters_head", _PyRuntimeState, interpreters.head)
#if V >= 0x03090000
    O("finalizing", _PyRuntimeState, _finalizing)
#else
    O("finalizing", _PyRuntimeState, finalizing)
#endif
#if V < 0x030c0000
    O("gil", _PyRuntimeState, ceval.gil)
#endif
    printf("\n[gil]\n");
    O("holder", struct _gil_runtime_state, last_holder)
    O("locked", struct _gil_runtime_state, locked)
    printf("\n[interpreter]\n");
    O("next", PyInterpreterState, next)
    O("id", PyInterpreterState, id)
#if V >= 0x030b0000
    O("threads_head", PyInterpreterState, threads.head)
#else
    O("threads_head", PyInterpreterState, tstate_head)
#endif
#if V >= 0x030c0000
    O("gil", PyInterpreterState, ceval.gil)
    O("modules", PyInterpreterState, imports.modules)
#else
    O("modules", PyInterpreterState, modules)
#endif
    printf("\n[thread]\n");
    O("next", PyThreadState, next)
    O("interp", PyThreadState, interp)
    O("thread_id", PyThreadState, thread_id)
#if V >= 0x030b0000
    O("native_thread_id", PyThreadState, native_thread_id)
#endif
#if V >= 0x030d0000
    O("frame", PyThreadState, current_frame)
#elif V >= 0x030b0000
    O("cframe", PyThreadState, cframe)
    printf("cframe_frame = %zu\n", offsetof(_PyCFrame, current_frame));
    printf("cframe_previous = %zu\n", offsetof(_PyCFrame, previous));
#else
    O("frame", PyThreadState, frame)
#endif
#if V >= 0x030c0000
    O("raised", PyThreadState, current_exception)
#else
    O("raised_type", PyThreadState, curexc_type)
    O("raised", PyThreadState, curexc_value)
#endif
    O("exc_info", PyThreadState, exc_info)
    O("exc_value", _PyErr_StackItem, exc_value)
    O("exc_previous", _PyErr_StackItem, previous_item)
#if V >= 0x030e0000
    O("asyncio_task", _PyThreadStateImpl, asyncio_running_task)
#endif
    printf("\n[frame]\n");
#if V < 0x030b0000
    O("previous", PyFrameObject, f_back)
    O("code", PyFrameObject, f_code)
    O("instruction", PyFrameObject, f_lasti)
    O("globals", PyFrameObject, f_globals)
    O("locals", PyFrameObject, f_localsplus)
    O("line", PyFrameObject, f_lineno)
#else
    O("previous", _PyInterpreterFrame, previous)
#if V >= 0x030d0000
    O("code", _PyInterpreterFrame, f_executable)
    O("instruction", _PyInterpreterFrame, instr_ptr)
#else
    O("code", _PyInterpreterFrame, f_code)
    O("instruction", _PyInterpreterFrame, prev_instr)
#endif
    O("globals", _PyInterpreterFrame, f_globals)
    O("locals", _PyInterpreterFrame, localsplus)
    O("owner", _PyInterpreterFrame, owner)
#if V < 0x030c0000
    O("is_entry", _PyInterpreterFrame, is_entry)
#endif
#endif
    printf("\n[code]\n");
    O("filename", PyCodeObject, co_filename)
    O("name", PyCodeObject, co_name)
    O("first_line", PyCodeObject, co_firstlineno)
    O("flags", PyCodeObject, co_flags)
    O("argcount", PyCodeObject, co_argcount)
    O("kwonlyargcount", PyCodeObject, co_kwonlyargcount)
#if V >= 0x030a0000
    O("linetable", PyCodeObject, co_linetable)
#else
    O("linetable", PyCodeObject, co_lnotab)
#endif
#if V >= 0x030b0000
    O("qualname", PyCodeObject, co_qualname)
    O("instructions", PyCodeObject, co_code_adaptive)
    O("localsplusnames", PyCodeObject, co_localsplusnames)
    O("localspluskinds", PyCodeObject, co_localspluskinds)
#else
    O("varnames", PyCodeObject, co_varnames)
    O("cellvars", PyCodeObject, co_cellvars)
    O("freevars", PyCodeObject, co_freevars)
#endif
    printf("\n[object]\n");
    O("type", PyObject, ob_type)
    O("size", PyVarObject, ob_size)
    O("type_name", PyTypeObject, tp_name)
    O("type_flags", PyTypeObject, tp_flags)
    O("bytes", PyBytesObject, ob_sval)
    O("float", PyFloatObject, ob_fval)
#if V >= 0x030c0000
    O("int_tag", PyLongObject, long_value.lv_tag)
    O("int_digits", PyLongObject, long_value.ob_digit)
#else
    O("int_digits", PyLongObject, ob_digit)
#endif
    O("tuple_items", PyTupleObject, ob_item)
    O("set_used", PySetObject, used)
    O("cell", PyCellObject, ob_ref)
    O("exception_args", PyBaseExceptionObject, args)
#if V >= 0x030b0000
    O("module_dict", PyModuleObject, md_dict)
#else
    printf("module_dict = %zu\n", sizeof(PyObject));
#endif
    O("generator_qualname", PyGenObject, gi_qualname)
    printf("\n[string]\n");
    O("length", PyASCIIObject, length)
    O("state", PyASCIIObject, state)
    printf("ascii = %zu\n", sizeof(PyASCIIObject));
    printf("compact = %zu\n", sizeof(PyCompactUnicodeObject));
    O("data", PyUnicodeObject, data)
    PyASCIIObject a; unsigned w;
    memset(&a, 0, sizeof a); a.state.kind = 1; memcpy(&w, &a.state, 4); printf("kind_bit = %d\n", bit(w));
    memset(&a, 0, sizeof a); a.state.compact = 1; memcpy(&w, &a.state, 4); printf("compact_bit = %d\n", bit(w));
    memset(&a, 0, sizeof a); a.state.ascii = 1; memcpy(&w, &a.state, 4); printf("ascii_bit = %d\n", bit(w));
    printf("\n[dict]\n");
    O("used", PyDictObject, ma_used)
    O("keys", PyDictObject, ma_keys)
    O("values", PyDictObject, ma_values)
#if V >= 0x030b0000
    O("log2_index_bytes", struct _dictkeysobject, dk_log2_index_bytes)
    O("kind", struct _dictkeysobject, dk_kind)
    O("entries", struct _dictkeysobject, dk_nentries)
    O("indices", struct _dictkeysobject, dk_indices)
#else
    /* struct _dictkeysobject is in dict-common.h, which is not installed:
       refcnt, size, lookup function, usable, entries, indices. */
    printf("size = 8\nentries = 32\nindices = 40\n");
#endif
    /* TaskObj is in no header: `print &((TaskObj *)0)->task_coro` with the debug information of _asyncio. */
    static const int task_coroutine[] = {112, 152, 160, 136, 136, 120, 128};
    printf("\n[task]\n");
    printf("coroutine = %d\n", task_coroutine[PY_MINOR_VERSION - 8]);
    printf("name = %d\n", task_coroutine[PY_MINOR_VERSION - 8] + 8);
#if V >= 0x030d0000
    printf("\n[debug_offsets]\n");
#define D(name, field) printf("\"" name "\" = %zu\n", offsetof(_Py_DebugOffsets, field));
    D("runtime.interpreters_head", runtime_state.interpreters_head)
    D("runtime.finalizing", runtime_state.finalizing)
    D("interpreter.next", interpreter_state.next)
    D("interpreter.id", interpreter_state.id)
    D("interpreter.threads_head", interpreter_state.threads_head)
    D("interpreter.modules", interpreter_state.imports_modules)
    D("interpreter.gil", interpreter_state.ceval_gil)
    D("thread.next", thread_state.next)
    D("thread.interp", thread_state.interp)
    D("thread.frame", thread_state.current_frame)
    D("thread.thread_id", thread_state.thread_id)
    D("thread.native_thread_id", thread_state.native_thread_id)
    D("frame.previous", interpreter_frame.previous)
    D("frame.code", interpreter_frame.executable)
    D("frame.instruction", interpreter_frame.instr_ptr)
    D("frame.locals", interpreter_frame.localsplus)
    D("frame.owner", interpreter_frame.owner)
    D("code.filename", code_object.filename)
    D("code.name", code_object.name)
    D("code.qualname", code_object.qualname)
    D("code.linetable", code_object.linetable)
    D("code.first_line", code_object.firstlineno)
    D("code.argcount", code_object.argcount)
    D("code.localsplusnames", code_object.localsplusnames)
    D("code.localspluskinds", code_object.localspluskinds)
    D("code.instructions", code_object.co_code_adaptive)
#endif
    return 0;
}
