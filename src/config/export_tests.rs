use super::super::tests::{from_text, merged, wrong};
use super::*;
use crate::export::{Compression, FilesLayout, Key, StoreLayout};

/// The one exporter of a file.
#[track_caller]
fn export(text: &str) -> ExportOptions {
    let config = from_text(text).unwrap_or_else(|errors| panic!("{errors}"));
    let [export] = &config.exports[..] else { panic!("one exporter") };
    export.clone()
}

const KAFKA: &str =
    "[[export]]\nname = \"k\"\ntype = \"kafka\"\nbrokers = [\"a:9092\"]\ntopic = \"mail\"\n";
const NATS: &str = "[[export]]\nname = \"n\"\ntype = \"nats\"\nservers = [\"nats://a:4222\"]\n";
const S3: &str = "[[export]]\nname = \"s\"\ntype = \"s3\"\nbucket = \"mail\"\n";
const HOOK: &str = "[[export]]\nname = \"w\"\ntype = \"webhook\"\nurl = \"https://a.example/\"\n";
const LMTP: &str = "[[export]]\nname = \"l\"\ntype = \"lmtp\"\nserver = \"a:24\"\n";

fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

#[test]
fn defaults_of_all() {
    let all = ExportOptions {
        name: "b".to_owned(),
        sink: SinkOptions::Blackhole,
        document: DocumentOptions {
            encoding: Encoding::Json,
            inline_max: 512 << 10,
            reference_url: "http://127.0.0.1:2580".to_owned(),
            sha256: false,
            key: Key::RcptDomain,
        },
        start: Start::Committed,
        batch: BatchOptions { records: 500, bytes: 1 << 20, delay: ms(20) },
        retry: RetryOptions { initial: ms(500), max: ms(300_000), give_up_after: None },
        in_flight: 1,
        timeout: ms(30_000),
        filter: Filter::default(),
        wait_verdict: None,
        replay_rate: None,
    };
    assert_eq!(export("[[export]]\nname = \"b\"\ntype = \"blackhole\"\n"), all);
    let text = "[[export]]\nname = \"b\"\ntype = \"blackhole\"\nencoding = \"raw\"\n\
                inline_max = \"0B\"\nreference_url = \"https://m.example/x/\"\ndigest = \"sha256\"\n\
                key = \"id\"\nstart = \"@2026-11-22\"\nin_flight = 4\ntimeout = \"1s\"\n\
                batch = { records = 1, bytes = \"2MiB\", delay = \"0ms\" }\n\
                retry = { initial = \"1s\", max = \"1s\", give_up_after = \"2d\" }\n\
                filter = { listener = [\"smtp\"], rcpt_domain = [\"A.example\"], \
                from_domain = [\"b\", \"c\"], \
                dmarc = [\"fail\", \"permerror\"] }\nwait_verdict = \"5s\"\nreplay_rate = \"1000/s\"\n";
    let written = ExportOptions {
        document: DocumentOptions {
            encoding: Encoding::Raw,
            inline_max: 0,
            reference_url: "https://m.example/x".to_owned(),
            sha256: true,
            key: Key::Id,
        },
        start: Start::Time(1_795_305_600_000_000),
        batch: BatchOptions { records: 1, bytes: 2 << 20, delay: ms(0) },
        retry: RetryOptions {
            initial: ms(1000),
            max: ms(1000),
            give_up_after: Some(ms(2 * 86_400_000)),
        },
        in_flight: 4,
        timeout: ms(1000),
        filter: Filter {
            listener: vec!["smtp".to_owned()],
            rcpt_domain: vec!["a.example".to_owned()],
            from_domain: vec!["b".to_owned(), "c".to_owned()],
            auth: vec![("dmarc", vec![AuthWord::Fail, AuthWord::Permerror])],
        },
        wait_verdict: Some(ms(5000)),
        replay_rate: Some(1000),
        ..all
    };
    assert_eq!(export(text), written);
}

