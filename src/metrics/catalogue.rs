//! The catalogue of families: what a shard counts, what is kept of the log, what the process is.
//!
//! Names and labels are the contract of the program's users.

use super::{
    Extra, KeptLog, Label, LogFacts, ProcessFacts, RejectClass, RejectReason,
    families::{
        Families, Samples, Scale, Value, by_listener, each_listener, named, number, tls_listener,
    },
};
use prometheus::proto::MetricType;

/// A number of one shard's log.
type OfKept = fn(&KeptLog) -> u64;

impl Families<'_> {
    pub(super) fn process_wide(&mut self, shards: usize, extra: &Extra) {
        let labels = vec![("version", &*extra.version), ("revision", &*extra.revision)];
        let info = vec![number(&labels, None, MetricType::GAUGE, 1.0)];
        self.push("mailrace_build_info", "Always 1.", MetricType::GAUGE, info);
        self.plain_gauge("mailrace_shards", "Worker shards.", shards as f64);
        let diagnostics = [("warning", extra.warnings), ("error", extra.errors)]
            .map(|(level, count)| {
                number(&[("level", level)], None, MetricType::COUNTER, count as f64)
            })
            .into();
        let name = "mailrace_server_diagnostics_total";
        self.push(name, "Warnings and errors logged.", MetricType::COUNTER, diagnostics);
        let name = "mailrace_server_log_lines_dropped_total";
        let dropped = extra.log_lines_dropped as f64;
        let dropped = vec![number(&[], None, MetricType::COUNTER, dropped)];
        let help = "Log lines dropped because nothing read stderr.";
        self.push(name, help, MetricType::COUNTER, dropped);
        if let Some(recovery) = extra.recovery {
            let name = "mailrace_log_recovery_duration_seconds";
            self.plain_gauge(name, "Recovery at the last start.", recovery.as_secs_f64());
        }
        if let Some(disk) = &extra.disk {
            let free = disk.free_bytes as f64;
            self.plain_gauge("mailrace_log_disk_free_bytes", "Free space on the log's disk.", free);
            let size = disk.size_bytes as f64;
            self.plain_gauge("mailrace_log_disk_size_bytes", "Size of the log's disk.", size);
            let state = f64::from(disk.state as u8);
            self.plain_gauge("mailrace_log_disk_state", "0 ok, 1 low, 2 full.", state);
        }
        let help = "1 if a 250 means synced, 0 with log.sync = none.";
        self.plain_gauge("mailrace_log_durable", help, f64::from(u8::from(!extra.not_durable)));
    }

    pub(super) fn sessions(&mut self) {
        self.listener_counter("smtp_connections_total", "Connections accepted.", |l| l.connections);
        self.counters("smtp_connections_refused_total", "Connections refused.", |s| {
            by_listener(s, "reason", |l| l.refused.iter().collect())
        });
        self.family("smtp_sessions_active", "Open sessions.", MetricType::GAUGE, true, |s| {
            each_listener(s, |l| Value::Number(l.sessions_active as f64))
        });
        self.counters("smtp_sessions_closed_total", "Sessions ended.", |s| {
            by_listener(s, "reason", |l| l.closed.iter().collect())
        });
        let name = "smtp_session_duration_seconds";
        self.listener_duration(name, "Duration of ended sessions.", |l| &l.session_duration);
        self.counters("smtp_commands_total", "Commands by verb.", |s| {
            named("command", s.names.commands, &s.commands)
        });
        self.counters("smtp_replies_total", "Replies sent by code.", |s| {
            named("code", s.names.replies, &s.replies)
        });
        self.counters("smtp_protocol_errors_total", "Protocol errors of clients.", |s| {
            named("reason", s.names.protocol_errors, &s.protocol_errors)
        });
        let help = "Arguments of MAIL, RCPT, EHLO and HELO accepted although they violate RFC \
                    5321.";
        self.counters("smtp_lenient_arguments_total", help, |s| {
            named("kind", s.names.lenient, &s.lenient)
        });
        self.counters("smtp_auth_total", "AUTH commands by mechanism and result.", |s| {
            let mechanisms = s.names.auth_mechanisms.iter().zip(&s.auth);
            let each = mechanisms.flat_map(|(mechanism, results)| {
                results.iter().map(|(result, count)| {
                    let labels = vec![("mechanism", *mechanism), ("result", result)];
                    (labels, Value::Number(count as f64))
                })
            });
            each.collect()
        });
    }

    /// Of listeners that have TLS.
    pub(super) fn tls(&mut self) {
        self.counters("tls_handshakes_total", "TLS handshakes ended.", |s| {
            by_listener(s, "result", |l| if l.tls { l.handshakes.iter().collect() } else { vec![] })
        });
        let name = "tls_handshake_duration_seconds";
        let help = "Duration of established handshakes.";
        self.family(name, help, MetricType::HISTOGRAM, false, |s| {
            tls_listener(s, |l| Value::Histogram(&l.handshake_duration, Scale::Seconds))
        });
        let name = "tls_truncated_total";
        let help = "TLS sessions that ended without a close_notify.";
        self.family(name, help, MetricType::COUNTER, false, |s| {
            tls_listener(s, |l| Value::Number(l.truncated as f64))
        });
        let name = "tls_malformed_names_total";
        let help = "Clients that asked for a server name (SNI) that is not a name.";
        self.family(name, help, MetricType::COUNTER, false, |s| {
            tls_listener(s, |l| Value::Number(l.malformed_names as f64))
        });
        let name = "tls_certificate_expiry_timestamp_seconds";
        let help = "When the certificate in use expires.";
        self.family(name, help, MetricType::GAUGE, false, |s| {
            tls_listener(s, |l| Value::Number(l.certificate_not_after as f64))
        });
    }

    pub(super) fn messages(&mut self) {
        let name = "smtp_messages_received_total";
        self.family(name, "Messages acknowledged with 250.", MetricType::COUNTER, true, |s| {
            each_listener(s, |l| Value::Number(l.messages_received as f64))
        });
        let name = "smtp_replies_undelivered_total";
        let help = "Records whose client disconnected before its 250 could be sent.";
        self.listener_counter(name, help, |l| l.replies_undelivered);
        let name = "smtp_received_bytes_total";
        self.listener_counter(name, "Bytes of acknowledged messages.", |l| l.received_bytes);
        self.counters("smtp_messages_rejected_total", "Messages refused.", |s| {
            let mut samples = Samples::new();
            for l in &s.listeners {
                let classes = [
                    (RejectClass::Transient, &l.rejected_transient),
                    (RejectClass::Permanent, &l.rejected_permanent),
                ];
                for (class, tally) in classes {
                    // A pair that cannot come would stay at 0 forever.
                    let comes = |reason: &RejectReason| {
                        reason.classes().contains(&class) || tally.count(*reason) > 0
                    };
                    for reason in RejectReason::ALL.iter().copied().filter(comes) {
                        let (class, name) = (class.name(), reason.name());
                        let labels =
                            vec![("listener", &*l.name), ("class", class), ("reason", name)];
                        samples.push((labels, Value::Number(tally.count(reason) as f64)));
                    }
                }
            }
            samples
        });
        let help = "Size of acknowledged messages.";
        self.histogram("smtp_message_size_bytes", help, Scale::Bytes, |s| &s.message_size);
        let help = "Recipients of acknowledged messages.";
        self.histogram("smtp_message_recipients", help, Scale::Count, |s| &s.message_recipients);
        let help = "Last message byte received to 250 written.";
        self.listener_duration("smtp_message_ack_duration_seconds", help, |l| &l.ack_duration);
        let name = "smtp_transaction_duration_seconds";
        self.listener_duration(name, "MAIL to the final reply.", |l| &l.transaction_duration);
    }

    pub(super) fn shard(&mut self) {
        let help = "Message bytes received, not yet durable.";
        self.gauge("shard_inflight_bytes", help, true, |s| s.inflight_bytes);
        let help = "Limit of message bytes in flight.";
        self.gauge("shard_inflight_limit_bytes", help, false, |s| s.inflight_limit_bytes);
        self.counters("shard_overload_seconds_total", "Time at each step of overload.", |s| {
            let seconds = |(step, us)| (vec![("step", step)], Value::Number(us as f64 / 1e6));
            s.overload_us.iter().map(seconds).collect()
        });
        self.counters("shard_backpressure_seconds_total", "Time reading was paused.", |s| {
            let seconds = |(cause, us)| (vec![("cause", cause)], Value::Number(us as f64 / 1e6));
            s.backpressure_us.iter().map(seconds).collect()
        });
        let name = "shard_busy_seconds_total";
        self.family(name, "Time running tasks.", MetricType::COUNTER, true, |s| {
            vec![(Vec::new(), Value::Number(s.busy_us as f64 / 1e6))]
        });
        self.counter("shard_stalls_total", "Loop turns over 10 ms.", true, |s| s.stalls);
        self.counter("shard_heartbeats_total", "Heartbeats.", true, |s| s.heartbeats);
    }

    pub(super) fn log(&mut self) {
        let help = "Records appended.";
        self.counter("log_appended_records_total", help, false, |s| s.log_appended_records);
        let help = "Bytes appended.";
        self.counter("log_appended_bytes_total", help, false, |s| s.log_appended_bytes);
        let name = "log_append_duration_seconds";
        self.histogram(name, "Duration of writes.", Scale::Seconds, |s| &s.log_append_duration);
        let name = "log_sync_duration_seconds";
        self.histogram(name, "Duration of syncs.", Scale::Seconds, |s| &s.log_sync_duration);
        let name = "log_batch_records";
        self.histogram(name, "Records per sync.", Scale::Count, |s| &s.log_batch_records);
        self.gauge("log_end_offset", "Next offset assigned.", true, |s| s.log_end_offset);
        let help = "First offset not yet synced.";
        self.gauge("log_high_water_mark", help, true, |s| s.log_high_water_mark);
        let help = "Bytes of torn tails dropped at start.";
        self.counter("log_truncated_bytes_total", help, false, |s| s.log_truncated_bytes);
    }

    /// What the directories hold, shards that do not run any more among them.
    pub(super) fn kept(&mut self, log: &LogFacts) {
        let families: [(&str, &str, bool, OfKept); 3] = [
            ("log_start_offset", "First offset kept.", true, |kept| kept.start_offset),
            ("log_segments", "Segments kept.", false, |kept| kept.segments),
            ("log_size_bytes", "Bytes of the segments kept.", false, |kept| kept.bytes),
        ];
        for (name, help, split, of) in families {
            let kind = MetricType::GAUGE;
            let number = |shard, value| number(&[], shard, kind, value as f64);
            let samples = match split || self.split_all {
                true => log.kept.iter().map(|kept| number(Some(kept.shard), of(kept))).collect(),
                false => vec![number(None, log.kept.iter().map(of).sum::<u64>())],
            };
            self.push(&format!("mailrace_{name}"), help, kind, samples);
        }
    }

    /// Of shards, and of those who read their logs: the latter is of no shard.
    pub(super) fn log_trouble(&mut self, log: &LogFacts) {
        let (name, help) = ("log_errors_total", "Failed log operations.");
        self.shards_and(name, help, &log.errors, "op", |s| &s.log_errors);
        let (name, help) = ("log_corrupt_records_total", "Damaged records found.");
        self.shards_and(name, help, &log.corrupt, "stage", |s| &s.log_corrupt_records);
    }

    pub(super) fn process(&mut self, facts: &ProcessFacts) {
        if let Some(seconds) = facts.cpu_seconds {
            let samples = vec![number(&[], None, MetricType::COUNTER, seconds)];
            let name = "process_cpu_seconds_total";
            self.push(name, "User and system time.", MetricType::COUNTER, samples);
        }
        let gauges = [
            ("process_resident_memory_bytes", "Resident memory.", facts.resident_bytes),
            ("process_virtual_memory_bytes", "Virtual memory.", facts.virtual_bytes),
            ("process_open_fds", "Open descriptors.", facts.open_fds),
            ("process_max_fds", "Limit of descriptors.", facts.max_fds),
            ("process_threads", "Threads.", facts.threads),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                self.plain_gauge(name, help, value as f64);
            }
        }
        if let Some(start) = facts.start_time_seconds {
            let name = "process_start_time_seconds";
            self.plain_gauge(name, "Start time since the epoch.", start);
        }
    }
}
