//! What IBM's core-dump-handler wrote, under each command that reads. The zips are `fixtures/ibm`.

use std::time::{Duration, SystemTime};

use cdh_testkit::ADMIN;

use super::corpus::filtered;
use super::*;

/// One per zip, as its README says, and one that is not a dump.
const DUMPS: [(&str, &str); 8] = [
    ("0fa85f64", "default_template_deflated_core"),
    ("1fa85f64", "stored_core_without_crio"),
    ("2fa85f64", "proc_folder_and_equal_names"),
    ("shop", "template_without_id"),
    ("4fa85f64", "template_with_id_and_descriptors"),
    ("5fa85f64", "cut_in_the_deflated_core"),
    ("6fa85f64", "cut_in_the_stored_core"),
    ("7fa85f64", "quote_in_the_name"),
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ibm")
}

/// Puts the zips, and a foreign one, where IBM's agent puts them: at the root of the bucket.
fn fill(store: &Path) {
    fs::create_dir(store).unwrap();
    let written = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_007);
    for item in fs::read_dir(fixtures()).unwrap() {
        let path = item.unwrap().path();
        if path.extension().is_some_and(|end| end == "zip") {
            let copy = store.join(path.file_name().unwrap());
            fs::copy(&path, &copy).unwrap();
            let file = fs::File::options().write(true).open(&copy).unwrap();
            file.set_modified(written).unwrap();
        }
    }
    fs::write(store.join("holiday.zip"), "PK").unwrap();
}

/// `cdh` with these words, on the store in question.
type Run<'r> = &'r dyn Fn(&[&str]) -> Answer;

