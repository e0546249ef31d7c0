//! Tables with bars, and plots with what they show in words: the parts of the page that compare.
//! Bars are HTML, so they print and need no script; curves are data for `report.js`, each beside a table of its points.

use serde::Serialize;

use super::html::Html;
use crate::report::{Better, Column, Latency, Line, Plot, Record, Table, cell_text};

/// Plots of the page, in the order of their places.
#[derive(Debug, Default)]
pub struct Figures {
    pub plots: Vec<Data>,
}

/// What `report.js` reads of a plot.
#[derive(Debug, Serialize)]
pub struct Data {
    x: String,
    y: String,
    scale: Scale,
    lines: Vec<Curve>,
}

#[derive(Debug, Serialize)]
struct Curve {
    name: String,
    is_ours: bool,
    points: Vec<(f64, f64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    Linear,
    /// Both axes by powers: x doubles, y spans more than two decades.
    Powers,
    /// x is −log₁₀ of what is beyond the percentile, y by powers of ten.
    Percentiles,
}

/// Points of a curve named in the table beside it.
const POINTS_TOLD: usize = 24;

impl Scale {
    /// By powers where x doubles from point to point; linear elsewhere.
    pub fn of(plot: &Plot) -> Self {
        let doubles = |line: &Line| {
            line.points.len() > 2 && line.points.windows(2).all(|pair| pair[0].0 > 0.0 && pair[1].0 == 2.0 * pair[0].0)
        };
        let positive = plot.lines.iter().flat_map(|line| &line.points).all(|(x, y)| *x > 0.0 && *y > 0.0);
        if positive && plot.lines.iter().any(doubles) { Self::Powers } else { Self::Linear }
    }
}

impl Figures {
    /// Writes the place of a plot, with its points as a table, and keeps its data.
    pub fn plot(&mut self, plot: &Plot, scale: Scale, ours: Option<&str>, out: &mut Html) {
        let number = self.plots.len();
        let names: Vec<&str> = plot.lines.iter().map(|line| line.name.as_str()).collect();
        let words = format!("{}: {} by {}, for {}", plot.title, plot.y, plot.x, names.join(", "));
        out.raw("<figure>").element("figcaption", &plot.title);
        out.raw(&format!("<div class=\"plot\" data-plot=\"{number}\" role=\"img\" aria-label=\"")).text(&words);
        out.raw("\"></div>");
        points(plot, scale, out);
        out.raw("</figure>\n");
        let curve = |line: &Line| Curve {
            name: line.name.clone(),
            is_ours: ours == Some(line.name.as_str()),
            points: line.points.clone(),
        };
        let lines = plot.lines.iter().map(curve).collect();
        self.plots.push(Data { x: plot.x.clone(), y: plot.y.clone(), scale, lines });
    }
}

fn points(plot: &Plot, scale: Scale, out: &mut Html) {
    out.raw("<details><summary>Values</summary><div class=\"scroll\"><table><thead><tr>");
    out.element("th scope=\"col\"", "").element("th scope=\"col\"", &plot.x).element("th scope=\"col\"", &plot.y);
    out.raw("</tr></thead><tbody>");
    for line in &plot.lines {
        // Evenly spaced, with both ends.
        let step = line.points.len().div_ceil(POINTS_TOLD).max(1);
        let last = line.points.len().saturating_sub(1);
        let told = line.points.iter().enumerate().filter(|(index, _)| index % step == 0 || *index == last);
        for (_, (x, y)) in told {
            let x = if scale == Scale::Percentiles { percentile_text(*x) } else { cell_text(*x) };
            out.raw("<tr>").element("th scope=\"row\"", &line.name).element("td class=\"n\"", &x);
            out.element("td class=\"n\"", &cell_text(*y)).raw("</tr>");
        }
    }
    out.raw("</tbody></table></div></details>");
}

/// 2.0 → `99 %`.
fn percentile_text(nines: f64) -> String {
    let percent = 100.0 - 100.0 * 10_f64.powf(-nines);
    let digits = (nines.ceil() as usize).saturating_sub(1).clamp(1, 6);
    let text = format!("{percent:.digits$}");
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Latency by percentile: one curve for each distribution, from the fastest to the slowest of its values.
pub fn percentile_plot(latencies: &[Latency]) -> Option<Plot> {
    let measured = latencies.iter().filter(|latency| latency.us.count() > 0);
    let line = |latency: &Latency| {
        let end = (latency.us.count() as f64).log10();
        // Twenty points a decade, and the maximum where the count ends.
        let steps = (end * 20.0).ceil() as usize;
        let at = |step: usize| (step as f64 / 20.0).min(end);
        let value = |nines: f64| latency.us.quantile(1.0 - 10_f64.powf(-nines)) as f64 / 1e3;
        let points = (0..=steps).map(|step| (at(step), value(at(step)))).collect();
        Line { name: latency.name.clone(), points }
    };
    let lines: Vec<Line> = measured.map(line).collect();
    let (title, x, y) = ("Latency by percentile".to_owned(), "percentile".to_owned(), "ms".to_owned());
    (!lines.is_empty()).then_some(Plot { title, x, y, lines })
}

/// A table, a picture of each of its columns, and what the columns mean.
pub fn table(table: &Table, out: &mut Html) {
    out.element("h3", &table.title);
    bars(table, out);
    cells(table, out);
    if !table.notes.is_empty() {
        out.raw("<ul class=\"notes\">");
        for note in &table.notes {
            out.element("li", note);
        }
        out.raw("</ul>\n");
    }
}

fn cells(table: &Table, out: &mut Html) {
    out.raw("<div class=\"scroll\"><table class=\"compare\"><thead><tr><th scope=\"col\"></th>");
    for Column { name, unit, .. } in &table.columns {
        out.raw("<th scope=\"col\" class=\"n\">").text(name).raw(" ").element("small", unit).raw("</th>");
    }
    out.raw("</tr></thead><tbody>");
    for row in &table.rows {
        out.raw(if row.is_ours { "<tr class=\"ours\">" } else { "<tr>" });
        out.raw("<th scope=\"row\">").text(&row.name).element("small", &row.note).raw("</th>");
        for (index, cell) in row.cells.iter().enumerate() {
            match cell {
                Some(value) if is_best(table, index, row) => out
                    .raw("<td class=\"n best\">")
                    .text(&cell_text(*value))
                    .raw("<span class=\"unseen\"> (best)</span></td>"),
                Some(value) => out.element("td class=\"n\"", &cell_text(*value)),
                None => out.raw("<td class=\"n none\"><span aria-hidden=\"true\">–</span><span class=\"unseen\">not measured</span></td>"),
            };
        }
        out.raw("</tr>");
    }
    out.raw("</tbody></table></div>\n");
}

/// Whether nobody who competes is better in a column.
fn is_best(table: &Table, index: usize, row: &Record) -> bool {
    let Some(better) = table.columns.get(index).and_then(|column| column.better) else { return false };
    let cell = |row: &Record| row.cells.get(index).copied().flatten();
    let Some(value) = cell(row).filter(|_| !row.is_reference) else { return false };
    let mut others = table.rows.iter().filter(|row| !row.is_reference).filter_map(cell);
    !others.any(|other| better.prefers(other, value))
}

/// Small pictures side by side: in each, a bar for each row.
fn bars(table: &Table, out: &mut Html) {
    out.raw("<div class=\"bars\" aria-hidden=\"true\">\n");
    for (index, Column { name, unit, better }) in table.columns.iter().enumerate() {
        let measured: Vec<(&Record, f64)> =
            table.rows.iter().filter_map(|row| Some((row, row.cells.get(index).copied().flatten()?))).collect();
        let most = measured.iter().map(|(_, value)| *value).fold(0.0, f64::max);
        if most <= 0.0 {
            continue;
        }
        let way = match better {
            Some(Better::Less) => "less is better",
            Some(Better::More) => "more is better",
            None => "",
        };
        out.raw("<div class=\"bar-card\"><h4>").text(name).raw(" ").element("small", unit).raw("</h4>");
        out.element("p", way);
        for (row, value) in measured {
            let class = if row.is_ours {
                "bar ours"
            } else if row.is_reference {
                "bar reference"
            } else {
                "bar"
            };
            let share = (value / most * 100.0).clamp(0.0, 100.0);
            out.raw(&format!("<div class=\"{class}\">")).element("span", &row.name);
            out.raw(&format!("<i><b style=\"width:{share:.2}%\"></b></i>"));
            out.element("span class=\"n\"", &cell_text(value)).raw("</div>");
        }
        out.raw("</div>\n");
    }
    out.raw("</div>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_never_the_best_of_a_column() {
        let record = |name: &str, value, is_reference| Record {
            name: name.into(),
            cells: vec![Some(value)],
            is_reference,
            ..Record::default()
        };
        let rows = vec![record("bare loop", 1.0, true), record("a", 2.0, false), record("b", 3.0, false)];
        let columns = vec![Column { name: "cpu".into(), unit: "µs".into(), better: Some(Better::Less) }];
        let table = Table { columns, rows, ..Table::default() };

        let best: Vec<bool> = table.rows.iter().map(|row| is_best(&table, 0, row)).collect();

        assert_eq!(best, [false, true, false]);
    }

    #[test]
    fn a_percentile_curve_rises_from_the_least_to_the_greatest_value() {
        let mut latency = Latency { name: "l".into(), us: crate::distribution::Distribution::default() };
        (1..=10_000).for_each(|us| latency.us.record(us));

        let plot = percentile_plot(&[latency]).expect("a plot");

        let points = &plot.lines[0].points;
        assert!(points.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1));
        assert_eq!((points[0].0, points.last().map(|(x, _)| *x)), (0.0, Some(4.0)));
        assert!((points.last().expect("points").1 - 10.0).abs() < 0.1);
    }

    #[test]
    fn percentiles_are_told_as_people_write_them() {
        let told = [0.0, 1.0, 2.0, 3.0, 2_f64.log10()].map(percentile_text);

        assert_eq!(told, ["0 %", "90 %", "99 %", "99.9 %", "50 %"]);
    }

    #[test]
    fn only_a_climb_by_doubling_is_drawn_by_powers() {
        let plot = |points: &[(f64, f64)]| Plot {
            lines: vec![Line { name: "a".into(), points: points.to_vec() }],
            ..Plot::default()
        };

        assert_eq!(Scale::of(&plot(&[(20.0, 1.0), (40.0, 9.0), (80.0, 99.0)])), Scale::Powers);
        assert_eq!(Scale::of(&plot(&[(0.0, 1.0), (1.0, 9.0), (2.0, 99.0)])), Scale::Linear);
    }
}
