//! Values of programs that crash, as their sources say.

// A failed test may panic; nothing of this ships.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::path::Path;
use std::process::Command;

use cdh_elfcore::{CoreFile, MappedFile, ModuleKind};
use cdh_inspect::{FunctionVariables, Inspector, Missing, Storage, Value, Variable};
use cdh_symbolize::{Alone, FrameRegisters, LoadedModule, SectionArena};

/// Whether this machine has what the test needs; says so if not.
fn has(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: {tool} is not here");
    }
    found
}

/// Builds a program, lets gdb run it until it crashes, and looks at the core.
fn with_crash(
    compiler: &[&str],
    file: &str,
    source: &str,
    look: impl Fn(&Inspector<'_>, &[FrameRegisters]),
) {
    if !has("gdb") || !has(compiler[0]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(file), source).unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program)
            .current_dir(directory.path())
            .args(arguments)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program}: {said}");
    };
    let flags = [&compiler[1..], &["-g", file, "-o", "program"]].concat();
    run(compiler[0], &flags);
    let gdb = ["-nx", "-batch", "-iex", "set debuginfod enabled off"];
    let take = ["-ex", "run", "-ex", "generate-core-file core", "program"];
    run("gdb", &[&gdb[..], &take[..]].concat());
    let core = MappedFile::open(&directory.path().join("core")).unwrap();
    let core = CoreFile::open(Box::new(core)).unwrap();
    let modules = core.modules();
    let program = MappedFile::open(&directory.path().join("program")).unwrap();
    let loaded: Vec<LoadedModule<'_>> = modules
        .iter()
        .map(|module| match module.kind {
            ModuleKind::Executable => LoadedModule::from_file(module, program.bytes()),
            _ => match MappedFile::open(Path::new(&module.display_path())) {
                Ok(file) => LoadedModule::from_file(module, Vec::leak(file.bytes().to_vec())),
                Err(_) => LoadedModule::missing(module),
            },
        })
        .collect();
    let arena = SectionArena::new();
    let inspector = Inspector::new(&core, &loaded, &arena, &Alone);
    let frames = inspector.frames(&core.head().threads()[0].registers, 64);
    look(&inspector, &frames);
}

/// The variables of the function with this name.
fn function(
    inspector: &Inspector<'_>,
    frames: &[FrameRegisters],
    name: &str,
) -> (usize, FunctionVariables) {
    let all = (0..frames.len()).flat_map(|number| {
        let functions = inspector.variables(frames, number).into_iter();
        functions.map(move |function| (number, function))
    });
    let is_it = |(_, function): &(usize, FunctionVariables)| function.name.as_deref() == Some(name);
    all.into_iter().find(is_it).unwrap()
}

fn of<'v>(variables: &'v [Variable], name: &str) -> &'v Variable {
    let found = variables.iter().find(|variable| variable.name == name);
    found.unwrap_or_else(|| panic!("no variable {name}"))
}

fn expect(variables: &[Variable], expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(of(variables, name).value.to_string(), *value, "{name}");
    }
}

const C: &str = r#"
#include <stdbool.h>
#include <string.h>
enum color { RED, GREEN = 5 };
enum flags { FLAG_A = 1, FLAG_B = 2, FLAG_C = 4 };
struct item { char name[16]; int price; struct item *next; };
struct order {
    int count; struct item items[2]; union { int i; float f; }; enum flags flags;
    int (*callback)(int); unsigned low : 3; int high : 5; bool done : 1; struct order *self; const char *title;
};
volatile int *volatile nowhere;
int twice(int x) { return 2 * x; }
__attribute__((noinline)) void fail(struct order *order, int count) {
    volatile int *to = nowhere;
    *to = order->count + count;
}
__attribute__((noinline)) int checkout(struct order *order, int count, double price, char letter, enum color color, struct order copy) {
    static int calls = 3;
    int matrix[2][3] = {{1, 2, 3}, {4, 5, 6}};
    int zeros[40] = {0};
    char text[32] = "say \"hi\"\n";
    const char *null = 0, *wild = (char *)0x10;
    int vla[count + 1];
    for (int i = 0; i <= count; i++) vla[i] = i;
    { int count = 99; fail(order, count); }
    return calls + matrix[0][0] + zeros[0] + text[0] + (null != wild) + vla[0] + price + letter + color + copy.count;
}
int main(void) {
    struct order order = {2, {{"book", 10, 0}, {"pen", 2, 0}}, {65}, FLAG_A | FLAG_C, twice, 5, -7, true, &order, "a title"};
    order.items[0].next = &order.items[1];
    return checkout(&order, 2, 9.75, 'x', GREEN, order);
}
"#;

