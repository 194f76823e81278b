//! `docs/schema`: the schemas are those of the types, and what the commands print is what the schemas say.

use std::collections::BTreeMap;

use jsonschema::Validator;

use super::*;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema")
}

/// The committed schemas, made stricter: a key that no schema describes is a mistake here.
struct Schemas(BTreeMap<String, Validator>);

impl Schemas {
    fn read() -> Self {
        let mut schemas = BTreeMap::new();
        for file in fs::read_dir(directory()).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let Some(name) = name.strip_suffix(".schema.json") else {
                continue;
            };
            let text = fs::read_to_string(&path).unwrap();
            let schema: Value = serde_json::from_str(&text).unwrap();
            assert!(jsonschema::meta::is_valid(&schema), "{name}");
            let options = jsonschema::options().should_validate_formats(true);
            let validator = options.build(&strict(schema)).unwrap();
            schemas.insert(name.to_owned(), validator);
        }
        Self(schemas)
    }

    /// What in `text` the schema does not allow.
    fn problems(&self, name: &str, text: &str) -> Vec<String> {
        let document: Value = match serde_json::from_str(text) {
            Ok(document) => document,
            Err(error) => return vec![format!("not JSON: {error}: {text:?}")],
        };
        let validator = self
            .0
            .get(name)
            .unwrap_or_else(|| panic!("no schema {name}"));
        let errors = validator.iter_errors(&document);
        errors
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect()
    }

    /// Checks the output of a command that ended with one of `codes`.
    fn check(&self, name: &str, answer: &Answer, codes: &[i32]) {
        assert!(
            codes.contains(&answer.code),
            "{name}: {} {}",
            answer.code,
            answer.err
        );
        let problems = self.problems(name, &answer.out);
        assert!(problems.is_empty(), "{name}: {problems:#?}\n{}", answer.out);
    }
}

/// Only described keys in every type that has described keys.
fn strict(mut schema: Value) -> Value {
    let close = |object: &mut Value| {
        let is_open =
            object.get("properties").is_some() && object.get("additionalProperties").is_none();
        if is_open {
            object["unevaluatedProperties"] = false.into();
        }
    };
    close(&mut schema);
    let types = schema.get_mut("$defs").and_then(Value::as_object_mut);
    if let Some(types) = types {
        types.values_mut().for_each(close);
    }
    schema
}

#[test]
fn schemas_are_those_of_the_types_and_a_change_needs_a_new_version() {
    let workstation = Workstation::new();
    fs::create_dir(workstation.path("schema")).unwrap();
    let versions = fs::read(directory().join("versions.toml")).unwrap();
    fs::write(workstation.path("schema/versions.toml"), versions).unwrap();
    let answer = workstation.run(&["schemas", "schema"]);
    assert_eq!(answer.code, 0, "{}", answer.err);
    let mut count = 0;
    for file in fs::read_dir(workstation.path("schema")).unwrap() {
        let file = file.unwrap();
        let committed = fs::read_to_string(directory().join(file.file_name()));
        assert!(
            committed.unwrap_or_default() == fs::read_to_string(file.path()).unwrap(),
            "{:?} is stale: run `cargo xtask docs`",
            file.file_name()
        );
        count += 1;
    }
    assert_eq!(count, fs::read_dir(directory()).unwrap().count());
    // A recorded version has another digest.
    let versions = fs::read_to_string(directory().join("versions.toml")).unwrap();
    let (start, end) = versions.split_once("[ls]\n1 = \"").unwrap();
    let changed = format!("{start}[ls]\n1 = \"{}{}", "0".repeat(64), &end[64..]);
    fs::write(workstation.path("schema/versions.toml"), changed).unwrap();
    let answer = workstation.run(&["schemas", "schema"]);
    assert_eq!(answer.code, 2);
    assert!(
        answer
            .err
            .contains("the schema `ls` changed, and version 1 is recorded already"),
        "{}",
        answer.err
    );
}

