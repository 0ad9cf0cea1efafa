//! The tables and plots of `docs/benchmarks.md`, written between marks so that the prose stays.
//!
//! A family's place is `<!-- figures: NAME -->` … `<!-- /figures -->`.

use std::path::Path;

use crate::{Error, machine, plot, row::Row, table};

/// Reads rows from JSON lines; a later row of the same name takes the place of an earlier one.
///
/// # Errors
///
/// If the file cannot be read or a line is no row.
pub fn read(path: &Path) -> Result<Vec<Row>, Error> {
    let mut rows: Vec<Row> = Vec::new();
    for line in std::fs::read_to_string(path)?.lines() {
        let row: Row = serde_json::from_str(line)?;
        let same = |other: &&mut Row| {
            (&other.family, &other.work, &other.subject) == (&row.family, &row.work, &row.subject)
        };
        match rows.iter_mut().find(same) {
            Some(place) => *place = row,
            None => rows.push(row),
        }
    }
    Ok(rows)
}

/// Fills the page and writes the plots into `benchmarks/` beside it.
///
/// # Errors
///
/// If a file cannot be read or written, or a mark is not closed.
pub fn fill(page: &Path, rows: &[Row]) -> Result<(), Error> {
    let plots = page.with_extension("");
    std::fs::create_dir_all(&plots)?;
    let folder = plots.file_name().unwrap_or_default().to_string_lossy();
    let mut text = std::fs::read_to_string(page)?;
    for family in table::families(rows) {
        let mut section = format!("\n{}", table::of_family(family, rows));
        if let Some(svg) = plot::svg(family, rows) {
            let name = plot::file_name(family);
            std::fs::write(plots.join(&name), svg)?;
            section.push_str(&format!("\n![{family}]({folder}/{name})\n"));
        }
        let mut dates: Vec<&str> = rows
            .iter()
            .filter(|row| row.family == family)
            .map(|row| row.date.as_str())
            .collect();
        dates.sort_unstable();
        dates.dedup();
        section.push_str(&format!("\nMeasured on {}.\n", dates.join(", ")));
        text = replaced(&text, family, &section)?;
    }
    text = replaced(&text, "machine", &format!("{}\n", machine::describe()))?;
    Ok(std::fs::write(page, text)?)
}

/// The text with what stands between a family's marks replaced; unchanged without the mark.
fn replaced(text: &str, family: &str, section: &str) -> Result<String, Error> {
    let open = format!("<!-- figures: {family} -->\n");
    let close = "<!-- /figures -->";
    let Some((before, rest)) = text.split_once(&open) else {
        return Ok(text.to_owned());
    };
    let (_, after) = rest
        .split_once(close)
        .ok_or_else(|| format!("the mark of {family} is not closed"))?;
    Ok(format!("{before}{open}{section}{close}{after}"))
}
