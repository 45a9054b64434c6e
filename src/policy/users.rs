//! The users file: who may authenticate, and what is stored of each password.
//!
//! ```text
//! # A comment. Empty lines are allowed.
//! !decoy:BASE64
//! NAME:$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH:SCRAM-SHA-256$ITERATIONS:SALT$STORED:SERVER
//! ```
//!
//! Passwords are hashed as SASLprep (RFC 4013) leaves them; see [`Users::verify`] for others.
//!
//! | field | what it is | who needs it |
//! |---|---|---|
//! | name | letters, digits, `. _ + - @`; begins with a letter or a digit; case matters | all |
//! | argon2id | PHC string of the password | PLAIN, LOGIN |
//! | SCRAM | credential of RFC 5802 §3, in the notation of RFC 5803; may be absent | SCRAM |
//! | `!decoy` | secret from which the salts of unknown users are made | SCRAM |
//!
//! An unknown name costs the same work and looks the same as a known one: its password is hashed
//! against a dummy, and its salt is made from the decoy, which several servers share by sharing the
//! file.

use std::{
    collections::HashMap,
    fmt, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use argon2::{Algorithm, Argon2, Params, Version, password_hash::PasswordHash};
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::saslprep;
use crate::{smtp::ScramCredential, sys::random};

/// Rounds of PBKDF2 for SCRAM: a tenth of OWASP's number, since it is the client that pays for them
/// at each login; sixteen times what RFC 7677 §4 asks for.
pub(super) const SCRAM_ITERATIONS: u32 = 65_536;

/// Octets of a salt that is made here.
pub(super) const SALT_BYTES: usize = 16;

/// Most memory that a hash of the file may ask for, in KiB, most passes, most lanes: a line of the
/// file is not to take the server down.
const ARGON2_MAX: (u32, u32, u32) = (256 * 1024, 20, 16);

/// Longest name, as SASL has it.
const NAME_BYTES_MAX: usize = 255;

/// Why a users file cannot be used.
#[derive(Debug)]
pub struct UsersError {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1; 0: the file as a whole.
    pub line: usize,
    /// What is wrong. Never holds a secret.
    pub message: String,
}

impl fmt::Display for UsersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path.display(), self.message),
            line => write!(f, "{}:{line}: {}", self.path.display(), self.message),
        }
    }
}

impl std::error::Error for UsersError {}

/// OWASP's parameters for Argon2id: 19 MiB, two passes, one lane.
pub(super) fn owasp() -> Params {
    Params::new(19_456, 2, 1, Some(32)).expect("these are in range")
}

/// The hash of one password.
struct Hash {
    params: Params,
    salt: Vec<u8>,
    output: Vec<u8>,
}

impl Hash {
    fn parse(text: &str) -> Result<Self, String> {
        let hash = PasswordHash::new(text).map_err(|error| format!("not a PHC string: {error}"))?;
        if hash.algorithm != argon2::ARGON2ID_IDENT || hash.version != Some(19) {
            return Err("the hash is not of $argon2id$v=19$".into());
        }
        let bad = |error: &dyn fmt::Display| format!("argon2id: {error}");
        let params = Params::try_from(&hash).map_err(|error| bad(&error))?;
        let (memory, passes, lanes) = ARGON2_MAX;
        if params.m_cost() > memory || params.t_cost() > passes || params.p_cost() > lanes {
            return Err(format!("argon2id: more than m={memory},t={passes},p={lanes}"));
        }
        let (Some(salt), Some(output)) = (hash.salt, hash.hash) else {
            return Err("argon2id: no salt, or no hash".into());
        };
        let mut octets = [0; 64];
        let salt = salt.decode_b64(&mut octets).map_err(|error| bad(&error))?.to_vec();
        Ok(Self { params, salt, output: output.as_bytes().to_vec() })
    }

    /// Takes tens of milliseconds and [`Params::m_cost`] KiB.
    fn matches(&self, password: &str) -> bool {
        let mut found = vec![0; self.output.len()];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params.clone())
            .hash_password_into(password.as_bytes(), &self.salt, &mut found)
            .is_ok_and(|()| bool::from(found.ct_eq(&self.output)))
    }
}

