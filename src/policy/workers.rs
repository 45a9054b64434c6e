//! The advisor's threads: they hash passwords, which takes tens of milliseconds and 19 MiB each.
//!
//! ```text
//!   shard --ask--> proven a moment ago? --yes--------------------------> answer
//!                         | no
//!                         +--> queue (full: "try again") --> thread: hash --> answer
//! ```
//!
//! The threads are few and yield to shards, whose cores they share if there are no others. So a
//! flood of guesses costs a bounded part of the machine, and a client that waits too long gets 454.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::{UsersError, UsersFile};
use crate::{
    policy::{Advisor, Answer, ClientAdvice, Judgement, MessageQuestion, Question, Ticket},
    smtp::ScramCredential,
    sys::random,
};

/// Questions that wait: at 25 ms each the last one is answered after three seconds by one thread.
const QUEUE: usize = 128;

/// Passwords that were right are believed this long without another hash: clients that connect for
/// each message come again soon.
const PROVEN: Duration = Duration::from_secs(60);

/// How many of them, of about 64 octets.
const PROVEN_MAX: usize = 1024;

/// Nice value of a thread that hashes: below all others.
const NICE: i32 = 10;

struct Job {
    users: Arc<UsersFile>,
    user: String,
    password: String,
    digest: Digest,
    ticket: Ticket,
}

/// See the module's page. Its threads end when it is dropped.
pub struct Workers {
    /// By the name of the listener.
    users: HashMap<String, Arc<UsersFile>>,
    queue: Sender<Job>,
    proven: Arc<Mutex<Proven>>,
    key: [u8; 32],
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers").field("users", &self.users).finish_non_exhaustive()
    }
}

impl Workers {
    /// Starts threads that know the users of these listeners.
    ///
    /// # Errors
    /// The system gives no threads, or no random numbers.
    pub fn start(
        users: impl IntoIterator<Item = (String, Arc<UsersFile>)>,
        threads: usize,
    ) -> io::Result<Self> {
        let (queue, jobs) = bounded(QUEUE);
        let proven = Arc::new(Mutex::new(Proven::default()));
        for number in 0..threads.max(1) {
            let (jobs, proven) = (jobs.clone(), proven.clone());
            thread::Builder::new()
                .name(format!("password-{number}"))
                .spawn(move || work(&jobs, &proven))?;
        }
        Ok(Self { users: users.into_iter().collect(), queue, proven, key: random()? })
    }

    /// Looks whether users files have changed; for each that did, how many users there are now, or
    /// why those so far stay. Reads files: not for a shard's thread.
    pub fn reload(&self) -> Vec<(PathBuf, Result<usize, UsersError>)> {
        let mut files: Vec<_> = self.users.values().collect();
        files.sort_by_key(|file| file.path());
        files.dedup_by_key(|file| file.path());
        let mut outcomes = Vec::new();
        for file in files {
            if let Some(outcome) = file.reload() {
                // Whoever was taken away has been right before.
                self.proven.lock().unwrap_or_else(PoisonError::into_inner).forget();
                outcomes.push((file.path().to_owned(), outcome));
            }
        }
        outcomes
    }

    /// Whether a listener's users, as they are in force, are any; `None`: it has no users file.
    pub fn has_users(&self, listener: &str) -> Option<bool> {
        Some(!self.users.get(listener)?.current().is_empty())
    }

