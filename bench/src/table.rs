//! Rows as a table of Markdown, one a family: readable on a terminal and in a page.

use std::fmt::Write as _;

use crate::row::{Figure, Row};

/// All rows of one family.
#[must_use]
pub fn of_family(family: &str, rows: &[Row]) -> String {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.family == family).collect();
    let mut columns: Vec<&str> = Vec::new();
    for figure in rows.iter().flat_map(|row| &row.figures) {
        if !columns.contains(&figure.name.as_str()) {
            columns.push(&figure.name);
        }
    }
    let mut cells: Vec<Vec<String>> = vec![
        ["work", "subject"]
            .into_iter()
            .chain(columns.iter().copied())
            .map(str::to_owned)
            .collect(),
    ];
    for row in &rows {
        let mut line = vec![row.work.clone(), row.subject.clone()];
        line.extend(
            columns
                .iter()
                .map(|name| row.get(name).map_or_else(|| "—".to_owned(), shown)),
        );
        cells.push(line);
    }
    let widths: Vec<usize> = (0..columns.len() + 2)
        .map(|column| {
            let cells = cells.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for (index, line) in cells.iter().enumerate() {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let gap = " ".repeat(width - cell.chars().count());
            if column < 2 {
                write!(out, "| {cell}{gap} ").ok();
            } else {
                write!(out, "| {gap}{cell} ").ok();
            }
        }
        out.push_str("|\n");
        if index == 0 {
            for (column, width) in widths.iter().enumerate() {
                let end = if column < 2 { '-' } else { ':' };
                write!(out, "| {}{end} ", "-".repeat(width - 1)).ok();
            }
            out.push_str("|\n");
        }
    }
    out
}

/// The families in the order of their first row.
#[must_use]
pub fn families(rows: &[Row]) -> Vec<&str> {
    let mut families: Vec<&str> = Vec::new();
    for row in rows {
        if !families.contains(&row.family.as_str()) {
            families.push(&row.family);
        }
    }
    families
}

/// `median [least–most]`, or the median alone where all are alike.
fn shown(figure: &Figure) -> String {
    let digits = figure.digits;
    let [median, least, most] = [
        figure.spread.median,
        figure.spread.least,
        figure.spread.most,
    ]
    .map(|value| format!("{value:.digits$}"));
    if least == most {
        median
    } else {
        format!("{median} [{least}–{most}]")
    }
}