/// What `ls` calls the dump whose name begins like this.
fn id_of(run: Run<'_>, begin: &str) -> String {
    let listing: Value = serde_json::from_str(&run(&["ls", "-o", "json"]).out).unwrap();
    let rows = listing.as_array().unwrap().iter();
    let keys = rows.filter(|row| {
        let key = row["key"].as_str().unwrap();
        key.starts_with(begin) || row["id"].as_str().unwrap().starts_with(begin)
    });
    let ids: Vec<_> = keys
        .map(|row| row["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 1, "{begin}: {ids:?}");
    ids[0].clone()
}

fn page_of(workstation: &Workstation, run: Run<'_>, id: &str) -> String {
    let root = fixtures().join("root").display().to_string();
    let mut page = String::new();
    let mut show = |shown: &str, words: &[&str]| {
        let answer = run(words);
        let status = answer.code;
        let text = format!("$ cdh {shown}\n{}{}[{status}]\n\n", answer.out, answer.err);
        page.push_str(&filtered(&text.replace(&root, "[ROOT]")));
    };
    show("info", &["info", id]);
    show("fetch", &["fetch", id, "-d", "case"]);
    show("bt", &["bt", id, "-r", "--sysroot", &root]);
    // What gdb says beside its frames differs from version to version.
    let gdb = ["-q", "-batch", "-ex", "bt"];
    let words = [&["debug", id, "--sysroot", &root, "--"][..], &gdb].concat();
    let answer = run(&words);
    page.push_str("$ cdh debug -- -q -batch -ex bt\n");
    for frame in answer
        .out
        .lines()
        .skip_while(|line| !line.starts_with("#0"))
        .skip(1)
    {
        page.push_str(&format!("{frame}\n"));
    }
    page.push_str(&format!("[{}]\n\n", answer.code));
    let mut files: Vec<_> = fs::read_dir(workstation.path("case"))
        .into_iter()
        .flatten()
        .collect();
    files.sort_by_key(|item| item.as_ref().unwrap().file_name());
    // What cdh notes for itself differs from run to run.
    let is_hidden = |item: &fs::DirEntry| item.file_name().as_encoded_bytes().starts_with(b".");
    files.retain(|item| !item.as_ref().is_ok_and(is_hidden));
    for item in files {
        let item = item.unwrap();
        let size = item.metadata().unwrap().len();
        page.push_str(&format!("{} {size}\n", item.file_name().display()));
    }
    page
}

#[test]
fn ibm_listing_shows_facts_of_names_and_ignores_other_zips() {
    let workstation = Workstation::new();
    fill(&workstation.path("store"));
    insta::assert_snapshot!("ibm_listing", workstation.run(&["ls", "-o", "wide"]).out);
    // Limits and times find them too; they are deleted only when they are asked for by name.
    assert_eq!(
        workstation
            .run(&["ls", "-o", "id", "--limit", "3"])
            .out
            .lines()
            .count(),
        3
    );
    let since = [
        "ls",
        "-o",
        "id",
        "--since",
        "2023-11-14",
        "--until",
        "2023-11-15",
    ];
    assert_eq!(workstation.run(&since).out.lines().count(), DUMPS.len());
    let gc = workstation.run(&["gc", "--max-total", "0", "--yes"]);
    assert_eq!(gc.code, 0, "{}", gc.err);
    let left = workstation.run(&["ls", "-o", "id"]).out.lines().count();
    assert_eq!(left, 3, "{}", gc.err);
    assert!(workstation.path("store/holiday.zip").is_file());
    let id = id_of(&|words| workstation.run(words), "shop");
    assert_eq!(workstation.run(&["rm", &id, "--yes"]).code, 0);
    assert_eq!(workstation.run(&["ls", "-o", "id"]).out.lines().count(), 2);
}

/// The name of such a zip says nothing for sure, `-dump-info.json` in it does.
#[test]
fn listing_of_a_custom_template_shows_what_the_zip_holds() {
    let workstation = Workstation::new();
    fill(&workstation.path("store"));
    let listing: Value = serde_json::from_str(&workstation.run(&["ls", "-o", "json"]).out).unwrap();
    let rows = listing.as_array().unwrap();
    for begin in ["shop_", "crash-", "quote-"] {
        let is_it = |row: &&Value| row["key"].as_str().unwrap().starts_with(begin);
        let row = rows.iter().find(is_it).unwrap();
        assert_eq!(row["namespace"], "shop", "{row}");
        assert_eq!(row["pod"], "api-7d4-x2v", "{row}");
        assert_eq!(row["exe"], "app", "{row}");
        assert_eq!(row["signal"], "SIGSEGV", "{row}");
        assert_eq!(row["verdict"], "complete", "{row}");
        // One dump has one id, wherever it is shown.
        let id = row["id"].as_str().unwrap();
        let info = workstation.json(&["info", id, "-o", "json"]);
        assert_eq!(info["manifest"]["id"], id);
    }
    let found = workstation.run(&["ls", "--namespace", "shop", "--exe", "app", "-o", "id"]);
    assert_eq!(found.out.lines().count(), 3, "{}{}", found.out, found.err);
}

#[test]
fn signal_code_and_address_come_from_the_core() {
    let workstation = Workstation::new();
    fill(&workstation.path("store"));
    // Deflated, stored, and cut in either.
    for begin in ["0fa85f64", "1fa85f64", "5fa85f64", "6fa85f64"] {
        let info = workstation.json(&["info", begin, "-o", "json"]);
        let signal = &info["manifest"]["signal"];
        assert_eq!(signal["number"], 11, "{begin}: {signal}");
        assert_eq!(signal["code"], 1, "{begin}: {signal}");
        assert_eq!(signal["address"], 0x10, "{begin}: {signal}");
    }
}

#[test]
fn info_fetch_bt_and_debug_read_every_layout() {
    let workstation = Workstation::new();
    fill(&workstation.path("store"));
    for (begin, name) in DUMPS {
        let id = id_of(&|words| workstation.run(words), begin);
        let workstation = Workstation::new();
        fill(&workstation.path("store"));
        let page = page_of(&workstation, &|words| workstation.run(words), &id);
        insta::assert_snapshot!(format!("ibm_{name}"), page);
    }
}

#[test]
fn bucket_of_ibms_agent_reads_as_a_directory_of_its_zips_does() {
    let Some(server) = s3::server() else { return };
    let bucket = s3::bucket();
    let url = format!("s3://{bucket}?endpoint={}", server.endpoint());
    let keys = cdh_store::S3Keys {
        access: ADMIN.access.to_owned(),
        secret: ADMIN.secret.to_owned(),
    };
    let store = cdh_store::open_store_as(&url.parse().unwrap(), Some(keys)).unwrap();
    let local = Workstation::new();
    fill(&local.path("store"));
    for item in fs::read_dir(local.path("store")).unwrap() {
        let item = item.unwrap();
        let name = item.file_name().into_string().unwrap();
        let bytes = fs::read(item.path()).unwrap();
        let key = cdh_store::ObjectKey::parse(&name).unwrap();
        store
            .put(&key, &mut bytes.as_slice(), bytes.len() as u64)
            .unwrap();
    }
    for (begin, name) in DUMPS {
        let [remote, local] = [Workstation::new(), Workstation::new()];
        fill(&local.path("store"));
        let run = |words: &[&str]| remote.s3(&url, words);
        let id = id_of(&run, begin);
        let page = page_of(&remote, &run, &id);
        let run = |words: &[&str]| local.run(words);
        let id = id_of(&run, begin);
        assert_eq!(page, page_of(&local, &run, &id), "{name}");
    }
}
