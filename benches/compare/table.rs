//! Tables as text and as Markdown, and numbers in them.

/// Cells in rows; the first column is text, the others are numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Table {
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(header: &[&str]) -> Self {
        Self { header: header.iter().map(|&cell| cell.to_owned()).collect(), rows: Vec::new() }
    }

    /// Columns padded to their widest cell.
    pub(crate) fn text(&self) -> String {
        let mut widths: Vec<usize> = self.header.iter().map(|cell| cell.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut out = String::new();
        for row in std::iter::once(&self.header).chain(&self.rows) {
            let mut line = String::from(" ");
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                let cell = match column {
                    0 => format!("{cell:<width$}"),
                    _ => format!("  {cell:>width$}"),
                };
                line.push_str(&cell);
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    pub(crate) fn markdown(&self) -> String {
        let line = |cells: &[String]| {
            let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let rule: String = (0..self.header.len())
            .map(|column| if column == 0 { "|---" } else { "|---:" })
            .collect();
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        format!("{}{rule}|\n{rows}", line(&self.header))
    }
}

/// Three digits: `0.123`, `1.23`, `12.3`, `123`, `1,234`; a dash for what is not known.
pub(crate) fn number(value: f64) -> String {
    match value {
        v if !v.is_finite() => "-".to_owned(),
        v if v.abs() < 0.995 => format!("{v:.3}"),
        v if v.abs() < 9.995 => format!("{v:.2}"),
        v if v.abs() < 99.95 => format!("{v:.1}"),
        v => grouped(v.round()),
    }
}

/// `412us`, `1.41ms`, `2.50s`.
pub(crate) fn seconds(value: f64) -> String {
    match value {
        v if !v.is_finite() => "-".to_owned(),
        v if v < 0.000_999_5 => format!("{}us", number(v * 1e6)),
        v if v < 0.999_5 => format!("{}ms", number(v * 1e3)),
        v => format!("{}s", number(v)),
    }
}

fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && !out.ends_with('-') {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let shown = [0.1234, 0.999, 1.234, 12.34, 99.96, 1234.5, -1234.0, f64::NAN].map(number);
        assert_eq!(shown, ["0.123", "1.00", "1.23", "12.3", "100", "1,235", "-1,234", "-"]);
        assert_eq!([0.000_412, 0.001_41, 2.5].map(seconds), ["412us", "1.41ms", "2.50s"]);
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["peer", "us"]);
        table.rows.push(vec!["a|b".to_owned(), "1,234".to_owned()]);
        table.rows.push(vec!["longer".to_owned(), "7".to_owned()]);
        assert_eq!(table.text(), " peer       us\n a|b     1,234\n longer      7\n");
        let markdown = "| peer | us |\n|---|---:|\n| a\\|b | 1,234 |\n| longer | 7 |\n";
        assert_eq!(table.markdown(), markdown);
    }
}
