//! The shard's own io_uring: sockets, log writes and syncs of one core.
//!
//! There is one ring for each shard, made and driven by the shard's thread alone (`SINGLE_ISSUER`,
//! `DEFER_TASKRUN`: completions are posted only while this thread is inside `io_uring_enter`, so a
//! busy shard is never interrupted). Needs Linux 6.1.
//!
//! Receive buffers are *provided* to the kernel through a shared buffer ring: the kernel picks one
//! when octets have arrived, so an idle connection holds none. A filled buffer is moved out of the
//! ring as a [`ReceiveBuffer`], which returns itself when it is dropped.
//!
//! The ring owns the memory that the kernel reads while an operation is under way: what is sent or
//! written is passed to it by value, and returned with the completion.

use std::{
    io,
    os::fd::RawFd,
    ptr,
    rc::Rc,
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue, types};

use crate::{
    log::GroupBuffer,
    shard::core::{ReceiveBuffer, Returns},
};

/// Octets of one receive buffer.
///
/// All buffers of a ring together are as large as a second-level cache (2 MiB): what the kernel
/// copies in is then still near when it is scanned and copied on. CPU per message of 1 MiB, us:
/// 128 of 64 KiB 800, 32 of 64 KiB 700, 64 of 32 KiB 690, 128 of 16 KiB 640; messages of 4 KiB cost
/// the same with each.
pub(crate) const RECV_BUFFER_BYTES: usize = 16 * 1024;

/// Receive buffers of a shard; a power of two. Completions are handled before the next wait, so
/// this bounds how many connections can be readable within one turn without a re-arm.
const RECV_BUFFERS: u16 = 128;

const BUFFER_GROUP: u16 = 1;
const SUBMISSIONS: u32 = 1024;
/// The kernel keeps what overflows the queue. It is locked memory of an ordinary user's, 16 octets
/// each: sixteen shards start under the usual limit of 8 MiB with this length, not with the double.
const COMPLETIONS: u32 = 8 * 1024;

/// What the kernel said of one operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    /// The token the operation was submitted with.
    pub(crate) user_data: u64,
    /// A count, a descriptor, or a negated errno.
    pub(crate) result: i32,
    flags: u32,
}

impl Completion {
    /// Whether a multishot operation goes on.
    pub(crate) fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The receive buffer that was filled.
    pub(crate) fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }

    /// The result as the standard library has it.
    pub(crate) fn outcome(&self) -> io::Result<usize> {
        usize::try_from(self.result).map_err(|_| io::Error::from_raw_os_error(-self.result))
    }
}

/// See the module's page.
pub(crate) struct Ring {
    // Declared first, dropped first: the kernel lets go of the memory before it is freed.
    ring: IoUring,
    buffers: Buffers,
    /// What is being sent, by the place that the caller names.
    sending: Vec<Vec<u8>>,
    /// What is being written, by its token.
    writing: Vec<(u64, GroupBuffer)>,
    queued: usize,
    /// The kernel can wait without showing as iowait (6.15).
    no_iowait: bool,
}

