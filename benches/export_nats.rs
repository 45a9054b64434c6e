//! What the JetStream sink costs compared with the bare client: records of 4 KiB a second, to the same
//! server, in turns, so that both meet the same machine. Prints a table.
//!
//! Both publish a batch of 500 ahead and then wait for its acks; the bare client sends octets it has
//! at hand, the sink makes subject, headers and document of a record. The stream lies on this
//! machine's disk, as nats-server syncs by default (every two minutes).

// What is `pub` here is of use to the modules beside it.
#![allow(unreachable_pub)]
#![allow(clippy::unwrap_used)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use async_nats::jetstream::{self, message::PublishMessage};
use futures_util::future::join_all;
use mailrace::export::{Key, Nats, Record, Sink};
use support::servers::{
    lane::{deliver_all, raw, record},
    nats::NatsServer,
};

const RECORDS: u64 = 20_000;
const BATCH: usize = 500;
const ROUNDS: usize = 5;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let Some(server) = NatsServer::start() else { return };
    println!("lanes  bare/s  sink/s  sink/bare  (median of {ROUNDS} rounds, 4 KiB, nats-server)");
    for lanes in [1, 4] {
        let share = RECORDS / lanes;
        let shards: Vec<Vec<Record>> = (0..lanes as u16)
            .map(|shard| (0..share).map(|offset| record(shard, offset, 4_096)).collect())
            .collect();
        let (mut bare, mut sunk) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            bare.push(rate(&server, &shards, true).await);
            sunk.push(rate(&server, &shards, false).await);
        }
        let (bare, sunk) = (median(bare), median(sunk));
        println!("{lanes:>5} {bare:>7.0} {sunk:>7.0} {:>10.2}", sunk / bare);
    }
}

/// Records a second into an empty stream.
async fn rate(server: &NatsServer, shards: &[Vec<Record>], bare: bool) -> f64 {
    let options = NatsServer::options(&server.url());
    let sink = Nats::new(options, raw(Key::None), Duration::from_secs(30)).unwrap();
    sink.check().await.unwrap();
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let started = Instant::now();
    if bare {
        join_all(shards.iter().map(|records| publish(&context, records))).await;
    } else {
        let errors =
            join_all(shards.iter().map(|records| deliver_all(&sink, records, BATCH))).await;
        assert_eq!(errors.concat(), []);
    }
    let elapsed = started.elapsed().as_secs_f64();
    let mut stream = context.get_stream("MAIL").await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, RECORDS);
    context.delete_stream("MAIL").await.unwrap();
    RECORDS as f64 / elapsed
}

async fn publish(context: &jetstream::Context, records: &[Record]) {
    for batch in records.chunks(BATCH) {
        let mut acks = Vec::with_capacity(batch.len());
        for record in batch {
            let message = PublishMessage::build()
                .message_id(record.id.to_string())
                .payload(record.data.clone());
            acks.push(context.send_publish("mail.smtp.d0_example", message).await.unwrap());
        }
        for ack in acks {
            ack.await.unwrap();
        }
    }
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