#[test]
fn defaults_of_each_type() {
    let kafka = KafkaOptions {
        brokers: vec!["a:9092".to_owned()],
        topic: "mail".to_owned(),
        create_partitions: 0,
        compression: Compression::None,
        user: String::new(),
        password_file: None,
        tls: TlsOptions::default(),
    };
    assert_eq!(export(KAFKA).sink, SinkOptions::Kafka(kafka));
    let nats = NatsOptions {
        servers: vec!["nats://a:4222".to_owned()],
        stream: "MAIL".to_owned(),
        create: true,
        replicas: 1,
        subject: "mail.{listener}.{rcpt_domain}".to_owned(),
        user: String::new(),
        password_file: None,
        credentials_file: None,
        tls: TlsOptions::default(),
    };
    assert_eq!(export(NATS).sink, SinkOptions::Nats(nats));
    let mut s3 = StoreOptions {
        place: StorePlace::S3 {
            bucket: "mail".to_owned(),
            endpoint: String::new(),
            region: "us-east-1".to_owned(),
            access_key: String::new(),
            secret_key_file: None,
        },
        prefix: String::new(),
        layout: StoreLayout::Jsonl,
        requests: 8,
        mode: FileMode::default(),
    };
    assert_eq!(export(S3).sink, SinkOptions::Store(s3.clone()));
    s3.place = StorePlace::Folder(PathBuf::from("/x"));
    let folder = export("[[export]]\nname = \"f\"\ntype = \"folder\"\ndir = \"/x\"\n");
    assert_eq!(folder.sink, SinkOptions::Store(s3));
    let hook = WebhookOptions {
        url: "https://a.example/".to_owned(),
        secret_file: None,
        token_file: None,
        user: String::new(),
        password_file: None,
        requests: 1,
        tls: TlsOptions { enabled: true, ..TlsOptions::default() },
    };
    assert_eq!(export(HOOK).sink, SinkOptions::Webhook(hook));
    assert_eq!(export(HOOK).timeout, ms(15_000));
    let mut relay = RelayOptions {
        lmtp: true,
        server: "a:24".to_owned(),
        helo: "host.example".to_owned(),
        by: "host.example".to_owned(),
        return_path: false,
        connections: 4,
        tls: TlsOptions::default(),
        implicit_tls: false,
        user: String::new(),
        password_file: None,
    };
    assert_eq!(export(LMTP).sink, SinkOptions::Relay(relay.clone()));
    assert_eq!(export(LMTP).document.encoding, Encoding::Raw);
    relay.lmtp = false;
    assert_eq!(export(&LMTP.replace("lmtp", "smtp")).sink, SinkOptions::Relay(relay));
    let files = FilesOptions {
        dir: PathBuf::from("/x"),
        layout: FilesLayout::Eml,
        mode: FileMode::default(),
        trace: Some("host.example".to_owned()),
    };
    let text = "[[export]]\nname = \"f\"\ntype = \"files\"\ndir = \"/x\"\n";
    assert_eq!(export(text).sink, SinkOptions::Files(files));
}

#[test]
fn secrets_come_from_files() {
    let text = format!(
        "{KAFKA}user = \"u\"\npassword_file = \"credential:kafka.pw\"\n\
         tls = {{ enabled = true, ca_file = \"/ca\", cert_file = \"/c\", key_file = \"credential:k\" }}\n"
    );
    let config = merged(&text, &[("CREDENTIALS_DIRECTORY", "/run/creds")], &[]).unwrap();
    let SinkOptions::Kafka(kafka) = &config.exports[0].sink else { panic!() };
    assert_eq!(kafka.password_file, Some(PathBuf::from("/run/creds/kafka.pw")));
    let tls = TlsOptions {
        enabled: true,
        ca_file: Some(PathBuf::from("/ca")),
        cert_file: Some(PathBuf::from("/c")),
        key_file: Some(PathBuf::from("/run/creds/k")),
    };
    assert_eq!(kafka.tls, tls);
    let errors = from_text(&text).unwrap_err().to_string();
    assert!(
        errors.contains("password_file (m.toml:7): credential:kafka.pw: CREDENTIALS_DIRECTORY")
    );
    for name in ["", "a/b", "..", ".hidden"] {
        let set = format!("export.0.password_file=credential:{name}");
        let errors = merged(&text, &[("CREDENTIALS_DIRECTORY", "/c")], &[&set]).unwrap_err();
        assert!(errors.to_string().contains("is not the name of a credential"), "{errors}");
    }
    for (text, key) in [
        (KAFKA, "password"),
        (NATS, "password"),
        (NATS, "credentials"),
        (S3, "secret_key"),
        (HOOK, "secret"),
        (HOOK, "token"),
    ] {
        let errors = from_text(&format!("{text}{key} = \"hunter2\"\n")).unwrap_err().to_string();
        let told = format!("put it into a file and set export.0.{key}_file");
        assert!(errors.contains(&told), "{errors}");
        let set = format!("export.0.{key}=hunter2");
        let errors = format!("{errors}\n{}", merged(text, &[], &[&set]).unwrap_err());
        assert!(!errors.contains("hunter2"), "{errors}");
    }
}

