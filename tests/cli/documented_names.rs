//! Every name in README and `docs/`: flags, keys, defaults, variables, metrics, paths and links are those of the binary,
//! the chart and the repository. Of the pages for developers, paths and links are checked.
//!
//! ```text
//! markdown ─▶ code spans and blocks ─▶ names ─▶ `--help`, `check-config -o json`, the agent's metrics, schemas, files
//! ```

use std::collections::{BTreeMap, BTreeSet};

use super::agent::Agent;
use super::documented_commands::{cdh_help, check_cdh, check_task, xtask_source};
use super::*;

/// A page, and what of it is code.
struct Page {
    name: String,
    text: String,
    /// Line numbers with the code spans and the lines of blocks of `sh` in them.
    code: Vec<(usize, String)>,
    /// Line numbers of blocks of TOML, and their texts.
    toml: Vec<(usize, String)>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README and the pages of `docs/`.
fn pages() -> Vec<Page> {
    let mut names = vec!["README.md".to_owned()];
    names.extend(names_in("docs"));
    read_pages(names)
}

/// The pages for developers.
fn developer_pages() -> Vec<Page> {
    let names = ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"];
    let mut names: Vec<String> = names.map(str::to_owned).into();
    names.extend(names_in("docs/decisions"));
    read_pages(names)
}

/// Paths of the pages in a directory, sorted.
fn names_in(directory: &str) -> Vec<String> {
    let items = fs::read_dir(root().join(directory)).unwrap();
    let names = items.map(|item| item.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = { names.filter(|name| name.ends_with(".md")) }
        .map(|name| format!("{directory}/{name}"))
        .collect();
    names.sort();
    names
}

fn read_pages(names: Vec<String>) -> Vec<Page> {
    let read = |name: String| Page::parse(&name, fs::read_to_string(root().join(&name)).unwrap());
    names.into_iter().map(read).collect()
}

impl Page {
    fn parse(name: &str, text: String) -> Self {
        let (mut code, mut toml) = (Vec::<(usize, String)>::new(), Vec::new());
        let mut block: Option<(String, usize, String)> = None;
        for (number, line) in (1..).zip(text.lines()) {
            match (line.trim_start().strip_prefix("```"), &mut block) {
                (Some(info), None) => {
                    let kind = info.split_whitespace().next().unwrap_or_default();
                    block = Some((kind.to_owned(), number, String::new()));
                }
                (Some(_), Some(_)) => {
                    if let Some((kind, start, text)) = block.take() {
                        match kind.as_str() {
                            "sh" => code.extend(commands(start, &text)),
                            "toml" => toml.push((start, text)),
                            _ => {}
                        }
                    }
                }
                (None, Some((.., text))) => text.push_str(&format!("{line}\n")),
                (None, None) => {
                    let spans = line.split('`').skip(1).step_by(2);
                    code.extend(spans.map(|span| (number, span.to_owned())));
                }
            }
        }
        Self {
            name: name.to_owned(),
            text,
            code,
            toml,
        }
    }
}

/// The commands of a block; a continued line is one command.
fn commands(start: usize, text: &str) -> Vec<(usize, String)> {
    let text = text.replace("\\\n", " ");
    let lines = (start + 1..).zip(text.lines());
    lines
        .map(|(at, line)| (at, line.split(" #").next().unwrap_or_default().to_owned()))
        .collect()
}

/// Problems of all pages as one failure.
fn report(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// Every visible command.
fn all_commands() -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    let mut next = 0;
    while let Some(verbs) = all.get(next).cloned() {
        next += 1;
        let words: Vec<&str> = verbs.iter().map(String::as_str).collect();
        let help = cdh_help(&words).unwrap();
        let Some((_, listed)) = help.split_once("Commands:\n") else {
            continue;
        };
        for line in listed.lines().take_while(|line| line.starts_with("  ")) {
            if let Some(name) = line.split_whitespace().next()
                && line.starts_with("  ")
                && !line.starts_with("   ")
            {
                all.push([verbs.as_slice(), &[name.to_owned()]].concat());
            }
        }
    }
    all
}

fn all_help() -> String {
    let help = |verbs: &Vec<String>| {
        let words: Vec<&str> = verbs.iter().map(String::as_str).collect();
        cdh_help(&words).unwrap()
    };
    all_commands().iter().map(help).collect()
}

#[test]
fn documented_flags_are_those_of_the_commands() {
    let help = all_help();
    let has = |flag: &str| {
        let mut found = help.match_indices(flag);
        found.any(|(at, _)| {
            !help[at + flag.len()..].starts_with(|c: char| c == '-' || c.is_alphanumeric())
        })
    };
    assert!(has("--store") && !has("--stor"));
    let tasks = xtask_source();
    let mut problems = Vec::new();
    for page in pages() {
        for (line, code) in &page.code {
            for part in code.split(['|', ';', '(', ')', '&']) {
                let words: Vec<&str> = part
                    .split_whitespace()
                    .filter(|word| *word != "sudo")
                    .collect();
                let checked = match words.as_slice() {
                    ["cdh", rest @ ..] => check_cdh(rest),
                    ["cargo", "xtask", task, rest @ ..] => check_task(task, rest),
                    // A flag alone is one of ours; other programs are named before theirs.
                    [first, ..] if first.starts_with("--") && first.len() > 2 => {
                        let flag = first.split(['=', ',']).next().unwrap_or_default();
                        let is_known = has(flag) || FOREIGN_FLAGS.contains(&flag);
                        match is_known || tasks.contains(&format!("\"{flag}\"")) {
                            true => Ok(()),
                            false => Err(format!("no command has `{flag}`")),
                        }
                    }
                    _ => Ok(()),
                };
                problems.extend(
                    checked
                        .err()
                        .map(|error| format!("{}:{line}: {error}", page.name)),
                );
            }
        }
    }
    report(problems);
}

/// Flags of other programs that a sentence names: aws, coredumpctl, helm, podman, and programs whose command lines hold secrets.
const FOREIGN_FLAGS: [&str; 9] = [
    "--db-password",
    "--endpoint-url",
    "--json",
    "--keyspace",
    "--no-legend",
    "--no-pager",
    "--rm",
    "--set",
    "--token",
];

#[test]
fn documented_variables_are_read_and_all_variables_are_documented() {
    let help = all_help();
    let names = |text: &str| -> BTreeSet<String> {
        let words =
            text.split(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
        let ours = words.filter(|word| word.starts_with("CDH_") && word.len() > 4);
        ours.map(str::to_owned).collect()
    };
    let pages = pages();
    let documented: BTreeSet<String> = { pages.iter() }
        .flat_map(|page| names(&page.text))
        // Those of sections and of development tasks.
        .filter(|name| !["CDH_SECTION_KEY", "CDH_CROSS_RUSTC"].contains(&name.as_str()))
        .filter(|name| !name.starts_with("CDH_TEST_"))
        .collect();
    let of_commands: BTreeSet<String> = { help.split("env: ").skip(1) }
        .filter_map(|rest| names(rest.split([']', '=']).next()?).pop_first())
        .collect();
    let missing: Vec<_> = of_commands.difference(&documented).collect();
    assert!(missing.is_empty(), "not documented: {missing:?}");
    let workstation = Workstation::new();
    let set: Vec<(&str, &str)> = { documented.difference(&of_commands) }
        .map(|name| (name.as_str(), "1"))
        .chain([("CDH_NO_SUCH_VARIABLE", "1")])
        .collect();
    let answer = workstation.with(&["agent", "check-config", "-o", "json"], &set);
    let json: Value = serde_json::from_str(&answer.out).unwrap();
    let unknown = json["unknown_variables"].as_array().unwrap();
    let unknown: Vec<_> = unknown.iter().map(|found| &found["name"]).collect();
    assert_eq!(unknown, ["CDH_NO_SUCH_VARIABLE"], "nothing reads these");
}

/// Keys of the agent with their defaults.
fn agent_defaults() -> BTreeMap<String, Value> {
    let workstation = Workstation::new();
    let json = workstation.json(&["agent", "check-config", "-o", "json"]);
    let values = json["values"].as_array().unwrap().iter();
    values
        .map(|value| {
            (
                value["key"].as_str().unwrap().to_owned(),
                value["value"].clone(),
            )
        })
        .collect()
}

/// Whether the workstation's file may have this key.
fn is_workstation_key(workstation: &Workstation, key: &str) -> bool {
    let (table, name) = key.rsplit_once('.').unwrap();
    fs::write(
        workstation.path("config.toml"),
        format!("[{table}]\n{name} = {{}}\n"),
    )
    .unwrap();
    let answer = workstation.run(&["--config", "config.toml", "cache", "ls"]);
    assert!(
        answer.err.contains("invalid config file"),
        "{key}: {}",
        answer.err
    );
    !answer.err.contains("unknown ")
}

/// Whether the chart has this value.
fn is_chart_value(schema: &Value, key: &str) -> bool {
    let mut place = schema;
    for name in key.split('.') {
        match place["properties"].get(name) {
            Some(inner) => place = inner,
            // Free-form, such as annotations.
            None => return place["type"] == "object" && place.get("properties").is_none(),
        }
    }
    true
}

#[test]
fn chart_admits_the_tables_of_the_agents_configuration() {
    let agent = agent_defaults();
    let mut tables: BTreeSet<&str> = agent
        .keys()
        .filter_map(|key| Some(key.split_once('.')?.0))
        .collect();
    tables.insert("stores");
    let helpers = fs::read_to_string(root().join("charts/cdh/templates/_helpers.tpl")).unwrap();
    let (_, list) = helpers.split_once("{{- $tables := list ").unwrap();
    let (list, _) = list.split_once(" }}").unwrap();
    let admitted: BTreeSet<&str> = list.split(' ').map(|name| name.trim_matches('"')).collect();
    assert_eq!(admitted, tables);
}

#[test]
fn documented_keys_are_those_of_the_configuration_and_the_chart() {
    let agent = agent_defaults();
    let tables: BTreeSet<&str> = agent
        .keys()
        .filter_map(|key| key.split('.').next())
        .collect();
    let chart = fs::read_to_string(root().join("charts/cdh/values.schema.json")).unwrap();
    let chart: Value = serde_json::from_str(&chart).unwrap();
    let workstation = Workstation::new();
    assert!(
        !is_workstation_key(&workstation, "images.offlin")
            && is_workstation_key(&workstation, "images.offline")
    );
    assert!(!is_chart_value(&chart, "store.ulr") && is_chart_value(&chart, "store.url"));
    let is_key = |text: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let is_file = [".toml", ".yaml", ".md", ".json"]
            .iter()
            .any(|end| text.ends_with(end));
        text.contains('.') && text.chars().all(plain) && !text.ends_with('.') && !is_file
    };
    let mut problems = Vec::new();
    for page in pages() {
        // The first column of this table has the values of IBM's chart.
        let lines: Vec<&str> = page.text.lines().collect();
        let first_cell = |line: usize| lines[line - 1].split('|').nth(1).unwrap_or_default();
        for (line, code) in &page.code {
            let is_theirs =
                page.name == "docs/migration.md" && first_cell(*line).contains(code.as_str());
            let sets = code.split("--set ").skip(1);
            let sets = sets
                .filter_map(|rest| rest.split(['=', ' ']).next())
                .map(str::to_owned);
            let alone = code.split([' ', '=', ':']).next().unwrap_or_default();
            let alone = (is_key(alone) && !is_theirs).then(|| alone.to_owned());
            for key in sets.chain(alone) {
                let table = key.split('.').next().unwrap_or_default();
                let known = match table {
                    "images" | "cache" | "tui" => is_workstation_key(&workstation, &key),
                    "stores" => true,
                    table if tables.contains(table) || chart["properties"].get(table).is_some() => {
                        let is_table = agent
                            .keys()
                            .any(|known| known.starts_with(&format!("{key}.")));
                        agent.contains_key(&key) || is_table || is_chart_value(&chart, &key)
                    }
                    _ => true,
                };
                if !known {
                    problems.push(format!("{}:{line}: no key `{key}`", page.name));
                }
            }
        }
    }
    report(problems);
}

#[test]
fn documented_defaults_are_those_of_the_binary_and_every_key_has_a_row() {
    let mut defaults = agent_defaults();
    let pages = pages();
    let page = pages
        .iter()
        .find(|page| page.name == "docs/configuration.md")
        .unwrap();
    let (_, agent) = page.text.split_once("## The agent").unwrap();
    let (agent, _) = agent.split_once("## The workstation").unwrap();
    let mut problems = Vec::new();
    for row in agent.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let key = cells[1].trim_matches('`');
        let Some(value) = defaults.remove(key) else {
            problems.push(format!("no key `{key}`, or two rows of it"));
            continue;
        };
        let expected = match &value {
            Value::Null => "not set".to_owned(),
            Value::Array(items) if !items.is_empty() => format!("{} patterns", items.len()),
            value => format!("`{value}`"),
        };
        if cells[2] != expected {
            problems.push(format!(
                "`{key}`: the default is {expected}, not {}",
                cells[2]
            ));
        }
    }
    problems.extend(defaults.keys().map(|key| format!("`{key}` has no row")));
    report(problems);
}

#[test]
fn documented_toml_is_a_valid_configuration() {
    let workstation = Workstation::new();
    let mut problems = Vec::new();
    let mut count = 0;
    for page in pages() {
        for (line, text) in &page.toml {
            let file = workstation.path("example.toml");
            fs::write(&file, text).unwrap();
            let file = file.to_str().unwrap();
            for words in [
                &["agent", "check-config", file][..],
                &["--config", file, "cache", "ls"],
            ] {
                let answer = workstation.with(words, &[("CDH_STORE", "/x")]);
                if answer.code == 2 {
                    problems.push(format!("{}:{line}: {}", page.name, answer.err));
                }
            }
            count += 1;
        }
    }
    assert!(count >= 5, "{count}");
    report(problems);
}

/// An example must not make the list of secrets shorter than it is without.
#[test]
fn documented_policy_keeps_the_default_names_of_secrets() {
    for page in pages() {
        for (line, text) in &page.toml {
            let is_set = text
                .lines()
                .any(|line| line.trim_start().starts_with("scrub"));
            assert!(
                !is_set,
                "{}:{line}: replaces the default of `scrub`",
                page.name
            );
        }
    }
}

#[test]
fn documented_metrics_are_those_of_the_agent_and_all_are_documented() {
    let workstation = Workstation::new();
    let file = workstation.path("cdh.prom");
    let mut command = workstation.command(&["agent", "run", "--metrics-file"]);
    command.arg(&file);
    let mut agent = Agent::start(&workstation, command);
    agent.wait_for("agent started");
    let begun = std::time::Instant::now();
    while !file.exists() && begun.elapsed().as_secs() < 120 {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let text = fs::read_to_string(&file).unwrap();
    agent.stop();
    let families: BTreeMap<&str, &str> = { text.lines() }
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    assert!(families.len() > 25, "{families:?}");
    let mut problems = Vec::new();
    let mut documented = BTreeSet::new();
    let part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    for page in pages() {
        for (line, code) in &page.code {
            for name in code.split(|c| !part(c)).filter(|word| {
                // `cdh_<version>_<arch>.deb` is the name of a package.
                let name = word.strip_prefix("cdh_");
                name.is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
            }) {
                let mut base = ["_bucket", "_sum", "_count"].iter();
                let base = base.find_map(|end| name.strip_suffix(end));
                let base = base.filter(|base| families.get(base) == Some(&"histogram"));
                let name = base.unwrap_or(name);
                if !families.contains_key(name) {
                    problems.push(format!("{}:{line}: no metric `{name}`", page.name));
                }
            }
        }
        if page.name == "docs/monitoring.md" {
            let (_, table) = page.text.split_once("## All metrics").unwrap();
            let rows = table.lines().filter(|line| line.starts_with("| `"));
            for row in rows.take_while(|line| line.contains("cdh_")) {
                let cells: Vec<&str> = row.split('|').map(str::trim).collect();
                for name in cells[1].split(", ").map(|name| name.trim_matches('`')) {
                    documented.insert(name.to_owned());
                    if families.get(name) != Some(&cells[2]) {
                        problems.push(format!("`{name}` is not a {}", cells[2]));
                    }
                }
            }
        }
    }
    for name in families.keys().filter(|name| !documented.contains(**name)) {
        problems.push(format!("docs/monitoring.md does not list `{name}`"));
    }
    report(problems);
}

/// Values of an enumeration in a schema.
fn variants(schema: &str, kind: &str) -> Vec<String> {
    let text =
        fs::read_to_string(root().join(format!("docs/schema/{schema}.schema.json"))).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    let kind = &schema["$defs"][kind];
    let single =
        { kind["oneOf"].as_array().into_iter().flatten() }.filter_map(|one| one["const"].as_str());
    let listed = { kind["oneOf"].as_array().into_iter().flatten() }
        .chain([kind])
        .filter_map(|one| one["enum"].as_array())
        .flatten()
        .filter_map(Value::as_str);
    single.chain(listed).map(str::to_owned).collect()
}

#[test]
fn documented_causes_reasons_and_options_are_complete() {
    let pages = pages();
    let page = |name: &str| pages.iter().find(|page| page.name == name).unwrap();
    // First cells of the rows of a table.
    let cells = |page: &Page, head: &str| -> BTreeSet<String> {
        let (_, table) = page.text.split_once(head).unwrap();
        let rows = table
            .lines()
            .skip(2)
            .take_while(|line| line.starts_with('|'));
        let firsts = rows.filter_map(|row| row.split('|').nth(1));
        let names = firsts.flat_map(|cell| cell.split('`').skip(1).step_by(2));
        names.map(str::to_owned).collect()
    };
    let causes = variants("bt", "Cause");
    assert!(causes.len() > 10, "{causes:?}");
    let causes: BTreeSet<String> = causes.into_iter().collect();
    assert_eq!(cells(page("docs/verdicts.md"), "| cause |"), causes);
    let mut reasons: BTreeSet<String> = variants("drops", "DropReason").into_iter().collect();
    assert!(
        reasons.remove("unknown") && reasons.len() > 8,
        "{reasons:?}"
    );
    assert_eq!(cells(page("docs/policy.md"), "| reason |"), reasons);
    let actions: BTreeSet<String> = ["full", "minicore", "metadata", "ignore"]
        .map(str::to_owned)
        .into();
    assert_eq!(cells(page("docs/policy.md"), "| action |"), actions);
    // The binary lists the options of a bucket when one is unknown.
    let workstation = Workstation::new();
    let refused = workstation.run(&["--store", "s3://b?qqq=1", "ls"]);
    let hint = refused
        .err
        .lines()
        .find(|line| line.starts_with("hint: "))
        .unwrap();
    let words = hint
        .split([' ', ',', '`', ':'])
        .filter(|word| !word.is_empty());
    let words: BTreeSet<String> = words.map(str::to_owned).collect();
    let options = cells(page("docs/stores.md"), "| option |");
    let missing: Vec<_> = options.difference(&words).collect();
    assert!(
        missing.is_empty() && options.len() == 10,
        "{missing:?} {hint}"
    );
    // Every schema has a row.
    let linked = |name: &str| {
        page("docs/scripting.md")
            .text
            .contains(&format!("(schema/{name})"))
    };
    for item in fs::read_dir(root().join("docs/schema")).unwrap() {
        let name = item.unwrap().file_name().into_string().unwrap();
        assert!(!name.ends_with(".json") || linked(&name), "{name}");
    }
}

/// Headings as links name them.
fn anchors(text: &str) -> BTreeSet<String> {
    // Every second part is a block of code, whose comments are not headings.
    let prose = text.split("\n```").step_by(2);
    let headings = prose
        .flat_map(str::lines)
        .filter(|line| line.starts_with('#'));
    let slug = |line: &str| {
        let line = line.trim_start_matches('#').trim().to_lowercase();
        let kept = line
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(slug).collect()
}

#[test]
fn documented_links_and_paths_exist() {
    let mut problems = Vec::new();
    let binary = fs::read(env!("CARGO_BIN_EXE_cdh")).unwrap();
    let knows = |path: &str| {
        binary
            .windows(path.len())
            .any(|window| window == path.as_bytes())
    };
    let mut seen = BTreeSet::new();
    for page in pages().into_iter().chain(developer_pages()) {
        let directory = root().join(&page.name).parent().unwrap().to_owned();
        for (number, line) in (1..).zip(page.text.lines()) {
            for link in line.split("](").skip(1) {
                let link = link.split([')', ' ']).next().unwrap_or_default();
                if link.contains("://") {
                    continue;
                }
                let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
                let target = match file {
                    "" => root().join(&page.name),
                    file => directory.join(file),
                };
                let text = fs::read_to_string(&target);
                let is_good = target.exists()
                    && (anchor.is_empty()
                        || text.is_ok_and(|text| anchors(&text).contains(anchor)));
                if !is_good {
                    problems.push(format!("{}:{number}: `{link}` leads nowhere", page.name));
                }
            }
        }
        for (line, code) in &page.code {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
            for path in code.split(|c| !plain(c)).filter(|path| path.contains('/')) {
                let path = path.trim_end_matches(['/', '.']);
                let in_repository = [
                    "agent/src/",
                    "charts/",
                    "crates/",
                    "docs/",
                    "src/",
                    "tests/",
                    "xtask/",
                ];
                let is_ours = in_repository.iter().any(|start| path.starts_with(start));
                // `charts/cdh/platforms/<name>.yaml` ends before the placeholder.
                if is_ours && !root().join(path).exists() {
                    problems.push(format!("{}:{line}: no file `{path}`", page.name));
                }
                let is_node = ["/etc/cdh", "/var/lib/cdh", "/usr/local/lib/cdh", "/run/cdh"];
                let is_node = is_node.iter().any(|start| path.starts_with(start));
                if is_node && seen.insert(path.to_owned()) && !knows(path) {
                    problems.push(format!(
                        "{}:{line}: the binary does not know `{path}`",
                        page.name
                    ));
                }
            }
        }
    }
    report(problems);
}

#[test]
fn documentation_index_and_summary_list_every_page() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let summary = read("docs/SUMMARY.md");
    let index = read("docs/README.md");
    let decisions = read("docs/decisions/README.md");
    let mut problems = Vec::new();
    for name in names_in("docs").iter().chain(&names_in("docs/decisions")) {
        let path = name.strip_prefix("docs/").unwrap();
        let (list, link) = match path.strip_prefix("decisions/") {
            Some("README.md") => (&index, path),
            Some(page) => (&decisions, page),
            None => (&index, path),
        };
        if path == "README.md" || path == "SUMMARY.md" {
            continue;
        }
        for (title, text, link) in [("the index", list, link), ("the summary", &summary, path)] {
            if !text.contains(&format!("]({link})")) {
                problems.push(format!("{name} is not in {title}"));
            }
        }
    }
    report(problems);
}

#[test]
fn code_of_a_page_is_its_spans_and_its_blocks_by_kind() {
    let text =
        "a `b --c` d `e`\n```sh\ncdh x \\\n  --y # why\n```\n```toml\nk = 1\n```\n```\n`no`\n```\n";
    let page = Page::parse("p", text.to_owned());
    let code: Vec<&str> = page.code.iter().map(|(_, code)| code.as_str()).collect();
    assert_eq!(code[..2], ["b --c", "e"]);
    assert_eq!(
        code[2].split_whitespace().collect::<Vec<_>>(),
        ["cdh", "x", "--y"]
    );
    assert_eq!(page.toml, [(6, "k = 1\n".to_owned())]);
    let headings = anchors("# Which *x*, `y`?\n```sh\n# why\n```\n## Then\n");
    assert_eq!(headings.len(), 2);
    assert!(headings.contains("which-x-y") && headings.contains("then"));
}