impl Ring {
    /// Makes the ring on the calling thread, which becomes its only user.
    ///
    /// # Errors
    /// What the kernel says. `ENOMEM` (the locked-memory limit) is tried again for a second: the
    /// kernel gives the memory of a process that ended back a moment later.
    pub(crate) fn new() -> io::Result<Self> {
        let began = Instant::now();
        let ring = loop {
            let built = IoUring::builder()
                .setup_single_issuer()
                .setup_defer_taskrun()
                .setup_taskrun_flag()
                .setup_submit_all()
                .setup_cqsize(COMPLETIONS)
                .build(SUBMISSIONS);
            match built {
                Err(error)
                    if error.raw_os_error() == Some(libc::ENOMEM)
                        && began.elapsed() < Duration::from_secs(1) =>
                {
                    std::thread::sleep(Duration::from_millis(20));
                }
                built => break built?,
            }
        };
        let mut buffers = Buffers::new()?;
        // SAFETY: the mapping holds `RECV_BUFFERS` entries, is page aligned, and outlives the ring
        // (field order of `Ring`).
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                buffers.entries as u64,
                RECV_BUFFERS,
                BUFFER_GROUP,
                0,
            )?;
        }
        for id in 0..RECV_BUFFERS {
            buffers.provide(id);
        }
        let no_iowait = ring.params().is_feature_no_iowait();
        Ok(Self { ring, buffers, sending: Vec::new(), writing: Vec::new(), queued: 0, no_iowait })
    }

    /// Takes a filled receive buffer out of the ring.
    ///
    /// # Panics
    /// Where the kernel did not fill it: no completion names it, or it is lent already.
    pub(crate) fn lend(&mut self, buffer: u16, len: usize) -> ReceiveBuffer {
        let memory = self.buffers.memory[usize::from(buffer)].take();
        let memory = memory.expect("the kernel fills buffers that it was given");
        ReceiveBuffer::new(memory, len, buffer, self.buffers.returns.clone())
    }

    /// Multishot accept on a listener.
    pub(crate) fn accept(&mut self, listener: RawFd, user_data: u64) {
        let entry = opcode::AcceptMulti::new(types::Fd(listener))
            .flags(libc::SOCK_CLOEXEC)
            .build()
            .user_data(user_data);
        // SAFETY: no memory is named.
        unsafe { self.push(&entry) }
    }

    /// Multishot receive into the buffer ring.
    pub(crate) fn receive(&mut self, socket: RawFd, user_data: u64) {
        let entry =
            opcode::RecvMulti::new(types::Fd(socket), BUFFER_GROUP).build().user_data(user_data);
        // SAFETY: the buffers live as long as the ring.
        unsafe { self.push(&entry) }
    }

    /// Sends all of `octets`; the kernel goes on after a short send. [`Ring::sent`] of the same
    /// `place` is to be called with the completion, before the next send of that place.
    ///
    /// # Panics
    /// Where a send of this place is under way.
    pub(crate) fn send(&mut self, socket: RawFd, octets: Vec<u8>, place: u32, user_data: u64) {
        let place = place as usize;
        if self.sending.len() <= place {
            self.sending.resize_with(place + 1, Vec::new);
        }
        let sending = &mut self.sending[place];
        assert!(sending.is_empty() && !octets.is_empty(), "one send of a place at a time");
        *sending = octets;
        let len = u32::try_from(sending.len()).expect("unsent replies are bounded");
        let entry = opcode::Send::new(types::Fd(socket), sending.as_ptr(), len)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build()
            .user_data(user_data);
        // SAFETY: the octets lie on the heap, and the ring keeps them until the completion.
        unsafe { self.push(&entry) }
    }

    /// The octets of a send that has completed.
    pub(crate) fn sent(&mut self, place: u32) -> Vec<u8> {
        self.sending.get_mut(place as usize).map(std::mem::take).unwrap_or_default()
    }

    /// Writes a group at a position of a segment; with `then_sync` an fdatasync is linked to the
    /// write, which starts only after a complete write and is cancelled by a short one.
    /// [`Ring::written`] is to be called with the completion.
    pub(crate) fn write(
        &mut self,
        file: RawFd,
        position: u64,
        buffer: GroupBuffer,
        user_data: u64,
        then_sync: Option<u64>,
    ) {
        let len = u32::try_from(buffer.len()).expect("a group is smaller than 4 GiB");
        let mut entry = opcode::Write::new(types::Fd(file), buffer.octets().as_ptr(), len)
            .offset(position)
            .build()
            .user_data(user_data);
        self.writing.push((user_data, buffer));
        if then_sync.is_some() {
            // Both must go into one submission, or the link is cut.
            self.room_for(2);
            entry = entry.flags(squeue::Flags::IO_LINK);
        }
        // SAFETY: the octets lie on the heap, and the ring keeps them until the completion.
        unsafe { self.push(&entry) }
        if let Some(user_data) = then_sync {
            self.sync(file, user_data);
        }
    }

    /// The buffer of a write that has completed.
    pub(crate) fn written(&mut self, user_data: u64) -> Option<GroupBuffer> {
        let at = self.writing.iter().position(|(token, _)| *token == user_data)?;
        Some(self.writing.swap_remove(at).1)
    }

    /// An fdatasync.
    pub(crate) fn sync(&mut self, file: RawFd, user_data: u64) {
        let entry = opcode::Fsync::new(types::Fd(file))
            .flags(types::FsyncFlags::DATASYNC)
            .build()
            .user_data(user_data);
        // SAFETY: no memory is named.
        unsafe { self.push(&entry) }
    }

    /// Completes when the peer has reset the connection, or both sides are shut.
    pub(crate) fn hang_up(&mut self, socket: RawFd, user_data: u64) {
        // Errors and hang-ups are told whatever is asked for.
        let entry = opcode::PollAdd::new(types::Fd(socket), 0).build().user_data(user_data);
        // SAFETY: no memory is named.
        unsafe { self.push(&entry) }
    }

    /// Cancels the operation that was submitted with `target`.
    pub(crate) fn cancel(&mut self, target: u64, user_data: u64) {
        let entry = opcode::AsyncCancel::new(target).build().user_data(user_data);
        // SAFETY: no memory is named.
        unsafe { self.push(&entry) }
    }

    /// Completes, again and again, when something is written to an eventfd(2).
    pub(crate) fn watch_event(&mut self, event: RawFd, user_data: u64) {
        let entry = opcode::PollAdd::new(types::Fd(event), libc::POLLIN as u32)
            .multi(true)
            .build()
            .user_data(user_data);
        // SAFETY: no memory is named.
        unsafe { self.push(&entry) }
    }

    /// Submits what is queued and waits for a completion, at most `timeout`. `idle`: no operation of
    /// the disk is under way, so the wait does not count as one for it where the kernel can tell.
    ///
    /// # Errors
    /// What the kernel says, but for the time running out and signals.
    pub(crate) fn wait(&mut self, timeout: Duration, idle: bool) -> io::Result<()> {
        self.enter(1, timeout, idle)
    }

    /// As [`Ring::wait`], for `more` completions in addition to one for each queued operation: what
    /// is not needed at once is processed together.
    ///
    /// # Errors
    /// See [`Ring::wait`].
    pub(crate) fn wait_for(&mut self, more: usize, timeout: Duration) -> io::Result<()> {
        self.enter((self.queued + more).min(COMPLETIONS as usize / 2), timeout, false)
    }

    fn enter(&mut self, completions: usize, timeout: Duration, idle: bool) -> io::Result<()> {
        self.buffers.take_back();
        let timespec = types::Timespec::new().sec(timeout.as_secs()).nsec(timeout.subsec_nanos());
        let args = types::SubmitArgs::new().timespec(&timespec);
        let submitter = self.ring.submitter();
        let entered = if idle && self.no_iowait {
            let flags = EnterFlags::EXT_ARG | EnterFlags::GETEVENTS | EnterFlags::NO_IOWAIT;
            // SAFETY: the arguments are those of EXT_ARG, and live through the call.
            unsafe {
                submitter.enter(self.queued as u32, completions as u32, flags.bits(), Some(&args))
            }
        } else {
            submitter.submit_with_args(completions, &args)
        };
        match entered {
            Ok(_) => {}
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => {}
                _ => return Err(error),
            },
        }
        self.queued = self.ring.submission().len();
        Ok(())
    }

    /// Moves the completions at hand out of the ring.
    pub(crate) fn reap(&mut self, into: &mut Vec<Completion>) {
        into.extend(self.ring.completion().map(|entry| Completion {
            user_data: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        }));
    }

    fn room_for(&mut self, entries: usize) {
        while self.queued + entries > SUBMISSIONS as usize {
            // The submission queue is full: hand it over. Completions wait in their own queue,
            // which is 8 times as long. Receives among them need the buffers that came back.
            self.buffers.take_back();
            if let Err(error) = self.ring.submit() {
                assert!(
                    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)),
                    "the ring takes what it was made for: {error}"
                );
            }
            self.queued = self.ring.submission().len();
        }
    }

    /// # Safety
    /// Memory that the entry names stays valid until its completion.
    unsafe fn push(&mut self, entry: &squeue::Entry) {
        self.room_for(1);
        // SAFETY: the caller's promise.
        let pushed = unsafe { self.ring.submission().push(entry) };
        assert!(pushed.is_ok(), "room was made");
        self.queued += 1;
    }
}

