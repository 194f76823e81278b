//! Damage that a disk, a copy or a store did to a dump: it is noticed, named, and never shown as a stack.

use cdh_store::{ObjectKey, Store};

use super::*;

/// Numbers that look random and are the same in every run (Knuth, MMIX).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        let Self(state) = self;
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(*state >> 33).unwrap() % limit
    }
}

/// The files of the only dump in the workstation's store: bundle and manifest.
fn files_of_dump(workstation: &Workstation) -> (PathBuf, PathBuf) {
    let rows = workstation.json(&["ls", "-o", "json"]);
    let bundle = workstation
        .path("store")
        .join(rows[0]["key"].as_str().unwrap());
    let beside = bundle.with_extension("manifest.json");
    assert!(beside.is_file(), "{}", beside.display());
    (bundle, beside)
}

fn imported() -> (Workstation, PathBuf, PathBuf) {
    let workstation = Workstation::new();
    let core = crash().core().display().to_string();
    assert_eq!(workstation.run(&["import", &core]).code, 0);
    let (bundle, beside) = files_of_dump(&workstation);
    (workstation, bundle, beside)
}

/// A number from the environment, for long runs: `CDH_TEST_FLIPS=1000 CDH_TEST_CUTS=100`.
fn number(name: &str, default: usize) -> usize {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A dump that can be damaged, and how `cdh` reads it.
struct Victim<'v> {
    whole: Vec<u8>,
    write: &'v dyn Fn(&[u8]),
    run: &'v dyn Fn(&[&str]) -> Answer,
}

impl Victim<'_> {
    /// Runs `words` after each of `count` single-bit flips. Returns how many of them ended with status 4; an output
    /// that changed without a word fails the test.
    fn flip_bits(&self, words: &[&str], count: usize, seed: u64) -> usize {
        let clean = (self.run)(words);
        assert_eq!(clean.code, 0, "{}", clean.err);
        let mut numbers = Numbers(seed);
        let mut noticed = 0;
        for _ in 0..number("CDH_TEST_FLIPS", count) {
            let (at, bit) = (numbers.below(self.whole.len()), numbers.below(8));
            let mut hurt = self.whole.clone();
            hurt[at] ^= 1 << bit;
            (self.write)(&hurt);
            let answer = (self.run)(words);
            let case = format!(
                "{words:?}, bit {bit} of byte {at}:\n{}{}",
                answer.out, answer.err
            );
            let is_told = answer.code != 0 || answer.err.contains("not verified");
            assert!(
                lasting(&answer.out) == lasting(&clean.out) || is_told,
                "{case}"
            );
            assert!(!answer.err.contains("panicked"), "{case}");
            // Whatever else is said: no other fingerprint.
            if let (Some(found), Some(expected)) =
                (fingerprint(&answer.out), fingerprint(&clean.out))
            {
                assert_eq!(found, expected, "{case}");
            }
            noticed += usize::from(answer.code == 4);
        }
        (self.write)(&self.whole);
        noticed
    }
}

/// As [`Victim::flip_bits`], of a file on this machine.
fn flip_bits(
    workstation: &Workstation,
    file: &Path,
    words: &[&str],
    count: usize,
    seed: u64,
) -> usize {
    let victim = Victim {
        whole: fs::read(file).unwrap(),
        write: &|bytes| fs::write(file, bytes).unwrap(),
        run: &|words| {
            let _ = fs::remove_dir_all(workstation.path(".cache/cdh/cases"));
            workstation.run(words)
        },
    };
    let clean = workstation.run(words);
    assert!(!clean.err.contains("verified"), "{}", clean.err);
    victim.flip_bits(words, count, seed)
}

/// A bucket with one dump, which tests replace.
struct Bucket {
    store: Box<dyn Store>,
    key: ObjectKey,
    url: String,
}

impl Bucket {
    /// A bucket with this object; `None` without an S3 server.
    fn with(key: &str, bytes: &[u8]) -> Option<Self> {
        let server = super::s3::server()?;
        let (bucket, endpoint) = (super::s3::bucket(), server.endpoint());
        let url = format!("s3://{bucket}?endpoint={endpoint}&timeout=20");
        let keys = cdh_store::S3Keys {
            access: cdh_testkit::ADMIN.access.to_owned(),
            secret: cdh_testkit::ADMIN.secret.to_owned(),
        };
        let store = cdh_store::open_store_as(&url.parse().unwrap(), Some(keys)).unwrap();
        let key = ObjectKey::parse(key).unwrap();
        let bucket = Self { store, key, url };
        bucket.put(bytes);
        Some(bucket)
    }

    fn put(&self, bytes: &[u8]) {
        self.store.delete(&self.key).unwrap();
        let mut body = bytes;
        self.store
            .put(&self.key, &mut body, bytes.len() as u64)
            .unwrap();
    }
}

/// Output without what differs from run to run.
fn lasting(text: &str) -> String {
    match serde_json::from_str::<Value>(text) {
        Ok(mut json) => {
            if let Some(backtrace) = json["backtrace"].as_object_mut() {
                backtrace.remove("elapsed");
            }
            json.to_string()
        }
        Err(_) => text.to_owned(),
    }
}

fn fingerprint(text: &str) -> Option<String> {
    let json: Value = serde_json::from_str(text).ok()?;
    let found = json["backtrace"]
        .get("fingerprint")
        .or(json.get("fingerprint"))?;
    (!found.is_null()).then(|| found.to_string())
}

#[test]
fn bt_of_a_bundle_with_a_flipped_bit_shows_the_same_stack_or_fails() {
    let (workstation, bundle, _) = imported();
    let noticed = flip_bits(
        &workstation,
        &bundle,
        &["bt", "latest", "-a", "-o", "json"],
        120,
        1,
    );
    assert!(noticed > 5, "{noticed}");
}

