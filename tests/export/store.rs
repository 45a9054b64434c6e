//! Records into object stores: a folder, two real S3 servers, and one that gives scripted answers.
//!
//! `tests/support/servers/s3.sh` installs the servers. Objects are read back without our client: by plain
//! HTTP from the one, from the disk of the other.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use mailrace::{
    export::{
        DocumentOptions, Encoding, ErrorClass, FileMode, Key, Outcome, Record, Sink, Store,
        StoreLayout, StoreOptions, StorePlace, testing,
    },
    log::{Offset, RecordId},
};
use parquet::{
    file::{reader::FileReader, serialized_reader::SerializedFileReader},
    record::RowAccessor,
};
use serde_json::Value;

use crate::support::{
    self, body, eventually,
    machine::{OwnedChild, die_with_parent, skip},
    succeeded,
};

/// 2026-11-22T18:59:59Z: the second record is of another hour than the first.
const TIME: i64 = 1_795_373_999_000_000;

fn record(number: u64, data: Vec<u8>) -> Record {
    Record {
        id: RecordId { node: [7; 6], shard: 1, offset: Offset::new(number) },
        received_at: TIME + number as i64 * 1_000_000,
        listener: "mx".into(),
        mail_from: format!("sender {number}@x.test"),
        rcpt_to: vec!["b@y.test".into(), "grün@y.test".into()],
        helo: "client.test".into(),
        client: "192.0.2.1:25".parse().unwrap(),
        smtputf8: true,
        body_type: 0,
        data: data.into(),
        ..testing::record(1, number)
    }
}

fn records(count: u64) -> Vec<Record> {
    (0..count).map(|n| record(n, body(n, 200 + n as usize % 3_000))).collect()
}

fn store(place: StorePlace, layout: StoreLayout) -> Store {
    let options = StoreOptions {
        place,
        prefix: "in/".into(),
        layout,
        requests: 8,
        mode: FileMode::default(),
    };
    let document = DocumentOptions {
        encoding: Encoding::Json,
        inline_max: 512 << 10,
        reference_url: String::new(),
        sha256: true,
        key: Key::None,
    };
    Store::new(options, document)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn error_class(outcome: &Outcome) -> Option<ErrorClass> {
    match outcome {
        Outcome::Delivered => None,
        Outcome::Retry(error) | Outcome::Refused(error) => Some(error.class),
    }
}

#[track_caller]
fn assert_delivered(outcomes: &[Outcome], count: usize) {
    assert_eq!(outcomes.len(), count);
    for outcome in outcomes {
        assert_eq!(outcome, &Outcome::Delivered);
    }
}

/// The objects of a batch layout tell the records, each once, in the right hour.
#[track_caller]
fn assert_batches(objects: &BTreeMap<String, Vec<u8>>, layout: StoreLayout, records: &[Record]) {
    let mut found = HashMap::<String, Vec<u8>>::new();
    for (name, octets) in objects {
        let rows: Vec<(String, Vec<u8>)> = if layout == StoreLayout::Jsonl {
            let text = std::str::from_utf8(octets).unwrap();
            let event = |line| serde_json::from_str::<Value>(line).unwrap();
            let raw =
                |event: &Value| STANDARD.decode(event["data"]["raw"]["data"].as_str().unwrap());
            let pair = |event: Value| (event["id"].as_str().unwrap().into(), raw(&event).unwrap());
            text.lines().map(event).map(pair).collect()
        } else {
            let table = SerializedFileReader::new(bytes::Bytes::from(octets.clone())).unwrap();
            let rows = table.get_row_iter(None).unwrap().map(Result::unwrap);
            let raw = |row: &parquet::record::Row| row.get_bytes(10).unwrap().data().to_vec();
            rows.map(|row| (row.get_string(0).unwrap().clone(), raw(&row))).collect()
        };
        let extension = if layout == StoreLayout::Jsonl { "jsonl" } else { "parquet" };
        let last = &rows.last().unwrap().0;
        let last = &last[last.len() - 16..];
        let end = format!("/{}-{last}.{extension}", rows[0].0);
        assert!(name.ends_with(&end), "{name} {end}");
        for (id, data) in rows {
            let offset = u64::from_str_radix(&id[id.len() - 16..], 16).unwrap();
            // The first record is of the last second of its hour.
            let hour = 18 + offset.div_ceil(3_600);
            let place = format!("in/dt=2026-11-22/hh={hour}/");
            assert!(name.starts_with(&place), "{name} {place} {offset}");
            assert!(found.insert(id, data).is_none());
        }
    }
    assert_eq!(found.len(), records.len());
    for record in records {
        assert!(found[&record.id.to_string()] == record.data, "{}", record.id);
    }
}

/// Files below a folder by their paths.
fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let named = |(path, octets): (PathBuf, _)| (path.to_str().unwrap().to_owned(), octets);
    support::tree(dir).into_iter().map(named).collect()
}