#[test]
fn an_exporter_from_variables_and_flags() {
    let environment = [
        ("MAILRACE_EXPORT__0__TYPE", "nats"),
        ("MAILRACE_EXPORT__0__SERVERS", "nats://a:4222,nats://b:4222"),
        ("MAILRACE_EXPORT__0__TLS__ENABLED", "true"),
        ("MAILRACE_EXPORT__0__BATCH__RECORDS", "7"),
    ];
    let sets = ["export.0.name=x", "export.0.retry.max=1m", "export.1.type=blackhole"];
    let config = merged("", &environment, &[&sets[..], &["export.1.name=y"]].concat()).unwrap();
    assert_eq!(config.exports.len(), 2);
    let SinkOptions::Nats(nats) = &config.exports[0].sink else { panic!() };
    assert_eq!(nats.servers, ["nats://a:4222", "nats://b:4222"]);
    assert!(nats.tls.enabled);
    assert_eq!(config.exports[0].batch.records, 7);
    assert_eq!(config.exports[0].retry.max, ms(60_000));
    let sets = ["export.1.type=blackhole", "export.1.name=y"];
    let errors = merged("", &[], &sets).unwrap_err().to_string();
    assert!(errors.contains("export.0.type (default): is needed"), "{errors}");
    let config = merged(KAFKA, &[], &["export.0.topic=other"]).unwrap();
    let SinkOptions::Kafka(kafka) = &config.exports[0].sink else { panic!() };
    assert_eq!(kafka.topic, "other");
}

#[test]
fn needed_keys_and_those_of_other_types() {
    wrong(
        "[[export]]\nname = \"a\"\n\n[[export]]\ntype = \"kafka\"\ntopic = \"\"\n",
        &[
            "export.0.type (m.toml:2): is needed: one of kafka, nats, s3, folder, webhook, lmtp, \
             smtp, files, blackhole",
            "export.1.name (m.toml:5): is needed for type kafka, for example \"main\"",
            "export.1.brokers (m.toml:5): is needed for type kafka, for example \
             [\"127.0.0.1:9092\"]",
            "export.1.topic (m.toml:6): must not be empty",
        ],
    );
    wrong(
        &format!("{KAFKA}subject = \"x\"\nrequests = 3\nlayout = \"eml\"\ncolour = 1\n"),
        &[
            "export.0.subject (m.toml:6): is a key of type nats, but this exporter is of type kafka",
            "export.0.requests (m.toml:7): is a key of type s3, folder, webhook, but this exporter is of type kafka",
            "export.0.layout (m.toml:8): is a key of type s3, folder, files, but this exporter is of type \
             kafka",
            "export.0.colour (m.toml:9): unknown key; `mailrace config default` lists all",
        ],
    );
    wrong(
        "[[export]]\nname = \"a\"\ntype = \"pigeon\"\ntopic = \"x\"\n",
        &["export.0.type (m.toml:3): one of kafka, nats, s3, folder, webhook, lmtp, smtp, files, \
           blackhole is needed"],
    );
    wrong(
        &format!("{KAFKA}{KAFKA}"),
        &["export.1.name (m.toml:7): another exporter has this name"],
    );
}

