//! Tables of aligned columns, and colours for people at a terminal.

use std::{
    env,
    io::{self, IsTerminal},
};

/// What a state means to a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// Just a text.
    Plain,
    /// As it should be.
    Good,
    /// On its way, or to be looked at.
    Fair,
    /// To be mended.
    Bad,
}

/// Whether stdout shows colours: it is a terminal, and nobody said otherwise (no-color.org).
pub(super) fn shows_colours() -> bool {
    let set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stdout().is_terminal() && !set("NO_COLOR") && !dumb
}

/// A text in the colour of its tone.
pub(super) fn paint(text: &str, tone: Tone, colours: bool) -> String {
    let code = match tone {
        Tone::Good => "32",
        Tone::Fair => "33",
        Tone::Bad => "31",
        Tone::Plain => return text.to_owned(),
    };
    if colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// How a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// Cells with their tones, each column as wide as its widest cell.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<(&'static str, Side)>,
    rows: Vec<Vec<(String, Tone)>>,
}

impl Table {
    pub(super) fn new(columns: &[(&'static str, Side)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// One cell for each column.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = (String, Tone)>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Lines with a header; two blanks between columns, none at the end.
    pub(super) fn text(&self, colours: bool) -> String {
        let head = self.columns.iter().map(|(name, _)| ((*name).to_owned(), Tone::Plain)).collect();
        let rows: Vec<&Vec<_>> = std::iter::once(&head).chain(&self.rows).collect();
        let width = |at: usize| {
            let cells = rows.iter().filter_map(|row| row.get(at));
            cells.map(|(text, _)| text.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut lines = String::new();
        for row in rows {
            let mut line = String::new();
            for (((text, tone), (_, side)), width) in row.iter().zip(&self.columns).zip(&widths) {
                let blanks = " ".repeat(width.saturating_sub(text.chars().count()));
                let text = paint(text, *tone, colours);
                match side {
                    Side::Left => line.extend([text.as_str(), &blanks]),
                    Side::Right => line.extend([blanks.as_str(), &text]),
                }
                line.push_str("  ");
            }
            lines.push_str(line.trim_end());
            lines.push('\n');
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table =
            Table::new(&[("NAME", Side::Left), ("LAG", Side::Right), ("UP", Side::Left)]);
        let plain = |text: &str| (text.to_owned(), Tone::Plain);
        table.row([plain("a-longer-name"), plain("7"), ("up".to_owned(), Tone::Good)]);
        table.row([plain("b"), plain("12345"), ("down".to_owned(), Tone::Bad)]);
        let text = "NAME             LAG  UP\n\
                    a-longer-name      7  up\n\
                    b              12345  down\n";
        assert_eq!(table.text(false), text);
        let painted = table.text(true);
        assert!(painted.contains("  \x1b[32mup\x1b[0m\n"), "{painted:?}");
        assert!(painted.contains("  \x1b[31mdown\x1b[0m\n"), "{painted:?}");
        assert_eq!(
            painted.replace("\x1b[32m", "").replace("\x1b[31m", "").replace("\x1b[0m", ""),
            {
                // `up` is padded to the width of `down`, and the blanks come after its colour.
                text
            }
        );
    }
}