#[test]
fn strict_schemas_refuse_missing_unknown_and_mistyped_keys() {
    let schemas = Schemas::read();
    let workstation = Workstation::new();
    workstation.import(&crash().core());
    let rows = workstation.json(&["ls", "-o", "json"]);
    assert!(schemas.problems("ls", &rows.to_string()).is_empty());
    let changes: [fn(&mut Value); 3] = [
        |row| drop(row.as_object_mut().unwrap().remove("signal")),
        |row| row["new"] = 1.into(),
        |row| row["size"] = "large".into(),
    ];
    for change in changes {
        let mut rows = rows.clone();
        change(&mut rows[0]);
        assert_eq!(schemas.problems("ls", &rows.to_string()).len(), 1, "{rows}");
    }
}

/// Each state of a core that a workstation meets: complete, cut, damaged, without modules, of IBM's zips.
fn cores(workstation: &Workstation) -> Vec<PathBuf> {
    let mut cores = vec![crash().core()];
    let products = cdh_testkit::corpus::fixtures().join("bare/products");
    for item in fs::read_dir(products).unwrap() {
        let core = item.unwrap().path().join("core");
        cores.extend(core.is_file().then_some(core));
    }
    let whole = fs::read(crash().core()).unwrap();
    for part in [5, 30, 60, 99] {
        let path = workstation.path(&format!("cut{part}"));
        fs::write(&path, &whole[..whole.len() * part / 100]).unwrap();
        cores.push(path);
    }
    for item in
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ibm")).unwrap()
    {
        let path = item.unwrap().path();
        cores.extend(
            path.extension()
                .is_some_and(|end| end == "zip")
                .then_some(path),
        );
    }
    cores
}

#[test]
fn json_of_dumps_is_what_the_schemas_say() {
    let schemas = Schemas::read();
    let workstation = Workstation::new();
    let mut checked = 0;
    let cores = cores(&workstation);
    for core in &cores {
        let core = core.to_str().unwrap();
        // A cut below the notes leaves nothing to show.
        let runs: [(&str, &[&str]); 4] = [
            ("bt", &["bt", core, "-a", "-r", "-g", "--offline"]),
            (
                "bt",
                &[
                    "bt",
                    core,
                    "--limit",
                    "2",
                    "--no-cache",
                    "--sysroot",
                    "/nowhere",
                ],
            ),
            ("info", &["info", core, "--all"]),
            ("sysroot", &["sysroot", core, "--offline"]),
        ];
        for (name, words) in runs {
            let words: Vec<&str> = words.iter().copied().chain(["-o", "json"]).collect();
            let answer = workstation.run(&words);
            if answer.out.is_empty() {
                assert!(
                    answer.code == 2 || answer.code == 4,
                    "{words:?}: {}",
                    answer.err
                );
                continue;
            }
            schemas.check(name, &answer, &[0, 1, 2, 3, 4]);
            checked += 1;
        }
        let first = cores[0].to_str().unwrap();
        let answer = workstation.run(&["diff", first, core, "-o", "json"]);
        if !answer.out.is_empty() {
            schemas.check("diff", &answer, &[0, 4]);
            checked += 1;
        }
        let answer = workstation.run(&["import", core, "-o", "json"]);
        if answer.code == 0 {
            schemas.check("import", &answer, &[0]);
        }
    }
    assert!(checked >= cores.len() * 3, "{checked} of {}", cores.len());
}

