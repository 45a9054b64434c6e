//! A topic's client: connects, finds or creates the topic, keeps a connection for each partition.

use std::{sync::Arc, time::Duration};

use rskafka::{
    BackoffConfig,
    client::{
        Client, ClientBuilder, Credentials, SaslConfig,
        partition::{PartitionClient, UnknownTopicHandling},
    },
};
use tokio::{sync::OnceCell, time::Instant};

use mailrace_tls::client_config;

use super::error::classify;
use crate::{ErrorClass, KafkaOptions, SinkError};
use mailrace_tls::read_secret;

/// How long the number of partitions is believed; Java's `metadata.max.age.ms`. Other producers
/// that share keys notice a grown topic within that time, too.
const METADATA_AGE: Duration = Duration::from_secs(300);

/// How long the broker may take to make a topic.
const CREATE_MS: i32 = 10_000;

/// A topic as it was found, with connections to the leaders of its partitions.
pub(super) struct Topic {
    client: Client,
    name: String,
    /// Made when they are first written to.
    partitions: Vec<OnceCell<Arc<PartitionClient>>>,
    found: Instant,
}

impl Topic {
    /// Connects and finds the topic, or makes it where that is wanted.
    ///
    /// # Errors
    /// No broker can be reached, or believes this side; the topic is missing.
    pub(super) async fn connect(options: &KafkaOptions) -> Result<Self, SinkError> {
        let secrets = options.clone();
        let builder = tokio::task::spawn_blocking(move || builder(&secrets))
            .await
            .map_err(|error| SinkError::new(ErrorClass::Other, error))??;
        let client = builder.build().await.map_err(|error| classify(&error))?;
        let mut count = partitions(&client, &options.topic).await?;
        if count.is_none() && options.create_partitions > 0 {
            create(&client, options).await?;
            count = partitions(&client, &options.topic).await?;
        }
        let Some(count) = count else {
            let text =
                format!("the topic {} does not exist, or this user may not see it", options.topic);
            return Err(SinkError::new(ErrorClass::Missing, text));
        };
        if count == 0 {
            let text = format!("the topic {} has no partitions yet", options.topic);
            return Err(SinkError::new(ErrorClass::Connect, text));
        }
        let partitions = (0..count).map(|_| OnceCell::new()).collect();
        Ok(Self { client, name: options.topic.clone(), partitions, found: Instant::now() })
    }

    /// Whether it should be looked up again.
    pub(super) fn is_old(&self) -> bool {
        self.found.elapsed() > METADATA_AGE
    }

    /// Number of its partitions, at least 1.
    pub(super) fn partitions(&self) -> usize {
        self.partitions.len()
    }

    /// The client of a partition, below [`Self::partitions`].
    ///
    /// # Errors
    /// There is no leader, or it cannot be reached.
    pub(super) async fn partition(&self, number: usize) -> Result<Arc<PartitionClient>, SinkError> {
        let connect = || async {
            // Never waits for an unknown topic: the runner tries again, and says meanwhile why.
            let unknown = UnknownTopicHandling::Error;
            let number = i32::try_from(number).unwrap_or(i32::MAX);
            let made = self.client.partition_client(&self.name, number, unknown).await;
            made.map(Arc::new).map_err(|error| classify(&error))
        };
        self.partitions[number].get_or_try_init(connect).await.cloned()
    }
}

/// Everything but the connection. Reads files.
fn builder(options: &KafkaOptions) -> Result<ClientBuilder, SinkError> {
    let mut builder = ClientBuilder::new(options.brokers.clone())
        .client_id("mailrace")
        // Only one attempt: when to try again is the runner's to say, as is telling why not now.
        .backoff_config(BackoffConfig { deadline: Some(Duration::ZERO), ..Default::default() });
    if options.tls.enabled {
        builder = builder.tls_config(Arc::new(client_config(&options.tls)?));
    }
    if !options.user.is_empty() {
        let Some(path) = &options.password_file else {
            return Err(SinkError::new(ErrorClass::Auth, "a user needs password_file"));
        };
        let credentials = Credentials::new(options.user.clone(), read_secret(path)?);
        builder = builder.sasl_config(SaslConfig::Plain(credentials));
    }
    Ok(builder)
}

/// Partitions of a topic; `None`: it is not there.
async fn partitions(client: &Client, name: &str) -> Result<Option<usize>, SinkError> {
    let topics = client.list_topics().await.map_err(|error| classify(&error))?;
    Ok(topics.iter().find(|topic| topic.name == name).map(|topic| topic.partitions.len()))
}

async fn create(client: &Client, options: &KafkaOptions) -> Result<(), SinkError> {
    use rskafka::client::error::{Error, ProtocolError};
    let controller = client.controller_client().map_err(|error| classify(&error))?;
    // KIP-464: -1 leaves the number of copies to the broker's default.replication.factor.
    let copies = -1;
    let made =
        controller.create_topic(&options.topic, options.create_partitions, copies, CREATE_MS).await;
    match made {
        Ok(()) => {
            tracing::info!(topic = options.topic, options.create_partitions, "topic created");
            Ok(())
        }
        // Another exporter was faster.
        Err(Error::ServerError { protocol_error: ProtocolError::TopicAlreadyExists, .. }) => Ok(()),
        Err(error) => {
            let cause = classify(&error);
            let text = format!("creating the topic {}: {}", options.topic, cause.text);
            Err(SinkError { text, ..cause })
        }
    }
}
