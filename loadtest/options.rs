//! The options, checked.

use std::{collections::BTreeMap, time::Duration};

use clap::ValueEnum;
use serde_json::{Value, json};

use super::{
    args::{RunArgs, Switch},
    condition::Condition,
    corpus::Corpus,
    credentials::Credentials,
    dialogue::{Security, Style},
    engine::Plan,
    mail::{Mail, MailOptions, SIZE_MIN, Sizes},
    proxy::Proxy,
    random::{Weighted, mix},
    run::run_number,
    scenario::{self, Misfit},
    schedule::{Arrivals, Schedule, Stage},
    socket::ClientNet,
    target::Target,
    tls::Secure,
    units,
};

/// Largest message: beyond it servers refuse anyway.
const SIZE_MAX: usize = 1 << 30;
const CONNECTIONS_MAX: usize = 100_000;
/// RFC 5321 §4.5.3.1.8 promises 100; servers take more.
const RECIPIENTS_MAX: usize = 10_000;

/// A run, ready to start.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) target: Target,
    pub(super) plan: Plan,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) fail_if: Vec<Condition>,
    /// What a search keeps.
    pub(super) search: Option<Condition>,
    pub(super) arrivals: Arrivals,
    pub(super) seed: u64,
    /// As the report shows them.
    pub(super) told: Value,
}

impl Options {
    /// # Errors
    /// A text for the user: which option is wrong, and why.
    pub(super) fn check(args: &RunArgs) -> Result<(Self, MailOptions), String> {
        let target = Target::parse(&args.target)?;
        if target.is_public() && !args.allow_public_target {
            return Err(format!(
                "{target} is outside loopback and private networks; a load test there needs \
                 --allow-public-target and the owner's consent"
            ));
        }
        let security = security(args, &target)?;
        let secure = secure(args, &target, security)?;
        let credentials = args.auth_file.as_deref().map(Credentials::load).transpose()?;
        let within = |what: &str, number: usize, most: usize| {
            if (1..=most).contains(&number) {
                return Ok(());
            }
            Err(format!("--{what} {number} is out of range: 1 to {most}"))
        };
        within("connections", args.connections, CONNECTIONS_MAX)?;
        within("in-flight", args.in_flight, 1000)?;
        within("messages-per-connection", args.messages_per_connection as usize, usize::MAX)?;
        if args.in_flight > 1 && args.pipelining == Switch::Off {
            return Err("--in-flight above 1 needs --pipelining on".to_owned());
        }
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let warmup = args.warmup.unwrap_or(match args.messages {
            Some(_) => Duration::ZERO,
            None => Duration::from_secs(3),
        });
        let mut length = args.duration.unwrap_or(Duration::from_secs(10));
        let mut stages = match args.rate {
            Some(rate) => vec![Stage { length: f64::INFINITY, rate }],
            None => Vec::new(),
        };
        if let Some(text) = &args.stages {
            stages = parse_stages(text)?;
            length =
                Duration::from_nanos(stages.iter().map(|stage| stage.length).sum::<f64>() as u64);
            // The warm-up runs at the rate of the first stage.
            stages[0].length += warmup.as_nanos() as f64;
        }
        if length.is_zero() {
            return Err("--duration must not be zero".to_owned());
        }
        let schedule =
            (!stages.is_empty()).then(|| Schedule::new(stages.clone(), args.arrivals, args.seed));
        let net = args.client_net.as_deref().map(ClientNet::parse).transpose()?;
        let proxy = args.proxy_protocol.map(|version| Proxy { version, net });
        let misfits = match &args.scenario {
            Some(path) => scenario::load(path, args.connections)?,
            None => Vec::new(),
        };
        let misbehaving: usize = misfits.iter().map(|misfit| misfit.connections).sum();
        within("threads", args.threads, args.connections - misbehaving)?;
        let plan = Plan {
            // The one that answers is chosen when the run starts.
            address: target.addresses[0].clone(),
            from: if proxy.is_some() { None } else { net },
            proxy,
            style: Style {
                protocol: target.protocol,
                helo: args.helo.clone(),
                pipelining: args.pipelining == Switch::On,
                chunking: args.chunking,
                security,
                credentials: credentials.unwrap_or_default(),
                in_flight: args.in_flight,
                messages_max: args.messages_per_connection,
            },
            secure,
            threads: args.threads,
            connections: args.connections - misbehaving,
            schedule,
            warmup: nanos(warmup),
            length: if args.messages.is_some() { u64::MAX } else { nanos(length) },
            messages: args.messages,
            late_limit: nanos(args.late_limit),
            reply_wait: nanos(args.timeout),
            drain: nanos(args.drain),
            keep_ledger: args.verify,
            keep_ack_times: args.e2e,
            misfits: misfits.into_iter().map(|misfit| with_mail(misfit, args)).collect(),
        };
        let told = tell(args, &plan, warmup, length);
        let condition = |text: &String| text.parse::<Condition>();
        let options = Self {
            target,
            plan,
            tags: tags(&args.tag)?,
            fail_if: args.fail_if.iter().map(condition).collect::<Result<_, _>>()?,
            search: args.search.as_ref().map(condition).transpose()?,
            arrivals: args.arrivals,
            seed: args.seed,
            told,
        };
        Ok((options, mail(args)?))
    }

