//! The scan octet by octet: the reference for the vector ones.

use super::{Stop, Stops, TextScan};

/// See [`TextScan::scan`].
pub fn scan(state: &mut TextScan, input: &[u8], stops: Stops) -> (usize, Stop) {
    for (at, &octet) in input.iter().enumerate() {
        let bare_cr = state.after_cr && octet != b'\n';
        let bare_lf = !state.after_cr && octet == b'\n';
        if stops.bare && bare_lf {
            return (at, Stop::BareLf);
        }
        if stops.bare && bare_cr {
            return (at, Stop::AfterBareCr);
        }
        if stops.dot && state.at_line_start && octet == b'.' {
            return (at, Stop::Dot);
        }
        state.bare_cr |= bare_cr;
        state.bare_lf |= bare_lf;
        state.nul |= octet == 0;
        state.eight_bit |= octet >= 0x80;
        state.at_line_start = state.after_cr && octet == b'\n';
        if state.at_line_start {
            state.longest = state.longest.max(state.line_bytes - 1);
            state.line_bytes = 0;
        } else {
            state.line_bytes += 1;
        }
        state.after_cr = octet == b'\r';
    }
    (input.len(), Stop::InputEnd)
}
