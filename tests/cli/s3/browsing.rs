//! Dumps in a bucket as a workstation sees them: listed, explained, shared and removed.

use super::*;

#[test]
fn dump_in_a_bucket_is_listed_explained_fetched_shared_and_removed() {
    let Some(server) = server() else { return };
    let workstation = Workstation::new();
    let proxy = HttpProxy::counting(server.port());
    let store = url(&bucket(), &proxy.endpoint());
    let core = crash().core().display().to_string();
    let imported = workstation.s3(&store, &["import", &core]);
    assert_eq!(imported.code, 0, "{}", imported.err);
    let id = imported.out.trim();
    assert_eq!(workstation.s3(&store, &["ls", "-o", "id"]).out.trim(), id);
    let bt = workstation.s3(&store, &["bt", "latest", "-a", "-o", "json"]);
    let document: Value = serde_json::from_str(&bt.out).unwrap();
    assert_eq!(functions(&document, 0)[..3], ["poke", "middle", "main"]);
    assert!(
        workstation
            .s3(&store, &["info", &id[..8]])
            .out
            .contains("SIGSEGV")
    );
    let fetched = workstation.s3(&store, &["fetch", id, "-d", "case"]);
    assert_eq!(fetched.code, 0, "{}", fetched.err);
    assert_eq!(
        sha256(&workstation.path("case/core")),
        sha256(&crash().core())
    );
    // Once more costs nothing but the question what there is.
    proxy.reset();
    assert_eq!(workstation.s3(&store, &["fetch", id, "-d", "case"]).code, 0);
    assert!(proxy.sent() < 300_000, "{}", proxy.sent());
    let shared = workstation.s3(&store, &["share", id, "--expires", "1h"]);
    let address = shared.out.trim().strip_prefix(&proxy.endpoint()).unwrap();
    let answer = cdh_testkit::http_get(&proxy.endpoint(), address).unwrap();
    let (status, bundle) = answer;
    assert_eq!((status, bundle.starts_with(b"PK")), (200, true));
    let (status, _) = cdh_testkit::http_get(
        &proxy.endpoint(),
        &address.replace("Signature=", "Signature=0"),
    )
    .unwrap();
    assert_eq!(status, 403);
    let dry = workstation.s3(&store, &["gc", "--max-total", "0", "--dry-run"]);
    assert_eq!((dry.code, dry.out.lines().count()), (0, 1));
    assert_eq!(workstation.s3(&store, &["rm", id, "--yes"]).code, 0);
    assert_eq!(workstation.s3(&store, &["ls"]).code, 1);
}

#[test]
fn groups_of_a_bucket_list_the_index_and_the_days_asked_for() {
    let Some(server) = server() else { return };
    let workstation = Workstation::new();
    let proxy = HttpProxy::counting(server.port());
    let store = url(&bucket(), &proxy.endpoint());
    // Written now, and so captured today.
    fs::copy(crash().core(), workstation.path("new.core")).unwrap();
    let imported = workstation.s3(&store, &["import", "new.core"]);
    assert_eq!(imported.code, 0, "{}", imported.err);
    let words = ["groups", "--new-since", "1d"];
    let count = |method: &str, part: &str| {
        let requests = proxy.requests().into_iter();
        requests
            .filter(|request| request.method == method && request.target.contains(part))
            .count()
    };
    proxy.reset();
    let first = workstation.s3(&store, &words);
    assert!(
        first.out.contains(" NEW ") && first.out.contains("poke app.c:"),
        "{}",
        first.out
    );
    // The root, the days since then, the index; the listing has said all of the manifest but its bytes.
    assert_eq!((count("GET", "list-type=2"), count("PUT", "")), (3, 0));
    assert_eq!(
        (
            count("HEAD", ".manifest.json"),
            count("GET", ".manifest.json")
        ),
        (0, 1)
    );
    proxy.reset();
    let without_ages = |table: &str| -> Vec<String> {
        let is_age =
            |word: &str| word.ends_with('s') && word[..word.len() - 1].parse::<u32>().is_ok();
        let words = table.split_whitespace().filter(|word| !is_age(word));
        words.map(ToOwned::to_owned).collect()
    };
    assert_eq!(
        without_ages(&workstation.s3(&store, &words).out),
        without_ages(&first.out)
    );
    // Manifest and top frame are cached.
    assert_eq!(proxy.requests().len(), 3, "{:#?}", proxy.requests());
}

