//! One report as a section of the page: verdict, faults, bounds, tables, plots, latency, processes, commands, machine.
//! Writes what a report says and judges nothing itself. Order: what is wrong, what was promised, what was measured.

use super::figure::{self, Figures};
use super::html::Html;
use crate::report::{Figure, Latency, Process, Report, number};

/// Title, and a way to each report when there are several.
pub fn masthead(title: &str, reports: &[Report], out: &mut Html) {
    out.raw("<header class=\"masthead\"><p class=\"eyebrow\">tidegate bench</p>");
    out.element("h1", title).raw("\n");
    if reports.len() > 1 {
        out.raw("<nav aria-label=\"Reports\"><ul>");
        for (number, report) in reports.iter().enumerate() {
            out.raw(&format!("<li><a href=\"#report-{number}\">")).text(&report.scenario).raw("</a></li>");
        }
        out.raw("</ul></nav>");
    }
    out.raw("</header>\n<main>\n");
}

pub fn report(index: usize, report: &Report, figures: &mut Figures, out: &mut Html) {
    out.raw(&format!("<section class=\"report\" id=\"report-{index}\">\n"));
    verdict(report, out);
    list("faults", "What makes it unsound", &report.faults, out);
    list("remarks", "In words", &report.remarks, out);
    report.tables.iter().for_each(|table| figure::table(table, out));
    list("skipped", "Not here, so not measured", &report.skipped, out);
    let (bounded, free): (Vec<&Figure>, Vec<&Figure>) = report.figures.iter().partition(|f| f.bound.is_some());
    bounds(&bounded, out);
    curves(report, figures, out);
    latencies(&report.latency, out);
    free_figures(&free, out);
    processes(&report.processes, out);
    counters(report, out);
    how(report, out);
    out.raw("</section>\n");
}

fn verdict(report: &Report, out: &mut Html) {
    out.raw("<header>").element("h2", &report.scenario).raw("<p class=\"pills\">");
    let (class, word) = if report.sound { ("good", "sound") } else { ("bad", "unsound") };
    out.element(&format!("span class=\"pill {class}\""), word).raw(" ");
    let bounded = report.figures.iter().filter(|figure| figure.bound.is_some());
    let (met, all) = bounded.fold((0, 0), |(met, all), figure| (met + usize::from(figure.is_met()), all + 1));
    if all > 0 {
        let class = if met == all { "good" } else { "bad" };
        out.element(&format!("span class=\"pill {class}\""), &format!("{met} of {all} bounds met")).raw(" ");
    }
    if report.seconds > 0.0 {
        out.element("span class=\"pill\"", &format!("{:.1} s", report.seconds)).raw(" ");
    }
    if !report.machine.release && !report.machine.kernel.is_empty() {
        out.element("span class=\"pill bad\"", "debug build: figures mean nothing");
    }
    out.raw("</p></header>\n");
}

fn list(class: &str, heading: &str, items: &[String], out: &mut Html) {
    if items.is_empty() {
        return;
    }
    out.raw(&format!("<div class=\"callout {class}\">")).element("h3", heading).raw("<ul>");
    for item in items {
        out.element("li", item);
    }
    out.raw("</ul></div>\n");
}

fn bounds(figures: &[&Figure], out: &mut Html) {
    if figures.is_empty() {
        return;
    }
    head("Bounds", &["figure", "measured", "unit", "bound", "verdict"], out);
    for figure in figures {
        let bound = figure.bound.map(|bound| bound.to_string()).unwrap_or_default();
        let (class, word) = if figure.is_met() { ("good", "✓ met") } else { ("bad", "✗ missed") };
        out.raw("<tr>").element("th scope=\"row\"", &figure.name);
        out.element("td class=\"n\"", &number(figure.value)).element("td", &figure.unit);
        out.element("td class=\"n\"", &bound).element(&format!("td class=\"{class}\""), word).raw("</tr>");
    }
    out.raw("</tbody></table></div>\n");
}

fn free_figures(figures: &[&Figure], out: &mut Html) {
    if figures.is_empty() {
        return;
    }
    head("Figures", &["figure", "measured", "unit"], out);
    for figure in figures {
        out.raw("<tr>").element("th scope=\"row\"", &figure.name);
        out.element("td class=\"n\"", &number(figure.value)).element("td", &figure.unit).raw("</tr>");
    }
    out.raw("</tbody></table></div>\n");
}