    /// How many messages are sent within so many seconds; `None` where nothing limits it.
    pub(super) fn messages_at_most(&self, seconds: f64) -> Option<f64> {
        if let Some(messages) = self.plan.messages {
            return Some(messages as f64);
        }
        if let Some(rate) = self.told["rate_per_second"].as_f64() {
            return Some(rate * seconds);
        }
        let stages = parse_stages(self.told["stages"].as_str()?).ok()?;
        let of = |stage: &Stage| stage.length / 1e9 * stage.rate;
        let warmup = self.plan.warmup as f64 / 1e9 * stages.first()?.rate;
        Some(stages.iter().map(of).sum::<f64>() + warmup)
    }

    /// Another rate, for the next try of a search.
    pub(super) fn set_rate(&mut self, rate: f64, schedule: Schedule) {
        self.plan.schedule = Some(schedule);
        self.told["loop"] = json!("open");
        self.told["arrivals"] = json!(name_of(self.arrivals));
        self.told["rate_per_second"] = json!(rate);
    }
}

/// Its mail, under a run number of its own.
fn with_mail(misfit: Misfit, args: &RunArgs) -> (Misfit, Mail) {
    let options = MailOptions {
        sizes: Sizes::Between(misfit.size, misfit.size),
        corpus: None,
        recipients: (1, 1),
        from: args.from.clone(),
        to: args.to.clone(),
        domains: None,
        seed: args.seed,
    };
    (misfit, Mail::new(options, mix(run_number(), 1)))
}

fn security(args: &RunArgs, target: &Target) -> Result<Security, String> {
    let security = match (target.is_tls, args.starttls) {
        (true, true) => return Err("--starttls cannot be combined with smtps://".to_owned()),
        (true, false) => Security::Implicit,
        (false, true) => Security::Starttls,
        (false, false) => Security::Never,
    };
    if security == Security::Never {
        let of_tls = [
            (args.insecure, "--insecure"),
            (args.ca_file.is_some(), "--ca-file"),
            (args.no_resumption, "--no-resumption"),
            // RFC 4954 §4: no password in the clear.
            (args.auth_file.is_some(), "--auth-file"),
        ];
        if let Some((_, name)) = of_tls.iter().find(|(is_set, _)| *is_set) {
            return Err(format!("{name} needs TLS: smtps:// or --starttls"));
        }
    } else if args.scenario.is_some() {
        return Err("--scenario cannot be combined with TLS".to_owned());
    }
    Ok(security)
}

fn secure(args: &RunArgs, target: &Target, security: Security) -> Result<Option<Secure>, String> {
    if security == Security::Never {
        return Ok(None);
    }
    let host = target.host.as_deref().ok_or("--starttls: a unix socket has no name to verify")?;
    Secure::new(host, args.ca_file.as_deref(), args.insecure, !args.no_resumption).map(Some)
}

fn mail(args: &RunArgs) -> Result<MailOptions, String> {
    let corpus = args.corpus.as_deref().map(Corpus::load).transpose();
    let domains = args.domains.as_deref().map(|text| {
        weights(text, ':', |domain| Ok(domain.to_owned()))
            .map_err(|what| format!("--domains {text}: {what}; an example is a.test:75,b.test:25"))
    });
    Ok(MailOptions {
        sizes: sizes(&args.size).map_err(|what| format!("--size {}: {what}", args.size))?,
        corpus: corpus.map_err(|error| format!("--corpus: {error}"))?,
        recipients: recipients(&args.recipients)?,
        from: args.from.clone(),
        to: args.to.clone(),
        domains: domains.transpose()?,
        seed: args.seed,
    })
}

fn sizes(text: &str) -> Result<Sizes, String> {
    let size = |text: &str| {
        let bytes = units::size(text)?;
        if (SIZE_MIN..=SIZE_MAX).contains(&bytes) {
            return Ok(bytes);
        }
        Err(format!("{bytes} bytes are out of range: {SIZE_MIN} to {SIZE_MAX}"))
    };
    if let Some(mix) = text.strip_prefix("mix:") {
        return weights(mix, '=', size).map(Sizes::Mix);
    }
    let (least, most) = text.split_once("..").unwrap_or((text, text));
    let (least, most) = (size(least)?, size(most)?);
    if least > most {
        return Err("the bounds are in the wrong order".to_owned());
    }
    Ok(Sizes::Between(least, most))
}

