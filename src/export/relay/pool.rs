//! The connections to one server: a bounded number, kept open between messages.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep},
};

use super::{
    super::{ErrorClass, SinkError},
    link::{Link, Target},
};

/// After this long without a message a connection is closed: it occupies the server.
const IDLE_MAX: Duration = Duration::from_secs(15);

/// See the module's page. Export plane; shared by an exporter's lanes, which get their turn in the
/// order in which they ask.
pub(super) struct Pool {
    target: Target,
    room: Semaphore,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    links: Vec<Link>,
    /// A task watches them.
    watched: bool,
}

/// A link that may be used.
pub(super) struct Lent<'a> {
    pub(super) link: Link,
    /// It has served before, so that its server may have closed it meanwhile.
    pub(super) used: bool,
    _room: SemaphorePermit<'a>,
}

impl Pool {
    pub(super) fn new(target: Target, connections: usize) -> Self {
        let room = Semaphore::new(connections.clamp(1, 64));
        Self { target, room, idle: Mutex::default() }
    }

    /// Waits for room, then takes an open connection or makes one.
    ///
    /// # Errors
    /// No connection, or the server does not want us.
    pub(super) async fn lend(&self) -> Result<Lent<'_>, SinkError> {
        let room = self.room.acquire().await;
        let room = room.map_err(|_| SinkError::new(ErrorClass::Other, "the pool is closed"))?;
        while let Some(mut link) = self.pop() {
            if link.is_usable() {
                return Ok(Lent { link, used: true, _room: room });
            }
        }
        Ok(Lent { link: Link::open(&self.target).await?, used: false, _room: room })
    }

    /// Takes a connection back, for the next message.
    pub(super) fn give_back(self: &Arc<Self>, mut lent: Lent<'_>) {
        if !lent.link.is_usable() {
            tokio::spawn(lent.link.quit());
            return;
        }
        lent.link.idle_since = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.links.push(lent.link);
        if !std::mem::replace(&mut idle.watched, true) {
            tokio::spawn(watch(Arc::downgrade(self)));
        }
    }

    fn pop(&self) -> Option<Link> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).links.pop()
    }

    /// Those that have waited too long; `None` once there is nothing left to watch.
    fn take_old(&self) -> Option<Vec<Link>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let all = std::mem::take(&mut idle.links);
        let (old, young): (Vec<_>, _) =
            all.into_iter().partition(|link| link.idle_since.elapsed() >= IDLE_MAX);
        idle.links = young;
        if old.is_empty() && idle.links.is_empty() {
            idle.watched = false;
            return None;
        }
        Some(old)
    }
}

impl Drop for Pool {
    /// Says goodbye on each connection, as far as the runtime still runs.
    fn drop(&mut self) {
        let idle = self.idle.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Ok(runtime) = Handle::try_current() {
            for link in idle.links.drain(..) {
                runtime.spawn(link.quit());
            }
        }
    }
}

async fn watch(pool: Weak<Pool>) {
    loop {
        sleep(IDLE_MAX).await;
        let Some(old) = pool.upgrade().and_then(|pool| pool.take_old()) else { return };
        for link in old {
            link.quit().await;
        }
    }
}