#[test]
fn a_folder_is_laid_out_like_a_bucket() {
    for layout in [StoreLayout::Eml, StoreLayout::Jsonl, StoreLayout::Parquet] {
        let dir = tempfile::tempdir().unwrap();
        let sink = store(StorePlace::Folder(dir.path().join("made")), layout);
        let runtime = runtime();
        runtime.block_on(sink.check()).unwrap();
        assert_eq!(tree(dir.path()).len(), 0, "a check leaves nothing");
        let records = records(100);
        for batch in records.chunks(30) {
            assert_delivered(&runtime.block_on(sink.deliver(batch)), batch.len());
        }
        let first = tree(&dir.path().join("made"));
        for batch in records.chunks(30) {
            assert_delivered(&runtime.block_on(sink.deliver(batch)), batch.len());
        }
        let objects = tree(&dir.path().join("made"));
        assert!(objects == first, "a retry makes the same");
        if layout != StoreLayout::Eml {
            assert_batches(&objects, layout, &records);
            continue;
        }
        assert_eq!(objects.len(), 100);
        for record in &records {
            assert!(objects[&format!("in/{}.eml", record.id)] == record.data);
        }
        // An object of another size is replaced; a large one goes in parts.
        let path = dir.path().join(format!("made/in/{}.eml", records[0].id));
        fs::write(&path, "x").unwrap();
        assert_delivered(&runtime.block_on(sink.deliver(&records[..1])), 1);
        assert!(fs::read(&path).unwrap() == records[0].data);
        let large = record(200, body(200, 25 << 20));
        assert_delivered(&runtime.block_on(sink.deliver(std::slice::from_ref(&large))), 1);
        assert!(
            fs::read(dir.path().join(format!("made/in/{}.eml", large.id))).unwrap() == large.data
        );
    }
}

/// An S3 server's process.
struct Server {
    child: OwnedChild,
    address: SocketAddr,
    dir: Option<tempfile::TempDir>,
    secret_file: tempfile::NamedTempFile,
}

/// Where `tests/support/servers/s3.sh` puts a program.
fn program(path: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let found = root.join(target).join("servers").join(path);
    let there =
        found.is_file() || skip(&format!("{path} is missing: run tests/support/servers/s3.sh"));
    there.then_some(found)
}

fn spawn(mut command: Command) -> (OwnedChild, SocketAddr) {
    // SAFETY: one system call between fork and exec.
    unsafe { command.pre_exec(die_with_parent) };
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = OwnedChild(piped.spawn().expect("it starts"));
    let (tell, told) = std::sync::mpsc::channel();
    let out: Box<dyn Read + Send> = Box::new(child.stdout.take().unwrap());
    let err: Box<dyn Read + Send> = Box::new(child.stderr.take().unwrap());
    for stream in [out, err] {
        let tell = tell.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let at = line.find("127.0.0.1:").and_then(|at| line[at..].trim().parse().ok());
                if let Some(address) = at {
                    let _ = tell.send(address);
                }
            }
        });
    }
    let address = told.recv_timeout(Duration::from_secs(60)).expect("it tells its address");
    (child, address)
}

