//! Mailrace's own count of its syncs, from the text form of its metrics.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// A cumulative histogram: upper bound in seconds and count, ascending.
pub(crate) type Buckets = Vec<(f64, f64)>;

/// Reads /metrics over HTTP.
///
/// # Errors
/// Where the admin port does not answer.
pub(crate) fn metrics(admin: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(admin)?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// The buckets of a histogram, summed over its label sets.
pub(crate) fn buckets(text: &str, name: &str) -> Buckets {
    let mut found: Buckets = Vec::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(name).and_then(|rest| rest.strip_prefix("_bucket{"))
        else {
            continue;
        };
        let parsed = || {
            let (labels, count) = rest.rsplit_once('}')?;
            let (_, bound) = labels.split_once("le=\"")?;
            let bound = match bound.split_once('"')?.0 {
                "+Inf" => f64::INFINITY,
                number => number.parse().ok()?,
            };
            Some((bound, count.trim().parse::<f64>().ok()?))
        };
        if let Some((bound, count)) = parsed() {
            match found.iter_mut().find(|(other, _)| *other == bound) {
                Some((_, sum)) => *sum += count,
                None => found.push((bound, count)),
            }
        }
    }
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    found
}

/// A quantile of what was counted between two readings, as `histogram_quantile` of Prometheus
/// finds it: in a straight line within its bucket. `None` if nothing was counted.
pub(crate) fn quantile(before: &Buckets, after: &Buckets, at: f64) -> Option<f64> {
    let earlier = |bound: f64| before.iter().find(|(b, _)| *b == bound).map_or(0.0, |(_, c)| *c);
    let counts: Buckets = after.iter().map(|&(b, count)| (b, count - earlier(b))).collect();
    let total = counts.last()?.1;
    if total <= 0.0 {
        return None;
    }
    let wanted = at * total;
    let mut lower = (0.0, 0.0);
    for (bound, count) in counts {
        if count >= wanted {
            if bound.is_infinite() {
                return Some(lower.0);
            }
            let part = (wanted - lower.1) / (count - lower.1).max(f64::MIN_POSITIVE);
            return Some(lower.0 + (bound - lower.0) * part.clamp(0.0, 1.0));
        }
        lower = (bound, count);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_summed_over_shards_and_quantiles_cut_within() {
        let text = "# TYPE x_seconds histogram\n\
            x_seconds_bucket{shard=\"0\",le=\"0.1\"} 1\n\
            x_seconds_bucket{shard=\"0\",le=\"0.2\"} 3\n\
            x_seconds_bucket{shard=\"0\",le=\"+Inf\"} 3\n\
            x_seconds_bucket{shard=\"1\",le=\"0.1\"} 1\n\
            x_seconds_bucket{shard=\"1\",le=\"0.2\"} 1\n\
            x_seconds_bucket{shard=\"1\",le=\"+Inf\"} 1\n\
            x_seconds_sum 7\nxy_seconds_bucket{le=\"0.1\"} 9\n";
        let found = buckets(text, "x_seconds");
        assert_eq!(found, [(0.1, 2.0), (0.2, 4.0), (f64::INFINITY, 4.0)]);
        let empty = Buckets::new();
        assert_eq!(quantile(&empty, &found, 0.5), Some(0.1));
        assert_eq!(quantile(&empty, &found, 1.0), Some(0.2));
        assert!((quantile(&empty, &found, 0.75).unwrap() - 0.15).abs() < 1e-9);
        assert_eq!(quantile(&found, &found, 0.5), None);
        let before = vec![(0.1, 2.0), (0.2, 2.0), (f64::INFINITY, 2.0)];
        assert!((quantile(&before, &found, 0.5).unwrap() - 0.15).abs() < 1e-9);
    }
}
