//! Hands open files from a child process to its parent (`SCM_RIGHTS`, `unix(7)`).

#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// Maximum number of files in one message; the kernel takes 253 (`SCM_MAX_FD`).
pub(crate) const MOST: usize = 253;

/// Room for the control message, aligned as its header needs.
type Control = [u64; 160];

/// Sends the files, in their order.
///
/// # Errors
/// When there are more than [`MOST`], or the kernel does not take them.
pub(crate) fn send(socket: &UnixStream, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    if files.len() > MOST {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut control: Control = [0; 160];
    let mut byte = [1_u8];
    let mut part = part_of(&mut byte);
    let mut message = message(&mut part, &mut control);
    let bytes = u32::try_from(files.len() * size_of::<RawFd>()).map_err(io::Error::other)?;
    // SAFETY: the control buffer has room for a header and `MOST` numbers, and is aligned.
    unsafe {
        message.msg_controllen = libc::CMSG_SPACE(bytes) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if let (Some(header), false) = (header.as_mut(), files.is_empty()) {
            header.cmsg_level = libc::SOL_SOCKET;
            header.cmsg_type = libc::SCM_RIGHTS;
            header.cmsg_len = libc::CMSG_LEN(bytes) as _;
            let data = libc::CMSG_DATA(header).cast::<RawFd>();
            for (index, file) in files.iter().enumerate() {
                data.add(index).write_unaligned(file.as_raw_fd());
            }
        } else {
            message.msg_controllen = 0;
        }
        match libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) {
            1 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Receives what was sent, without waiting.
///
/// # Errors
/// When nothing was sent, or not everything arrived.
pub(crate) fn receive(socket: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut control: Control = [0; 160];
    let mut byte = [0_u8];
    let mut part = part_of(&mut byte);
    let mut message = message(&mut part, &mut control);
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    let mut files = Vec::new();
    // SAFETY: the kernel fills buffers of the sizes that the message states, and opens what it lists
    // for us alone.
    unsafe {
        if libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) != 1 {
            return Err(io::Error::last_os_error());
        }
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if let Some(found) = header.as_ref()
            && (found.cmsg_level, found.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS)
        {
            let bytes = found.cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize);
            let data = libc::CMSG_DATA(header).cast::<RawFd>();
            for index in 0..bytes / size_of::<RawFd>() {
                files.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
            }
        }
    }
    match message.msg_flags & libc::MSG_CTRUNC {
        0 => Ok(files),
        _ => Err(io::Error::other("no more descriptors")),
    }
}

fn part_of(byte: &mut [u8; 1]) -> libc::iovec {
    libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    }
}

fn message(part: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: all zero is a valid value of this structure.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of::<Control>() as _;
    message
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn files_arrive_in_their_order() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let files: Vec<_> = ["/proc/self/comm", "/dev/null"]
            .map(|path| File::open(path).unwrap())
            .into();
        let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        send(&theirs, &borrowed).unwrap();
        let mut found = receive(&ours).unwrap().into_iter().map(File::from);
        let mut text = String::new();
        found.next().unwrap().read_to_string(&mut text).unwrap();
        assert!(!text.is_empty() && found.next().is_some() && found.next().is_none());
        send(&theirs, &[]).unwrap();
        assert!(receive(&ours).unwrap().is_empty());
        assert!(receive(&ours).is_err(), "nothing was sent");
    }
}
