//! A plain text table: columns as wide as they need to be, numbers to the right.

use std::fmt;

/// Rows of cells under one heading each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<S: Into<String>>(headings: impl IntoIterator<Item = S>) -> Table {
        Table {
            headings: headings.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    fn width(&self, column: usize) -> usize {
        let cells = self
            .rows
            .iter()
            .chain([&self.headings])
            .filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    }

    /// A column of nothing but figures.
    fn is_numeric(&self, column: usize) -> bool {
        let of_figure = |c: char| c.is_ascii_digit() || matches!(c, ',' | '.' | '%' | ' ' | '-');
        let mut cells = self.rows.iter().filter_map(|row| row.get(column));
        cells.all(|cell| cell.chars().all(of_figure))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in [&self.headings].into_iter().chain(&self.rows) {
            let mut line = String::from(" ");
            for (column, cell) in row.iter().enumerate() {
                let width = self.width(column);
                line.push_str(&match self.is_numeric(column) {
                    true => format!(" {cell:>width$} "),
                    false => format!(" {cell:<width$} "),
                });
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