#[test]
fn json_of_a_store_is_what_the_schemas_say() {
    let schemas = Schemas::read();
    let workstation = Workstation::new();
    fs::create_dir(workstation.path("store")).unwrap();
    for (name, words) in [
        ("ls", &["ls"][..]),
        ("groups", &["groups"]),
        ("groups", &["ls", "--group"]),
        ("drops", &["drops"]),
        ("cache-ls", &["cache", "ls"]),
    ] {
        let words: Vec<&str> = words.iter().copied().chain(["-o", "json"]).collect();
        schemas.check(name, &workstation.run(&words), &[1]);
    }
    let labels = [
        "--namespace",
        "shop",
        "--pod",
        "api-0",
        "--label",
        "app=api",
        "--image",
        "a/b:1@sha256:0101010101010101010101010101010101010101010101010101010101010101",
    ];
    let core = crash().core().display().to_string();
    for extra in [&labels[..], &[]] {
        let words: Vec<&str> = ["import", &core]
            .into_iter()
            .chain(extra.iter().copied())
            .collect();
        assert_eq!(workstation.run(&words).code, 0);
    }
    // A listing also has zips of IBM's core-dump-handler and dumps whose manifests say nothing.
    let ibm = "shop_api-7d4-x2v_app_1700000000.zip";
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/ibm")
        .join(ibm);
    fs::copy(from, workstation.path("store").join(ibm)).unwrap();
    let row = r#"{"node":"n1","outcome":"dropped","reason":"rate_fingerprint","count":4,"first":"2026-01-01T00:00:00Z","last":"2026-01-01T00:00:00Z","exe":"a"}
{"node":"n2","outcome":"a newer one","reason":"a newer one","count":1}
"#;
    fs::create_dir_all(workstation.path("store/drops/2026-01-01")).unwrap();
    fs::write(
        workstation.path("store/drops/2026-01-01/000000Z_n1_00000000.jsonl"),
        row,
    )
    .unwrap();
    for (name, words) in [
        ("ls", &["ls"][..]),
        ("groups", &["groups"]),
        ("groups", &["ls", "--group"]),
        ("groups", &["groups", "since:1d", "--no-top"]),
        ("drops", &["drops"]),
        ("fetch", &["fetch", "latest", "@1"]),
        ("cache-ls", &["cache", "ls"]),
        ("cache-clear", &["cache", "clear"]),
        ("gc", &["gc", "--max-total", "0", "--dry-run"]),
        ("rm", &["rm", "latest", "--dry-run"]),
        ("rm", &["rm", "latest", "--yes"]),
        ("gc", &["gc", "--max-total", "0", "--yes"]),
    ] {
        let words: Vec<&str> = words.iter().copied().chain(["-o", "json"]).collect();
        let answer = workstation.run(&words);
        schemas.check(name, &answer, &[0]);
        assert!(answer.out.len() > 10, "{words:?}: {}", answer.out);
    }
    let rows = workstation.run(&["ls", "-o", "jsonl"]);
    let rows = format!("[{}]", rows.out.trim_end().replace('\n', ","));
    assert!(schemas.problems("ls", &rows).is_empty());
}

#[test]
fn json_of_the_agent_is_what_the_schemas_say() {
    let schemas = Schemas::read();
    let workstation = Workstation::new();
    let state = workstation.path("state").display().to_string();
    let state = ["--state", state.as_str()];
    let nowhere = [
        "--store",
        "s3://bucket?endpoint=http://127.0.0.1:9&region=eu",
    ];
    let run = |words: &[&str]| {
        let words: Vec<&str> = words.iter().copied().chain(["-o", "json"]).collect();
        workstation.run(&words)
    };
    let all = |words: &[&'static str], more: &[&[&str]]| -> Answer {
        let more = more.iter().flat_map(|more| more.iter().copied());
        let words: Vec<&str> = words.iter().copied().chain(more).collect();
        run(&words)
    };
    fs::create_dir_all(workstation.path("state/spool")).unwrap();
    let status = ["agent", "status"];
    schemas.check("agent-status", &all(&status, &[&state]), &[0, 1, 2]);
    schemas.check(
        "agent-status",
        &all(&status, &[&state, &["--no-store"]]),
        &[0, 1],
    );
    schemas.check("agent-status", &all(&status, &[&state, &nowhere]), &[2, 3]);
    let doctor = ["agent", "doctor"];
    schemas.check("agent-doctor", &all(&doctor, &[&state]), &[0, 2]);
    schemas.check("agent-doctor", &all(&doctor, &[&state, &nowhere]), &[2]);
    schemas.check("agent-sweep", &all(&["agent", "sweep"], &[&state]), &[0]);
    let check = ["agent", "check-config"];
    schemas.check("agent-check-config", &run(&check), &[0]);
    for (number, text) in [
        "[shipping]\ninterval = \"x\"\n",
        "[shipping\n",
        "store = \"x\"\n",
    ]
    .iter()
    .enumerate()
    {
        let file = format!("wrong{number}.toml");
        fs::write(workstation.path(&file), text).unwrap();
        schemas.check(
            "agent-check-config",
            &all(&check, &[&[&file], &["--store", ""]]),
            &[2],
        );
    }
    assert_eq!(all(&check, &[&["nowhere.toml"]]).code, 2);
}