#[test]
fn backtrace_of_a_remote_dump_moves_next_to_nothing() {
    let Some(server) = server() else { return };
    let workstation = Workstation::new();
    let source = workstation.path("big.c");
    fs::write(&source, BIG_PROGRAM).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-g", "-O1", "-Wl,--build-id", "-o"])
        .arg(workstation.path("big"))
        .arg(&source);
    assert!(cc.status().unwrap().success());
    let gdb = format!(
        "generate-core-file {}",
        workstation.path("big.core").display()
    );
    let made = Command::new("gdb")
        .args(["-q", "-batch", "-ex", "run", "-ex", &gdb])
        .arg(workstation.path("big"))
        .output();
    assert!(made.unwrap().status.success());
    let proxy = HttpProxy::counting(server.port());
    let store = url(&bucket(), &proxy.endpoint());
    let imported = workstation.s3(&store, &["import", "big.core"]);
    assert_eq!(imported.code, 0, "{}", imported.err);
    let size = proxy.received();
    proxy.reset();
    let bt = workstation.s3(&store, &["bt", "latest"]);
    assert!(
        bt.out.contains("crash_here (p=0x10) at "),
        "{} {}",
        bt.out,
        bt.err
    );
    // One frame of the core is a megabyte; nothing here depends on how many there are.
    assert!(
        size > 60 << 20 && proxy.sent() < 6 << 20,
        "{} of {size}",
        proxy.sent()
    );
}

/// Dies with 64 MiB of noise in its heap.
const BIG_PROGRAM: &str = r"
#include <stdlib.h>
__attribute__((noinline)) static void crash_here(int *p) { *p = 7; }
int main(void) {
    unsigned long size = 64ul << 20, x = 88172645463325252ul, *m = malloc(size);
    for (unsigned long i = 0; i < size / 8; i++) { x ^= x << 13; x ^= x >> 7; x ^= x << 17; m[i] = x; }
    crash_here((int *)0x10);
    return (int)m[5];
}
";

#[test]
fn stores_have_names_and_options_in_the_config_file() {
    let Some(server) = server() else { return };
    let workstation = Workstation::new();
    let text = format!(
        "store = \"prod\"\n[stores.prod]\nurl = \"s3://{}/crashes\"\nendpoint = \"{}\"\n\
         path-style = true\ntimeout = 20\n[stores.here]\nurl = \"here\"\n",
        bucket(),
        server.endpoint()
    );
    fs::write(workstation.path("config.toml"), &text).unwrap();
    let run = |words: &[&str]| {
        let mut command = workstation.s3_command("", ADMIN, words);
        command
            .env_remove("CDH_STORE")
            .env("CDH_CONFIG", workstation.path("config.toml"));
        workstation.answer(command.output().unwrap())
    };
    let core = crash().core().display().to_string();
    let imported = run(&["import", &core]);
    assert_eq!(imported.code, 0, "{}", imported.err);
    assert_eq!(run(&["ls", "-o", "id"]).out, imported.out);
    assert_eq!(
        run(&["--store", "prod", "ls", "-o", "id"]).out,
        imported.out
    );
    assert!(run(&["--store", "here", "ls"]).err.contains("here"));
    fs::write(
        workstation.path("config.toml"),
        text.replace("path-style", "path_style"),
    )
    .unwrap();
    let wrong = run(&["ls"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("path_style"), "{}", wrong.err);
}