    fn password(&self, listener: &str, user: String, password: String, ticket: Ticket) {
        let Some(users) = self.users.get(listener) else {
            ticket.answer(Answer::Password(None));
            return;
        };
        let digest = self.digest(users, &user, &password);
        // A shard waits for no lock: if it is taken the password is hashed once more.
        if self.proven.try_lock().is_ok_and(|proven| proven.has(&digest)) {
            ticket.answer(Answer::Password(Some(true)));
            return;
        }
        let job = Job { users: users.clone(), user, password, digest, ticket };
        if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) =
            self.queue.try_send(job)
        {
            job.ticket.answer(Answer::Password(None));
        }
    }

    /// By which a pair is remembered: it says nothing of the password without the key, which this
    /// process alone has.
    fn digest(&self, users: &Arc<UsersFile>, user: &str, password: &str) -> Digest {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("of any length");
        mac.update(&(Arc::as_ptr(users) as usize).to_ne_bytes());
        mac.update(&user.len().to_ne_bytes());
        mac.update(user.as_bytes());
        mac.update(password.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

impl Advisor for Workers {
    fn ask(&self, question: Question, ticket: Ticket) {
        match question {
            Question::Password { listener, user, password } => {
                self.password(&listener, user, password, ticket);
            }
            Question::Client { .. } => ticket.answer(Answer::Client(ClientAdvice::default())),
            Question::Message(message) => {
                MessageQuestion::answer(message.number, ticket, Judgement::Accept);
            }
        }
    }

    fn credential(&self, listener: &str, user: &str) -> Option<ScramCredential> {
        Some(self.users.get(listener)?.current().credential(user))
    }
}

fn work(jobs: &Receiver<Job>, proven: &Mutex<Proven>) {
    crate::sys::lower_priority(NICE);
    let lock = || proven.lock().unwrap_or_else(PoisonError::into_inner);
    while let Ok(Job { users, user, password, digest, ticket }) = jobs.recv() {
        let edition = lock().edition;
        let known = users.current().verify(&user, &password);
        if known {
            lock().insert(digest, edition);
        }
        ticket.answer(Answer::Password(Some(known)));
    }
}

type Digest = [u8; 32];

/// Pairs of user and password that were right a moment ago.
#[derive(Default)]
struct Proven {
    until: HashMap<Digest, Instant>,
    /// How often users files have changed.
    edition: u64,
}

impl Proven {
    fn has(&self, digest: &Digest) -> bool {
        self.until.get(digest).is_some_and(|until| Instant::now() < *until)
    }

    /// Unless the users have changed since they were asked.
    fn insert(&mut self, digest: Digest, edition: u64) {
        if edition != self.edition {
            return;
        }
        let now = Instant::now();
        if self.until.len() >= PROVEN_MAX {
            self.until.retain(|_, until| now < *until);
        }
        if self.until.len() < PROVEN_MAX {
            self.until.insert(digest, now + PROVEN);
        }
    }

    fn forget(&mut self) {
        self.edition += 1;
        self.until.clear();
    }
}

#[cfg(test)]
mod tests {
    use argon2::Params;

    use super::{super::users_edit::line_of, *};
    use crate::policy::advisor::test_ticket;

    fn users(dir: &tempfile::TempDir, password: &str) -> Arc<UsersFile> {
        let path = dir.path().join("users");
        let params = Params::new(64, 1, 1, Some(32)).unwrap();
        std::fs::write(&path, line_of("tim", password, &params, 4096).unwrap()).unwrap();
        Arc::new(UsersFile::open(&path).unwrap())
    }

    fn ask(workers: &Workers, user: &str, password: &str) -> Option<bool> {
        let (ticket, answer) = test_ticket();
        let question = Question::Password {
            listener: "mx".into(),
            user: user.into(),
            password: password.into(),
        };
        workers.ask(question, ticket);
        match answer.recv_timeout(Duration::from_secs(20)).unwrap() {
            Answer::Password(known) => known,
            answer => panic!("{answer:?}"),
        }
    }

    #[test]
    fn a_password_is_right_or_not_and_forgotten_when_the_file_changes() {
        let dir = tempfile::tempdir().unwrap();
        let file = users(&dir, "tanstaaf");
        let workers = Workers::start([("mx".to_owned(), file)], 1).unwrap();
        assert_eq!(ask(&workers, "tim", "guess"), Some(false));
        assert_eq!(ask(&workers, "nobody", "tanstaaf"), Some(false));
        assert!(workers.proven.lock().unwrap().until.is_empty(), "failures are not remembered");
        assert_eq!(ask(&workers, "tim", "tanstaaf"), Some(true));
        assert_eq!(workers.proven.lock().unwrap().until.len(), 1);
        assert_eq!(ask(&workers, "tim", "tanstaaf"), Some(true));
        // The other's name runs into the password: still another pair.
        assert_eq!(ask(&workers, "timt", "anstaaf"), Some(false));
        users(&dir, "other");
        assert_eq!(workers.reload().len(), 1);
        assert_eq!(ask(&workers, "tim", "tanstaaf"), Some(false));
        assert_eq!(ask(&workers, "tim", "other"), Some(true));
        assert!(workers.reload().is_empty());
        assert!(workers.credential("mx", "tim").is_some());
        assert!(workers.credential("other", "tim").is_none());
        assert_eq!((workers.has_users("mx"), workers.has_users("other")), (Some(true), None));
    }

    /// What was found out before the file changed is not remembered after it.
    #[test]
    fn a_late_success_is_not_remembered() {
        let mut proven = Proven::default();
        let before = proven.edition;
        proven.forget();
        proven.insert([1; 32], before);
        assert!(!proven.has(&[1; 32]));
        for number in 0..2_000_u32 {
            let mut digest = [0; 32];
            digest[..4].copy_from_slice(&number.to_ne_bytes());
            proven.insert(digest, proven.edition);
        }
        assert_eq!(proven.until.len(), PROVEN_MAX);
    }

    #[test]
    fn a_full_queue_says_try_again() {
        let dir = tempfile::tempdir().unwrap();
        let workers = Workers::start([("mx".to_owned(), users(&dir, "x"))], 1).unwrap();
        // Nobody takes anything out of this one.
        let (queue, _jobs) = bounded(0);
        let workers = Workers { queue, ..workers };
        assert_eq!(ask(&workers, "tim", "x"), None);
    }
}
