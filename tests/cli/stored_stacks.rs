//! Stacks that the handler stored at the crash, where core or files are missing; what a core says of its end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::Workstation;

const ASSERTION: &str = r#"
#include <assert.h>
#define APART __attribute__((noinline, noclone))
static volatile int sink;
APART static void check_order(int n) { assert(n > 100); sink = n; }
APART static void serve(int n) { check_order(n); sink = 2; }
int main(int count, char **words) { serve(count); return sink; }
"#;

/// The program and the core of its end, by gdb.
fn crash(workstation: &Workstation, source: &str) -> (PathBuf, PathBuf) {
    fs::create_dir_all(workstation.path("bin")).unwrap();
    fs::write(workstation.path("app.c"), source).unwrap();
    let (program, core) = (workstation.path("bin/app"), workstation.path("core"));
    let built = Command::new("gcc")
        .args(["-O1", "-g", "-Wl,--build-id", "-o"])
        .arg(&program)
        .arg(workstation.path("app.c"))
        .status();
    assert!(built.expect("install gcc").success());
    let made = Command::new("gdb")
        .args(["-q", "-nx", "-batch", "-ex", "run", "-ex"])
        .arg(format!("generate-core-file {}", core.display()))
        .arg(&program)
        .env("DEBUGINFOD_URLS", "")
        .output()
        .expect("install gdb");
    assert!(core.is_file(), "{}", String::from_utf8_lossy(&made.stderr));
    (program, core)
}

/// `backtrace.json` as the handler writes it, of what `cdh bt` found with all files.
fn stored(bt: &Value) -> Value {
    let found = &bt["backtrace"];
    let list = |value: &Value| value.as_array().unwrap().clone();
    let is_frame =
        |frame: &Value| frame.get("inline").is_none() && frame.get("tail_call").is_none();
    let frames = |thread: &Value| -> Vec<Value> {
        let frames = list(&thread["frames"]).into_iter().filter(is_frame);
        frames
            .map(|frame| {
                json!({"pc": frame["pc"], "module": frame["module"], "svma": frame["svma"],
                       "trust": frame["trust"],
                       "is_return_address": frame["is_return_address"] == true})
            })
            .collect()
    };
    let thread = |thread: &Value| {
        json!({"tid": thread["tid"], "crashing": thread["crashing"], "stop": thread["stop"],
               "frames": frames(thread)})
    };
    let module = |module: &Value| json!({"path": module["path"], "build_id": module["build_id"], "status": "verified"});
    json!({
        "schema": 1,
        "fingerprint": found["fingerprint"],
        "explanation": found["explanation"],
        "abort_message": bt["abort_message"],
        "threads": list(&found["threads"]).iter().map(thread).collect::<Vec<_>>(),
        "modules": list(&found["modules"]).iter().map(module).collect::<Vec<_>>(),
    })
}