struct User {
    hash: Hash,
    scram: Option<ScramCredential>,
}

/// What a users file holds: an immutable snapshot.
pub struct Users {
    users: HashMap<String, User>,
    /// In place of the hash of who is not there.
    dummy: Hash,
    decoy: [u8; 32],
    iterations: u32,
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users({})", self.users.len())
    }
}

impl Users {
    /// Reads the text of a users file.
    ///
    /// # Errors
    /// What is wrong, with its line, in the first line that is.
    pub fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut users = HashMap::new();
        let mut decoy = None;
        let mut first: Option<(Params, u32)> = None;
        for (at, line) in text.lines().enumerate() {
            let at = at + 1;
            let fail = |message: String| (at, message);
            match entry(line) {
                Entry::Nothing => {}
                Entry::Decoy(text) => {
                    let octets = STANDARD.decode(text).ok().and_then(|text| text.try_into().ok());
                    let octets = octets
                        .ok_or_else(|| fail("!decoy: 32 bytes in base64 are needed".into()))?;
                    if decoy.replace(octets).is_some() {
                        return Err(fail("!decoy occurs twice".into()));
                    }
                }
                Entry::User { name, hash, scram } => {
                    check_name(name).map_err(fail)?;
                    let hash = Hash::parse(hash).map_err(fail)?;
                    let scram = scram.map(credential).transpose().map_err(fail)?;
                    let iterations = scram.as_ref().map_or(SCRAM_ITERATIONS, |c| c.iterations);
                    first.get_or_insert_with(|| (hash.params.clone(), iterations));
                    if users.insert(name.to_owned(), User { hash, scram }).is_some() {
                        return Err(fail(format!("{name} occurs twice")));
                    }
                }
                Entry::Unknown => return Err(fail("not NAME:HASH or NAME:HASH:SCRAM".into())),
            }
        }
        let (params, iterations) = first.unwrap_or_else(|| (owasp(), SCRAM_ITERATIONS));
        let decoy = match decoy {
            Some(decoy) => decoy,
            // Stable for as long as this snapshot: the file was not made by `mailrace user`.
            None => random().map_err(|error| (0, format!("no random numbers: {error}")))?,
        };
        let dummy = Hash { params, salt: decoy[..SALT_BYTES].to_vec(), output: vec![0; 32] };
        Ok(Self { users, dummy, decoy, iterations })
    }

    /// Whether it is the password of this user. Costs the same work for every user, known or not;
    /// takes tens of milliseconds.
    ///
    /// It is prepared first (RFC 4616 §2). If that changes it, it is also tried as given: files
    /// written by other programs, or by us before passwords were prepared, hold hashes of such.
    pub fn verify(&self, user: &str, password: &str) -> bool {
        let prepared = saslprep::prepare(password).ok();
        let as_given = prepared.as_deref() != Some(password);
        prepared.is_some_and(|prepared| self.verify_as_is(user, &prepared))
            || as_given && self.verify_as_is(user, password)
    }

    fn verify_as_is(&self, user: &str, password: &str) -> bool {
        match self.users.get(user) {
            Some(user) => user.hash.matches(password),
            None => {
                // Nothing hashes to what the dummy holds; were it so, it is refused all the same.
                let _ = std::hint::black_box(self.dummy.matches(password));
                false
            }
        }
    }

    /// The SCRAM credential of this user, or one that nobody can satisfy.
    pub fn credential(&self, user: &str) -> ScramCredential {
        let made_up = |what: &[u8]| -> [u8; 32] {
            let mut mac = Hmac::<Sha256>::new_from_slice(&self.decoy).expect("of any length");
            mac.update(what);
            mac.update(user.as_bytes());
            mac.finalize().into_bytes().into()
        };
        let decoy = ScramCredential {
            iterations: self.iterations,
            salt: made_up(b"salt:")[..SALT_BYTES].to_vec(),
            stored_key: made_up(b"stored:"),
            server_key: made_up(b"server:"),
        };
        self.users.get(user).and_then(|user| user.scram.clone()).unwrap_or(decoy)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }
}

