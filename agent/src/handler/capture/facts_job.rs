//! The facts of `/proc` and the mappings, read by a child process.
//!
//! `maps`, `cmdline` and `environ` wait for a lock of the process's memory, which another process of the
//! same user can hold for as long as its file server is silent; and redaction works through what a
//! stranger wrote. Neither may delay the capture, so the handler reads none of this itself. Files in
//! memory that the process has mapped are opened here, too, and handed over: they say where their holes
//! are. Where the child does not answer in time, the facts are those that need no memory.
//!
//! It answers twice: at once with the mappings, without which no minicore is taken, and with all the rest
//! while the handler takes the minicore.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use cdh_bundle::{Gap, RawText};
use serde::{Deserialize, Serialize};

use crate::handler::memory::process_memory::SharedFile;
use crate::handler::os::descriptors;
use crate::handler::os::isolated::{self, FirstAnswer, IsolatedError, Running};
use crate::handler::process::cgroups;
use crate::handler::process::file_systems::FileSystems;
use crate::handler::process::handles::ProcessHandles;
use crate::handler::process::maps::{Kind, Maps, parse_maps};
use crate::handler::process::proc_facts::{ProcFacts, Scope};
use crate::handler::record::gap::gap;
use crate::handler::startup::settings::HandlerSettings;
use crate::policy::PolicyConfig;

/// How long the child may take for each answer.
const LIMIT: Duration = Duration::from_secs(2);
/// Descriptors that are looked at for a userfaultfd.
const DESCRIPTORS: usize = 65_536;

/// A file system whose files are not asked for pages.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct ForeignDevice {
    device: (u32, u32),
    name: String,
}

/// Addresses of a mapping whose file was handed over.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct SharedRange {
    start: u64,
    end: u64,
    offset: u64,
}

/// The first answer.
#[derive(Serialize, Deserialize)]
struct Mappings {
    /// `maps`, or why it cannot be read.
    text: Result<RawText, String>,
    foreign: Vec<ForeignDevice>,
}

/// The second answer.
#[derive(Serialize, Deserialize)]
struct Answer {
    facts: ProcFacts,
    gaps: Vec<Gap>,
    shared: Vec<SharedRange>,
    uses_userfaultfd: bool,
}

/// What the child found out about the process: first the mappings, then the rest.
pub(crate) struct ProcessView {
    pub facts: ProcFacts,
    pub gaps: Vec<Gap>,
    /// The mappings, or why they are not known.
    pub maps: Result<Maps, String>,
    /// Files in memory that are mapped.
    pub shared: Vec<SharedFile>,
    /// Types of the file systems of [`Kind::Foreign`] mappings.
    pub foreign: String,
    /// It provides pages of its memory itself.
    pub uses_userfaultfd: bool,
}

/// A child that reads the facts.
pub(crate) struct FactsJob {
    started: Result<(FirstAnswer<Mappings>, Running<Answer>), IsolatedError>,
    socket: Option<UnixStream>,
}

/// A child that has sent the mappings and reads the rest.
pub(crate) struct RestJob {
    running: Result<Running<Answer>, IsolatedError>,
    socket: Option<UnixStream>,
}

impl FactsJob {
    /// Starts it. `cgroup` was read earlier, because a killed process leaves its cgroup within
    /// milliseconds.
    pub(crate) fn start(
        process: &ProcessHandles,
        cgroup: Option<RawText>,
        settings: &HandlerSettings,
    ) -> Self {
        let (ours, theirs) = UnixStream::pair().ok().unzip();
        let mut keep: Vec<BorrowedFd<'_>> = process.directories().collect();
        keep.extend(theirs.as_ref().map(AsFd::as_fd));
        let first = || read_mappings(process);
        let rest = |maps: Maps| {
            // The handler itself has not entered it yet: it has no time to lose.
            if let Some(limits) = &settings.limits.cgroup {
                let _ = cgroups::enter(limits);
            }
            answer(process, cgroup, &settings.policy, &maps, theirs.as_ref())
        };
        Self {
            started: isolated::start_in_two(&keep, first, rest),
            socket: ours,
        }
    }

