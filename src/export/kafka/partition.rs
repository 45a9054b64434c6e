//! Which partition a key belongs to.

/// The partition of a key among `partitions`, at least 1, as Java's default partitioner has it: so
/// what other producers write under the same key lies in the same partition.
///
/// Source: `BuiltInPartitioner.partitionForKey` of Apache Kafka.
pub(super) fn of_key(key: &[u8], partitions: usize) -> usize {
    (murmur2(key) & 0x7fff_ffff) as usize % partitions
}

/// MurmurHash2 of 32 bits with Kafka's seed, by Austin Appleby.
///
/// Source: `Utils.murmur2` of Apache Kafka.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let (words, rest) = data.as_chunks::<4>();
    // Java's lengths are of 32 bits, too.
    let mut hash = SEED ^ data.len() as u32;
    for word in words {
        let word = u32::from_le_bytes(*word).wrapping_mul(M);
        let word = (word ^ (word >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ word;
    }
    if !rest.is_empty() {
        for (at, octet) in rest.iter().enumerate() {
            hash ^= u32::from(*octet) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: `UtilsTest.testMurmur2` of Apache Kafka.
    #[test]
    fn hashes_as_kafka_does() {
        for (text, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), hash, "{text}");
        }
    }

    #[test]
    fn partitions_are_within_the_topic() {
        for partitions in 1..50 {
            for key in 0..100_u32 {
                assert!(of_key(&key.to_le_bytes(), partitions) < partitions);
            }
        }
    }
}