/// A case of that crash, as of a dump that an agent captured.
fn captured(workstation: &Workstation, core: &Path, bt: &Value) -> PathBuf {
    let id = workstation.import(core);
    workstation.run(&["fetch", &id, "-d", "case"]);
    let case = workstation.path("case");
    // Answers of `cdh` have a placeholder for the directory.
    let here = workstation.dir.path().display().to_string();
    let text = stored(bt).to_string().replace("[WORKSTATION]", &here);
    fs::write(case.join("backtrace.json"), text).unwrap();
    let text = fs::read_to_string(case.join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(manifest["fingerprint"], bt["backtrace"]["fingerprint"]);
    case
}

/// Makes it a dump that gave up its core for another one: the manifest has none.
fn remove_core(case: &Path) {
    remove_entries(case, &["core", "minicore"]);
}

/// Makes it a dump without the entries whose names begin so.
pub(super) fn remove_entries(case: &Path, kinds: &[&str]) {
    let is_core = |name: &str| kinds.iter().any(|kind| name.starts_with(kind));
    let manifest = case.join("manifest.json");
    let mut facts: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    let object = facts.as_object_mut().unwrap();
    object.remove("core");
    object.remove("checksum");
    let entries = object["entries"].as_array_mut().unwrap();
    entries.retain(|entry| !is_core(entry["name"].as_str().unwrap().rsplit('-').next().unwrap()));
    fs::write(manifest, facts.to_string()).unwrap();
    for file in fs::read_dir(case).unwrap() {
        let path = file.unwrap().path();
        if is_core(path.file_name().unwrap().to_str().unwrap()) {
            fs::remove_file(&path).unwrap();
        }
    }
}

fn names(bt: &Value) -> Vec<String> {
    let frames = bt["backtrace"]["threads"][0]["frames"].as_array().unwrap();
    let name = |frame: &Value| frame["function"]["name"].as_str().unwrap_or("?").to_owned();
    frames.iter().map(name).collect()
}

#[test]
fn bt_names_the_stored_stack_of_a_dump_without_a_core() {
    let workstation = Workstation::new();
    let (program, core) = crash(&workstation, ASSERTION);
    let whole = workstation.json(&["bt", core.to_str().unwrap(), "-o", "json"]);
    let case = captured(&workstation, &core, &whole);
    remove_core(&case);
    let found = workstation.json(&["bt", "./case", "-o", "json"]);
    assert_eq!(names(&found), names(&whole));
    assert_eq!(found["backtrace"]["threads"][0]["stored"], true);
    for key in ["fingerprint", "explanation"] {
        assert_eq!(found["backtrace"][key], whole["backtrace"][key], "{key}");
    }
    assert_eq!(found["abort_message"], whole["abort_message"]);
    let text = workstation.run(&["bt", "./case"]).out;
    assert!(text.contains("stored at the crash: no registers"), "{text}");
    // Without the files there are no names, but the same frames and the same fingerprint.
    fs::remove_file(&program).unwrap();
    let bare = workstation.json(&["bt", "./case", "-o", "json"]);
    assert_eq!(
        bare["backtrace"]["fingerprint"],
        whole["backtrace"]["fingerprint"]
    );
    let info = workstation.run(&["info", "./case"]).out;
    assert!(info.contains("made of check_order < serve"), "{info}");
    assert!(info.contains("Assertion `n > 100' failed."), "{info}");
}

#[test]
fn bt_continues_with_the_stored_stack_where_files_are_missing() {
    let workstation = Workstation::new();
    let (program, core) = crash(&workstation, ASSERTION);
    let whole = workstation.json(&["bt", core.to_str().unwrap(), "-o", "json"]);
    captured(&workstation, &core, &whole);
    let all = names(&whole).len();
    // Without the program's file its frames cannot be unwound.
    fs::remove_file(&program).unwrap();
    let alone = workstation.json(&["bt", core.to_str().unwrap(), "-o", "json"]);
    assert!(names(&alone).len() < all, "{alone}");
    assert_eq!(alone["backtrace"]["fingerprint"], Value::Null);
    let found = workstation.json(&["bt", "./case", "-o", "json"]);
    assert_eq!(names(&found).len(), all, "{found}");
    assert_eq!(found["backtrace"]["threads"][0]["stored"], true);
    assert_eq!(
        found["backtrace"]["fingerprint"],
        whole["backtrace"]["fingerprint"]
    );
    let text = workstation.run(&["bt", "./case"]).out;
    assert!(
        text.contains("1 of 1 stacks as the handler stored them"),
        "{text}"
    );
}

#[test]
fn abort_message_of_glibc_is_shown() {
    let workstation = Workstation::new();
    let (_, core) = crash(&workstation, ASSERTION);
    let core = core.to_str().unwrap();
    let expected = "app: ";
    let json = workstation.json(&["bt", core, "-o", "json"]);
    let message = json["abort_message"].as_str().unwrap();
    assert!(message.starts_with(expected), "{message}");
    assert!(
        message.ends_with("check_order: Assertion `n > 100' failed."),
        "{message}"
    );
    for command in ["bt", "info"] {
        let out = workstation.run(&[command, core]).out;
        assert!(out.contains(message), "{command}: {out}");
    }
    // Other ends have none.
    let other = super::crash().core();
    let json = workstation.json(&["bt", other.to_str().unwrap(), "-o", "json"]);
    assert_eq!(json["abort_message"], Value::Null);
}
