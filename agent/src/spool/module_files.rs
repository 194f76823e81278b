//! Passes the open files of a process's modules from its handler to the shipper while the process
//! is held.
//!
//! ```text
//! <spool>/.modules     a socket; exists while a shipper that stores modules runs
//! ```
//! The files of a short-lived container disappear with its process, often before the shipper hears
//! of the dump. The handler therefore opens the files and passes the descriptors. An open file can
//! be read after its mount and its directory entry are gone. Descriptors in the socket's queue
//! outlive the handler. Invariant: neither side waits for the other.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use cdh_bundle::DumpId;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind,
    connect, listen, recvmsg, sendmsg, socket_with,
};
use serde::{Deserialize, Serialize};

/// Name of the socket in the spool.
const NAME: &str = ".modules";
/// Descriptors in one message; the kernel's limit is 253 (`SCM_MAX_FD`).
const PER_MESSAGE: usize = 128;
/// Maximum files of one process. The first ones are the program and the libraries it was linked
/// with.
const PER_PROCESS: usize = 512;
/// Maximum different files that the shipper holds: a storm of crashes must not use up all
/// descriptors.
const HELD: usize = 256;
/// Maximum handlers in the accept queue; lower if `net.core.somaxconn` is lower.
const BACKLOG: i32 = 4096;
/// Maximum length of a message; each file takes less than 64 bytes of it.
const MESSAGE: usize = 16 << 10;
/// How long the shipper waits for a connected handler: a stopped handler must not block uploads.
const PATIENCE: Duration = Duration::from_millis(200);
/// `FUSE_SUPER_MAGIC` in `linux/magic.h`.
const FUSE: i64 = 0x6573_5546;

/// The data that accompanies the descriptors of a message.
#[derive(Serialize, Deserialize)]
struct Message {
    id: DumpId,
    /// For each descriptor: lowest address of its module, device and inode.
    files: Vec<(u64, u64, u64)>,
}

/// The handler's side.
pub(crate) struct ModuleFilesSender {
    socket: OwnedFd,
    id: DumpId,
}

impl AsFd for ModuleFilesSender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl ModuleFilesSender {
    /// Connects to the shipper; `None` if no shipper wants the files of dump `id`.
    pub(crate) fn connect(spool: &Path, id: DumpId) -> Option<Self> {
        if !spool.join(NAME).exists() {
            return None;
        }
        let socket = socket().ok()?;
        at(spool, |address| connect(&socket, address)).ok()?;
        Some(Self { socket, id })
    }

    /// Passes files, each with the lowest address of its module. The caller must limit the time:
    /// `fstat` may block on a network file system.
    ///
    /// # Errors
    /// Fails if the shipper is gone or its queue is full.
    pub(crate) fn send(&self, files: impl Iterator<Item = (u64, File)>) -> io::Result<usize> {
        let files: Vec<_> = files
            .filter(|(_, file)| can_be_held(file))
            .take(PER_PROCESS)
            .collect();
        for some in files.chunks(PER_MESSAGE) {
            let known = some.iter().map(|(start, file)| {
                let metadata = file.metadata()?;
                Ok((*start, metadata.dev(), metadata.ino()))
            });
            let message = Message {
                id: self.id,
                files: known.collect::<io::Result<_>>()?,
            };
            let message = serde_json::to_vec(&message)?;
            let descriptors: Vec<_> = some.iter().map(|(_, file)| file.as_fd()).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PER_MESSAGE))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
            let data = [IoSlice::new(&message)];
            sendmsg(&self.socket, &data, &mut ancillary, SendFlags::NOSIGNAL)?;
        }
        Ok(files.len())
    }
}

/// Accepts regular files only: reading others could block or have side effects. Refuses FUSE
/// mounts: their server belongs to the container, may never answer the shipper, and disappears with
/// the container.
fn can_be_held(file: &File) -> bool {
    let is_fuse = rustix::fs::fstatfs(file).map_or(true, |found| found.f_type == FUSE);
    !is_fuse && file.metadata().is_ok_and(|metadata| metadata.is_file())
}

