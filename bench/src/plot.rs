//! One figure of a family as horizontal bars with their range: plain SVG text.

use std::fmt::Write as _;

use crate::row::Row;

const BAR: f64 = 20.0;
const GAP: f64 = 8.0;
const LEFT: f64 = 380.0;
const WIDTH: f64 = 440.0;
const RIGHT: f64 = 90.0;
const TOP: f64 = 34.0;

/// What of a family is drawn, and whether on a logarithmic axis.
#[must_use]
pub fn figure_of(family: &str) -> Option<(&'static str, bool)> {
    use crate::{peers, works};
    Some(match family {
        works::cold::FAMILY => (crate::row::PAYLOAD_RATE, false),
        works::resync::FAMILY => ("ms", true),
        works::live::FAMILY => ("p50 ms", true),
        works::pullers::FAMILY => ("MiB/s until the last is done", false),
        works::append::FAMILY => (crate::row::K_EVENTS, true),
        works::open::FAMILY => ("ms", false),
        works::memory::FAMILY => ("MiB added", false),
        works::big::FAMILY => ("ms", true),
        peers::FAMILY => (crate::row::K_EVENTS, true),
        _ => return None,
    })
}

/// The rows of one family that have the figure; `None` if none has.
#[must_use]
pub fn svg(family: &str, rows: &[Row]) -> Option<String> {
    let (name, logarithmic) = figure_of(family)?;
    let bars: Vec<_> = rows
        .iter()
        .filter(|row| row.family == family)
        .filter_map(|row| Some((row, row.get(name)?)))
        .collect();
    let most = bars
        .iter()
        .map(|(_, figure)| figure.spread.most)
        .reduce(f64::max)?;
    let least = bars
        .iter()
        .map(|(_, figure)| figure.spread.least)
        .reduce(f64::min)?;
    // A bar on a logarithmic axis starts at the power of ten below the smallest value.
    let floor = least.max(1e-6).log10().floor();
    let ceiling = most.max(1e-6).log10().ceil().max(floor + 1.0);
    let place = |value: f64| {
        let share = if logarithmic {
            (value.max(1e-6).log10() - floor) / (ceiling - floor)
        } else {
            value / most
        };
        LEFT + WIDTH * share.clamp(0.0, 1.0)
    };

    let height = TOP + bars.len() as f64 * (BAR + GAP) + GAP;
    let width = LEFT + WIDTH + RIGHT;
    let axis = if logarithmic { ", logarithmic" } else { "" };
    let mut out = String::new();
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"8\" y=\"20\" font-size=\"14\" font-weight=\"bold\">{}: {}{axis}</text>",
        escaped(family),
        escaped(name),
    )
    .ok()?;
    for (index, (row, figure)) in bars.iter().enumerate() {
        let y = TOP + index as f64 * (BAR + GAP);
        let middle = y + BAR / 2.0;
        let text = middle + 4.0;
        let [end, from, to] = [
            figure.spread.median,
            figure.spread.least,
            figure.spread.most,
        ]
        .map(place);
        let digits = figure.digits;
        writeln!(
            out,
            "<text x=\"{}\" y=\"{text}\" text-anchor=\"end\">{} · {}</text>\n\
             <rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{}\"/>\n\
             <path d=\"M{from:.1} {middle}H{to:.1}\" stroke=\"#222222\" stroke-width=\"2\"/>\n\
             <text x=\"{:.1}\" y=\"{text}\">{:.digits$}</text>",
            LEFT - 8.0,
            escaped(&row.work),
            escaped(&row.subject),
            end - LEFT,
            if row.subject.contains("Headwater") || family == crate::works::memory::FAMILY {
                "#2f7f9f"
            } else {
                "#b8b8b8"
            },
            to.max(end) + 6.0,
            figure.spread.median,
        )
        .ok()?;
    }
    out.push_str("</svg>\n");
    Some(out)
}

/// A family's name as a file name.
#[must_use]
pub fn file_name(family: &str) -> String {
    format!("{}.svg", family.replace(' ', "-"))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
