//! Order, time and speed of uploads.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cdh_bundle::{CoreEncoding, DumpId, EntryKind, Manifest, Verdict};
use cdh_store::{Catalog, DirectoryStore, ObjectKey, Query, Receipt};

use super::tests::Node;
use super::*;
use crate::handler::startup::settings::HandlerSettings;
use crate::handler::{HandlerArguments, HandlerLog, capture};
use crate::spool::PartialEntry;

/// An entry captured `second` seconds after 2026-01-01, with a core of this size.
pub(super) fn entry(node: &Node, second: i64, core: usize) -> DumpId {
    let id = DumpId::random();
    let mut entry = PartialEntry::create(&node.paths.spool, id).unwrap();
    let at = jiff::Timestamp::from_second(1_767_225_600 + second).unwrap();
    let json = serde_json::json!({
        "schema": 1, "id": id, "stem": id, "captured_at": at,
        "process": {"pid": 1, "name": format!("at-{second}")},
        "signal": {"number": 11, "name": "SIGSEGV"}, "verdict": Verdict::Complete,
    });
    let mut manifest: Manifest = serde_json::from_value(json).unwrap();
    manifest.fingerprint = Some(format!("{second:016x}"));
    // Incompressible, so that the stored size is known.
    let bytes: Vec<u8> = (0..core)
        .map(|at| (at * 7919 % 251) as u8 ^ (at >> 9) as u8)
        .collect();
    entry
        .write_file(&EntryKind::Core(CoreEncoding::None), &bytes)
        .unwrap();
    entry.seal(manifest).unwrap();
    id
}

/// Ships until `enough` returns true, and returns the names in upload order.
fn ship(
    node: &Node,
    options: ShipperOptions,
    store: &(dyn Fn() -> Box<dyn Store> + '_),
    enough: &mut dyn FnMut(&ShipperEvent, &[String]) -> bool,
) -> Vec<String> {
    let (stop, stopper) = rustix::pipe::pipe().unwrap();
    let mut stopper = Some(stopper);
    let mut names = Vec::new();
    let mut observer = |event: &ShipperEvent| {
        if let ShipperEvent::Shipped { name, .. } = event {
            names.push(name.clone());
        }
        if enough(event, &names) {
            stopper = None;
        }
    };
    let open = || Ok(store());
    run_until(stop.as_fd(), &node.paths, &open, options, &mut observer).unwrap();
    names
}

#[test]
fn shipper_sends_small_dumps_first_and_newest_first() {
    let node = Node::new();
    prepare(&node);
    for (second, core) in [(1, 3 << 20), (2, 10), (3, 2 << 20), (4, 10), (5, 10)] {
        entry(&node, second, core);
    }
    let options = ShipperOptions::default();
    let mut late = false;
    let names = ship(
        &node,
        options,
        &|| Box::new(node.store()),
        &mut |event, names| {
            // A dump that arrives meanwhile overtakes the waiting cores.
            if let ShipperEvent::Shipped { name, .. } = event
                && name == "at-3"
                && !late
            {
                late = true;
                entry(&node, 9, 10);
            }
            names.len() == 6
        },
    );
    assert_eq!(names, ["at-5", "at-4", "at-2", "at-3", "at-9", "at-1"]);
}

fn prepare(node: &Node) {
    crate::spool::prepare_spool(&node.paths.spool).unwrap();
}

/// Counts parallel uploads.
struct Counting {
    inner: DirectoryStore,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    /// Duration of a bundle's upload.
    pause: Duration,
}

impl Store for Counting {
    cdh_testkit::forward_store!(inner: describe stat read_pinned list delete share);

    fn put(&self, key: &ObjectKey, body: &mut dyn Read, len: u64) -> Result<Receipt, StoreError> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        std::thread::sleep(self.pause);
        let put = self.inner.put(key, body, len);
        self.now.fetch_sub(1, Ordering::SeqCst);
        put
    }
}

