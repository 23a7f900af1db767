//! Tables without lines: a header, and columns that align.

use comfy_table::{ContentArrangement, presets};

/// Rows under a header.
pub struct Table {
    inner: comfy_table::Table,
}

impl Table {
    pub fn new(header: &[&str]) -> Table {
        let mut inner = comfy_table::Table::new();
        inner
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled);
        inner.set_header(header.iter().copied());
        Table { inner }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.inner
            .add_row(cells.into_iter().map(|cell| one_line(&cell)));
    }

    pub fn render(mut self) -> String {
        for column in self.inner.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let lines = self.inner.to_string();
        lines
            .lines()
            .map(str::trim_end)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// One thing in full: names on the left, values on the right.
pub fn fields(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut lines = Vec::new();
    for (name, value) in rows {
        let mut parts = value.lines();
        lines.push(format!(
            "{name:<width$}  {}",
            parts.next().unwrap_or_default()
        ));
        lines.extend(parts.map(|part| format!("{:<width$}  {part}", "")));
    }
    lines
        .iter()
        .map(|line| line.trim_end())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Names and reasons come from others: a cell is one line, whatever they hold.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Table, fields};

    #[test]
    fn columns_align_and_lines_do_not_trail() {
        let mut table = Table::new(&["ID", "STATE", "NAME"]);
        table.row(vec!["t1".into(), "queued".into(), "a".into()]);
        table.row(vec!["t100".into(), "cancelled".into(), String::new()]);
        let expected = "ID    STATE      NAME\nt1    queued     a\nt100  cancelled";
        assert_eq!(table.render(), expected);
    }

    #[test]
    fn a_cell_can_not_write_over_the_screen() {
        let mut table = Table::new(&["NAME"]);
        table.row(vec!["\u{1b}[2Jevil\nrow".into()]);
        assert_eq!(table.render(), "NAME\n [2Jevil row");
    }

    #[test]
    fn fields_align_under_their_longest_name() {
        let text = fields(&[("id", "t1".into()), ("reason", "one\ntwo".into())]);
        assert_eq!(text, "id      t1\nreason  one\n        two");
    }
}