impl Server {
    /// Knows conditions and checksums; believes any signature.
    fn moto() -> Option<Self> {
        let mut command = Command::new(program("moto/bin/moto_server")?);
        command.args(["-H", "127.0.0.1", "-p", "0"]);
        let (child, address) = spawn(command);
        let server = Self { child, address, dir: None, secret_file: secret("any") };
        assert_eq!(server.ask("PUT", "/mail").0, 200);
        Some(server)
    }

    /// Checks who signed, not the signature; knows no conditions; keeps all on disk.
    fn s3rver() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (child, address) = spawn(Self::s3rver_command(dir.path(), 0)?);
        Some(Self { child, address, dir: Some(dir), secret_file: secret("S3RVER") })
    }

    fn s3rver_command(dir: &Path, port: u16) -> Option<Command> {
        let mut command = Command::new("node");
        command.arg(program("s3rver/node_modules/s3rver/bin/s3rver.js")?);
        command.arg("-d").arg(dir).args(["-a", "127.0.0.1", "-p", &port.to_string()]);
        command.args(["-s", "--configure-bucket", "mail"]);
        Some(command)
    }

    fn place(&self, bucket: &str) -> StorePlace {
        StorePlace::S3 {
            bucket: bucket.into(),
            endpoint: format!("http://{}", self.address),
            region: "us-east-1".into(),
            access_key: "S3RVER".into(),
            secret_key_file: Some(self.secret_file.path().to_owned()),
        }
    }

    /// Kills it and starts another over the same objects and address.
    fn restart(&mut self) {
        self.child.end();
        let dir = self.dir.as_ref().unwrap().path();
        let (child, address) = spawn(Self::s3rver_command(dir, self.address.port()).unwrap());
        assert_eq!(address, self.address);
        self.child = child;
    }

    /// The objects on its disk.
    fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        let all = tree(&self.dir.as_ref().unwrap().path().join("mail"));
        let object = |(name, octets): (String, _)| {
            name.strip_suffix("._S3rver_object").map(|name| (name.to_owned(), octets))
        };
        all.into_iter().filter_map(object).collect()
    }

    fn ask(&self, method: &str, path: &str) -> (u16, String, Vec<u8>) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        // moto looks whether somebody signed, not what.
        let signed = "AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/s3/aws4_request, \
            SignedHeaders=host, Signature=any";
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\
             Authorization: {signed}\r\n\r\n"
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head, answer[end + 4..].to_vec())
    }

    /// Names of the objects.
    fn list(&self) -> Vec<String> {
        let (mut names, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("/mail?list-type=2&start-after={}", after.replace('=', "%3D"));
            let text = String::from_utf8(self.ask("GET", &path).2).unwrap();
            let keys = text.split("<Key>").skip(1).map(|rest| rest.split('<').next().unwrap());
            names.extend(keys.map(str::to_owned));
            if !text.contains("<IsTruncated>true") {
                return names;
            }
            after = names.last().unwrap().clone();
        }
    }
}

fn secret(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{text}").unwrap();
    file
}

#[test]
fn two_thousand_mails_are_read_back_from_moto() {
    let Some(server) = Server::moto() else { return };
    let sink = store(server.place("mail"), StoreLayout::Eml);
    let (runtime, records) = (runtime(), records(2_000));
    runtime.block_on(sink.check()).unwrap();
    assert_eq!(server.list(), [""; 0], "a check leaves nothing");
    for batch in records.chunks(250) {
        assert_delivered(&runtime.block_on(sink.deliver(batch)), batch.len());
    }
    // Again: they are there.
    assert_delivered(&runtime.block_on(sink.deliver(&records[..100])), 100);
    let names: Vec<_> = records.iter().map(|record| format!("in/{}.eml", record.id)).collect();
    assert_eq!(server.list(), names);
    for (name, record) in names.iter().zip(&records) {
        let (status, head, octets) = server.ask("GET", &format!("/mail/{name}"));
        assert_eq!(status, 200);
        assert!(octets == record.data, "{name}");
        let number = record.id.offset;
        for line in [
            "content-type: message/rfc822".to_owned(),
            format!("x-amz-meta-mailrace-id: {}", record.id),
            format!("x-amz-meta-mailrace-mail-from: sender%20{number}@x.test"),
            "x-amz-meta-mailrace-rcpt-to: b@y.test,gr%c3%bcn@y.test".to_owned(),
        ] {
            assert!(head.contains(&line), "{line} in {head}");
        }
    }
}