#[test]
fn shipper_uploads_in_parallel_and_reserves_a_slot_for_small_dumps() {
    let node = Node::new();
    prepare(&node);
    for second in 1..=6 {
        entry(&node, second, 2 << 20);
    }
    let now = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let options = ShipperOptions {
        parallel: 3,
        ..ShipperOptions::default()
    };
    let mut small = false;
    let store = || -> Box<dyn Store> {
        Box::new(Counting {
            inner: node.store(),
            now: Arc::clone(&now),
            most: Arc::clone(&most),
            pause: Duration::from_millis(60),
        })
    };
    let names = ship(&node, options, &store, &mut |event, names| {
        if matches!(event, ShipperEvent::Shipped { .. }) && !small {
            small = true;
            entry(&node, 100, 10);
        }
        names.len() == 7
    });
    // Cores use two of the three upload slots.
    let place = names.iter().position(|name| name == "at-100").unwrap();
    assert!(place <= 4, "{names:?}");
    assert!((2..=3).contains(&most.load(Ordering::SeqCst)), "{most:?}");
    assert_eq!(node.dumps(), 7);
}

#[test]
fn shipper_honours_interval_and_off_plans() {
    let node = Node::new();
    prepare(&node);
    entry(&node, 1, 10);
    let options = ShipperOptions {
        plan: ShippingPlan::Interval(Duration::from_secs(3600)),
        haste: 7200,
        ..ShipperOptions::default()
    };
    let begun = Instant::now();
    let mut added = None;
    let mut shipped = None;
    ship(
        &node,
        options.clone(),
        &|| Box::new(node.store()),
        &mut |event, names| {
            if let (ShipperEvent::Shipped { .. }, 1) = (event, names.len()) {
                entry(&node, 2, 10);
                added = Some(begun.elapsed());
            }
            if names.len() == 2 {
                shipped = Some(begun.elapsed());
            }
            names.len() == 2
        },
    );
    // The first immediately, the second after an hour: half a second here. It is sealed during the
    // first shipment, which may include it.
    assert!(added.unwrap() < Duration::from_millis(450), "{added:?}");
    assert!(shipped.is_some());
    let mut passes = 0;
    let id = entry(&node, 3, 10);
    let off = ShipperOptions {
        plan: ShippingPlan::Off,
        ..options
    };
    let names = ship(&node, off, &|| Box::new(node.store()), &mut |event, _| {
        passes += u32::from(matches!(event, ShipperEvent::Pass));
        passes == 50
    });
    assert!(names.is_empty() && node.paths.spool.join(id.to_string()).exists());
    // A request for another dump does not ship this one; a request for this one does.
    let other = entry(&node, 4, 10);
    let off = ShipperOptions {
        plan: ShippingPlan::Off,
        haste: 100,
        ..ShipperOptions::default()
    };
    let paths = node.paths.clone();
    let asking = std::thread::spawn(move || {
        ask_to_ship(&paths, Some([other].into()), Duration::from_secs(20)).unwrap();
    });
    let names = ship(&node, off, &|| Box::new(node.store()), &mut |_, names| {
        !names.is_empty()
    });
    asking.join().unwrap();
    assert_eq!(names, ["at-4"]);
    // A manual sweep ships it anyway.
    assert_eq!(node.sweep().shipped, [id]);
}

#[test]
fn shipper_limits_the_total_bandwidth() {
    let node = Node::new();
    prepare(&node);
    for second in 1..=4 {
        entry(&node, second, 512 << 10);
    }
    let options = ShipperOptions {
        bandwidth: 2 << 20,
        parallel: 4,
        ..ShipperOptions::default()
    };
    let begun = Instant::now();
    ship(
        &node,
        options,
        &|| Box::new(node.store()),
        &mut |_, names| names.len() == 4,
    );
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(700), "{took:?}");
}

/// Hours without a store.
const HOURS: u64 = 24;
/// Speed-up of the clock: a day passes in twelve seconds.
const HASTE: u32 = 7200;
/// Simulated time between two crashes.
const BETWEEN: Duration = Duration::from_secs(360);
/// Quota of the spool.
const QUOTA: u64 = 64 << 20;

