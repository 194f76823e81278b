use std::sync::Arc;

use cdh_elfcore::Avma;

use super::*;
use crate::{
    Elapsed, FrameTrust, Function, LoadedModule, Location, ModuleStatus, Stop, ThreadBacktrace,
};

const APP: &str = "/app/bin/api";
const LIBC: &str = "/usr/lib/x86_64-linux-gnu/libc.so.6";
const LIBSTDCXX: &str = "/usr/lib/x86_64-linux-gnu/libstdc++.so.6.0.30";
const RUST: &str = "/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library";

/// `name|source|module`; no name: `?`.
fn frame(text: &str, modules: &mut Vec<ModuleReport>) -> Frame {
    let mut parts = text.split('|');
    let name = parts.next().unwrap_or_default();
    let source = parts.next().filter(|source| !source.is_empty());
    let path = parts.next().unwrap_or(APP);
    let index = modules.iter().position(|module| module.path == path);
    let index = index.unwrap_or_else(|| {
        modules.push(ModuleReport {
            path: path.to_owned(),
            build_id: None,
            status: ModuleStatus::Verified,
            has_symbols: true,
            has_debug_info: path == APP,
        });
        modules.len() - 1
    });
    Frame {
        pc: Avma(0x1000),
        module: Some(index),
        svma: None,
        trust: FrameTrust::Cfi,
        function: match name {
            "?" => Err(Reason::NotInAnyFunction),
            "wild" => Err(Reason::NoModule),
            name => Ok(Arc::new(Function {
                name: name.to_owned(),
                raw: name.to_owned(),
                offset: None,
            })),
        },
        inline: false,
        location: source.map(|file| {
            Arc::new(Location {
                file: file.to_owned(),
                line: 1,
                column: None,
                md5: None,
            })
        }),
        tail_call: false,
        signal_handler: false,
        is_return_address: true,
        interpreted: false,
        language: None,
        sp: None,
    }
}

fn backtrace(stack: &[String]) -> Backtrace {
    let mut modules = Vec::new();
    let frames = stack.iter().map(|text| frame(text, &mut modules)).collect();
    Backtrace {
        threads: vec![ThreadBacktrace {
            tid: 1,
            crashing: true,
            frames,
            stop: Stop::End,
            stored: false,
        }],
        modules,
        fingerprint: None,
        explanation: None,
        original_signal: None,
        elapsed: Elapsed {
            unwind_micros: 0,
            symbolize_micros: 0,
        },
    }
}

fn own(stack: &[String]) -> String {
    let backtrace = backtrace(stack);
    let frame = backtrace.own_frame().unwrap();
    match &frame.function {
        Ok(function) => function.name.clone(),
        Err(_) => "?".to_owned(),
    }
}