#[test]
fn a_condition_keeps_what_is_there_and_another_size_is_replaced() {
    let Some(server) = Server::moto() else { return };
    let sink = store(server.place("mail"), StoreLayout::Eml);
    let runtime = runtime();
    let mut mail = record(1, b"Subject: 1\r\n\r\nfirst\r\n".to_vec());
    let path = format!("/mail/in/{}.eml", mail.id);
    assert_delivered(&runtime.block_on(sink.deliver(std::slice::from_ref(&mail))), 1);
    mail.data = b"Subject: 1\r\n\r\nother\r\n".to_vec().into();
    assert_delivered(&runtime.block_on(sink.deliver(std::slice::from_ref(&mail))), 1);
    assert!(server.ask("GET", &path).2.ends_with(b"first\r\n"), "moto knows the condition");
    mail.data = b"Subject: 1\r\n\r\nlonger\r\n".to_vec().into();
    assert_delivered(&runtime.block_on(sink.deliver(std::slice::from_ref(&mail))), 1);
    assert!(server.ask("GET", &path).2.ends_with(b"longer\r\n"));
}

#[test]
fn batches_are_read_back_from_moto() {
    let Some(server) = Server::moto() else { return };
    for layout in [StoreLayout::Jsonl, StoreLayout::Parquet] {
        let sink = store(server.place("mail"), layout);
        let (runtime, records) = (runtime(), records(2_000));
        for batch in records.chunks(700) {
            assert_delivered(&runtime.block_on(sink.deliver(batch)), batch.len());
        }
        let before = server.list();
        assert_delivered(&runtime.block_on(sink.deliver(&records[..700])), 700);
        assert_eq!(server.list(), before);
        let extension = if layout == StoreLayout::Jsonl { "jsonl" } else { "parquet" };
        let names = before.into_iter().filter(|name| name.ends_with(extension));
        let get = |name: String| {
            let octets = server.ask("GET", &format!("/mail/{name}")).2;
            (name, octets)
        };
        assert_batches(&names.map(get).collect(), layout, &records);
    }
}

#[test]
fn a_large_mail_goes_in_parts() {
    let large = record(1, body(1, 25 << 20));
    let name = format!("in/{}.eml", large.id);
    let runtime = runtime();
    if let Some(server) = Server::moto() {
        let sink = store(server.place("mail"), StoreLayout::Eml);
        assert_delivered(&runtime.block_on(sink.deliver(std::slice::from_ref(&large))), 1);
        let (_, head, octets) = server.ask("GET", &format!("/mail/{name}"));
        assert!(octets == large.data);
        assert!(head.contains("-4\""), "four parts: {head}");
        assert!(head.contains("x-amz-meta-mailrace-id: "), "{head}");
    }
    if let Some(server) = Server::s3rver() {
        let sink = store(server.place("mail"), StoreLayout::Eml);
        assert_delivered(&runtime.block_on(sink.deliver(std::slice::from_ref(&large))), 1);
        assert!(server.objects()[&name] == large.data);
    }
}

