//! How quickly a crash is safe: from the signal to the hold on the memory, and to a minicore with its
//! raw backtrace on disk.
//!
//! The kernel's trace shows when the signal was sent, when the handler was executed and when it made
//! its first own system call; the handler's log counts from there.

use std::time::Duration;

use anyhow::{Context, Result};

use super::node::{Node, Way, median};
use super::trace::Events;

const EVENTS: [(&str, &str); 4] = [
    ("signal/signal_generate", "sig==11"),
    ("sched/sched_process_exec", "pid>0"),
    // A handler begins with setpriority, a receiver with what accept4 has given it.
    ("raw_syscalls/sys_enter", "id==141"),
    ("raw_syscalls/sys_exit", "id==288"),
];

/// Words of a crash, and how many milliseconds its minicore may take.
const CASES: [(&str, &[&str], f64); 4] = [
    ("1 thread", &["heap", "1"], 20.0),
    ("65 threads", &["threads", "64"], 20.0),
    ("3 GiB", &["heap", "3072"], 20.0),
    ("1,001 threads", &["threads", "1000"], 150.0),
];

pub(super) fn run(way: Way, runs: usize) -> Result<()> {
    let node = Node::start(way)?;
    let name = format!("cdh-bench-latency-{}", std::process::id());
    let events = Events::begin(&name, &EVENTS).context("the kernel's trace cannot be used")?;
    println!("medians (and worst) of {runs} crashes, milliseconds");
    println!(
        "{:<16} {:>18} {:>18} {:>18} {:>22}",
        "", "exec to hold", "begin to hold", "signal to hold", "signal to minicore"
    );
    for (name, words, limit) in CASES {
        let mut found: [Vec<f64>; 4] = Default::default();
        for _ in 0..runs {
            let mut child = node.ready(words, None)?;
            // What was written before is not this crash's to wait for.
            std::thread::sleep(Duration::from_millis(300));
            events.clear();
            drop(child.stdin.take());
            let pid = format!(" pid={} ", child.id());
            child.wait()?;
            let dump = node.take_one()?;
            let noted = |what: &str| dump.noted(what).with_context(|| dump.log.clone());
            let (held, on_disk) = (noted("memory held")?, noted("is on disk")?);
            let signal = events.first(&["signal_generate", &pid]);
            let signal = signal.context("the signal was not seen")?;
            let handler = node.bench.path("cdh-handler").display().to_string();
            let (exec, begin) = match way {
                Way::Pipe => (
                    events.first(&["process_exec", &handler]),
                    events.first(&["sys_enter: NR 141 ", "cdh-handler-"]),
                ),
                // It runs already.
                Way::Socket => {
                    let accepted = events.first(&["sys_exit: NR 288 ", "cdh-handler-"]);
                    (accepted, accepted)
                }
            };
            let exec = exec.context("the handler was not seen")?;
            let begin = begin.context("its beginning was not seen")?;
            let ms = |from: f64, to: f64| (to - from) * 1e3;
            for (list, value) in found.iter_mut().zip([
                ms(exec, begin) + held,
                held,
                ms(signal, begin) + held,
                ms(signal, begin) + on_disk,
            ]) {
                list.push(value);
            }
        }
        let shown = found.map(|values| {
            let worst = values.iter().copied().fold(0.0, f64::max);
            format!("{:.2} ({worst:.2})", median(&values))
        });
        let [exec, begin, signal, minicore] = shown;
        println!("{name:<16} {exec:>18} {begin:>18} {signal:>18} {minicore:>22}  of {limit}");
    }
    Ok(())
}
