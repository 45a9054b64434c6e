//! The forms of a page of metrics, and which of them a client wants.

/// How metrics are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text, version 0.0.4.
    #[default]
    Text,
    /// OpenMetrics 1.0 in text.
    OpenMetrics,
    /// Prometheus' protobuf, with native histograms.
    Protobuf,
}

impl Format {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Text, Self::OpenMetrics, Self::Protobuf];

    /// Its Content-Type.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; \
                 encoding=delimited"
            }
        }
    }

    /// What an Accept field asks for: the known form with the highest weight, of equals the first
    /// (RFC 9110 §12.5.1). Text where none is known, as any Prometheus reads it.
    #[must_use]
    pub fn wanted(accept: &str) -> Self {
        let mut best = (Self::Text, 0);
        for range in accept.split(',') {
            let Some((format, weight)) = range_of(range) else { continue };
            if weight > best.1 {
                best = (format, weight);
            }
        }
        best.0
    }
}

/// A range of media types: a form of ours, and its weight in thousandths.
fn range_of(range: &str) -> Option<(Format, u32)> {
    let mut parts = range.split(';').map(str::trim);
    let kind = parts.next()?.to_ascii_lowercase();
    let mut weight = 1_000;
    let (mut version, mut proto, mut encoding) = (None, None, None);
    for part in parts {
        let (name, value) = part.split_once('=')?;
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "q" => weight = weight_of(value)?,
            "version" => version = Some(value),
            "proto" => proto = Some(value),
            "encoding" => encoding = Some(value),
            // `charset`, `escaping`: our names and labels need none.
            _ => {}
        }
    }
    let is = |found: Option<&str>, known: &str| found.is_none_or(|found| found == known);
    let format = match kind.as_str() {
        "text/plain" if is(version, "0.0.4") => Format::Text,
        "text/*" | "*/*" => Format::Text,
        "application/openmetrics-text" if is(version, "1.0.0") => Format::OpenMetrics,
        "application/vnd.google.protobuf"
            if is(proto, "io.prometheus.client.MetricFamily") && is(encoding, "delimited") =>
        {
            Format::Protobuf
        }
        _ => return None,
    };
    Some((format, weight))
}

/// `0` to `1` with up to three decimals.
fn weight_of(text: &str) -> Option<u32> {
    let weight: f64 = text.parse().ok()?;
    (0.0..=1.0).contains(&weight).then_some((weight * 1_000.0).round() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_negotiated() {
        let plain = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;\
                     version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let native = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                      encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,\
                      text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let three = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                     application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;\
                     escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, wanted) in [
            (plain, Format::OpenMetrics),
            (native, Format::Protobuf),
            (three, Format::OpenMetrics),
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Format::Text),
            ("image/png", Format::Text),
            ("text/plain;q=0.5, application/openmetrics-text; version=1.0.0; q=0.4", Format::Text),
            ("text/plain;q=0.5, APPLICATION/OpenMetrics-Text; q=\"0.6\"", Format::OpenMetrics),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;version=2.0.0", Format::Text),
            ("application/vnd.google.protobuf;encoding=text", Format::Text),
            ("application/openmetrics-text;q=7, application/openmetrics-text;q", Format::Text),
            (",;=,;;q=,", Format::Text),
        ] {
            assert_eq!(Format::wanted(accept), wanted, "{accept}");
        }
    }
}
