//! What rustls alone needs to decrypt, in memory: the yardstick of what a connection may cost.

use std::{io, sync::Arc, time::Duration};

use mailrace::tls::{Config, Demands, Files, Tls};
use rustls::{
    ClientConnection, ServerConfig,
    pki_types::ServerName,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, UnbufferedStatus},
};

use crate::client::{Client, Group};

/// As much as stays in the second-level cache between being encrypted and being decrypted.
const BATCH: usize = 256 << 10;
/// Of one receive buffer of a shard.
const RECEIVED: usize = 16 << 10;

/// Nanoseconds of CPU an octet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alone {
    /// rustls' unbuffered interface, whole records at a time.
    pub(crate) rustls: f64,
    /// `mailrace::tls`, a receive buffer at a time.
    pub(crate) ours: f64,
}

pub(crate) fn run(files: &Files, octets: u64) -> io::Result<Alone> {
    let config =
        Config::new(std::slice::from_ref(files), &Demands::default()).map_err(io::Error::other)?;
    Ok(Alone { rustls: rustls(files, octets)?, ours: ours(&config, octets)? })
}

/// The client's records of `BATCH` octets.
fn encrypt(client: &mut ClientConnection, plain: &[u8], wire: &mut Vec<u8>) -> io::Result<()> {
    use io::Write;
    wire.clear();
    client.writer().write_all(plain)?;
    while client.wants_write() {
        client.write_tls(wire)?;
    }
    Ok(())
}

fn receive(client: &mut ClientConnection, mut octets: &[u8]) -> io::Result<()> {
    while !octets.is_empty() {
        client.read_tls(&mut octets)?;
        client.process_new_packets().map_err(io::Error::other)?;
    }
    Ok(())
}

fn client() -> io::Result<ClientConnection> {
    let name = ServerName::try_from("localhost").expect("it is a name");
    let config = Client::new(Group::X25519, false).config();
    let mut client = ClientConnection::new(config, name).map_err(io::Error::other)?;
    client.set_buffer_limit(None);
    Ok(client)
}

/// Nanoseconds for each octet that a server decrypts.
fn each_octet(
    client: &mut ClientConnection,
    octets: u64,
    mut decrypt: impl FnMut(&mut Vec<u8>, &mut u64) -> io::Result<()>,
) -> io::Result<f64> {
    let plain = vec![b'x'; BATCH];
    let (mut wire, mut spent, mut taken) = (Vec::new(), Duration::ZERO, 0);
    while taken < octets {
        encrypt(client, &plain, &mut wire)?;
        let began = thread_time();
        decrypt(&mut wire, &mut taken)?;
        spent += thread_time() - began;
    }
    Ok(spent.as_secs_f64() * 1e9 / taken as f64)
}

fn rustls(files: &Files, octets: u64) -> io::Result<f64> {
    let mut client = client()?;
    let mut server =
        UnbufferedServerConnection::new(server_config(files)?).map_err(io::Error::other)?;
    let mut wire = Vec::new();
    let mut back = Vec::new();
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() {
        while client.wants_write() {
            client.write_tls(&mut wire)?;
        }
        let used = take(&mut server, &mut wire, &mut back, &mut 0)?;
        wire.drain(..used);
        receive(&mut client, &back)?;
        back.clear();
    }
    each_octet(&mut client, octets, |wire, taken| {
        let used = take(&mut server, wire, &mut back, taken)?;
        if used != wire.len() {
            return Err(io::Error::other("rustls left records"));
        }
        Ok(())
    })
}

/// Has rustls take the records of `wire`; counts the plaintext.
fn take(
    server: &mut UnbufferedServerConnection,
    wire: &mut [u8],
    back: &mut Vec<u8>,
    taken: &mut u64,
) -> io::Result<usize> {
    let mut used = 0;
    loop {
        let UnbufferedStatus { discard, state } = server.process_tls_records(&mut wire[used..]);
        used += discard;
        match state.map_err(io::Error::other)? {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record.map_err(io::Error::other)?;
                    used += record.discard;
                    *taken += record.payload.len() as u64;
                }
            }
            ConnectionState::EncodeTlsData(mut data) => {
                let start = back.len();
                back.resize(start + (32 << 10), 0);
                let count = data
                    .encode(&mut back[start..])
                    .map_err(|error| io::Error::other(format!("{error:?}")))?;
                back.truncate(start + count);
            }
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => {
                return Ok(used);
            }
            other => return Err(io::Error::other(format!("{other:?}"))),
        }
    }
}

fn server_config(files: &Files) -> io::Result<Arc<ServerConfig>> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let certificate = CertificateDer::from_pem_file(&files.cert_file).map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(&files.key_file).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate], key));
    config.map(Arc::new).map_err(io::Error::other)
}

fn ours(config: &Config, octets: u64) -> io::Result<f64> {
    let mut client = client()?;
    let mut server = Tls::new(config).map_err(io::Error::other)?;
    let mut wire = Vec::new();
    let mut back = Vec::new();
    while client.is_handshaking() || !server.is_established() || client.wants_write() {
        wire.clear();
        while client.wants_write() {
            client.write_tls(&mut wire)?;
        }
        server.feed(&mut wire, |_, _| {}).map_err(io::Error::other)?;
        back.clear();
        server.take_pending(&mut back);
        receive(&mut client, &back)?;
    }
    each_octet(&mut client, octets, |wire, taken| {
        for received in wire.chunks_mut(RECEIVED) {
            server
                .feed(received, |_, plain| *taken += plain.len() as u64)
                .map_err(io::Error::other)?;
        }
        Ok(())
    })
}

fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: room for the answer; the clock is there on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