#[test]
fn bt_of_a_bundle_file_with_a_flipped_bit_shows_the_same_stack_or_fails() {
    let (workstation, bundle, _) = imported();
    let copy = workstation.path("copy.zip");
    fs::copy(bundle, &copy).unwrap();
    flip_bits(
        &workstation,
        &copy,
        &["bt", "./copy.zip", "-a", "-o", "json"],
        60,
        2,
    );
}

#[test]
fn bt_of_an_ibm_zip_with_a_flipped_bit_shows_the_same_stack_or_fails() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ibm");
    for item in fs::read_dir(fixtures).unwrap() {
        let path = item.unwrap().path();
        if path.extension().is_none_or(|end| end != "zip") {
            continue;
        }
        let workstation = Workstation::new();
        let copy = workstation.path("copy.zip");
        fs::copy(&path, &copy).unwrap();
        let words = ["bt", "./copy.zip", "-a", "-o", "json"];
        // Of a core that is cut, what is left cannot be compared with a checksum of the whole.
        let clean = workstation.run(&words);
        if clean.code == 0 && !clean.err.contains("not verified") {
            flip_bits(&workstation, &copy, &words, 20, 3);
        }
    }
}

#[test]
fn bt_of_a_bundle_in_a_bucket_with_a_flipped_bit_shows_the_same_stack_or_fails() {
    let (workstation, bundle, beside) = imported();
    let key = |path: &Path| {
        path.strip_prefix(workstation.path("store"))
            .unwrap()
            .display()
            .to_string()
    };
    let whole = fs::read(&bundle).unwrap();
    let Some(bucket) = Bucket::with(&key(&bundle), &whole) else {
        return;
    };
    let manifest = fs::read(&beside).unwrap();
    let manifest_key = ObjectKey::parse(&key(&beside)).unwrap();
    let mut body = manifest.as_slice();
    bucket
        .store
        .put(&manifest_key, &mut body, manifest.len() as u64)
        .unwrap();
    let victim = Victim {
        whole,
        write: &|bytes| bucket.put(bytes),
        run: &|words| workstation.s3(&bucket.url, words),
    };
    let noticed = victim.flip_bits(&["bt", "latest", "-a", "-o", "json"], 40, 6);
    assert!(noticed > 1, "{noticed}");
}

#[test]
fn bt_of_an_ibm_zip_in_a_bucket_with_a_flipped_bit_shows_the_same_stack_or_fails() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ibm");
    let words = ["bt", "latest", "-a", "-o", "json"];
    for item in fs::read_dir(fixtures).unwrap() {
        let path = item.unwrap().path();
        if path.extension().is_none_or(|end| end != "zip") {
            continue;
        }
        let whole = fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some(bucket) = Bucket::with(name, &whole) else {
            return;
        };
        let workstation = Workstation::new();
        let victim = Victim {
            whole,
            write: &|bytes| bucket.put(bytes),
            run: &|words| {
                let _ = fs::remove_dir_all(workstation.path(".cache/cdh/cases"));
                workstation.s3(&bucket.url, words)
            },
        };
        // Of a core that is cut, what is left cannot be compared with a checksum of the whole.
        if (victim.run)(&words).code == 0 {
            victim.flip_bits(&words, 6, 7);
        }
    }
}

#[test]
fn info_takes_its_facts_from_the_manifest_that_verifies() {
    let (workstation, bundle, beside) = imported();
    let words = ["info", "latest", "-o", "json"];
    flip_bits(&workstation, &beside, &words, 40, 4);
    // A bit in the middle of the manifest in the bundle, and of the one beside it.
    for (file, named) in [
        (&bundle, "the facts are from the manifest beside the bundle"),
        (&beside, "the one in it is used"),
    ] {
        let whole = fs::read(file).unwrap();
        let mut hurt = whole.clone();
        let at = whole
            .windows(12)
            .rposition(|window| window == br#""process": {"#)
            .unwrap();
        hurt[at + 3] ^= 1;
        fs::write(file, &hurt).unwrap();
        let answer = workstation.run(&["info", "latest"]);
        assert_eq!(answer.code, 4, "{}{}", answer.out, answer.err);
        assert!(answer.err.contains(named), "{}", answer.err);
        assert!(answer.out.contains("complete"), "{}", answer.out);
        fs::write(file, whole).unwrap();
    }
}

#[test]
fn bundle_cut_in_the_store_is_called_damaged_and_its_capture_is_not_blamed() {
    let (workstation, bundle, _) = imported();
    let whole = fs::read(&bundle).unwrap();
    let mut numbers = Numbers(5);
    for round in 0..number("CDH_TEST_CUTS", 14) {
        let len = match round {
            0 => 0,
            1 => 1,
            2 => whole.len() - 1,
            // Inside the header of the first entry, and before the first frame of its core ends.
            3 => 20,
            4 => 150,
            5 => 400,
            _ => numbers.below(whole.len()),
        };
        fs::write(&bundle, &whole[..len]).unwrap();
        for words in [
            &["info", "latest"][..],
            &["bt", "latest"],
            &["fetch", "latest", "-d", "case"],
        ] {
            let _ = fs::remove_dir_all(workstation.path("case"));
            let answer = workstation.run(words);
            let case = format!("{words:?} of {len} bytes:\n{}{}", answer.out, answer.err);
            assert_eq!(answer.code, 4, "{case}");
            assert!(!case.contains("handler died"), "{case}");
            assert!(!case.contains("handler_died"), "{case}");
            assert!(answer.err.contains("hint: "), "{case}");
            if words[0] == "info" {
                assert!(answer.out.contains("complete"), "{case}");
            }
        }
    }
}
