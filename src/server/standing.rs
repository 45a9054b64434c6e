//! What makes every message refused though nothing has failed: configurations and files that accept
//! nobody's mail. Reported in the log and by `/readyz` while it lasts.

use std::sync::Arc;

use crate::{
    admin::Readiness,
    config::{Config, ListenerConfig, format_size},
    policy::{Accept, Workers},
    smtp,
};

/// Memory of a shard below which a message of some size is never read to its end: two buffers in
/// which mail data goes to the log.
const INFLIGHT_MIN: u64 = 512 << 10;

/// See the module's page.
pub(super) struct Standing {
    ready: Arc<Readiness>,
    told: Vec<String>,
}

impl Standing {
    pub(super) fn new(ready: Arc<Readiness>) -> Self {
        Self { ready, told: Vec::new() }
    }

    /// Looks at what is in force; `accept` is parallel to the configuration's listeners. What is
    /// new is logged. Reads no file: one that changed and cannot be used is not in force.
    pub(super) fn look(
        &mut self,
        config: &Config,
        accept: &[Option<Arc<Accept>>],
        users: Option<&Workers>,
    ) {
        let mut found = Vec::new();
        let share = config.limits.inflight_bytes / config.server.shards as u64;
        if share < INFLIGHT_MIN {
            found.push(format!(
                "limits.inflight_bytes leaves each of {} shards {}, and {} are needed to receive a \
                 message; raise it, or lower server.shards",
                config.server.shards,
                format_size(share),
                format_size(INFLIGHT_MIN),
            ));
        }
        let taking = |listener: &&ListenerConfig| listener.protocol != smtp::Protocol::Refuse;
        let listeners = config.listeners.iter().filter(taking).count();
        let refusing: Vec<_> = config
            .listeners
            .iter()
            .zip(accept)
            .filter(|(listener, _)| taking(listener))
            .filter_map(|(listener, accept)| refuses_all(listener, accept.as_deref(), users))
            .collect();
        let all = listeners > 0 && refusing.len() == listeners;
        let obstacles: Vec<_> =
            found.iter().chain(refusing.iter().filter(|_| all)).cloned().collect();
        found.extend(refusing);
        for what in found.iter().filter(|what| !self.told.contains(what)) {
            tracing::error!("{what}");
        }
        self.told = found;
        self.ready.set_standing(obstacles);
    }
}

/// Why a listener takes nobody's mail.
fn refuses_all(
    listener: &ListenerConfig,
    accept: Option<&Accept>,
    users: Option<&Workers>,
) -> Option<String> {
    let name = &listener.name;
    let empty = |count: Option<usize>| count == Some(0);
    if accept.is_some_and(|accept| empty(accept.domains()) || empty(accept.recipients())) {
        return Some(format!(
            "listener {name}: its accept table lists no recipients, so every recipient is \
             refused; add some to its domains, domains_file or recipients_file"
        ));
    }
    let external = listener.auth.mechanisms.contains(&smtp::Mechanism::External);
    if !listener.auth.required || external || users?.has_users(name)? {
        return None;
    }
    let path = listener.auth.users_file.as_deref()?.display();
    Some(format!(
        "listener {name}: auth.required is set, but {path} has no user; `mailrace user add {path} \
         NAME` adds one"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Machine,
        policy::{Edit, edit_users},
        server::users,
    };

    /// A users file that breaks, or is taken away, changes nothing: neither who may log in, nor what
    /// is said of it.
    #[test]
    fn it_goes_by_the_users_in_force() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        std::fs::write(&path, "# nobody yet\n").unwrap();
        let sets = [
            "listener.0.auth.mechanisms=SCRAM-SHA-256".to_owned(),
            "listener.0.auth.required=true".to_owned(),
            "server.tls.cert_file=/cert.pem".to_owned(),
            "server.tls.key_file=/key.pem".to_owned(),
            format!("listener.0.auth.users_file={}", path.display()),
        ];
        let config = Config::from_sources([], &sets, &Machine::detect()).unwrap();
        let workers = users::serve(config.open_users().unwrap()).unwrap().unwrap();
        let mut standing = Standing::new(Arc::default());
        let look = |standing: &mut Standing| {
            standing.look(&config, &[None], Some(&workers));
            standing.told.join("; ")
        };
        assert!(look(&mut standing).contains("has no user"), "{}", standing.told.join("; "));
        std::fs::write(&path, "no colon\n").unwrap();
        assert!(workers.reload()[0].1.is_err());
        assert!(look(&mut standing).contains("has no user"), "the broken file is not in force");
        std::fs::write(&path, "").unwrap();
        edit_users(&path, &Edit::Set { name: "tim", password: "tanstaaf" }).unwrap();
        assert!(workers.reload()[0].1.is_ok());
        assert_eq!(look(&mut standing), "");
        std::fs::write(&path, "").unwrap();
        assert_eq!(look(&mut standing), "", "what is in the file counts once it is loaded");
    }
}