fn curves(report: &Report, figures: &mut Figures, out: &mut Html) {
    let latency = figure::percentile_plot(&report.latency);
    if latency.is_none() && report.plots.is_empty() {
        return;
    }
    out.raw("<h3>Curves</h3>\n<div class=\"plots\">\n");
    // The row a report is about is drawn over the others.
    let ours = report.tables.iter().flat_map(|table| &table.rows).find(|row| row.is_ours);
    let ours = ours.map(|row| row.name.as_str());
    if let Some(plot) = &latency {
        figures.plot(plot, figure::Scale::Percentiles, ours, out);
    }
    for plot in &report.plots {
        figures.plot(plot, figure::Scale::of(plot), ours, out);
    }
    out.raw("</div>\n");
}

fn latencies(latencies: &[Latency], out: &mut Html) {
    let measured: Vec<&Latency> = latencies.iter().filter(|latency| latency.us.count() > 0).collect();
    if measured.is_empty() {
        return;
    }
    head("Latency, ms", &["", "p50", "p90", "p99", "p99.9", "max", "values"], out);
    for latency in measured {
        let p = latency.us.percentiles();
        out.raw("<tr>").element("th scope=\"row\"", &latency.name);
        for us in [p.p50, p.p90, p.p99, p.p999, p.max] {
            out.element("td class=\"n\"", &format!("{:.2}", us as f64 / 1e3));
        }
        out.element("td class=\"n\"", &number(p.count as f64)).raw("</tr>");
    }
    out.raw("</tbody></table></div>\n");
}

fn processes(processes: &[Process], out: &mut Html) {
    if processes.is_empty() {
        return;
    }
    head("Processes", &["", "user s", "system s", "memory MB", "peak MB"], out);
    for Process { name, usage } in processes {
        out.raw("<tr>").element("th scope=\"row\"", name);
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        for value in [usage.user_s, usage.system_s, megabytes(usage.rss_bytes), megabytes(usage.peak_rss_bytes)] {
            out.element("td class=\"n\"", &format!("{value:.2}"));
        }
        out.raw("</tr>");
    }
    out.raw("</tbody></table></div>\n");
}

fn counters(report: &Report, out: &mut Html) {
    if report.counters.is_empty() {
        return;
    }
    out.raw("<details><summary>The server's counters: growth while it was measured, gauges at the end</summary>");
    out.raw("<div class=\"scroll\"><table><tbody>");
    for (name, value) in &report.counters {
        out.raw("<tr>").element("th scope=\"row\"", name).element("td class=\"n\"", &number(*value)).raw("</tr>");
    }
    out.raw("</tbody></table></div></details>\n");
}

/// How to repeat it, and on what it was measured.
fn how(report: &Report, out: &mut Html) {
    if !report.commands.is_empty() {
        out.raw("<h3>To repeat</h3>\n<pre>");
        for command in &report.commands {
            out.element("code", command).raw("\n");
        }
        out.raw("</pre>\n");
    }
    let machine = &report.machine;
    if machine.kernel.is_empty() {
        return;
    }
    let memory = format!("{:.0} GB", machine.memory_bytes as f64 / 1e9);
    let facts = [
        ("processor", format!("{} × {}", machine.cores, machine.cpu)),
        ("memory", memory),
        ("kernel", format!("Linux {}, {}", machine.kernel, machine.congestion)),
        ("load", format!("{} → {}", machine.load, report.load_at_end)),
        ("commit", machine.commit.clone()),
        ("build", if machine.release { "release" } else { "debug" }.to_owned()),
    ];
    out.raw("<h3>Machine</h3>\n<dl>");
    for (name, fact) in &facts {
        out.raw("<div>").element("dt", name).element("dd", fact).raw("</div>");
    }
    out.raw("</dl>\n");
}

fn head(caption: &str, columns: &[&str], out: &mut Html) {
    out.element("h3", caption).raw("<div class=\"scroll\"><table><thead><tr>");
    for (position, column) in columns.iter().enumerate() {
        let open = if position == 0 { "th scope=\"col\"" } else { "th scope=\"col\" class=\"n\"" };
        out.element(open, column);
    }
    out.raw("</tr></thead><tbody>");
}

pub fn footer(license: &str, out: &mut Html) {
    out.raw(
        "</main>\n<footer><p>Made by <code>tidegate bench report</code>. Nothing on this page asks the network.</p>",
    );
    out.raw("<details><summary>Plots by uPlot: its licence</summary><pre>").text(license);
    out.raw("</pre></details></footer>\n");
}
