//! Tables and curves of a report: figures of several things side by side.
//! A file of its own because `report` holds what every run has, and few runs have these. It measures nothing.

use serde::{Deserialize, Serialize};

use super::number;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Table {
    pub title: String,
    pub columns: Vec<Column>,
    pub rows: Vec<Record>,
    /// What the columns mean and how they were taken.
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    pub unit: String,
    /// `None` where neither way is better.
    pub better: Option<Better>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    Less,
    More,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Record {
    pub name: String,
    /// The row that the table is about.
    pub is_ours: bool,
    /// A limit beside the others, not one of them.
    #[serde(default)]
    pub is_reference: bool,
    /// One a column; `None` where nothing was measured.
    pub cells: Vec<Option<f64>>,
    pub note: String,
}

/// Curves over one pair of axes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plot {
    pub title: String,
    /// What the axes are, with their units.
    pub x: String,
    pub y: String,
    pub lines: Vec<Line>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

impl Better {
    /// Whether `value` is better than `other`.
    pub fn prefers(self, value: f64, other: f64) -> bool {
        match self {
            Self::Less => value < other,
            Self::More => value > other,
        }
    }
}

impl Table {
    pub fn lines(&self) -> Vec<String> {
        let heading = |column: &Column| format!("{} {}", column.name, column.unit).trim().to_owned();
        let headings: Vec<String> = self.columns.iter().map(heading).collect();
        let names = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        let mut lines = vec![format!("  {}", self.title)];
        let head: String = headings.iter().map(|heading| format!("  {heading:>12}")).collect();
        lines.push(format!("  {:<names$}{head}", ""));
        for row in &self.rows {
            let cells = headings.iter().zip(&row.cells).map(|(heading, cell)| {
                let width = heading.chars().count().max(12);
                format!("  {:>width$}", cell.map_or("–".to_owned(), cell_text))
            });
            lines.push(format!("  {:<names$}{}  {}", row.name, cells.collect::<String>(), row.note));
        }
        lines.extend(self.notes.iter().map(|note| format!("  · {note}")));
        lines
    }
}

/// A cell: three digits that mean something, thousands grouped.
pub fn cell_text(value: f64) -> String {
    match value.abs() {
        small if small < 10.0 => format!("{value:.2}"),
        middle if middle < 100.0 => format!("{value:.1}"),
        _ => number(value.round()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_their_headings_and_what_is_missing_is_a_dash() {
        let column = |name: &str| Column { name: name.into(), unit: "B".into(), better: Some(Better::Less) };
        let row = |name: &str, cells| Record { name: name.into(), cells, ..Record::default() };
        let rows = vec![row("tidegate", vec![Some(446.2), None]), row("ws", vec![Some(12_345.0), Some(1.234)])];
        let columns = vec![column("memory a connection"), column("b")];
        let table = Table { title: "t".into(), columns, rows, notes: vec![] };

        let lines = table.lines();

        assert_eq!(lines[2], "  tidegate                    446             –  ");
        assert_eq!(lines[3], "  ws                       12,345          1.23  ");
        assert_eq!(lines[1], "            memory a connection B           b B");
    }
}