/// A line of the file.
pub(super) enum Entry<'a> {
    Nothing,
    Decoy(&'a str),
    User { name: &'a str, hash: &'a str, scram: Option<&'a str> },
    Unknown,
}

/// Takes a line apart; what stands in it is not checked.
pub(super) fn entry(line: &str) -> Entry<'_> {
    if line.trim().is_empty() || line.starts_with('#') {
        return Entry::Nothing;
    }
    if let Some(secret) = line.strip_prefix("!decoy:") {
        return Entry::Decoy(secret);
    }
    let mut fields = line.splitn(3, ':');
    match (fields.next(), fields.next(), fields.next()) {
        (Some(name), Some(hash), scram) => {
            Entry::User { name, hash, scram: scram.filter(|scram| !scram.is_empty()) }
        }
        _ => Entry::Unknown,
    }
}

/// Judges a name.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let fine = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.len() <= NAME_BYTES_MAX
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"._+-@".contains(&c));
    match fine {
        true => Ok(()),
        false => Err(format!(
            "{name:?} is not a user name: letters, digits and . _ + - @, at most 255 of them, \
             with a letter or digit first"
        )),
    }
}

/// `SCRAM-SHA-256$ITERATIONS:SALT$STORED:SERVER`.
fn credential(text: &str) -> Result<ScramCredential, String> {
    let parsed = text.strip_prefix("SCRAM-SHA-256$").and_then(|rest| {
        let (work, keys) = rest.split_once('$')?;
        let (iterations, salt) = work.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let key = |text| STANDARD.decode(text).ok()?.try_into().ok();
        Some(ScramCredential {
            iterations: iterations.parse().ok()?,
            salt: STANDARD.decode(salt).ok()?,
            stored_key: key(stored)?,
            server_key: key(server)?,
        })
    });
    match parsed {
        Some(credential) if credential.salt.is_empty() || credential.iterations < 4096 => {
            Err("SCRAM-SHA-256: no salt, or fewer than 4096 iterations (RFC 7677 §4)".into())
        }
        Some(credential) => Ok(credential),
        None => Err("not SCRAM-SHA-256$ITERATIONS:SALT$STORED:SERVER".into()),
    }
}

/// Writes what [`credential`] reads.
pub(super) fn format_credential(credential: &ScramCredential) -> String {
    let ScramCredential { iterations, salt, stored_key, server_key } = credential;
    format!(
        "SCRAM-SHA-256${iterations}:{}${}:{}",
        STANDARD.encode(salt),
        STANDARD.encode(stored_key),
        STANDARD.encode(server_key)
    )
}

/// By which a file is known to be another one.
type Seen = Option<(u64, u64, i64, i64)>;

/// A users file that is looked at now and then. Its snapshot is replaced as a whole; a bad file
/// changes nothing. Both planes.
pub struct UsersFile {
    path: PathBuf,
    users: RwLock<Arc<Users>>,
    seen: Mutex<Seen>,
}

impl fmt::Debug for UsersFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UsersFile({})", self.path.display())
    }
}

