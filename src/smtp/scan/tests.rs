//! Every implementation against the scalar one.

use super::*;

#[test]
fn backends_agree() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as usize
    };
    for round in 0..20_000 {
        let len = random() % 300;
        let dense = random() % 12 + 1;
        let octets: Vec<u8> = (0..len)
            .map(|_| match random() % dense {
                0 => b"\r\n.\0\xff"[random() % 5],
                _ => b'a' + (random() % 26) as u8,
            })
            .flat_map(|octet| if octet == b'\n' { vec![b'\r', b'\n'] } else { vec![octet] })
            .collect();
        let input = octets.get(random() % 64..).unwrap_or(&octets);
        let state = TextScan {
            line_bytes: (random() % 2) as u64 * 70,
            after_cr: false,
            at_line_start: false,
            ..TextScan::default()
        };
        let state = match random() % 3 {
            0 => TextScan { after_cr: true, line_bytes: state.line_bytes + 1, ..state },
            1 => TextScan { at_line_start: true, line_bytes: 0, ..state },
            _ => state,
        };
        let stops = Stops { dot: random() % 2 == 0, bare: random() % 2 == 0 };
        let mut wanted = state;
        let outcome = wanted.scan_with(Backend::Scalar, input, stops);
        for &backend in Backend::available() {
            let mut got = state;
            assert_eq!(got.scan_with(backend, input, stops), outcome, "{round} {backend:?}");
            // Lines inside one block are not measured; see the field.
            got.longest = got.longest.max(64);
            wanted.longest = wanted.longest.max(64);
            assert_eq!(got, wanted, "{round} {backend:?} {input:?}");
        }
    }
}
