//! Where cases and caches are stored, and that no other user can prepare that place.

use std::os::unix::fs::{MetadataExt, chown, lchown, symlink};

use super::*;

/// A user that is not the one who runs the tests.
const OTHER: u32 = 65_534;

impl Workstation {
    /// `words` without any variable that names a directory of the user, but with these.
    fn without_home(&self, variables: &[(&str, &Path)], words: &[&str]) -> Answer {
        let mut command = self.command(words);
        command.env_remove("HOME").env("TMPDIR", self.path("tmp"));
        command.envs(variables.iter().copied());
        self.answer(command.output().unwrap())
    }
}

fn directory(path: &Path, mode: u32) {
    fs::create_dir_all(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn without_home_no_fixed_name_in_a_shared_directory_is_used() {
    let workstation = Workstation::new();
    workstation.import(&crash().core());
    directory(&workstation.path("tmp"), 0o1777);
    // What an attacker would prepare, were the name known.
    let user = fs::metadata("/proc/self").unwrap().uid();
    let planted = workstation.path("tmp").join(format!("cdh-{user}/cdh"));
    directory(&planted, 0o777);
    fs::write(
        planted.join("config.toml"),
        "debugger = \"/tmp/evil\"\nstore = 7",
    )
    .unwrap();
    let core = crash().core().display().to_string();
    for words in [
        &["ls"][..],
        &["bt", "latest"],
        &["bt", &core],
        &["info", "latest"],
    ] {
        let answer = workstation.without_home(&[], words);
        assert_eq!(answer.code, 0, "{words:?}: {}", answer.err);
        assert!(!answer.err.contains("tmp/cdh"), "{}", answer.err);
    }
    for words in [
        &["fetch", "latest"][..],
        &["debug", "latest", "--print"],
        &["cache", "ls"],
    ] {
        let answer = workstation.without_home(&[], words);
        assert_eq!(answer.code, 2, "{words:?}: {}", answer.err);
        assert!(answer.err.contains("hint: set HOME"), "{}", answer.err);
    }
    let named = workstation.without_home(&[], &["fetch", "latest", "-d", "case"]);
    assert_eq!(named.code, 0, "{}", named.err);
    let left: Vec<_> = fs::read_dir(workstation.path("tmp")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(fs::read_dir(&planted).unwrap().count(), 1);
}

#[test]
fn without_home_the_runtime_directory_is_used_if_it_is_private() {
    let workstation = Workstation::new();
    workstation.import(&crash().core());
    let runtime = workstation.path("run");
    directory(&runtime, 0o700);
    let fetch = || workstation.without_home(&[("XDG_RUNTIME_DIR", &runtime)], &["fetch", "latest"]);
    let answer = fetch();
    assert_eq!(answer.code, 0, "{}", answer.err);
    assert!(
        answer.out.starts_with("[WORKSTATION]/run/cdh/cases/"),
        "{}",
        answer.out
    );
    let mode = fs::metadata(runtime.join("cdh")).unwrap().mode();
    assert_eq!(mode & 0o777, 0o700);
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(fetch().code, 2);
}

#[test]
fn cache_that_another_user_prepared_is_refused() {
    if !is_root() {
        return;
    }
    let workstation = Workstation::new();
    workstation.import(&crash().core());
    let shared = workstation.path("shared");
    type Attack<'a> = &'a dyn Fn(&Path);
    let attacks: [(&str, Attack<'_>); 4] = [
        ("belongs to user 65534", &|cache| {
            directory(cache, 0o755);
            chown(cache, Some(OTHER), None).unwrap();
        }),
        ("belongs to user 65534", &|cache| {
            directory(&workstation.path("target"), 0o700);
            symlink(workstation.path("target"), cache).unwrap();
            lchown(cache, Some(OTHER), None).unwrap();
        }),
        ("mode 0770", &|cache| directory(cache, 0o770)),
        ("mode 0777", &|cache| {
            directory(cache, 0o700);
            fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
        }),
    ];
    for (reason, attack) in attacks {
        let _ = fs::remove_dir_all(&shared);
        directory(&shared, 0o1777);
        attack(&shared.join("cdh"));
        let run = |words: &[&str]| workstation.without_home(&[("XDG_CACHE_HOME", &shared)], words);
        let answer = run(&["fetch", "latest"]);
        assert_eq!(answer.code, 2, "{}{}", answer.out, answer.err);
        assert!(answer.err.contains(reason), "{}", answer.err);
        assert!(
            answer.err.contains("hint: set XDG_CACHE_HOME"),
            "{}",
            answer.err
        );
        assert_eq!(run(&["bt", "latest"]).code, 0);
        assert_eq!(fs::read_dir(shared.join("cdh")).unwrap().count(), 0);
        if shared.join("cdh").is_symlink() {
            fs::remove_file(shared.join("cdh")).unwrap();
        }
    }
}

#[test]
fn cache_ls_explains_its_kinds_and_clear_removes_all_of_them() {
    let workstation = Workstation::new();
    assert_eq!(workstation.run(&["cache", "ls"]).code, 1);
    workstation.import(&crash().core());
    let core = crash().core().display().to_string();
    for words in [
        &["fetch", "latest"][..],
        &["debug", &core, "--print"],
        &["groups"],
    ] {
        assert_eq!(workstation.run(words).code, 0);
    }
    let listed = workstation.run(&["cache", "ls"]);
    assert_eq!(listed.code, 0, "{}", listed.err);
    for line in [
        "case: unpacked dumps with their cores; deleted 30 days after the last use, or beyond 50.0 GiB, or beyond 1000 cases",
        "view: links for debuggers of bare cores;",
        "SIZE is disk space",
    ] {
        assert!(listed.out.contains(line), "{}", listed.out);
    }
    assert!(!listed.out.contains("layers:"), "{}", listed.out);
    let kinds = workstation.json(&["cache", "ls", "-o", "json"]);
    let has = |kind: &str| {
        kinds
            .as_array()
            .unwrap()
            .iter()
            .any(|entry| entry["kind"] == kind)
    };
    assert!(has("case") && has("view"), "{kinds}");
    assert_eq!(workstation.run(&["cache", "clear"]).code, 0);
    assert_eq!(workstation.run(&["cache", "ls"]).code, 1);
}

#[test]
fn fetch_deletes_the_cases_used_longest_ago_when_there_are_too_many() {
    let workstation = Workstation::new();
    let ids: Vec<String> = (0..3)
        .map(|_| workstation.import(&crash().core()))
        .collect();
    let config = workstation.path(".config/cdh");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("config.toml"), "[cache]\ncase_count = 1\n").unwrap();
    let case = |id: &str| workstation.path(".cache/cdh/cases").join(id);
    for (id, hours) in [(&ids[0], 5), (&ids[1], 4)] {
        assert_eq!(workstation.run(&["fetch", id]).code, 0);
        let manifest = fs::File::open(case(id).join("manifest.json")).unwrap();
        let then = std::time::SystemTime::now() - std::time::Duration::from_secs(hours * 3600);
        manifest.set_modified(then).unwrap();
    }
    assert_eq!(workstation.run(&["fetch", &ids[2]]).code, 0);
    assert!(!case(&ids[0]).exists());
    assert!(case(&ids[2]).exists());
}