/// A crash with a core of this size, captured by a handler with a quota.
fn crash(node: &Node, name: &str, core: usize) {
    let mut limits = crate::policy::LimitsConfig::unlimited();
    limits.spool_quota = crate::policy::Size(QUOTA);
    let settings = HandlerSettings {
        spool: node.paths.spool.clone(),
        state: node.paths.state.clone(),
        limits,
        reserve: 4096,
        ..HandlerSettings::default()
    };
    let words = ["s11".to_owned(), "d1".to_owned(), format!("e{name}")];
    let arguments = HandlerArguments::parse(words.map(std::ffi::OsString::from));
    let mut stream = tempfile::tempfile().unwrap();
    // xorshift: incompressible bytes occupy their full size.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let bytes: Vec<u8> = (0..core / 8)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect();
    io::Write::write_all(&mut stream, &bytes).unwrap();
    io::Seek::rewind(&mut stream).unwrap();
    capture(&arguments, &settings, stream, HandlerLog::default()).unwrap();
}

#[test]
fn shipper_keeps_quota_and_order_during_a_day_without_a_store() {
    let node = Node::new();
    prepare(&node);
    let day = Duration::from_secs(HOURS * 3600) / HASTE;
    let begun = Instant::now();
    let (mut most, mut tries, mut crashes) = (0, 0_u32, 0_usize);
    let mut waiting = Vec::new();
    let store = std::cell::Cell::new(false);
    let open = || -> Result<Box<dyn Store>, StoreError> {
        match store.get() {
            true => Ok(Box::new(node.store())),
            false => Err(StoreError::Unreachable {
                place: "the store".to_owned(),
                problem: "no route".to_owned(),
            }),
        }
    };
    let (stop, stopper) = rustix::pipe::pipe().unwrap();
    let mut stopper = Some(stopper);
    let mut shipped = Vec::new();
    let options = ShipperOptions {
        haste: HASTE,
        ..ShipperOptions::default()
    };
    std::thread::scope(|scope| {
        let crashing = scope.spawn(|| {
            let mut number = 0;
            // A busy machine takes longer than the simulated day. Forty cores of 2 MB exceed the quota.
            while begun.elapsed() < day || number < 40 {
                number += 1;
                crash(
                    &node,
                    &format!("{number:04}"),
                    1_400_000 + number % 7 * 200_000,
                );
                std::thread::sleep(BETWEEN / HASTE);
            }
            number
        });
        let mut observer = |event: &ShipperEvent| match event {
            ShipperEvent::StoreFailed { .. } => tries += 1,
            ShipperEvent::Shipped { name, .. } => shipped.push(name.clone()),
            ShipperEvent::Pass => {
                most = most.max(crate::spool::used(&node.paths.spool).unwrap());
                let entries = || cdh_bundle::list_spool(&node.paths.spool).unwrap();
                if !store.get() && crashing.is_finished() {
                    waiting = entries().into_iter().map(|entry| entry.id).collect();
                    store.set(true);
                }
                if store.get() && entries().is_empty() {
                    stopper = None;
                }
            }
            _ => {}
        };
        run_until(stop.as_fd(), &node.paths, &open, options, &mut observer).unwrap();
        crashes = crashing.join().unwrap();
    });
    let dumps = Catalog::new(&node.store()).find(&Query::default()).unwrap();
    let whole = dumps
        .iter()
        .filter(|dump| dump.size.unwrap_or(0) > 1_000_000)
        .count();
    println!(
        "{HOURS} h, {crashes} crashes, {tries} tries, spool at most {most} of {QUOTA} bytes, \
         {} dumps delivered, {whole} of them with their cores",
        dumps.len()
    );
    assert!(crashes >= 40, "{crashes}");
    // Maximum one try per two minutes, and not a busy loop.
    assert!((200..2000).contains(&tries), "{tries}");
    // Facts and log of the dump that is being written come on top of its core.
    assert!(most <= QUOTA + (256 << 10), "{most}");
    assert_eq!(dumps.len(), waiting.len(), "all that the quota allowed");
    assert_eq!(shipped.len(), waiting.len());
    // The newest dumps kept their cores, and within each group the newest went first.
    let totals = Ledger::of(&node.paths.state).totals();
    assert_eq!(totals.crashes(), crashes as u64, "{totals:?}");
    let again = shipped.windows(2).filter(|two| two[0] < two[1]).count();
    assert!(again <= 1, "{shipped:?}");
    assert!(whole >= 15 && whole < crashes, "{whole}");
}