/// The buffer ring: its entries, a mapping shared with the kernel, and the buffers.
struct Buffers {
    entries: *mut types::BufRingEntry,
    /// Those the kernel may fill; `None` while one is lent. Nobody looks into them here.
    memory: Vec<Option<Box<[u8]>>>,
    returns: Rc<Returns>,
    tail: u16,
}

const ENTRIES_BYTES: usize = RECV_BUFFERS as usize * size_of::<types::BufRingEntry>();
const _: () = assert!(RECV_BUFFERS.is_power_of_two());

impl Buffers {
    fn new() -> io::Result<Self> {
        let entries = map(ENTRIES_BYTES)?.cast();
        let memory = (0..RECV_BUFFERS).map(|_| Some(vec![0; RECV_BUFFER_BYTES].into())).collect();
        Ok(Self { entries, memory, returns: Rc::default(), tail: 0 })
    }

    /// Gives the kernel the buffers that are used no longer.
    fn take_back(&mut self) {
        let returns = self.returns.clone();
        returns.take(|number, memory| {
            self.memory[usize::from(number)] = Some(memory);
            self.provide(number);
        });
    }

    fn provide(&mut self, id: u16) {
        let Some(memory) = &mut self.memory[usize::from(id)] else { return };
        let slot = self.tail & (RECV_BUFFERS - 1);
        // SAFETY: `slot` is within the mapping; the kernel reads an entry only behind the tail,
        // which is published after it with release order.
        unsafe {
            let entry = &mut *self.entries.add(usize::from(slot));
            entry.set_addr(memory.as_mut_ptr() as u64);
            entry.set_len(RECV_BUFFER_BYTES as u32);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            let tail = types::BufRingEntry::tail(self.entries).cast_mut().cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and nobody refers to it: the ring was dropped
        // before (field order of `Ring`).
        unsafe {
            libc::munmap(self.entries.cast(), ENTRIES_BYTES);
        }
    }
}

fn map(bytes: usize) -> io::Result<*mut u8> {
    // SAFETY: a fresh anonymous mapping, no address asked for.
    let at = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at.cast()) }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        os::fd::{AsRawFd, FromRawFd, OwnedFd},
    };

    use super::*;

    fn next(ring: &mut Ring) -> Completion {
        let mut got = Vec::new();
        let began = Instant::now();
        while got.is_empty() && began.elapsed() < Duration::from_secs(5) {
            ring.wait(Duration::from_millis(100), false).unwrap();
            ring.reap(&mut got);
        }
        assert_eq!(got.len(), 1, "{got:?}");
        got[0]
    }

    #[test]
    fn octets_come_in_and_go_out() {
        let mut ring = Ring::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        ring.accept(listener.as_raw_fd(), 1);
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = next(&mut ring);
        assert!(accepted.more());
        let socket = accepted.result;
        ring.receive(socket, 2);
        for turn in 0..3 * usize::from(RECV_BUFFERS) {
            let line = format!("turn {turn}");
            client.write_all(line.as_bytes()).unwrap();
            let received = next(&mut ring);
            assert_eq!(received.user_data, 2);
            let buffer = received.buffer().unwrap();
            let octets = ring.lend(buffer, received.outcome().unwrap());
            assert_eq!(*octets, *line.as_bytes());
        }
        ring.send(socket, b"250 ok\r\n".to_vec(), 7, 3);
        assert_eq!(next(&mut ring).result, 8);
        assert_eq!(ring.sent(7), b"250 ok\r\n");
        let mut reply = [0; 8];
        client.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"250 ok\r\n");
    }

    /// A receive that is submitted ahead of the turn's end finds the buffers of that turn.
    #[test]
    fn buffers_are_given_back_before_each_submission() {
        let mut ring = Ring::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let mut lent = Vec::new();
        ring.receive(server.as_raw_fd(), 1);
        for _ in 0..RECV_BUFFERS {
            client.write_all(b"x").unwrap();
            lent.push(ring_lends(&mut ring));
        }
        client.write_all(b"y").unwrap();
        assert_eq!(next(&mut ring).result, -libc::ENOBUFS, "all of them are lent");
        lent.clear();
        ring.receive(server.as_raw_fd(), 1);
        // The submission queue is full with these.
        for _ in 0..SUBMISSIONS {
            ring.cancel(u64::MAX, 2);
        }
        let mut got = Vec::new();
        ring.wait(Duration::from_millis(100), false).unwrap();
        ring.reap(&mut got);
        let received = got.iter().find(|completion| completion.user_data == 1).unwrap();
        assert_eq!(received.result, 1, "one octet");
    }

    fn ring_lends(ring: &mut Ring) -> ReceiveBuffer {
        let received = next(ring);
        ring.lend(received.buffer().unwrap(), received.outcome().unwrap())
    }

    /// Each write to the eventfd wakes, also where the wait is to count as no wait for a disk.
    #[test]
    fn an_event_wakes_each_time() {
        let mut ring = Ring::new().unwrap();
        let probed = ring.no_iowait;
        // SAFETY: numbers only; a fresh descriptor is owned by nobody else.
        let event = unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_NONBLOCK)) };
        let mut event = std::fs::File::from(event);
        ring.watch_event(event.as_raw_fd(), 5);
        // What this kernel has, and the oldest way.
        for no_iowait in [probed, false, probed] {
            ring.no_iowait = no_iowait;
            event.write_all(&1_u64.to_ne_bytes()).unwrap();
            let mut got = Vec::new();
            let began = Instant::now();
            while got.is_empty() && began.elapsed() < Duration::from_secs(5) {
                ring.wait(Duration::from_millis(100), true).unwrap();
                ring.reap(&mut got);
            }
            assert!(got.iter().all(|got| got.user_data == 5 && got.more()), "{got:?}");
            assert_eq!(got.len(), 1);
        }
        let mut got = Vec::new();
        ring.wait(Duration::from_millis(20), true).unwrap();
        ring.reap(&mut got);
        assert!(got.is_empty(), "nobody wrote: {got:?}");
    }

    #[test]
    fn a_short_write_cancels_the_linked_sync() {
        let mut ring = Ring::new().unwrap();
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        ring.write(full.as_raw_fd(), 0, GroupBuffer::zeroed(4096), 1, Some(2));
        let mut got = Vec::new();
        while got.len() < 2 {
            ring.wait(Duration::from_millis(100), false).unwrap();
            ring.reap(&mut got);
        }
        let result = |user_data| got.iter().find(|c| c.user_data == user_data).unwrap().result;
        assert_eq!(result(1), -libc::ENOSPC);
        assert_eq!(result(2), -libc::ECANCELED);
        assert_eq!(ring.written(1).map(|buffer| buffer.len()), Some(4096));
        assert!(ring.written(1).is_none());
    }
}
