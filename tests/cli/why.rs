//! What `cdh why` says, and where else the sentence is shown.

use serde_json::Value;

use super::Workstation;
use super::backtrace::crash;

const NULL_MEMBER: &str = r#"
struct item { long price; };
struct order { long id; struct item *items; };
__attribute__((noipa)) static long total(struct order *order) { return order->items->price; }
int main(int count, char **words) {
    (void)words;
    struct order order = {count, 0};
    return (int)total(&order) + count;
}
"#;

const NULL_CALL: &str = r#"
struct driver { long id; int (*open)(void); };
__attribute__((noipa)) static int start(struct driver *driver) { return driver->open() + 1; }
int main(void) { struct driver driver = {1, 0}; return start(&driver); }
"#;

const ASSERTION: &str = r#"
#include <assert.h>
static void pay(int amount) { assert(amount > 0); }
int main(int count, char **words) { (void)words; pay(count - 1); return 0; }
"#;

/// The words after `cdh why ./core`.
fn why(workstation: &Workstation, words: &[&str]) -> String {
    let words = [&["why", "./core", "--no-cache"], words].concat();
    let answer = workstation.answer(workstation.command(&words).output().unwrap());
    assert_eq!(answer.code, 0, "{}", answer.err);
    answer.out
}

#[test]
fn why_names_the_pointer_that_was_null() {
    for level in ["-O0", "-O2"] {
        let workstation = Workstation::new();
        let gcc = ["gcc", "-g", level, "-Wl,--build-id"];
        crash(&workstation, "shop.c", NULL_MEMBER, &gcc, "");
        let text = why(&workstation, &[]);
        assert!(
            text.starts_with(
                "`total` (shop.c:4) tried to read 8 bytes through a null pointer: it accessed \
                 `order->items->price`, and `order->items` is null.\n\n"
            ),
            "{level}: {text}"
        );
        assert!(text.contains("  - the instruction `mov "), "{text}");
        assert!(text.contains(" is 0x0\n"), "{text}");
    }
}

#[test]
fn why_names_the_function_pointer_that_was_null() {
    let workstation = Workstation::new();
    let gcc = ["gcc", "-g", "-O0", "-Wl,--build-id"];
    crash(&workstation, "driver.c", NULL_CALL, &gcc, "");
    let text = why(&workstation, &[]);
    let sentence =
        "`start` (driver.c:3) called a function through a null pointer: `driver->open` is null.\n";
    assert!(text.starts_with(sentence), "{text}");
}

#[test]
fn cause_is_the_first_line_of_bt_and_a_field_of_json() {
    let workstation = Workstation::new();
    let gcc = ["gcc", "-g", "-O0", "-Wl,--build-id"];
    crash(&workstation, "pay.c", ASSERTION, &gcc, "");
    let sentence = "A check that the program makes of itself failed in `pay` (pay.c:3): the assertion \
                    `amount > 0` is false.";
    let text = workstation.run(&["bt", "./core", "--no-cache"]).out;
    assert_eq!(text.lines().next(), Some(sentence), "{text}");
    assert!(why(&workstation, &[]).starts_with(sentence));
    let info = workstation.run(&["info", "./core"]).out;
    assert!(info.contains(sentence), "{info}");
    for words in [["bt", "./core"], ["why", "./core"], ["info", "./core"]] {
        let found: Value = workstation.json(&[&words[..], &["-o", "json"]].concat());
        assert_eq!(found["cause"]["class"], "assertion", "{found}");
        assert_eq!(found["cause"]["sentence"], sentence);
        let facts = found["cause"]["facts"].as_array().unwrap();
        assert!((1..=5).contains(&facts.len()), "{found}");
    }
}

#[test]
fn bt_marks_the_faulting_instruction_with_its_values() {
    let workstation = Workstation::new();
    let gcc = ["gcc", "-g", "-O0", "-Wl,--build-id"];
    crash(&workstation, "shop.c", NULL_MEMBER, &gcc, "");
    let text = workstation
        .run(&["bt", "./core", "--no-cache", "--disassemble"])
        .out;
    let marked: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("      > "))
        .collect();
    assert!(marked.len() >= 2, "{text}");
    assert!(marked[0].contains(" mov "), "{text}");
    assert!(marked[0].contains("[0x0] is not in the core"), "{text}");
    assert!(marked[1].contains(" call "), "{text}");
    let json = workstation.json(&["bt", "./core", "-d", "-o", "json"]);
    let listing = json["disassembly"][0]["instructions"].as_array().unwrap();
    assert_eq!(
        listing
            .iter()
            .filter(|shown| shown["current"] == true)
            .count(),
        1
    );
}

#[test]
fn why_without_a_known_cause_says_what_the_signal_says() {
    let workstation = Workstation::new();
    let core = super::crash().core();
    let dump = core.to_str().unwrap();
    let found = workstation.json(&["why", dump, "-o", "json"]);
    assert!(found["cause"]["sentence"].as_str().unwrap().len() > 20);
}