/// The shipper's socket; its path is removed on drop.
struct Offered {
    socket: OwnedFd,
    path: PathBuf,
}

impl Drop for Offered {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The shipper's side: the files that it holds until their dumps have left the spool.
#[derive(Default)]
pub(crate) struct ModuleFiles {
    socket: Option<Offered>,
    /// By device and inode, because many processes share one libc.
    files: BTreeMap<(u64, u64), Rc<File>>,
    /// By dump and lowest address of the module.
    modules: BTreeMap<DumpId, BTreeMap<u64, Rc<File>>>,
}

impl ModuleFiles {
    /// Opens the socket for handlers. If that fails, only files that still exist can be stored.
    pub(crate) fn offer(spool: &Path) -> Self {
        let offer = || -> io::Result<Offered> {
            Self::withdraw(spool);
            let (socket, path) = (socket()?, spool.join(NAME));
            at(spool, |address| bind(&socket, address))?;
            let offered = Offered { socket, path };
            fs::set_permissions(&offered.path, PermissionsExt::from_mode(0o600))?;
            listen(&offered.socket, BACKLOG)?;
            Ok(offered)
        };
        Self {
            socket: offer().ok(),
            ..Self::default()
        }
    }

    /// Removes the socket of an agent that was killed, so that handlers do not open files in vain.
    pub(crate) fn withdraw(spool: &Path) {
        let _ = fs::remove_file(spool.join(NAME));
    }

    /// Closes files of dumps that `is_there` does not know, and receives new files from handlers.
    pub(crate) fn update(&mut self, is_there: impl Fn(&DumpId) -> bool) {
        // In this order: files received now may belong to a dump that came after the caller's scan.
        self.modules.retain(|id, _| is_there(id));
        self.files.retain(|_, file| Rc::strong_count(file) > 1);
        self.receive();
    }

    /// Receives files from handlers.
    pub(crate) fn receive(&mut self) {
        while let Some(offered) = &self.socket
            && let Ok(handler) = accept_with(&offered.socket, SocketFlags::CLOEXEC)
        {
            let _ = set_socket_timeout(&handler, Timeout::Recv, Some(PATIENCE));
            while let Ok(Some((message, files))) = receive(&handler) {
                self.hold(message, files);
            }
        }
    }

    fn hold(&mut self, message: Message, files: Vec<OwnedFd>) {
        for ((start, device, inode), file) in message.files.into_iter().zip(files) {
            let key = (device, inode);
            if self.files.len() >= HELD && !self.files.contains_key(&key) {
                continue;
            }
            let held = self.files.entry(key);
            let held = held.or_insert_with(|| Rc::new(File::from(file)));
            let modules = self.modules.entry(message.id).or_default();
            modules.insert(start, Rc::clone(held));
        }
    }

    /// The file of a dump's module, if its handler has passed it.
    pub(crate) fn get(&self, id: DumpId, start: u64) -> Option<&File> {
        self.modules.get(&id)?.get(&start).map(Rc::as_ref)
    }
}

fn socket() -> io::Result<OwnedFd> {
    // SEQPACKET preserves message boundaries and reports that the handler closed its end.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

/// Passes the address of the socket in `spool` to `using`. The address goes through `/proc/self/fd`,
/// because the path of the spool may be too long for one.
fn at(
    spool: &Path,
    using: impl FnOnce(&SocketAddrUnix) -> rustix::io::Result<()>,
) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let spool = openat(CWD, spool, flags, Mode::empty())?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&spool);
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{number}/{NAME}"))?;
    Ok(using(&address)?)
}