#[test]
fn values_that_cannot_work() {
    for (base, line, message) in [
        (KAFKA, "brokers = [\"b\"]", "\"b\" is not HOST:PORT"),
        (KAFKA, "topic = \"a b\"", "is not a topic"),
        (KAFKA, "compression = \"zstd\"", "one of none, gzip, lz4, snappy is needed"),
        (KAFKA, "user = \"u\"", "password_file as well"),
        (KAFKA, "password_file = \"/p\"", "user as well"),
        (KAFKA, "tls.ca_file = \"/ca\"", "TLS is not used: tls.enabled is not true"),
        (KAFKA, "tls = { enabled = true, cert_file = \"/c\" }", "tls.key_file as well"),
        (KAFKA, "tls = { enabled = true, key_file = \"/c\" }", "tls.cert_file as well"),
        (KAFKA, "name = \"a/b\"", "is not a name of 1 to 32"),
        (KAFKA, "name = \"..\"", "starts with a dot"),
        (KAFKA, "name = \"\"", "must not be empty"),
        (KAFKA, "start = \"5\"", "is not one of committed, start, end or a time"),
        (KAFKA, "start = \"@2026-11-22:2026-11-23\"", "is not one of committed"),
        (KAFKA, "in_flight = 65", "from 1 to 64"),
        (KAFKA, "timeout = \"0s\"", "100ms to 1h"),
        (KAFKA, "batch.bytes = \"1GiB\"", "1KiB to 256MiB"),
        (KAFKA, "retry.max = \"100ms\"", "is less than retry.initial"),
        (KAFKA, "retry.give_up_after = \"\"", "is not a duration"),
        (KAFKA, "filter.listener = [\"mx\"]", "no listener is named \"mx\": smtp"),
        (KAFKA, "filter.rcpt_domain = [\"a@b\"]", "is not a domain"),
        (KAFKA, "replay_rate = \"1000\"", "is not a rate"),
        (KAFKA, "filter.dmarc = [\"fail\"]", "requires wait_verdict as well"),
        (KAFKA, "wait_verdict = \"5s\"\nfilter.spf = [\"failed\"]", "is not one of none, pass"),
        (KAFKA, "reference_url = \"m.example\"", "not a URL"),
        (NATS, "servers = [\"http://a:1\"]", "a server is not nats://HOST:PORT"),
        (NATS, "subject = \"mail.{domain}\"", "{domain} is not a placeholder"),
        (NATS, "stream = \"a.b\"", "is not a stream's name"),
        (NATS, "replicas = 6", "from 1 to 5"),
        (S3, "bucket = \"a\"", "is not a bucket"),
        (S3, "endpoint = \"s3.example\"", "not a URL"),
        (S3, "region = \"\"", "a region is needed"),
        (S3, "access_key = \"A\"", "secret_key_file as well"),
        (S3, "secret_key_file = \"/s\"", "access_key as well"),
        (S3, "prefix = \"/mail\"", "is not a prefix"),
        (HOOK, "url = \"ftp://a/\"", "not a URL such as https"),
        (LMTP, "server = \"host\"", "is not HOST:PORT"),
        (LMTP, "helo = \"a b\"", "is not a host name"),
        (LMTP, "tls.ca_file = \"/ca\"", "neither starttls nor implicit_tls is on"),
        (LMTP, "implicit_tls = true\nstarttls = true", "starttls is set as well"),
        (LMTP, "user = \"u\"\npassword_file = \"/p\"", "is sent only over TLS"),
    ] {
        // A key of the base that is tried is taken out there.
        let key = line.split(' ').next().unwrap();
        let kept: Vec<_> =
            base.lines().filter(|line| line.split(' ').next() != Some(key)).collect();
        let text = format!("{}\n{line}\n", kept.join("\n"));
        let errors = from_text(&text).expect_err(line);
        assert_eq!(errors.0.len(), 1, "{errors}");
        let errors = errors.to_string();
        assert!(errors.contains(message) && errors.contains("(m.toml:"), "{line}: {errors}");
    }
    let plain = HOOK.replace("https", "http");
    wrong(
        &format!("{plain}tls.ca_file = \"/ca\"\n"),
        &["export.0.tls.ca_file (m.toml:5): TLS is not used: the URL is not https"],
    );
    wrong(
        &format!("{NATS}credentials_file = \"/c\"\npassword_file = \"/p\"\n"),
        &[
            "export.0.credentials_file (m.toml:5): password_file is set as well: use only one of them",
        ],
    );
}

/// What follows from a mistake is none of its own.
#[test]
fn one_mistake_is_told_once() {
    for text in [
        format!("{KAFKA}user = \"u\"\npassword_file = \"credential:x\"\n"),
        format!("{KAFKA}retry.max = \"5\"\n"),
        format!("{}tls.ca_file = \"/ca\"\n", HOOK.replace("https", "ftp")),
        "[[export]]\nname = \"a\"\ntype = \"pigeon\"\nretry.initial = \"1s\"\n".to_owned(),
        "[[export]]\nname = \"a\"\nretry.initial = \"1s\"\n".to_owned(),
        format!("[[listener]]\nname = \"a b\"\n{KAFKA}filter.listener = [\"a\"]\n"),
    ] {
        let errors = from_text(&text).unwrap_err();
        assert_eq!(errors.0.len(), 1, "{errors}");
    }
}

#[test]
fn without_an_admin_listener_references_need_a_url() {
    let set = ["server.admin.listen="];
    let errors = merged(HOOK, &[], &set).unwrap_err().to_string();
    assert!(errors.contains("export.0.reference_url (default): is needed if"), "{errors}");
    assert!(merged(LMTP, &[], &set).is_ok());
    let config = merged(&format!("{HOOK}reference_url = \"https://m\"\n"), &[], &set).unwrap();
    assert_eq!(config.exports[0].document.reference_url, "https://m");
}

#[test]
fn where_it_starts() {
    assert_eq!(start("committed"), Ok(Start::Committed));
    assert_eq!(start("start"), Ok(Start::Start));
    assert_eq!(start("end"), Ok(Start::End));
    assert_eq!(start("@2026-11-22T00:00:01Z"), Ok(Start::Time(1_795_305_601_000_000)));
    let before = log::unix_micros() - 3_600_000_000;
    let Ok(Start::Time(ago)) = start("@-1h") else { panic!() };
    assert!((before..before + 60_000_000).contains(&ago));
}