impl UsersFile {
    /// Reads a file for the first time.
    ///
    /// # Errors
    /// It cannot be read, or a line of it is wrong.
    pub fn open(path: &Path) -> Result<Self, UsersError> {
        let seen = look(path);
        let users = RwLock::new(Arc::new(read(path)?));
        Ok(Self { path: path.to_owned(), users, seen: Mutex::new(seen) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The snapshot of now.
    pub fn current(&self) -> Arc<Users> {
        // Written when the file changes, read at each AUTH: nobody waits.
        self.users.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes what is in the file now, if it has changed; says what came of it, once. Reads files:
    /// not for a shard's thread.
    pub fn reload(&self) -> Option<Result<usize, UsersError>> {
        let now = look(&self.path);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return None;
        }
        *seen = now;
        Some(read(&self.path).map(|users| {
            let count = users.len();
            *self.users.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(users);
            count
        }))
    }

    /// What an operator should know of the file: that others can read it.
    pub fn warning(&self) -> Option<String> {
        let mode = std::fs::metadata(&self.path).ok()?.mode();
        (mode & 0o007 != 0).then(|| {
            let path = self.path.display();
            format!("{path}: every user of this machine can read it; run chmod o= {path}")
        })
    }
}

fn look(path: &Path) -> Seen {
    let facts = std::fs::metadata(path).ok()?;
    Some((facts.ino(), facts.len(), facts.mtime(), facts.mtime_nsec()))
}

fn read(path: &Path) -> Result<Users, UsersError> {
    let error = |line, message| UsersError { path: path.to_owned(), line, message };
    let text = std::fs::read_to_string(path).map_err(|source| {
        let cure = match source.kind() {
            io::ErrorKind::NotFound => "; `mailrace user add` creates it",
            _ => "",
        };
        error(0, format!("{source}{cure}"))
    })?;
    Users::parse(&text).map_err(|(line, message)| error(line, message))
}

#[cfg(test)]
mod tests {
    use super::{
        super::users_edit::{Edit, edit_users, line_of},
        *,
    };

    /// A line with cheap parameters.
    fn cheap(name: &str, password: &str) -> String {
        line_of(name, password, &Params::new(64, 1, 1, Some(32)).unwrap(), 4096).unwrap()
    }

    #[test]
    fn a_file_is_read() {
        let text = format!(
            "# us\n\n!decoy:{}\n{}\n{}\n",
            STANDARD.encode([7; 32]),
            cheap("tim", "tanstaaf"),
            cheap("a.b+c@example.com", "\u{fc} x")
        );
        let users = Users::parse(&text).unwrap();
        assert_eq!(users.len(), 2);
        assert!(users.verify("tim", "tanstaaf") && users.verify("a.b+c@example.com", "\u{fc} x"));
        for (user, password) in [("tim", "tanstaa"), ("Tim", "tanstaaf"), ("x", ""), ("tim", "")] {
            assert!(!users.verify(user, password), "{user} {password}");
        }
        let credential = users.credential("tim");
        let ScramCredential { salt, iterations, .. } = &credential;
        assert_eq!(ScramCredential::derive(b"tanstaaf", salt, *iterations), credential);
        assert_eq!(format!("{users:?}"), "Users(2)");
    }

    /// RFC 4616 §2, RFC 5802 §2.2: however it is typed. What was hashed as it was given goes on.
    #[test]
    fn passwords_are_prepared() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        let set = |password| {
            edit_users(&path, &Edit::Set { name: "tim", password }).unwrap();
            Users::parse(&std::fs::read_to_string(&path).unwrap()).unwrap()
        };
        let scram = |users: &Users, prepared: &str| {
            let credential = users.credential("tim");
            let ScramCredential { salt, iterations, .. } = &credential;
            ScramCredential::derive(prepared.as_bytes(), salt, *iterations) == credential
        };
        let users = set("\u{fb01}sh\u{a0}e\u{301}\u{ad}");
        assert!(scram(&users, "fish \u{e9}"));
        for same in ["fish \u{e9}", "\u{fb01}sh\u{2003}\u{e9}", "fish e\u{301}"] {
            assert!(users.verify("tim", same), "{same:?}");
        }
        assert!(!users.verify("tim", "fish e") && !users.verify("tim", "fish\u{e9}"));
        let users = set("tanstaaf");
        assert!(scram(&users, "tanstaaf") && users.verify("tim", "tan\u{ad}staaf"));

        let unprepared = Users::parse(&cheap("tim", "x\u{a0}\u{1f600}")).unwrap();
        assert!(unprepared.verify("tim", "x\u{a0}\u{1f600}"));
        let unprepared = Users::parse(&cheap("tim", "x\u{a0}")).unwrap();
        assert!(unprepared.verify("tim", "x\u{a0}") && !unprepared.verify("tim", "x "));
    }

    /// G10: who is not there has a salt of the same length, the same each time and in each process.
    #[test]
    fn g10_who_is_not_there_looks_the_same() {
        let text = format!("!decoy:{}\n{}", STANDARD.encode([7; 32]), cheap("tim", "tanstaaf"));
        let (one, two) = (Users::parse(&text).unwrap(), Users::parse(&text).unwrap());
        assert_eq!(one.credential("nobody"), two.credential("nobody"));
        assert_ne!(one.credential("nobody").salt, one.credential("somebody").salt);
        assert_eq!(one.credential("nobody").salt.len(), one.credential("tim").salt.len());
        assert_eq!(one.credential("nobody").iterations, one.credential("tim").iterations);
        let other = text.replace(&STANDARD.encode([7; 32]), &STANDARD.encode([8; 32]));
        assert_ne!(
            one.credential("nobody").salt,
            Users::parse(&other).unwrap().credential("nobody").salt
        );
        // The same parameters, so the same work.
        assert_eq!(one.dummy.params.m_cost(), 64);
        assert!(!one.verify("nobody", "tanstaaf"));
        // Who has no SCRAM credential looks like nobody.
        let line = cheap("tim", "x");
        let (without, _) = line.split_once(":SCRAM").unwrap();
        assert_eq!(Users::parse(without).unwrap().credential("tim").iterations, SCRAM_ITERATIONS);
    }

    #[test]
    fn bad_lines_are_named() {
        let good = cheap("tim", "x");
        let cut = |from: &str, to: &str| good.replace(from, to);
        for (line, told) in [
            ("tim".to_owned(), "not NAME:HASH"),
            (cut("tim", ""), "is not a user name"),
            (cut("tim", "-tim"), "is not a user name"),
            (cut("tim", "t m"), "is not a user name"),
            (cut("tim", "t\u{fc}m"), "is not a user name"),
            (cut("tim", &"t".repeat(256)), "is not a user name"),
            (cut("argon2id", "argon2i"), "is not of $argon2id$"),
            (cut("v=19", "v=16"), "is not of $argon2id$"),
            (cut("m=64", "m=4000000"), "more than m="),
            (cut("t=1", "t=1000"), "more than m="),
            (cut("$argon2id$", "argon2id$"), "not a PHC string"),
            (cut("SCRAM-SHA-256", "SCRAM-SHA-1"), "not SCRAM-SHA-256"),
            (cut("256$4096:", "256$4095:"), "fewer than 4096"),
            ("!decoy:xx".to_owned(), "32 bytes"),
            ("!other:xx".to_owned(), "is not a user name"),
        ] {
            let text = format!("# first\n{line}\n");
            let (at, message) = Users::parse(&text).map(drop).unwrap_err();
            assert!(at == 2 && message.contains(told), "{line}: {at} {message}");
        }
        let (at, message) = Users::parse(&format!("{good}\n\n{good}")).map(drop).unwrap_err();
        assert!(at == 3 && message == "tim occurs twice", "{message}");
    }

    #[test]
    fn a_file_that_changes_is_read_again_and_a_bad_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        let told = UsersFile::open(&path).unwrap_err().to_string();
        assert!(told.contains("`mailrace user add` creates it"), "{told}");
        std::fs::write(&path, cheap("tim", "x")).unwrap();
        let file = UsersFile::open(&path).unwrap();
        assert!(file.reload().is_none());
        std::fs::write(&path, format!("{}\n{}", cheap("tim", "x"), cheap("tom", "y"))).unwrap();
        assert_eq!(file.reload().unwrap().unwrap(), 2);
        std::fs::write(&path, "tim\n").unwrap();
        let told = file.reload().unwrap().unwrap_err().to_string();
        assert!(told.starts_with(&format!("{}:1: not NAME", path.display())), "{told}");
        assert!(file.reload().is_none(), "told once");
        std::fs::remove_file(&path).unwrap();
        assert!(file.reload().unwrap().is_err());
        assert_eq!(file.current().len(), 2);
    }

    #[test]
    fn others_that_may_read_it_are_told_of() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        std::fs::write(&path, "").unwrap();
        let file = UsersFile::open(&path).unwrap();
        for (mode, told) in [(0o644, true), (0o600, false), (0o640, false)] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(file.warning().is_some(), told, "{mode:o}");
        }
    }
}
