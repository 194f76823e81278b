//! Stores and retrieves dumps in a real S3 server, and against peers that break off, lie and are
//! slow.
//!
//! The server is started once and dies with this process. Each test creates a bucket of its own.

mod access;
mod answers;
mod objects;
mod uploads;

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use cdh_bundle::BundleWriter;
use cdh_store::{FirstSeenWriter, Flow, S3Keys, S3Store, ShipOptions, Shipped};
use cdh_testkit::{ADMIN, Deed, HttpProxy, READER, Request, S3Server, or_skip};

use super::*;

/// More than three parts of 8 MiB.
const BIG: usize = 29 << 20;

fn server() -> Option<&'static S3Server> {
    static SERVER: OnceLock<Result<S3Server, String>> = OnceLock::new();
    or_skip(
        SERVER
            .get_or_init(S3Server::start)
            .as_ref()
            .map_err(Clone::clone),
    )
}

/// A name that no other test has.
fn bucket() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("bucket-{}-{number}", std::process::id());
    if let Some(server) = server() {
        server.make_bucket(&name);
    }
    name
}

fn open_as(bucket: &str, options: &[(&str, &str)], keys: (&str, &str)) -> S3Store {
    let options = options
        .iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
    let keys = S3Keys {
        access: keys.0.to_owned(),
        secret: keys.1.to_owned(),
    };
    S3Store::open_as(bucket, "some/prefix", &options.collect(), Some(keys)).unwrap()
}

fn open(bucket: &str, endpoint: &str) -> S3Store {
    let options = [("endpoint", endpoint), ("timeout", "20")];
    open_as(bucket, &options, (ADMIN.access, ADMIN.secret))
}

/// Bytes that do not compress and that differ at every offset.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(len);
    bytes
}

/// A spool with one sealed dump of this size.
fn bundle(len: usize) -> (tempfile::TempDir, BundleWriter) {
    let root = tempfile::tempdir().unwrap();
    let manifest = manifest();
    let mut entry = EntryDir::create(root.path(), manifest.id).unwrap();
    entry
        .write_file(&EntryKind::Core(CoreEncoding::None), &noise(len))
        .unwrap();
    let bundle = BundleWriter::from_entry(&entry.seal(manifest).unwrap()).unwrap();
    (root, bundle)
}

/// An independent read of the stored object under the bundle's key.
fn digests(endpoint: &str, bucket: &str, key: &ObjectKey) -> Digests {
    let store = open(bucket, endpoint);
    let source = store.read(key).unwrap();
    let window = cdh_bundle::Window::whole(source);
    Digests::of_reader(cdh_bundle::SourceReader::new(window)).unwrap()
}

fn expected(bundle: &BundleWriter) -> Digests {
    Digests::of_reader(bundle.reader()).unwrap()
}

fn is_part(request: &Request, number: u32) -> bool {
    let wanted = format!("partNumber={number}");
    let query = request.target.split('?').nth(1).unwrap_or_default();
    request.method == "PUT" && query.split('&').any(|pair| pair == wanted)
}

fn is_completion(request: &Request) -> bool {
    request.method == "POST" && request.target.contains("uploadId=")
}

/// The first `times` times that a request is one of `these`.
fn first(
    times: usize,
    these: impl Fn(&Request) -> bool + Send + Sync + 'static,
    deed: Deed,
) -> impl Fn(&Request) -> Deed + Send + Sync + 'static {
    let seen = AtomicUsize::new(0);
    move |request| {
        let hit = these(request) && seen.fetch_add(1, Ordering::Relaxed) < times;
        if hit { deed.clone() } else { Deed::Pass }
    }
}

fn error_body(code: &str) -> Vec<u8> {
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message></Error>").into()
}