/// The next message; `None` at the end.
fn receive(handler: &OwnedFd) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PER_MESSAGE))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut data = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(handler, &mut data, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let files = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => files.collect(),
        _ => Vec::new(),
    });
    let files = files.collect();
    match bytes.get(..received.bytes) {
        None | Some([]) => Ok(None),
        Some(message) => Ok(Some((serde_json::from_slice(message)?, files))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    /// A deleted, still open file with this text.
    fn deleted(directory: &Path, text: &str) -> File {
        let path = directory.join("deleted");
        fs::write(&path, text).unwrap();
        let file = File::open(&path).unwrap();
        fs::remove_file(path).unwrap();
        file
    }

    fn text_of(file: &File) -> String {
        let mut bytes = [0; 64];
        let count = file.read_at(&mut bytes, 0).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    #[test]
    fn module_files_are_held_until_the_dump_leaves_the_spool() {
        let directory = tempfile::tempdir().unwrap();
        // Longer than a socket address can be.
        let spool = directory.path().join("s".repeat(120));
        fs::create_dir(&spool).unwrap();
        let [first, second] = [(); 2].map(|()| DumpId::random());
        assert!(ModuleFilesSender::connect(&spool, first).is_none());
        let mut held = ModuleFiles::offer(&spool);
        let program = deleted(directory.path(), "program");
        for id in [first, second] {
            let sender = ModuleFilesSender::connect(&spool, id).unwrap();
            let other = deleted(directory.path(), &id.to_string());
            let files = [(0x1000, program.try_clone().unwrap()), (0x2000, other)];
            assert_eq!(sender.send(files.into_iter()).unwrap(), 2);
        }
        held.receive();
        assert_eq!(text_of(held.get(first, 0x1000).unwrap()), "program");
        assert_eq!(
            text_of(held.get(second, 0x2000).unwrap()),
            second.to_string()
        );
        assert!(held.get(first, 0x3000).is_none());
        assert_eq!(held.files.len(), 3);
        held.update(|id| *id == second);
        assert!(held.get(first, 0x1000).is_none());
        assert!(held.get(second, 0x1000).is_some());
        held.update(|_| false);
        held.update(|_| false);
        assert!(held.files.is_empty());
        drop(held);
        assert_eq!(fs::read_dir(&spool).unwrap().count(), 0);
        assert!(ModuleFilesSender::connect(&spool, first).is_none());
    }

    #[test]
    fn module_files_of_a_process_with_many_modules_arrive_in_order() {
        let spool = tempfile::tempdir().unwrap();
        let mut held = ModuleFiles::offer(spool.path());
        let id = DumpId::random();
        let sender = ModuleFilesSender::connect(spool.path(), id).unwrap();
        let count = PER_MESSAGE as u64 + 7;
        let files = (0..count).map(|start| (start, deleted(spool.path(), &start.to_string())));
        let files: Vec<_> = files.collect();
        assert_eq!(sender.send(files.into_iter()).unwrap() as u64, count);
        held.receive();
        for start in [0, 1, count - 1] {
            assert_eq!(text_of(held.get(id, start).unwrap()), start.to_string());
        }
    }

    #[test]
    fn module_files_are_bounded_and_only_regular() {
        let spool = tempfile::tempdir().unwrap();
        let mut held = ModuleFiles::offer(spool.path());
        for _ in 0..HELD / 100 + 1 {
            let id = DumpId::random();
            let sender = ModuleFilesSender::connect(spool.path(), id).unwrap();
            let device = (9_999, File::open("/dev/null").unwrap());
            let files = (0..100).map(|start| (start, deleted(spool.path(), "x")));
            let sent = sender.send(files.chain([device])).unwrap();
            assert_eq!(sent, 100);
        }
        held.receive();
        assert_eq!(held.files.len(), HELD);
    }

    #[test]
    fn module_files_silent_handler_does_not_block_the_shipper() {
        let spool = tempfile::tempdir().unwrap();
        let mut held = ModuleFiles::offer(spool.path());
        let ids = [(); 2].map(|()| DumpId::random());
        let silent = ModuleFilesSender::connect(spool.path(), ids[0]).unwrap();
        let sender = ModuleFilesSender::connect(spool.path(), ids[1]).unwrap();
        let file = deleted(spool.path(), "x");
        sender.send([(1, file)].into_iter()).unwrap();
        held.receive();
        assert!(held.get(ids[1], 1).is_some());
        // The shipper closed its end.
        let error = silent.send([(1, File::open("/proc/self/exe").unwrap())].into_iter());
        assert!(error.is_err());
    }
}