/// Each stack as `cdh bt` printed it of a small program; the frame that a person blames.
#[test]
fn own_frame_skips_runtime_libraries() {
    let libc = |name: &str, source: &str| format!("{name}|{source}|{LIBC}");
    let cpp = |name: &str| format!("{name}||{LIBSTDCXX}");
    let abort = || {
        vec![
            libc("__pthread_kill_implementation", "./nptl/pthread_kill.c"),
            libc("__GI_raise", "./signal/../sysdeps/posix/raise.c"),
            libc("__GI_abort", "./stdlib/abort.c"),
        ]
    };
    let with = |mut stack: Vec<String>, rest: &[&str]| {
        stack.extend(rest.iter().map(|text| (*text).to_owned()));
        stack
    };
    let of = |rest: &[&str]| with(Vec::new(), rest);
    let in_rust = |rest: &[(&str, &str)]| -> Vec<String> {
        let line = |(name, file): &(&str, &str)| match *file {
            "" => (*name).to_owned(),
            file if file.starts_with('/') => format!("{name}|{file}"),
            file => format!("{name}|{RUST}/{file}"),
        };
        rest.iter().map(line).collect()
    };
    let map = "/usr/include/c++/12/bits/stl_map.h";
    let table: Vec<(&str, Vec<String>, &str)> = vec![
        (
            "double free",
            with(
                abort(),
                &[
                    &libc("__libc_message", "./libc/../sysdeps/posix/libc_fatal.c"),
                    &libc("malloc_printerr", "./malloc/malloc.c"),
                    &libc("_int_free", "./malloc/malloc.c"),
                    &libc("__GI___libc_free", "./malloc/malloc.c"),
                    "release|/src/pool.c",
                    "main|/src/main.c",
                ],
            ),
            "release",
        ),
        (
            "failed assertion",
            with(
                abort(),
                &[
                    &libc("__assert_fail_base", "./assert/assert.c"),
                    &libc("__assert_fail", "./assert/assert.c"),
                    "check|/src/a.c",
                ],
            ),
            "check",
        ),
        (
            "static program without debug information",
            of(&["__strlen_evex", "_IO_puts", "__vfprintf_internal", "greet"]),
            "greet",
        ),
        ("stripped program", of(&[&libc("?", ""), "?", "?"]), "?"),
        ("wild call", of(&["wild", "dispatch|/src/d.c"]), "dispatch"),
        (
            "uncaught exception",
            with(
                abort(),
                &[
                    &cpp("?"),
                    &cpp("std::terminate"),
                    &cpp("__cxa_throw"),
                    &cpp("std::__throw_invalid_argument"),
                    "__gnu_cxx::__stoa<long, int, char, int>|/usr/include/c++/12/ext/string_conversions.h",
                    "std::__cxx11::stoi|/usr/include/c++/12/bits/basic_string.h",
                    "parse|/src/parse.cc",
                ],
            ),
            "parse",
        ),
        (
            "inlined container",
            of(&[
                &format!("std::map<K, int>::operator[]|{map}"),
                "Cache::find|/src/cache.cc",
            ]),
            "Cache::find",
        ),
        (
            "libc++, lines only in the program",
            of(&[
                "std::__1::vector<int>::operator[]|/opt/llvm/include/c++/v1/vector",
                "pick|/src/pick.cc",
            ]),
            "pick",
        ),
        (
            "specialisation in the standard's namespace",
            of(&["std::hash<Key>::operator()|/src/key.h", "main|/src/m.cc"]),
            "std::hash<Key>::operator()",
        ),
        (
            "Rust panic",
            with(
                abort(),
                &in_rust(&[
                    ("std::process::abort", "std/src/process.rs"),
                    ("__rustc::rust_panic", "std/src/panicking.rs"),
                    ("__rustc::rust_begin_unwind", "std/src/panicking.rs"),
                    (
                        "core::panicking::panic_bounds_check",
                        "core/src/panicking.rs",
                    ),
                    (
                        "<usize as core::slice::index::SliceIndex<[T]>>::index",
                        "core/src/slice/index.rs",
                    ),
                    (
                        "<alloc::vec::Vec<T,A> as core::ops::index::Index<I>>::index",
                        "alloc/src/vec/mod.rs",
                    ),
                    ("shop::cart::total", "/src/cart.rs"),
                ])
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
            ),
            "shop::cart::total",
        ),
        (
            "Rust without debug information",
            of(&[
                "core::ptr::drop_in_place<shop::Cart>",
                "<usize as core::slice::index::SliceIndex<[T]>>::index",
                "core::slice::index::<impl core::ops::index::Index<I> for [T]>::index",
                "<alloc::vec::Vec<shop::Item> as core::clone::Clone>::clone",
                "<&T as core::fmt::Debug>::fmt",
                "<T as core::convert::Into<U>>::into",
                "<core::slice::iter::Iter<shop::Item> as core::iter::Iterator>::next",
                "<shop::Cart as core::ops::drop::Drop>::drop",
            ]),
            "<shop::Cart as core::ops::drop::Drop>::drop",
        ),
        (
            "trait of the program for a type of the language",
            of(&[
                "<alloc::vec::Vec<u8> as shop::Encode>::encode",
                "shop::main",
            ]),
            "<alloc::vec::Vec<u8> as shop::Encode>::encode",
        ),
        (
            "Go panic",
            of(&[
                "runtime.raise.abi0|/usr/lib/go-1.19/src/runtime/sys_linux_amd64.s",
                "runtime.fatalpanic|runtime/panic.go",
                "runtime.gopanic|runtime/panic.go",
                "runtime.goPanicIndex",
                "runtime/internal/atomic.Load",
                "main.pick|/src/main.go",
                "main.main|/src/main.go",
            ]),
            "main.pick",
        ),
        (
            "sanitizer in the program",
            of(&[
                "__sanitizer::Die|/llvm/compiler-rt/lib/x.cpp",
                "__asan::ReportGenericError",
                "__interceptor_memcpy",
                "copy|/src/copy.c",
            ]),
            "copy",
        ),
        (
            "allocator in the program",
            of(&[
                "je_arena_tcache_fill_small|/b/jemalloc-5.3.0/src/arena.c",
                "_rjem_malloc",
                "tcmalloc::CentralFreeList::Populate",
                "mi_malloc_generic",
                "operator new",
                "load|/src/load.cc",
            ]),
            "load",
        ),
        (
            "musl",
            of(&["abort||/lib/ld-musl-x86_64.so.1", "run|/src/run.c"]),
            "run",
        ),
        (
            "library of the system",
            of(&["g_logv||/usr/lib/x86_64-linux-gnu/libglib-2.0.so.0", "draw"]),
            "draw",
        ),
        (
            "library of the program",
            of(&["decode||/app/lib/libcodec.so", "main|/src/main.c"]),
            "decode",
        ),
        (
            "interpreter",
            of(&[
                "PyList_Append||/usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0",
                "main",
            ]),
            "PyList_Append",
        ),
        (
            "names that the program has too",
            of(&["start|/src/engine.c", "main|/src/main.c"]),
            "start",
        ),
        (
            "nothing of the program",
            with(abort(), &[&libc("free", "./malloc/malloc.c")]),
            "free",
        ),
        ("abort only", abort(), "__pthread_kill_implementation"),
    ];
    for (what, stack, expected) in table {
        assert_eq!(own(&stack), expected, "{what}");
    }
}