#[test]
fn relays_over_tls() {
    let relay = |lines: &str| match export(&format!("{LMTP}{lines}")).sink {
        SinkOptions::Relay(relay) => relay,
        other => panic!("{other:?}"),
    };
    let starttls =
        relay("starttls = true\ntls.ca_file = \"/ca\"\nuser = \"u\"\npassword_file = \"/p\"\n");
    assert!(starttls.tls.enabled && !starttls.implicit_tls);
    assert_eq!(starttls.tls.ca_file, Some(PathBuf::from("/ca")));
    let implicit = relay("implicit_tls = true\nhelo = \"out.example\"\n");
    assert!(implicit.tls.enabled && implicit.implicit_tls);
    assert_eq!(implicit.helo, "out.example");
}

/// 50 mails a second are to make an object in minutes, not 25 objects a second. Where each mail has a
/// file of its own, waiting would only delay it.
#[test]
fn batches_fit_the_sink() {
    let small = BatchOptions { records: 500, bytes: 1 << 20, delay: ms(20) };
    let large = BatchOptions { records: 100_000, bytes: 64 << 20, delay: ms(300_000) };
    let folder = "[[export]]\nname = \"f\"\ntype = \"folder\"\ndir = \"/x\"\n";
    let files = "[[export]]\nname = \"f\"\ntype = \"files\"\ndir = \"/x\"\n";
    for text in [KAFKA, NATS, HOOK, LMTP] {
        assert_eq!(export(text).batch, small, "{text}");
    }
    for text in [S3, folder] {
        assert_eq!(export(text).batch, large, "{text}");
        assert_eq!(export(&format!("{text}layout = \"parquet\"\n")).batch, large);
        let eml = format!("{text}layout = \"eml\"\n");
        assert_eq!(export(&eml).batch, BatchOptions { delay: ms(20), ..large });
    }
    for (layout, delay) in
        [("eml", 20), ("maildir", 20), ("mbox", 300_000), ("jsonl", 300_000), ("parquet", 300_000)]
    {
        let text = format!("{files}layout = \"{layout}\"\n");
        assert_eq!(export(&text).batch, BatchOptions { delay: ms(delay), ..large }, "{layout}");
        let text = format!("{text}batch = {{ delay = \"7s\" }}\n");
        assert_eq!(export(&text).batch.delay, ms(7_000), "{layout}: as written");
    }
}

#[test]
fn modes_of_files_are_octal_and_sensible() {
    let files = "[[export]]\nname = \"f\"\ntype = \"files\"\ndir = \"/x\"\n";
    for (text, file, dir) in [
        ("0600", 0o600, 0o700),
        ("0640", 0o640, 0o750),
        ("644", 0o644, 0o755),
        ("0660", 0o660, 0o770),
    ] {
        let SinkOptions::Files(files) = export(&format!("{files}mode = \"{text}\"\n")).sink else {
            panic!()
        };
        assert_eq!((files.mode.of_file(), files.mode.of_dir()), (file, dir), "{text}");
    }
    for (bad, why) in [
        ("", "octal"),
        ("640x", "octal"),
        ("0680", "octal"),
        ("06400", "octal"),
        ("0755", "other than read and write"),
        ("4600", "other than read and write"),
        ("0440", "would prevent the server"),
    ] {
        let told =
            from_text(&format!("{files}mode = \"{bad}\"\n")).expect_err("refused").to_string();
        assert!(told.contains(why) && told.contains("export.0.mode"), "{bad}: {told}");
    }
}

#[test]
fn basic_and_bearer_exclude_each_other() {
    let login = "user = \"u\"\npassword_file = \"/pw\"\n";
    let SinkOptions::Webhook(hook) = export(&format!("{HOOK}{login}")).sink else { panic!() };
    assert_eq!((hook.user.as_str(), hook.password_file), ("u", Some(PathBuf::from("/pw"))));
    for (more, why) in [
        (format!("{login}token_file = \"/t\"\n"), "only one of them"),
        ("user = \"u\"\n".to_owned(), "password_file as well"),
        ("password_file = \"/pw\"\n".to_owned(), "user as well"),
        (login.replace("\"u\"", "\"u:v\""), "RFC 7617"),
    ] {
        let told = from_text(&format!("{HOOK}{more}")).expect_err("refused").to_string();
        assert!(told.contains(why), "{more}: {told}");
    }
}