fn recipients(text: &str) -> Result<(usize, usize), String> {
    let (least, most) = text.split_once("..").unwrap_or((text, text));
    match (least.parse(), most.parse()) {
        (Ok(least), Ok(most)) if 1 <= least && least <= most && most <= RECIPIENTS_MAX => {
            Ok((least, most))
        }
        _ => Err(format!("--recipients {text} is not N or N..M, from 1 to {RECIPIENTS_MAX}")),
    }
}

fn weights<T>(
    text: &str,
    mark: char,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Weighted<T>, String> {
    let mut items = Vec::new();
    for item in text.split(',') {
        let (name, weight) = item.split_once(mark).unwrap_or((item, "1"));
        let weight: f64 = weight.parse().map_err(|_| format!("{weight:?} is not a weight"))?;
        if !(0.0..1e9).contains(&weight) || name.is_empty() {
            return Err(format!("{item:?} is not NAME{mark}WEIGHT"));
        }
        items.push((read(name)?, weight));
    }
    Weighted::new(items).ok_or_else(|| "all weights are zero".to_owned())
}

pub(super) fn parse_stages(text: &str) -> Result<Vec<Stage>, String> {
    let stage = |item: &str| {
        let (time, rate) = item.split_once(':')?;
        let length = units::duration(time).ok()?.as_nanos() as f64;
        let rate = units::rate(rate).ok()?;
        (length > 0.0).then_some(Stage { length, rate })
    };
    text.split(',')
        .map(|item| {
            stage(item).ok_or_else(|| {
                format!("--stages: {item:?} is not TIME:RATE; an example is 30s:1k,60s:20k")
            })
        })
        .collect()
}

fn tags(written: &[String]) -> Result<BTreeMap<String, String>, String> {
    let tag = |text: &String| {
        let (key, value) = text.split_once('=')?;
        (!key.is_empty()).then(|| (key.to_owned(), value.to_owned()))
    };
    written
        .iter()
        .map(|text| tag(text).ok_or_else(|| format!("--tag {text}: write KEY=VALUE")))
        .collect()
}

/// A value of an option, as it is written on the command line.
fn name_of(value: impl ValueEnum) -> Option<String> {
    value.to_possible_value().map(|value| value.get_name().to_owned())
}

fn tell(args: &RunArgs, plan: &Plan, warmup: Duration, length: Duration) -> Value {
    let is_open = plan.schedule.is_some();
    json!({
        "loop": if is_open { "open" } else { "closed" },
        "rate_per_second": args.rate,
        "stages": args.stages,
        "arrivals": is_open.then(|| name_of(args.arrivals)),
        "connections": args.connections,
        "threads": args.threads,
        "duration_seconds": args.messages.is_none().then_some(length.as_secs_f64()),
        "messages": args.messages,
        "warmup_seconds": warmup.as_secs_f64(),
        "messages_per_connection": args.messages_per_connection,
        "late_limit_seconds": args.late_limit.as_secs_f64(),
        "in_flight": args.in_flight,
        "timeout_seconds": args.timeout.as_secs_f64(),
        "size": args.corpus.is_none().then_some(&args.size),
        "corpus": args.corpus,
        "recipients": args.recipients,
        "domains": args.domains,
        "seed": args.seed,
        "pipelining": args.pipelining == Switch::On,
        "chunking": args.chunking,
        "tls": match plan.style.security {
            Security::Never => Value::Null,
            Security::Implicit => json!("implicit"),
            Security::Starttls => json!("starttls"),
        },
        "insecure": args.insecure,
        "resumption": plan.secure.is_some() && !args.no_resumption,
        "auth": args.auth_file.is_some(),
        "client_net": args.client_net,
        "proxy_protocol": args.proxy_protocol.map(name_of),
        "scenario": args.scenario,
        "search": args.search,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(sizes("10k"), Ok(Sizes::Between(10_240, 10_240)));
        assert_eq!(sizes("1k..100k"), Ok(Sizes::Between(1024, 102_400)));
        let mix = [(2048, 70.0), (51_200, 25.0), (5 << 20, 5.0)];
        let mix = Sizes::Mix(Weighted::new(mix).unwrap());
        assert_eq!(sizes("mix:2k=70,50k=25,5m=5"), Ok(mix));
        for bad in ["", "1", "100k..1k", "mix:", "mix:2k=x", "mix:2k=0", "2g"] {
            assert!(sizes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn stages_are_read() {
        let stages = parse_stages("30s:1k,1m:20k/s").unwrap();
        assert_eq!(stages[0], Stage { length: 3e10, rate: 1_000.0 });
        assert_eq!(stages[1], Stage { length: 6e10, rate: 20_000.0 });
        for bad in ["", "30s", "0s:1k", "30s:0", "x:1"] {
            assert!(parse_stages(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn recipients_are_read() {
        assert_eq!(recipients("3"), Ok((3, 3)));
        assert_eq!(recipients("1..5"), Ok((1, 5)));
        for bad in ["", "0", "5..1", "1..x", "10001"] {
            assert!(recipients(bad).is_err(), "{bad}");
        }
    }
}