#[test]
fn own_frame_survives_hostile_names() {
    for name in [
        "",
        "<",
        "<<<<",
        ">",
        "< as ",
        "<T as",
        "\u{1b}[31m",
        "..",
        ".part.",
        "…<…",
        "std::",
        "operator<",
        "<é as core::X>::é",
        "a.b.c.",
        "<(",
        "__",
        "*",
    ] {
        assert_eq!(own(&[name.to_owned()]), name);
    }
    let deep = format!("{}x{}", "<".repeat(20_000), ">".repeat(20_000));
    assert_eq!(own(std::slice::from_ref(&deep)), deep);
    assert!(backtrace(&[]).own_frame().is_none());
}

#[test]
fn names_of_go_keep_their_package() {
    let table = [
        ("runtime.raise.abi0", "runtime.raise"),
        ("main.(*Cart).total", "main.(*Cart).total"),
        ("parse.isra.0.cold", "parse"),
        ("__GI_raise", "raise"),
    ];
    for (name, expected) in table {
        assert_eq!(plain_name(name), expected);
    }
}

const PYTHON: &str = "/usr/bin/python3.11";
const CTYPES: &str = "/usr/lib/python3.11/lib-dynload/_ctypes.cpython-311-x86_64-linux-gnu.so";
const EXTENSION: &str = "/venv/lib/python3.11/site-packages/fast.cpython-311-x86_64-linux-gnu.so";

/// Frames of Python functions have a `+` before their name.
fn mixed(stack: &[&str]) -> Backtrace {
    let stack: Vec<String> = stack.iter().map(|text| (*text).to_owned()).collect();
    let mut backtrace = backtrace(&stack);
    for frame in &mut backtrace.threads[0].frames {
        if let Ok(function) = &mut frame.function
            && let Some(name) = function.name.strip_prefix('+')
        {
            let name = name.to_owned();
            Arc::make_mut(function).name = name;
            frame.interpreted = true;
        }
    }
    backtrace
}

#[test]
fn python_function_of_the_program_is_own_and_those_of_its_library_are_not() {
    let python = |name: &str, file: &str| format!("+{name}|{file}|{PYTHON}");
    let table = [
        (python("f", "/srv/app.py"), "f"),
        (python("f", "/usr/lib/python3.11/threading.py"), "last"),
        (python("f", "<frozen importlib._bootstrap>"), "last"),
        (
            python("f", "/usr/lib/python3/dist-packages/yaml/loader.py"),
            "f",
        ),
        (
            python("f", "/venv/lib/python3.11/site-packages/app/a.py"),
            "f",
        ),
        (format!("builtin_sorted||{PYTHON}"), "last"),
        (format!("string_at||{CTYPES}"), "last"),
        (format!("parse||{EXTENSION}"), "parse"),
    ];
    for (first, expected) in table {
        let last = python("last", "/srv/app.py");
        let backtrace = mixed(&[&first, &last]);
        let frame = backtrace.own_frame().unwrap();
        let name = &frame.function.as_ref().unwrap().name;
        assert_eq!(name, expected, "{first}");
    }
}

#[test]
fn fingerprint_of_a_mixed_stack_counts_python_functions_whatever_files_of_libraries_are_here() {
    let stack = [
        format!("raise||{LIBC}"),
        format!("string_at||{CTYPES}"),
        "xmlParseFile||/usr/lib/x86_64-linux-gnu/libxml2.so.2".to_owned(),
        format!("+load|/srv/app.py|{PYTHON}"),
        format!("builtin_map||{PYTHON}"),
        format!("+main|/srv/app.py|{PYTHON}"),
        format!("Py_BytesMain||{PYTHON}"),
    ];
    let made = |stack: &[String]| {
        let stack: Vec<&str> = stack.iter().map(String::as_str).collect();
        let backtrace = mixed(&stack);
        let frames = &backtrace.threads[0].frames;
        let modules: Vec<cdh_elfcore::Module> = backtrace
            .modules
            .iter()
            .map(|module| cdh_elfcore::Module {
                path: module.path.clone().into_bytes(),
                deleted: false,
                kind: cdh_elfcore::ModuleKind::Library,
                ranges: Vec::new(),
                build_id: None,
                bias: None,
            })
            .collect();
        let modules: Vec<LoadedModule<'_>> = modules.iter().map(LoadedModule::missing).collect();
        let name = |frame: &Frame| Some(format!("app.{}", frame.function.as_ref().ok()?.name));
        crate::Fingerprint::from_interpreted(frames, &modules, name)
    };
    assert_eq!(made(&stack).unwrap().counted, ["app.load", "app.main"]);
    // What a missing extension is called cannot be said, and it would count.
    let mut with_extension = stack.to_vec();
    with_extension.insert(3, format!("parse||{EXTENSION}"));
    assert_eq!(made(&with_extension), None);
}