#[test]
fn a_killed_server_costs_nothing_but_time() {
    let Some(mut server) = Server::s3rver() else { return };
    let sink = store(server.place("mail"), StoreLayout::Eml);
    let (runtime, records) = (runtime(), records(2_000));
    let (mut refused, mut kills) = (0, 0);
    for (number, batch) in records.chunks(250).enumerate() {
        if ![2, 5].contains(&number) {
            assert_delivered(&runtime.block_on(sink.deliver(batch)), batch.len());
            continue;
        }
        let middle = format!("mail/in/{}.eml._S3rver_object", batch[100].id);
        let middle = server.dir.as_ref().unwrap().path().join(middle);
        let outcomes = thread::scope(|scope| {
            let child = &mut server.child;
            scope.spawn(move || {
                eventually("a batch half done", Duration::from_secs(60), || middle.exists());
                child.end();
            });
            runtime.block_on(sink.deliver(batch))
        });
        kills += 1;
        // What it said it has, it has; the rest is not called delivered.
        let objects = server.objects();
        let mut left = Vec::new();
        for (record, outcome) in batch.iter().zip(&outcomes) {
            match error_class(outcome) {
                None => assert!(objects[&format!("in/{}.eml", record.id)] == record.data),
                Some(ErrorClass::Connect) => left.push(record.clone()),
                Some(other) => panic!("{other:?}: {outcome:?}"),
            }
        }
        assert!((1..250).contains(&left.len()), "{} are left", left.len());
        refused += left.len();
        assert_eq!(runtime.block_on(sink.check()).unwrap_err().class, ErrorClass::Connect);
        server.restart();
        runtime.block_on(sink.check()).unwrap();
        assert_delivered(&runtime.block_on(sink.deliver(&left)), left.len());
    }
    assert!(kills == 2 && refused > 0);
    let objects = server.objects();
    assert_eq!(objects.len(), records.len());
    for record in &records {
        assert!(objects[&format!("in/{}.eml", record.id)] == record.data);
    }
}

/// The place with other credentials.
fn with_keys(place: StorePlace, key: &str, secret: &Path) -> StorePlace {
    let StorePlace::S3 { bucket, endpoint, region, .. } = place else { unreachable!() };
    let (access_key, secret_key_file) = (key.to_owned(), Some(secret.to_owned()));
    StorePlace::S3 { bucket, endpoint, region, access_key, secret_key_file }
}

#[track_caller]
fn assert_refused(place: StorePlace, class: ErrorClass) {
    let runtime = runtime();
    let sink = store(place, StoreLayout::Eml);
    let error = runtime.block_on(sink.check()).unwrap_err();
    assert_eq!(error.class, class, "{error}");
    assert!(!error.text.contains("wrong-secret"), "{error}");
    for outcome in runtime.block_on(sink.deliver(&records(3))) {
        assert!(matches!(outcome, Outcome::Retry(_)));
        assert_eq!(error_class(&outcome), Some(class), "{outcome:?}");
    }
}

#[test]
fn wrong_credentials_and_a_missing_bucket_are_told_apart() {
    if let Some(server) = Server::s3rver() {
        let place = || server.place("mail");
        assert_refused(with_keys(place(), "nobody", server.secret_file.path()), ErrorClass::Auth);
        assert_refused(with_keys(place(), "S3RVER", Path::new("/nonexistent")), ErrorClass::Auth);
        assert_refused(server.place("nowhere"), ErrorClass::Missing);
        assert_eq!(server.objects().len(), 0);
    }
    if let Some(server) = Server::moto() {
        assert_refused(server.place("nowhere"), ErrorClass::Missing);
    }
}