    /// Waits for the mappings. The rest of the view is empty until [`RestJob::finish`].
    pub(crate) fn mappings(self) -> (ProcessView, RestJob) {
        let told = self
            .started
            .and_then(|(first, running)| Ok((first.receive(LIMIT)?, running)));
        let mut view = ProcessView {
            facts: ProcFacts::default(),
            gaps: Vec::new(),
            maps: Err(String::new()),
            shared: Vec::new(),
            foreign: String::new(),
            uses_userfaultfd: false,
        };
        let running = match told {
            Ok((Mappings { text, foreign }, running)) => {
                let names: Vec<&str> = foreign.iter().map(|one| one.name.as_str()).collect();
                view.foreign = names.join(", ");
                view.maps = maps_of(&text, &mut |device| {
                    !foreign.iter().any(|foreign| foreign.device == device)
                });
                match text {
                    Ok(text) => view.facts.maps = Some(text),
                    Err(why) => view.gaps.push(Gap {
                        what: "/proc/<pid>/maps".to_owned(),
                        why,
                    }),
                }
                Ok(running)
            }
            // One that waits for the process's memory is not waited for a second time.
            Err(error) => {
                view.maps = Err(format!("its mappings are not known: {error}"));
                Err(error)
            }
        };
        let rest = RestJob {
            running,
            socket: self.socket,
        };
        (view, rest)
    }
}

impl RestJob {
    /// Waits for the rest and puts it into the view. Where the child found nothing, the facts are those
    /// that need no memory.
    pub(crate) fn finish(
        self,
        view: &mut ProcessView,
        process: &ProcessHandles,
        cgroup: Option<RawText>,
        policy: &PolicyConfig,
    ) {
        let maps = view.facts.maps.take();
        match self.running.and_then(|running| running.finish(LIMIT)) {
            Ok(answer) => {
                let files = self
                    .socket
                    .and_then(|socket| descriptors::receive(&socket).ok());
                let shared = answer.shared.iter().zip(files.unwrap_or_default());
                let shared = shared.map(|(range, file)| SharedFile {
                    addresses: range.start..range.end,
                    offset: range.offset,
                    file: File::from(file),
                });
                view.shared = shared.collect();
                view.uses_userfaultfd = answer.uses_userfaultfd;
                view.facts = answer.facts;
                view.gaps.extend(answer.gaps);
            }
            Err(error) => {
                let (facts, gaps) = ProcFacts::read(process, cgroup, policy, Scope::WithoutMemory);
                view.facts = facts;
                view.gaps.extend(gaps);
                view.gaps.push(gap("facts of the process's memory", &error));
                // Whether it provides pages itself is not known either.
                view.maps = Err(format!("its mappings are not known: {error}"));
            }
        }
        view.facts.maps = maps;
    }
}

/// The child's first work: the mappings, and those of foreign file systems among them.
fn read_mappings(process: &ProcessHandles) -> (Mappings, Maps) {
    let text = process.read("maps");
    let text = text.map(RawText::new).map_err(|error| error.to_string());
    let mut file_systems = None;
    let maps = maps_of(&text, &mut |device| {
        let known = file_systems.get_or_insert_with(|| FileSystems::of(process));
        known.is_local(device)
    });
    let maps = maps.unwrap_or_default();
    let foreign = maps.foreign.iter().map(|&device| ForeignDevice {
        device,
        name: file_systems
            .as_ref()
            .map_or("", |known| known.name(device))
            .to_owned(),
    });
    let foreign = foreign.collect();
    (Mappings { text, foreign }, maps)
}

/// The rest of the child's work.
fn answer(
    process: &ProcessHandles,
    cgroup: Option<RawText>,
    policy: &PolicyConfig,
    maps: &Maps,
    socket: Option<&UnixStream>,
) -> Answer {
    let (facts, gaps) = ProcFacts::read(process, cgroup, policy, Scope::AllButMaps);
    let mut shared = Vec::new();
    let mut files = Vec::new();
    let mut uses_userfaultfd = false;
    let ranges = maps
        .ranges
        .iter()
        .filter(|range| range.kind == Kind::Shared);
    for range in ranges.take(descriptors::MOST) {
        let (start, end) = (range.addresses.start, range.addresses.end);
        if let Some(file) = process.open_mapped_file(start, end) {
            shared.push(SharedRange {
                start,
                end,
                offset: range.offset,
            });
            files.push(file);
        }
    }
    // Reading a page that a stranger's userfaultfd has to provide would wait for the stranger.
    if maps.ranges.iter().any(|range| range.kind == Kind::Shared) {
        uses_userfaultfd = process.has_descriptor("anon_inode:[userfaultfd]", DESCRIPTORS);
    }
    let files: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
    if socket.is_none_or(|socket| descriptors::send(socket, &files).is_err()) {
        shared.clear();
    }
    Answer {
        facts,
        gaps,
        shared,
        uses_userfaultfd,
    }
}

fn maps_of(
    text: &Result<RawText, String>,
    is_local: &mut dyn FnMut((u32, u32)) -> bool,
) -> Result<Maps, String> {
    let text = text
        .as_ref()
        .map_err(|error| format!("cannot read `maps`: {error}"))?;
    let maps = parse_maps(&mut text.as_bytes(), is_local)
        .map_err(|error| format!("cannot read `maps`: {error}"))?;
    match maps.ranges.is_empty() {
        true => Err("`maps` is empty".to_owned()),
        false => Ok(maps),
    }
}