#[test]
fn values_of_a_c_program_are_those_of_its_source() {
    for dwarf in ["-gdwarf-4", "-gdwarf-5"] {
        with_crash(
            &["gcc", "-O0", dwarf],
            "program.c",
            C,
            |inspector, frames| {
                let (number, checkout) = function(inspector, frames, "checkout");
                expect(
                    &checkout.arguments,
                    &[
                        ("count", "2"),
                        ("price", "9.75"),
                        ("letter", "120 'x'"),
                        ("color", "GREEN"),
                    ],
                );
                expect(
                    &checkout.locals,
                    &[
                        ("calls", "3"),
                        ("matrix", "{{1, 2, 3}, {4, 5, 6}}"),
                        ("zeros", "{0 <repeats 40 times>}"),
                        ("text", r#""say \"hi\"\n", '\000' <repeats 22 times>"#),
                        ("null", "0x0"),
                        ("wild", "0x10 <not in the core>"),
                        ("vla", "{0, 1, 2}"),
                        // That of the inner block.
                        ("count", "99"),
                    ],
                );
                let copy = of(&checkout.arguments, "copy").value.to_string();
                assert!(copy.starts_with(r#"{count = 2, items = {{name = "book", '\000' <repeats 11 times>, price = 10, next = 0x"#), "{copy}");
                assert!(
                    copy.contains(
                        "{i = 65, f = 9.10844002e-44}, flags = (FLAG_A | FLAG_C), callback = 0x"
                    ),
                    "{copy}"
                );
                assert!(
                    copy.contains("<twice>, low = 5, high = -7, done = true, self = 0x"),
                    "{copy}"
                );
                assert!(copy.ends_with(r#" "a title"}"#), "{copy}");
                // Arguments alone are short.
                let short = inspector.arguments(frames, number);
                assert_eq!(of(&short[0].arguments, "copy").value, Value::Omitted);
                assert!(short[0].locals.is_empty());
            },
        );
    }
}

#[test]
fn members_are_found_by_offset_and_variables_by_address() {
    with_crash(&["gcc", "-O0"], "program.c", C, |inspector, frames| {
        let (_, fail) = function(inspector, frames, "fail");
        let order = of(&fail.arguments, "order");
        let order = inspector.pointee(order.type_id.unwrap()).unwrap();
        assert_eq!(inspector.type_name(order), "struct order");
        let path = |offset| inspector.member_at(order, offset).map(|found| found.path);
        assert_eq!(path(0).as_deref(), Some("count"));
        assert_eq!(path(8).as_deref(), Some("items[0].name[0]"));
        assert_eq!(path(8 + 32 + 16).as_deref(), Some("items[1].price"));
        assert_eq!(path(1 << 20), None);
        let (number, main) = function(inspector, frames, "main");
        let Storage::Memory(at) = of(&main.locals, "order").storage else {
            panic!("{main:?}");
        };
        let owner = inspector
            .owner_of(frames, number, at + 8 + 32 + 16)
            .unwrap();
        assert_eq!(owner.variable.name, "order");
        assert_eq!(owner.member.path, "items[1].price");
        assert_eq!(owner.member.type_name, "int");
    });
}

#[test]
fn optimized_values_are_known_from_call_sites_or_not_at_all() {
    let source = r#"
volatile int *volatile nowhere;
int global = 7;
__attribute__((noinline, noclone)) void sink(int *x) { __asm__ volatile("" : : "r"(x) : "memory"); }
__attribute__((noinline, noclone)) int inner(int first, int second) {
    int gone = first * second;
    sink(&gone);
    *nowhere = gone;
    return gone;
}
__attribute__((noinline, noclone)) int outer(int a, int b) { return inner(a + 1, 42) + b; }
int main(int argc, char **argv) { return outer(argc, 5) + (argv != 0); }
"#;
    with_crash(&["gcc", "-O2"], "program.c", source, |inspector, frames| {
        let (_, inner) = function(inspector, frames, "inner");
        let second = of(&inner.arguments, "second");
        // The call site in `outer` has it, though the register is gone.
        let known = second.value_at_entry.as_ref().unwrap_or(&second.value);
        assert_eq!(known.to_string(), "42");
        let (_, outer) = function(inspector, frames, "outer");
        assert_eq!(of(&outer.arguments, "b").value.to_string(), "5");
        for variable in inner.arguments.iter().chain(&outer.arguments) {
            assert!(
                variable.value != Value::Missing(Missing::NotInTheCore(0)),
                "{variable:?}"
            );
        }
    });
}

#[test]
fn arguments_that_were_passed_through_a_tail_call_are_known() {
    let source = r#"
volatile int *volatile nowhere;
__attribute__((noipa)) void sink(int *x) { __asm__ volatile("" : : "r"(x) : "memory"); }
__attribute__((noinline, noclone)) static int last(int first, int second, int third) {
    int gone = first * second + third;
    sink(&gone);
    *nowhere = gone;
    return gone;
}
__attribute__((noinline, noclone)) static int middle(int first, int second) { return last(first, second, 3); }
__attribute__((noinline, noclone)) static int other(int first) { return last(first, 8, 9); }
__attribute__((noinline, noclone)) static int two_ways(int first) { return first > 2 ? last(first, 6, 6) : other(first); }
int main(int argc, char **argv) {
    if (argc > 5) return two_ways(argc) + (argv != 0);
    return middle(argc, 42) + (argv != 0);
}
"#;
    with_crash(&["gcc", "-O2"], "program.c", source, |inspector, frames| {
        let (_, last) = function(inspector, frames, "last");
        let known = |name| {
            let variable = of(&last.arguments, name);
            let at_entry = variable.value_at_entry.as_ref();
            at_entry.unwrap_or(&variable.value).to_string()
        };
        assert_eq!(known("second"), "42");
        assert_eq!(known("third"), "3");
    });
    // Through which function it came is not certain.
    let source = source.replace("argc > 5", "argc < 5");
    with_crash(
        &["gcc", "-O2"],
        "program.c",
        &source,
        |inspector, frames| {
            let (_, last) = function(inspector, frames, "last");
            let second = of(&last.arguments, "second");
            assert_eq!(second.value, Value::Missing(Missing::OptimizedOut));
            assert_eq!(second.value_at_entry, None);
        },
    );
}

#[test]
fn containers_of_cpp_are_shown_by_what_they_hold() {
    let source = r#"
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>
struct Base { int id = 4; virtual ~Base() {} virtual int twice() const { return 2 * id; } };
struct Derived : Base { std::string name = "derived"; int &ref; Derived(int &r) : ref(r) {} };
volatile int *volatile nowhere;
int main() {
    int number = 77;
    int &ref = number;
    Derived derived(number);
    std::string text = "short", longer(40, 'q');
    std::vector<int> vector{1, 2, 3};
    std::map<std::string, int> map{{"a", 1}, {"b", 2}, {"c", 3}};
    std::unordered_map<int, std::string> table{{1, "one"}};
    std::set<int> set{3, 1, 2};
    std::unique_ptr<int> unique(new int(5)), nothing;
    auto shared = std::make_shared<std::string>("shared");
    std::optional<int> some = 4, none;
    int (Base::*method)() const = &Base::twice;
    *nowhere = (derived.*method)() + vector.size() + map.size() + table.size() + set.size() + *unique + shared->size() + *some + none.has_value() + text.size() + longer.size() + ref + derived.id + (nothing != nullptr);
}
"#;
    with_crash(
        &["g++", "-std=c++17", "-O0"],
        "program.cc",
        source,
        |inspector, frames| {
            let (_, main) = function(inspector, frames, "main");
            expect(
                &main.locals,
                &[
                    ("text", r#""short""#),
                    ("longer", "'q' <repeats 40 times>"),
                    ("vector", "std::vector(3) {1, 2, 3}"),
                    ("map", r#"std::map(3) {["a"] = 1, ["b"] = 2, ["c"] = 3}"#),
                    ("table", r#"std::unordered_map(1) {[1] = "one"}"#),
                    ("set", "std::set(3) {1, 2, 3}"),
                    ("nothing", "std::unique_ptr()"),
                    ("some", "std::optional(4)"),
                    ("none", "std::optional()"),
                    ("method", "&virtual Base::twice"),
                ],
            );
            let text = |name| of(&main.locals, name).value.to_string();
            assert!(text("unique").ends_with(": 5)"), "{}", text("unique"));
            assert!(
                text("shared").ends_with(r#": "shared")"#),
                "{}",
                text("shared")
            );
            assert!(text("ref").ends_with(": 77"), "{}", text("ref"));
            let derived = text("derived");
            assert!(
                derived.contains("<vtable for Derived+16>, id = 4}, name = \"derived\""),
                "{derived}"
            );
            inspector.read_containers(false);
            let (_, main) = function(inspector, frames, "main");
            let vector = of(&main.locals, "vector").value.to_string();
            assert!(vector.contains("_M_start = 0x"), "{vector}");
        },
    );
}

#[test]
fn values_of_rust_are_written_as_rust_writes_them() {
    let source = r#"
use std::collections::HashMap;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
enum Shape { Dot, Circle(f64), Rect { w: u32, h: u32 } }
struct Order<'a> { name: String, who: &'a str, items: Vec<u32>, shape: Shape, pair: (i32, char) }
static mut NOWHERE: *mut u32 = 8 as *mut u32;
#[inline(never)]
fn checkout(order: &Order, opt: Option<u32>, none: Option<String>) -> u32 {
    let map: HashMap<u32, u32> = [(1, 10)].into_iter().collect();
    let rc = Rc::new(5u32);
    let arc = Arc::new(String::from("arc"));
    let cell = Cell::new(6);
    let free = RefCell::new(vec![1u8]);
    let length = free.borrow().len() as u32;
    let shared = RefCell::new(7);
    let borrowed = shared.borrow();
    let mutex = Mutex::new(String::from("locked"));
    let atomic = AtomicU32::new(9);
    let bytes = [1u8, 2];
    let slice = &bytes[..];
    let shapes = vec![Shape::Dot, Shape::Circle(1.5), Shape::Rect { w: 2, h: 3 }];
    unsafe { NOWHERE.write_volatile(map.len() as u32 + *rc + arc.len() as u32 + slice.len() as u32 + shapes.len() as u32 + cell.get() + length + *borrowed + mutex.lock().unwrap().len() as u32 + atomic.load(std::sync::atomic::Ordering::SeqCst)) };
    opt.unwrap_or(0) + none.map_or(0, |x| x.len() as u32) + order.items[0]
}
fn main() {
    let order = Order { name: "order".into(), who: "me", items: vec![1, 2, 3], shape: Shape::Rect { w: 1, h: 2 }, pair: (4, 'ä') };
    std::process::exit(checkout(&order, Some(4), None) as i32);
}
"#;
    with_crash(
        &[
            "rustc",
            "--edition",
            "2021",
            "-Cdebuginfo=2",
            "-Coverflow-checks=off",
        ],
        "program.rs",
        source,
        |inspector, frames| {
            let (_, checkout) = function(inspector, frames, "checkout");
            expect(&checkout.arguments, &[("opt", "Some(4)"), ("none", "None")]);
            expect(
                &checkout.locals,
                &[
                    ("map", "HashMap(1) {[1] = 10}"),
                    ("rc", "Rc(5)"),
                    ("arc", r#"Arc("arc")"#),
                    ("cell", "Cell(6)"),
                    ("free", "RefCell(Vec(1) [1])"),
                    ("shared", "RefCell[borrowed](7)"),
                    ("borrowed", "Ref(7)"),
                    ("mutex", r#"Mutex("locked")"#),
                    ("slice", "&[u8] [1, 2]"),
                    (
                        "shapes",
                        "Vec(3) [program::Shape::Dot, program::Shape::Circle(1.5), program::Shape::Rect{w: 2, h: 3}]",
                    ),
                ],
            );
            let atomic = of(&checkout.locals, "atomic").value.to_string();
            assert!(
                atomic.starts_with("Atomic") && atomic.ends_with("(9)"),
                "{atomic}"
            );
            let (_, main) = function(inspector, frames, "main");
            let order = of(&main.locals, "order").value.to_string();
            for part in [
                r#"name: "order""#,
                r#"who: "me""#,
                "items: Vec(3) [1, 2, 3]",
                "shape: program::Shape::Rect{w: 1, h: 2}",
                "pair: (4, 228 'ä')",
            ] {
                assert!(order.contains(part), "{part}: {order}");
            }
        },
    );
}