/// moto checks signatures once a number of calls was made that nobody needs to sign.
#[test]
fn signatures_are_right_and_wrong_ones_refused() {
    let Some(moto) = program("moto/bin/moto_server") else { return };
    let mut command = Command::new(&moto);
    command.args(["-H", "127.0.0.1", "-p", "0"]).env("INITIAL_NO_AUTH_ACTION_COUNT", "4");
    let (child, address) = spawn(command);
    let script = "import boto3, json, sys
at = dict(endpoint_url=sys.argv[1], aws_access_key_id='a', aws_secret_access_key='b',
    region_name='us-east-1')
iam = boto3.client('iam', **at)
iam.create_user(UserName='u')
key = iam.create_access_key(UserName='u')['AccessKey']
allowed = {'Effect': 'Allow', 'Action': 's3:*', 'Resource': '*'}
iam.put_user_policy(UserName='u', PolicyName='p', PolicyDocument=json.dumps(
    {'Version': '2012-10-17', 'Statement': [allowed]}))
boto3.client('s3', **at).create_bucket(Bucket='mail')
print(key['AccessKeyId'], key['SecretAccessKey'])";
    let python = moto.with_file_name("python");
    let made = Command::new(python).args(["-c", script, &format!("http://{address}")]).output();
    let text = String::from_utf8(succeeded("python", made.unwrap()).stdout).unwrap();
    let (key, right) = text.trim().split_once(' ').unwrap();
    let server = Server { child, address, dir: None, secret_file: secret(right) };
    let place = || server.place("mail");
    let sink = store(with_keys(place(), key, server.secret_file.path()), StoreLayout::Eml);
    let (runtime, mails) = (runtime(), records(20));
    runtime.block_on(sink.check()).unwrap();
    assert_delivered(&runtime.block_on(sink.deliver(&mails)), mails.len());
    let large = record(99, body(99, 9 << 20));
    assert_delivered(&runtime.block_on(sink.deliver(std::slice::from_ref(&large))), 1);
    assert_refused(with_keys(place(), key, secret("wrong-secret").path()), ErrorClass::Auth);
    let wrong = secret("wrong-secret");
    assert_refused(with_keys(place(), "nobody", wrong.path()), ErrorClass::Auth);
}

/// A store that answers each request by its head; one connection a request.
fn told(answer: impl Fn(&str) -> String + Send + 'static) -> StorePlace {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head).unwrap_or(0) == 0 {
                    break;
                }
            }
            let head = head.to_lowercase();
            let length = head.split("content-length: ").nth(1).map(|rest| rest.lines().next());
            let length = length.flatten().map_or(0, |length| length.parse().unwrap());
            let _ = reader.read_exact(&mut vec![0; length]);
            let (status, body) = { answer(&head) }
                .split_once('|')
                .map(|(s, b)| (s.to_owned(), b.to_owned()))
                .unwrap();
            let _ = write!(
                reader.get_mut(),
                "HTTP/1.1 {status}\r\nETag: \"1\"\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
        }
    });
    StorePlace::S3 {
        bucket: "mail".into(),
        endpoint,
        region: "us-east-1".into(),
        access_key: "any".into(),
        // Any: this server checks nothing.
        secret_key_file: Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")),
    }
}

#[test]
fn what_a_store_answers_has_a_class() {
    let runtime = runtime();
    let mails = records(2);
    for (answer, class) in [
        ("503 Service Unavailable|<Error><Code>SlowDown</Code></Error>", ErrorClass::Throttled),
        ("429 Too Many Requests|", ErrorClass::Throttled),
        ("403 Forbidden|<Error><Code>AccessDenied</Code></Error>", ErrorClass::Auth),
        ("404 Not Found|<Error><Code>NoSuchBucket</Code></Error>", ErrorClass::Missing),
        ("500 Internal Server Error|", ErrorClass::Other),
    ] {
        let sink = store(told(move |_| answer.to_owned()), StoreLayout::Eml);
        for outcome in runtime.block_on(sink.deliver(&mails)) {
            assert_eq!(error_class(&outcome), Some(class), "{answer}: {outcome:?}");
        }
    }
    // Nobody there.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let StorePlace::S3 { bucket, region, access_key, secret_key_file, .. } = told(|_| "|".into())
    else {
        unreachable!()
    };
    let endpoint = format!("http://{port}");
    let place = StorePlace::S3 { bucket, endpoint, region, access_key, secret_key_file };
    let began = Instant::now();
    let error = runtime.block_on(store(place, StoreLayout::Eml).check()).unwrap_err();
    assert_eq!(error.class, ErrorClass::Connect, "{error}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_store_without_conditions_is_written_without() {
    let answer = |head: &str| {
        let conditional = head.contains("if-none-match");
        if conditional { "501 Not Implemented|".into() } else { "200 OK|".into() }
    };
    let sink = store(told(answer), StoreLayout::Eml);
    let mails = records(20);
    assert_delivered(&runtime().block_on(sink.deliver(&mails)), mails.len());
}
