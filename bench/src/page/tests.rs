//! The page as a whole: what a hostile JSON can do to it (nothing), and that every figure is there without a script.

use super::*;
use crate::report::{Better, Bound, Column, Line, Plot, Process, Record, Table};

const HOSTILE: &str = "</script></title><script>alert(1)</script><img src=x onerror=alert(2)>\" onload=\"alert(3)";

/// Every string that a report has is hostile.
fn hostile() -> Report {
    let text = || HOSTILE.to_owned();
    let mut report = Report::new(HOSTILE);
    report.bounded(HOSTILE, 1.0, HOSTILE, Bound::AtMost(2.0));
    report.figure(HOSTILE, 1.0, HOSTILE);
    report.latency(HOSTILE, &distribution());
    report.fault(text());
    report.remarks.push(text());
    report.skipped.push(text());
    report.commands.push(text());
    report.counters.insert(text(), 1.0);
    report.processes.push(Process { name: text(), usage: crate::process::Usage::default() });
    report.machine.cpu = text();
    report.machine.commit = text();
    report.load_at_end = text();
    report.tables.push(Table {
        title: text(),
        columns: vec![Column { name: text(), unit: text(), better: Some(Better::Less) }],
        rows: vec![Record { name: text(), cells: vec![Some(1.0)], note: text(), ..Record::default() }],
        notes: vec![text()],
    });
    let lines = vec![Line { name: text(), points: vec![(0.0, 1.0), (1.0, 2.0)] }];
    report.plots.push(Plot { title: text(), x: text(), y: text(), lines });
    report
}

fn distribution() -> crate::distribution::Distribution {
    let mut distribution = crate::distribution::Distribution::default();
    (1..1_000).for_each(|us| distribution.record(us));
    distribution
}

#[test]
fn a_hostile_string_is_text_wherever_it_stands() {
    let json = serde_json::to_string(&hostile()).expect("serializes");
    let reports = read::reports(&json).expect("a report");

    let page = page(HOSTILE, &reports);

    let scripts = page.matches("<script").count();
    assert_eq!(scripts, 3, "data, uPlot and ours");
    assert_eq!(page.matches("</script").count(), scripts);
    for tag in ["<script>alert", "<img", "</title><"] {
        assert!(!page.contains(tag), "{tag}");
    }
    let markup = page.split("<script").next().expect("markup");
    assert!(!markup.contains("\" onload"), "an attribute was left");
    assert!(page.contains("&lt;script&gt;alert(1)"));
}

#[test]
fn only_the_two_scripts_of_the_page_may_run() {
    let page = page("t", &[]);

    let policy = page.split("Content-Security-Policy\" content=\"").nth(1).and_then(|rest| rest.split('"').next());
    let policy = policy.expect("a policy").replace("&#39;", "'");
    for script in page.split("<script>").skip(1).filter_map(|rest| rest.split("</script>").next()) {
        assert!(policy.contains(&hash(script)), "{policy}");
    }
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("script-src 'unsafe"), "{policy}");
}

#[test]
fn the_page_asks_the_network_for_nothing() {
    let page = page("t", &[hostile()]);

    for request in ["src=\"", "href=\"http", "url(", "@import", "fetch(", "XMLHttpRequest", "import("] {
        assert!(!page.contains(request), "{request}");
    }
}

#[test]
fn every_figure_is_there_without_a_script() {
    let mut report = Report::new("delivery");
    report.bounded("gateway ÷ bare loop", 1.234, "×", Bound::AtMost(1.15));
    report.latency("intended → read", &distribution());
    report.conclude();

    let page = page("t", &[report]);

    let markup = page.split("<script").next().expect("markup");
    for said in ["gateway ÷ bare loop", "1.234", "≤ 1.150", "✗ missed", "0 of 1 bounds met", "0.99", "intended → read"]
    {
        assert!(markup.contains(said), "{said}");
    }
}
