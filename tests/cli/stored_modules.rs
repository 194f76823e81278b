//! `cdh gc` and the modules that agents keep in a store: on a directory, and in a bucket.

use std::time::{Duration, SystemTime};

use cdh_testkit::{Deed, HttpProxy};

use super::s3::{bucket, server};
use super::*;

/// Nobody's.
const UNUSED: &str = "00112233445566778899aabbccddeeff00112233";

/// A module of the dump, by its build-id.
fn needed(workstation: &Workstation, store: Option<&str>) -> String {
    let words = ["info", "latest", "--json"];
    let answer = match store {
        Some(store) => workstation.s3(store, &words),
        None => workstation.run(&words),
    };
    let document: Value = serde_json::from_str(&answer.out).unwrap();
    let text = document.to_string();
    let at = text
        .find("\"build_id\":\"")
        .expect("a module with a build-id")
        + 12;
    text[at..].split('"').next().unwrap().to_owned()
}

#[test]
fn modules_that_no_dump_needs_are_collected_when_they_are_old() {
    let workstation = Workstation::new();
    workstation.import(&crash().core());
    let needed = needed(&workstation, None);
    let young = "ff".repeat(20);
    let modules = workstation.path("store/modules");
    fs::create_dir_all(&modules).unwrap();
    for (name, days) in [
        (needed.as_str(), 90),
        (UNUSED, 8),
        (&young, 6),
        ("README", 90),
    ] {
        let file = fs::File::create(modules.join(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(days * 86400))
            .unwrap();
    }
    let left = || {
        let entries = fs::read_dir(&modules).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let all = left();
    let dry = workstation.run(&["gc", "--older-than", "1d", "--dry-run"]);
    assert_eq!(dry.out, format!("module {UNUSED} 0 B: no dump needs it\n"));
    assert!(
        dry.err.contains("0 of 1 dumps and 1 of 3 modules"),
        "{}",
        dry.err
    );
    let unasked = workstation.run(&["gc", "--older-than", "1d"]);
    assert_eq!((unasked.code, left()), (2, all.clone()));
    // A day is the least, whatever is asked for.
    let all_old = [
        "gc",
        "--older-than",
        "1d",
        "--modules-older-than",
        "0d",
        "--dry-run",
    ];
    assert_eq!(workstation.run(&all_old).out.lines().count(), 2);
    let months = [
        "gc",
        "--older-than",
        "1d",
        "--modules-older-than",
        "30d",
        "--yes",
    ];
    assert_eq!((workstation.run(&months).code, left()), (0, all));
    assert_eq!(
        workstation.run(&["gc", "--older-than", "1d", "--yes"]).code,
        0
    );
    let mut rest = vec!["README".to_owned(), young.clone(), needed];
    rest.sort();
    assert_eq!(left(), rest);
    // With the dump goes what only it needed.
    let gone = workstation.run(&["gc", "--max-total", "0", "--yes"]);
    assert_eq!(gone.code, 0, "{}", gone.err);
    assert_eq!(left(), ["README".to_owned(), young]);
}

#[test]
fn gc_keeps_all_modules_if_a_dump_cannot_be_read() {
    let workstation = Workstation::new();
    workstation.import(&crash().core());
    let file = workstation.path("store/modules").join(UNUSED);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let module = fs::File::create(&file).unwrap();
    module
        .set_modified(SystemTime::now() - Duration::from_secs(90 * 86400))
        .unwrap();
    let day = fs::read_dir(workstation.path("store/dumps"))
        .unwrap()
        .next();
    for entry in fs::read_dir(day.unwrap().unwrap().path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "json") {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            fs::write(path, "{}").unwrap();
        }
    }
    let answer = workstation.run(&["gc", "--older-than", "1d", "--yes"]);
    assert_eq!(answer.code, 0, "{}", answer.err);
    assert!(
        answer.err.contains("no modules are deleted"),
        "{}",
        answer.err
    );
    assert!(file.exists());
}

/// A bucket records when it was written to, and no client can make it older: the proxy does.
#[test]
fn modules_in_a_bucket_are_collected_too() {
    let Some(server) = server() else { return };
    let workstation = Workstation::new();
    let bucket = bucket();
    let url = |endpoint: &str| format!("s3://{bucket}/crashes?endpoint={endpoint}&timeout=20");
    let direct = url(&server.endpoint());
    let core = crash().core().display().to_string();
    assert_eq!(workstation.s3(&direct, &["import", &core]).code, 0);
    let needed = needed(&workstation, Some(&direct));
    let listed = [needed.as_str(), UNUSED].map(|id| {
        format!(
            "<Contents><Key>crashes/modules/{id}</Key><Size>5</Size><ETag>&quot;x&quot;</ETag>\
             <LastModified>2020-01-01T00:00:00.000Z</LastModified></Contents>"
        )
    });
    let listing = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>{bucket}</Name>\
         <Prefix>crashes/modules/</Prefix><IsTruncated>false</IsTruncated>{}</ListBucketResult>",
        listed.concat()
    );
    let proxy = HttpProxy::start(Some(server.port()), move |request| {
        let is_list = request.method == "GET" && request.target.contains("list-type=2");
        match is_list && request.target.contains("modules") {
            true => {
                let kind = ("content-type", "application/xml".to_owned());
                Deed::Answer(200, vec![kind], listing.clone().into_bytes())
            }
            false => Deed::Pass,
        }
    });
    let store = url(&proxy.endpoint());
    let dry = workstation.s3(&store, &["gc", "--older-than", "1d", "--dry-run"]);
    assert_eq!(
        dry.out,
        format!("module {UNUSED} 5 B: no dump needs it\n"),
        "{}",
        dry.err
    );
    let deleted = || {
        let requests = proxy.requests().into_iter();
        let deletes = requests.filter(|request| request.method == "DELETE");
        deletes.map(|request| request.target).collect::<Vec<_>>()
    };
    assert_eq!(
        workstation.s3(&store, &["gc", "--older-than", "1d"]).code,
        2
    );
    assert_eq!(deleted(), Vec::<String>::new());
    let answer = workstation.s3(&store, &["gc", "--older-than", "1d", "--yes"]);
    assert_eq!(answer.code, 0, "{}", answer.err);
    let targets = deleted();
    assert_eq!(targets.len(), 1, "{targets:?}");
    assert!(targets[0].contains(UNUSED), "{targets:?}");
    assert_eq!(
        workstation
            .s3(&direct, &["ls", "-o", "id"])
            .out
            .lines()
            .count(),
        1
    );
    assert_eq!(
        workstation
            .s3(&store, &["gc", "--max-total", "0", "--yes"])
            .code,
        0
    );
    assert!(deleted().iter().any(|target| target.contains(&needed)));
    assert_eq!(workstation.s3(&direct, &["ls"]).code, 1);
}
